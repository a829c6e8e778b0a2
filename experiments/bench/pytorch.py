"""The same five steps in PyTorch, written for speed: data in memory, fused optimisers, no needless graph or copy.

Modes: "contiguous" and "channels_last" (eager), "compile" (torch.compile of nets, of the VAE's loss and of RMSProp's
update, channels last where there are convolutions). Adam and SGD are PyTorch's fused kernels; RMSProp has none.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

Step = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
softplus = F.softplus


def threads() -> int:
    """As many as XLA's pool has: one a core that this process may use."""
    return len(os.sched_getaffinity(0))


def _init(module: nn.Module, weight: Callable[[torch.Tensor], Any], bias: Callable[[torch.Tensor], Any]) -> nn.Module:
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            weight(part.weight)
            if part.bias is not None:
                bias(part.bias)
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.affine:
            nn.init.normal_(part.weight, 1.0, 0.02)
    return module


def _normal(sd: float) -> Callable[[torch.Tensor], Any]:
    return lambda p: nn.init.normal_(p, 0.0, sd)


def _uniform(bound: float) -> Callable[[torch.Tensor], Any]:
    return lambda p: nn.init.uniform_(p, -bound, bound)


class Maxout(nn.Module):
    def __init__(self, inputs: int, units: int, pieces: int) -> None:
        super().__init__()
        self.linear, self.pieces, self.units = nn.Linear(inputs, units * pieces), pieces, units

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).view(-1, self.pieces, self.units).amax(dim=1)


class ConvDiscriminator(nn.Module):
    def __init__(self, eps: float, affine: bool = True) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 64, 5, 2, 2, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(64, 128, 5, 2, 2, bias=False),
            nn.BatchNorm2d(128, eps, affine=affine),
            nn.LeakyReLU(0.2, inplace=True),
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(6272, 1024, bias=False),
            nn.BatchNorm1d(1024, eps, affine=affine),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Linear(1024, 1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.features(x)
        return self.head(features)[:, 0], features


def conv_generator(latents: int, eps: float, affine: bool = True) -> nn.Module:
    return nn.Sequential(
        nn.Linear(latents, 1024, bias=False),
        nn.BatchNorm1d(1024, eps, affine=affine),
        nn.ReLU(inplace=True),
        nn.Linear(1024, 6272, bias=False),
        nn.BatchNorm1d(6272, eps, affine=affine),
        nn.ReLU(inplace=True),
        nn.Unflatten(1, (128, 7, 7)),
        nn.ConvTranspose2d(128, 64, 5, 2, 2, 1, bias=False),
        nn.BatchNorm2d(64, eps, affine=affine),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(64, 1, 5, 2, 2, 1, bias=False),
        nn.Sigmoid(),
    )


def conv_encoder(latents: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 64, 5, 2, 2, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 128, 5, 2, 2, bias=False),
        nn.BatchNorm2d(128),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(6272, 1024, bias=False),
        nn.BatchNorm1d(1024),
        nn.ReLU(inplace=True),
        nn.Linear(1024, 2 * latents),
    )


@dataclasses.dataclass(frozen=True)
class Mode:
    layout: Any
    compiled: bool

    def net(self, net: Any) -> Any:
        net.train().to(memory_format=self.layout)
        return self.function(net)

    def function(self, function: Any) -> Any:
        return torch.compile(function) if self.compiled else function

    def rmsprop(self, net: nn.Module, rate: float, alpha: float) -> Callable[[], Any]:
        """The update by the gradients that net's parameters have."""
        return self.function(torch.optim.RMSprop(net.parameters(), rate, alpha=alpha, foreach=True).step)


def _assign(module: nn.Module, update: Callable[[], Any], gradients: Sequence[torch.Tensor]) -> None:
    for parameter, gradient in zip(module.parameters(), gradients, strict=True):
        parameter.grad = gradient
    update()


def _params(module: nn.Module) -> list[Any]:
    return list(module.parameters())


