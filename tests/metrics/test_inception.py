"""Inception-v3 against the same graph in plain PyTorch layers on the same random weights; resize; weight files."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import convert_inception
from vaegan_jax.metrics import inception
from vaegan_jax.metrics.features import weights_digest

pytest.importorskip("safetensors", reason="needs safetensors: pip install 'vaegan_jax[inception]'")


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """A random state dict whose activations keep their scale through the layers."""
    rng = np.random.default_rng(0)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) > 1:
            return rng.normal(size=shape, scale=math.sqrt(2 / math.prod(shape[1:])))
        if name.endswith(("bn.weight", "running_var")):
            return rng.uniform(0.6, 1.4, shape)
        return rng.normal(size=shape, scale=0.1)

    return {name: draw(name, shape).astype(np.float32) for name, shape in inception.shapes().items()}


def pixelwise_resize(x: np.ndarray, size: int) -> np.ndarray:
    """TensorFlow 1's resize_bilinear as its kernel is written: pixel by pixel."""
    N, H, W, C = x.shape
    out = np.empty((N, size, size, C))
    for i in range(size):
        for j in range(size):
            y, z = i * H / size, j * W / size
            top, left = math.floor(y), math.floor(z)
            bottom, right = min(top + 1, H - 1), min(left + 1, W - 1)
            dy, dx = y - top, z - left
            above = x[:, top, left] * (1 - dx) + x[:, top, right] * dx
            below = x[:, bottom, left] * (1 - dx) + x[:, bottom, right] * dx
            out[:, i, j] = above * (1 - dy) + below * dy
    return out


@pytest.mark.parametrize("shape", [(2, 28, 28, 1), (1, 32, 20, 3), (1, 64, 90, 3), (1, 1, 1, 1)])
def test_resize_is_tensorflow_ones(shape):
    x = np.random.default_rng(1).uniform(0, 255, shape)
    np.testing.assert_allclose(inception.resize(jnp.float32(x), 40), pixelwise_resize(x, 40), atol=1e-3)


def test_resize_in_two_closed_cases():
    """Twice the size: each pixel, then the mean of it and the next one, the last one repeated. Same size: the image."""
    x = jnp.array([0.0, 4.0, 10.0]).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(inception.resize(x, 6)[0, 0, :, 0], [0, 2, 4, 7, 10, 10])
    image = np.random.default_rng(2).uniform(0, 255, (1, 24, 24, 3)).astype(np.float32)
    np.testing.assert_array_equal(inception.resize(jnp.asarray(image), 24), image)


def test_preprocessing():
    levels = np.array([0, 3, 128, 255], np.uint8).reshape(4, 1, 1, 1)
    found = np.asarray(inception.preprocess(jnp.asarray(np.broadcast_to(levels, (4, 5, 5, 1)))))
    assert found.shape == (4, 299, 299, 3)
    for image, value in zip(found, (-1, -125 / 128, 0, 127 / 128), strict=True):
        np.testing.assert_allclose(image, value, atol=1e-5)
    # A float is the byte that its file would hold.
    near = (np.float32(levels) + np.float32([0.4, -0.4, 0.4, -0.4]).reshape(4, 1, 1, 1)).clip(0, 255) / 255
    again = inception.preprocess(jnp.asarray(np.broadcast_to(near, (4, 5, 5, 1))))
    np.testing.assert_allclose(again, found, atol=1e-5)


@pytest.mark.optimised
def test_the_graph_is_pytorchs(arrays, tmp_path, capsys):
    """From a .pth through the converter to features and probabilities, at another size than the network's."""
    torch = pytest.importorskip("torch", reason="the reference is in PyTorch: pip install torch")
    source, target = tmp_path / "weights.pth", tmp_path / "new" / "weights.safetensors"
    counted = {name: torch.from_numpy(a) for name, a in arrays.items()}
    counters = {n.replace("weight", "num_batches_tracked"): torch.tensor(7) for n in arrays if n.endswith("bn.weight")}
    torch.save(counted | counters, source)
    assert convert_inception.main([str(source), str(target)]) == 0
    assert str(target) in capsys.readouterr().out
    network = inception.extractor(target, block=2)
    assert network.name.startswith("inception-v3-") and len(network.name) == len("inception-v3-") + 8

    x = np.random.default_rng(3).integers(0, 256, (3, 48, 40, 3)).astype(np.uint8)
    features, probabilities = network.both(x)
    reference = _Reference(torch)
    reference.net.load_state_dict(counted | counters)  # strict: the names are PyTorch's own
    resized = (pixelwise_resize(x.astype(np.float64), 299) - 128) / 128
    expected = reference(torch.from_numpy(resized.transpose(0, 3, 1, 2).astype(np.float32)))
    assert expected.shape == features.shape == (3, 2048)
    assert 0.1 < expected.std() < 10 and np.abs(expected[0] - expected[1]).max() > 1e-2  # of the scale that is compared
    np.testing.assert_allclose(features, expected, atol=1e-4, rtol=1e-4)
    logits = expected.astype(np.float64) @ arrays["fc.weight"].T.astype(np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(probabilities, odds / odds.sum(axis=1, keepdims=True), atol=1e-5, rtol=1e-3)


class _Reference:
    """pytorch-fid's graph, written with torch.nn layers alone: a call gives pool3, [N, 2048]."""

    def __init__(self, torch):
        nn, self.torch, self.F = torch.nn, torch, torch.nn.functional
        self.net = nn.Module()
        for name, spec in _UNITS.items():
            parent = self.net
            *path, last = name.split(".")
            for part in path:
                if not hasattr(parent, part):
                    parent.add_module(part, nn.Module())
                parent = getattr(parent, part)
            unit = nn.Module()
            (c, f), kernel, stride, pad = spec
            unit.conv = nn.Conv2d(c, f, kernel, stride, pad, bias=False)
            unit.bn = nn.BatchNorm2d(f, eps=1e-3)
            parent.add_module(last, unit)
        self.net.fc = nn.Linear(2048, 1008)
        self.net.eval()

    def unit(self, name, x):
        unit = self.net.get_submodule(name)
        return self.F.relu(unit.bn(unit.conv(x)))

    def chain(self, block, names, x):
        for name in names.split():
            x = self.unit(f"{block}.{name}", x)
        return x

    def mean_pool(self, x):
        return self.F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    def __call__(self, x):
        F, cat = self.F, self.torch.cat
        with self.torch.no_grad():
            for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"):
                x = self.unit(name, x)
            x = F.max_pool2d(x, 3, 2)
            x = self.unit("Conv2d_4a_3x3", self.unit("Conv2d_3b_1x1", x))
            x = F.max_pool2d(x, 3, 2)
            for b in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
                branches = [self.chain(b, "branch1x1", x), self.chain(b, "branch5x5_1 branch5x5_2", x)]
                branches.append(self.chain(b, "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3", x))
                x = cat([*branches, self.chain(b, "branch_pool", self.mean_pool(x))], 1)
            b = "Mixed_6a"
            double = self.chain(b, "branch3x3dbl_1 branch3x3dbl_2 branch3x3dbl_3", x)
            x = cat([self.chain(b, "branch3x3", x), double, F.max_pool2d(x, 3, 2)], 1)
            for b in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
                branches = [self.chain(b, "branch1x1", x)]
                branches.append(self.chain(b, "branch7x7_1 branch7x7_2 branch7x7_3", x))
                branches.append(self.chain(b, " ".join(f"branch7x7dbl_{i}" for i in range(1, 6)), x))
                x = cat([*branches, self.chain(b, "branch_pool", self.mean_pool(x))], 1)
            b = "Mixed_7a"
            branches = [self.chain(b, "branch3x3_1 branch3x3_2", x)]
            branches.append(self.chain(b, " ".join(f"branch7x7x3_{i}" for i in range(1, 5)), x))
            x = cat([*branches, F.max_pool2d(x, 3, 2)], 1)
            for b, pooled in (("Mixed_7b", self.mean_pool), ("Mixed_7c", lambda h: F.max_pool2d(h, 3, 1, 1))):
                three = self.chain(b, "branch3x3_1", x)
                double = self.chain(b, "branch3x3dbl_1 branch3x3dbl_2", x)
                branches = [self.chain(b, "branch1x1", x)]
                branches += [self.chain(b, f"branch3x3_2{side}", three) for side in "ab"]
                branches += [self.chain(b, f"branch3x3dbl_3{side}", double) for side in "ab"]
                x = cat([*branches, self.chain(b, "branch_pool", pooled(x))], 1)
            return x.mean((2, 3)).numpy()


def _units():
    """name -> ((channels in, out), kernel, stride, padding), as torchvision's file has them."""
    point, three, row, column = ((1, 1), 1, 0), ((3, 3), 1, 1), ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
    halving = ((3, 3), 2, 0)
    units = {
        "Conv2d_1a_3x3": ((3, 32), *halving),
        "Conv2d_2a_3x3": ((32, 32), (3, 3), 1, 0),
        "Conv2d_2b_3x3": ((32, 64), *three),
        "Conv2d_3b_1x1": ((64, 80), *point),
        "Conv2d_4a_3x3": ((80, 192), (3, 3), 1, 0),
    }

    def block(name, parts):
        units.update({f"{name}.{part}": spec for part, spec in parts.items()})

    for name, c, pool in (("Mixed_5b", 192, 32), ("Mixed_5c", 256, 64), ("Mixed_5d", 288, 64)):
        block(
            name,
            {
                "branch1x1": ((c, 64), *point),
                "branch5x5_1": ((c, 48), *point),
                "branch5x5_2": ((48, 64), (5, 5), 1, 2),
                "branch3x3dbl_1": ((c, 64), *point),
                "branch3x3dbl_2": ((64, 96), *three),
                "branch3x3dbl_3": ((96, 96), *three),
                "branch_pool": ((c, pool), *point),
            },
        )
    block(
        "Mixed_6a",
        {
            "branch3x3": ((288, 384), *halving),
            "branch3x3dbl_1": ((288, 64), *point),
            "branch3x3dbl_2": ((64, 96), *three),
            "branch3x3dbl_3": ((96, 96), *halving),
        },
    )
    for name, w in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
        block(
            name,
            {
                "branch1x1": ((768, 192), *point),
                "branch7x7_1": ((768, w), *point),
                "branch7x7_2": ((w, w), *row),
                "branch7x7_3": ((w, 192), *column),
                "branch7x7dbl_1": ((768, w), *point),
                "branch7x7dbl_2": ((w, w), *column),
                "branch7x7dbl_3": ((w, w), *row),
                "branch7x7dbl_4": ((w, w), *column),
                "branch7x7dbl_5": ((w, 192), *row),
                "branch_pool": ((768, 192), *point),
            },
        )
    block(
        "Mixed_7a",
        {
            "branch3x3_1": ((768, 192), *point),
            "branch3x3_2": ((192, 320), *halving),
            "branch7x7x3_1": ((768, 192), *point),
            "branch7x7x3_2": ((192, 192), *row),
            "branch7x7x3_3": ((192, 192), *column),
            "branch7x7x3_4": ((192, 192), *halving),
        },
    )
    for name, c in (("Mixed_7b", 1280), ("Mixed_7c", 2048)):
        wide, tall = ((1, 3), 1, (0, 1)), ((3, 1), 1, (1, 0))
        block(
            name,
            {
                "branch1x1": ((c, 320), *point),
                "branch3x3_1": ((c, 384), *point),
                "branch3x3_2a": ((384, 384), *wide),
                "branch3x3_2b": ((384, 384), *tall),
                "branch3x3dbl_1": ((c, 448), *point),
                "branch3x3dbl_2": ((448, 384), *three),
                "branch3x3dbl_3a": ((384, 384), *wide),
                "branch3x3dbl_3b": ((384, 384), *tall),
                "branch_pool": ((c, 192), *point),
            },
        )
    return units


_UNITS = _units()


def test_names_and_shapes_of_the_file():
    shapes = inception.shapes()
    wanted = {"fc.weight": (1008, 2048), "fc.bias": (1008,)}
    for name, ((c, f), kernel, *_) in _UNITS.items():
        wanted[f"{name}.conv.weight"] = (f, c, *kernel)
        wanted |= {f"{name}.bn.{part}": (f,) for part in ("weight", "bias", "running_mean", "running_var")}
    assert shapes == wanted
    assert len(shapes) == 94 * 5 + 2


def test_weights_are_checked(arrays):
    def change(**fields):
        return {**arrays, **{name.replace("__", "."): value for name, value in fields.items()}}

    lacking = {name: a for name, a in arrays.items() if "Mixed_7c" not in name}
    with pytest.raises(ValueError, match=r"arrays 45 missing \(such as Mixed_7c.branch1x1.bn.bias\); give pytorch-fid"):
        inception.check(lacking)
    with pytest.raises(ValueError, match=r"1 unknown \(such as AuxLogits.fc.bias\)"):
        inception.check(change(AuxLogits__fc__bias=np.zeros(3)))
    with pytest.raises(ValueError, match=r"fc.weight has shape \(1000, 2048\), but \(1008, 2048\) is expected"):
        inception.check(change(fc__weight=np.zeros((1000, 2048), np.float32)))
    for bad in (np.full(1008, np.nan, np.float32), np.zeros(1008, np.int32)):
        with pytest.raises(ValueError, match=r"fc.bias is .* or has NaN"):
            inception.check(change(fc__bias=bad))


def test_a_file_comes_back_as_it_was_written(arrays, tmp_path):
    file = tmp_path / "weights.safetensors"
    inception.write(file, arrays, "ab" * 32)
    found, origin = inception.read(file)
    assert origin == "ab" * 32
    assert found.keys() == arrays.keys()
    for name in ("fc.weight", "Mixed_6e.branch7x7dbl_5.bn.running_var"):
        np.testing.assert_array_equal(found[name], arrays[name])
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    variables = inception.to_variables(found)
    kernel = variables["params"]["Mixed_6b"]["branch7x7_2"]["conv"]["kernel"]
    assert kernel.shape == (1, 7, 128, 128)
    assert kernel[0, 2, 5, 9] == arrays["Mixed_6b.branch7x7_2.conv.weight"][9, 5, 0, 2]
    assert inception.extractor(file).digest == weights_digest(variables)


def test_without_the_file_one_error_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("VAEGAN_JAX_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"pytorch-fid/releases.*experiments.convert_inception") as error:
        inception.extractor()
    assert str(tmp_path / "inception.safetensors") in str(error.value)
    (tmp_path / "inception.safetensors").write_bytes(b"PK not such a file")
    with pytest.raises(ValueError, match="is no safetensors file"):
        inception.extractor()


def test_the_converter_refuses_what_it_cannot_read(tmp_path, capsys):
    torch = pytest.importorskip("torch", reason="a .pth is PyTorch's: pip install torch")
    target = tmp_path / "out.safetensors"

    def said(source: Path) -> str:
        assert convert_inception.main([str(source), str(target)]) == 1
        assert not target.exists()
        return capsys.readouterr().err

    assert "There is no file" in said(tmp_path / "none.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    assert "holds a list" in said(tmp_path / "list.pth")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pth")
    assert "472 missing" in said(tmp_path / "other.pth")
    torch.save({"a": Path("x")}, tmp_path / "code.pth")  # an object, which would need code to be run
    assert "can be read safely" in said(tmp_path / "code.pth")
    (tmp_path / "text.pth").write_text("not a file of PyTorch's")
    assert "can be read safely" in said(tmp_path / "text.pth")


def test_images_are_checked_before_the_network_runs(arrays):
    def never(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        raise AssertionError

    network = inception.Extractor("inception", never, (None, None, None))
    for x, message in (
        (np.zeros((2, 8, 8), np.uint8), "takes"),
        (np.zeros((2, 8, 8, 4), np.uint8), "C = 1 or 3"),
        (np.zeros((2, 8, 8, 3), np.int64), "dtype int64"),
        (np.full((2, 8, 8, 3), 200.0), "goes from 200 to 200"),
        (np.full((2, 8, 8, 3), -1.0), "goes from -1 to -1"),
    ):
        with pytest.raises(ValueError, match=message):
            network.features(x)