def _vae(mode: Mode) -> tuple[Step, int, int]:
    encoder = nn.Sequential(nn.Linear(784, 500), nn.Tanh(), nn.Linear(500, 40))
    decoder = nn.Sequential(nn.Linear(20, 500), nn.Tanh(), nn.Linear(500, 784))
    both = _init(nn.ModuleList([encoder, decoder]), _normal(0.01), _normal(0.01))
    adam = torch.optim.Adam(both.parameters(), 1e-3, fused=True)
    enc, dec = encoder.train(), decoder.train()

    @mode.function
    def losses(grey: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = (torch.rand_like(grey) < grey).float()  # a third of what torch.bernoulli takes
        mean, log_var = enc(x).chunk(2, dim=1)
        logits = dec(mean + torch.exp(0.5 * log_var) * torch.randn_like(mean))
        reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="sum") / len(x)
        return reconstruction, 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum() / len(x)

    def step(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        reconstruction, kl = losses(x.view(-1, 784))
        adam.zero_grad()
        (reconstruction + kl).backward()
        adam.step()
        return reconstruction.detach(), kl.detach()

    return step, 100, 1


def _gan(mode: Mode) -> tuple[Step, int, int]:
    g = _init(
        nn.Sequential(
            nn.Linear(100, 1200), nn.ReLU(), nn.Linear(1200, 1200), nn.ReLU(), nn.Linear(1200, 784), nn.Sigmoid()
        ),
        _uniform(0.05),
        nn.init.zeros_,
    )
    d = _init(
        nn.Sequential(
            nn.Dropout(0.2),
            Maxout(784, 240, 5),
            nn.Dropout(0.5),
            Maxout(240, 240, 5),
            nn.Dropout(0.5),
            nn.Linear(240, 1),
        ),
        _uniform(0.005),
        nn.init.zeros_,
    )
    g_sgd, d_sgd = (torch.optim.SGD(net.parameters(), 0.1, momentum=0.5, fused=True) for net in (g, d))
    make, judge, done = mode.net(g), mode.net(d), 0  # the losses compiled as a whole are no faster

    def step(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal done
        for optimizer in (g_sgd, d_sgd):
            group = optimizer.param_groups[0]
            group["lr"] = max(0.1 / 1.000004**done, 1e-6)
            group["momentum"] = 0.5 + 0.2 * min(done // 500, 249) / 249
        done += 1
        fake = make((2 * torch.rand(len(x), 100) - 1) * 3**0.5)
        # One batch, though the generator's loss then pulls zeros back through the real half: 3 % faster than two calls.
        real, judged = judge(torch.cat([x.view(-1, 784), fake])).chunk(2)
        d_loss = 0.5 * (softplus(-real).mean() + softplus(judged).mean())
        g_loss = softplus(-judged).mean()
        d_gradient = torch.autograd.grad(d_loss, _params(d), retain_graph=True)
        _assign(g, g_sgd.step, torch.autograd.grad(g_loss, _params(g)))
        _assign(d, d_sgd.step, d_gradient)
        return d_loss.detach(), g_loss.detach()

    return step, 100, 1


def _alternate(
    g: nn.Module, d: nn.Module, mode: Mode
) -> tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]:
    """(critic's gradient step, generator's), for losses on logits."""
    make, judge = mode.net(g), mode.net(d)

    def improve_d(x: torch.Tensor, z: torch.Tensor, update: Any, loss: Callable[..., torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            fake = make(z)
        value = loss(judge(x)[0], judge(fake)[0])
        d.zero_grad()
        value.backward()
        update()
        return value.detach()

    def improve_g(z: torch.Tensor, update: Any, loss: Callable[..., torch.Tensor]) -> torch.Tensor:
        d.requires_grad_(False)
        value = loss(judge(make(z))[0])
        g.zero_grad()
        value.backward()
        update()
        d.requires_grad_(True)
        return value.detach()

    return improve_d, improve_g


def _dcgan(mode: Mode) -> tuple[Step, int, int]:
    g = _init(conv_generator(100, 1e-8, affine=False), _normal(0.02), nn.init.zeros_)
    d = _init(ConvDiscriminator(1e-8, affine=False), _normal(0.02), nn.init.zeros_)
    g_adam, d_adam = (
        torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999), weight_decay=2.5e-5, fused=True).step for net in (g, d)
    )
    improve_d, improve_g = _alternate(g, d, mode)

    def step(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        z = 2 * torch.rand(2, len(x), 100) - 1
        d_loss = improve_d(x, z[0], d_adam, lambda r, f: softplus(-r).mean() + softplus(f).mean())
        return d_loss, improve_g(z[1], g_adam, lambda f: softplus(-f).mean())

    return step, 128, 1


def _wgan(mode: Mode) -> tuple[Step, int, int]:
    g = _init(conv_generator(100, 1e-5), _normal(0.02), nn.init.zeros_)
    d = _init(ConvDiscriminator(1e-5), _normal(0.02), nn.init.zeros_)
    g_rms, d_rms = (mode.rmsprop(net, 5e-5, 0.99) for net in (g, d))
    improve_d, improve_g = _alternate(g, d, mode)

    def step(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        total = torch.zeros(())
        for part in x.chunk(5):
            total += improve_d(part, torch.randn(len(part), 100), d_rms, lambda r, f: f.mean() - r.mean())
            with torch.no_grad():
                for weight in _params(d):
                    weight.clamp_(-0.01, 0.01)
        return total / 5, improve_g(torch.randn(len(x) // 5, 100), g_rms, lambda f: -f.mean())

    return step, 64, 5


def _vaegan(mode: Mode) -> tuple[Step, int, int]:
    e, g, d = conv_encoder(128), conv_generator(128, 1e-5), ConvDiscriminator(1e-5)
    for net in (e, g, d):
        _init(net, _normal(0.02), nn.init.zeros_)
    updates = [mode.rmsprop(net, 3e-4, 0.9) for net in (e, g, d)]
    encode, decode, judge = mode.net(e), mode.net(g), mode.net(d)

    def step(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_var = encode(x).chunk(2, dim=1)
        z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
        code = z.detach().requires_grad_()
        rebuilt, fake = decode(code), decode(torch.randn_like(mean))
        seen, seen_fake = rebuilt.detach().requires_grad_(), fake.detach().requires_grad_()
        (real, features), (judged, own), (judged_fake, _) = judge(x), judge(seen), judge(seen_fake)
        prior = 0.5 * (mean.square() + log_var.exp() - 1 - log_var).sum() / len(x)
        feature = 0.5 * ((own - features).square() + np.log(2 * np.pi)).sum() / len(x)
        gan = softplus(-real).mean() + softplus(judged).mean() + softplus(judged_fake).mean()
        # Fakes enter the decoder's loss with the sign turned: one pull-back through Dis serves both players.
        (by_feature,) = torch.autograd.grad(feature, [seen], retain_graph=True)
        *d_gradient, by_gan, by_gan_fake = torch.autograd.grad(gan, [*_params(d), seen, seen_fake])
        (by_code,) = torch.autograd.grad(rebuilt, [code], by_feature, retain_graph=True)
        g_gradient = torch.autograd.grad([rebuilt, fake], _params(g), [1e-3 * by_feature - by_gan, -by_gan_fake])
        e_gradient = torch.autograd.grad([prior, z], _params(e), [torch.ones(()), by_code])
        for net, update, gradient in zip((e, g, d), updates, (e_gradient, g_gradient, d_gradient), strict=True):
            _assign(net, update, gradient)
        return gan.detach(), feature.detach()

    return step, 64, 1


STEPS = {"vae": _vae, "gan": _gan, "dcgan": _dcgan, "wgan": _wgan, "vaegan": _vaegan}


def build(task: str, mode: str, x: np.ndarray, seed: int) -> Callable[[int], np.ndarray]:
    """advance(n): n steps; their losses [n, 2]."""
    torch.set_num_threads(threads())
    if torch.cuda.is_available():  # as jax, which takes what there is; a default of "cpu" would cost a bit a call
        torch.set_default_device("cuda")
        torch.set_float32_matmul_precision("high")  # TF32, as jax's products there; convolutions have it by default
    torch.manual_seed(seed)
    if mode == "compile":  # the adversarial steps pull back through one graph twice
        import torch._functorch.config as functorch

        functorch.donated_buffer = False
    layout: Any = torch.contiguous_format if mode == "contiguous" else torch.channels_last

    step, batch, group = STEPS[task](Mode(layout, mode == "compile"))
    data = torch.as_tensor(x.transpose(0, 3, 1, 2).copy())  # to the default device

    def batches() -> Iterator[torch.Tensor]:
        while True:
            for rows in torch.randperm(len(data)).split(batch * group):
                if len(rows) == batch * group:
                    yield (data[rows].float() / 255).to(memory_format=layout)

    stream = batches()

    def advance(n: int) -> np.ndarray:
        pairs = [torch.stack(step(next(stream))) for _ in range(n)]
        return torch.stack(pairs).cpu().numpy()

    return advance
