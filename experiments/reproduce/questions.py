"""Sentences whose numbers are the committed results': the README's questions, the report's readings of the papers.

python -m experiments.reproduce.questions writes the former, as `make report` does; --check only says whether they are
so. report.py takes the latter.
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from experiments import pages
from experiments.reproduce import TARGETS, published, results


@dataclasses.dataclass(frozen=True)
class Question:
    """`answer` is a format string: {target.row:spec}, a row's mean and deviation over seeds; {target.row.mean:spec};
    {target.row.steps:spec}; {most:spec}, the largest mean of `rows`."""

    asked: str
    """Of a reading: what is read in two ways."""
    answer: str
    figure: str
    """Below experiments/results; "" where the tables say it."""
    target: str
    """Which target answers it."""
    rows: tuple[str, ...] = ()
    """Names below `target`."""


QUESTIONS = (
    Question(
        "How does a VAE differ from PCA?",
        "A linear VAE is probabilistic PCA: its bound ends {pca.linear_vae:.2f} nats below the exact likelihood with "
        "30 latents, {pca.linear_vae_10:.2f} with 10 and {pca.linear_vae_100:.2f} with 100. With nets between, a VAE's "
        "squared error is {pca.vae_below_pca_30:.2f} below PCA's of {pca.reconstruction_30:.2f} at 30 numbers an "
        "image, and {pca.vae_below_pca_2:.2f} below it at 2 numbers.",
        "pca/errors.png",
        "pca",
    ),
    Question(
        "How does a GAN differ from a VAE?",
        "A VAE climbs a bound on log p(x), with an encoder; a GAN plays a game whose value at the optimum is "
        "{gan.theorem1_minimum:.4f} = -log 4, has no likelihood to look at, and no encoder. What comes out differs as "
        "well: on the same nets the share of high spatial frequencies in a GAN's samples is "
        "{challenges.ratio_gan:.2f} of test images', in a VAE's {challenges.blur_vae:.2f}.",
        "challenges/blur.png",
        "gan",
    ),
    Question(
        "Is a Parzen window's likelihood a measure of quality?",
        "No: 10,000 real images reach {gan.real:.0f} nats, and 10,000 k-means centroids, which nobody would call "
        "samples, {gan.centroids_beat_samples:.0f} more.",
        "",
        "gan",
    ),
    Question(
        "How likely are real images under a GAN?",
        "Less than under a linear model, so far. By annealed importance sampling, with a Gaussian around what the net "
        "puts out, a test image has {likelihood.ais_gan50:.0f} nats under a GAN of 50 latents after "
        "{likelihood.ais_gan50.steps:,} steps, {likelihood.ais_vae10:.0f} under a VAE of 10 and "
        "{likelihood.ais_vae50:.0f} under one of 50 (lower bounds, of which the last is at most "
        "{likelihood.gap_vae50:.0f} too low, by bidirectional Monte Carlo); probabilistic PCA with 50 components has "
        "{likelihood.ppca_50:.0f}. Parzen windows of their samples rank the VAEs the other way: "
        "{likelihood.kde_vae10:.0f} for 10 latents and {likelihood.kde_vae50:.0f} for 50.",
        "likelihood/rankings.png",
        "likelihood",
    ),
    Question(
        "How wide should a VAE's latent space be?",
        "After {challenges.width_wide.steps:,} steps the bound with 20 latents lies {challenges.width_narrow:.1f} nats "
        "above that with 2, and {challenges.width_wide:.2f} above that with 200, of "
        "which the encoder uses {challenges.width_active:.0f} (Kingma and Welling, after more steps, saw superfluous "
        "latents do no harm).",
        "challenges/width.png",
        "challenges",
    ),
    Question(
        "How much data does a VAE need?",
        "After {challenges.size_gap_all.steps:,} steps on 50,000 images the bound is {challenges.size_gap_all:.1f} "
        "nats better on them than on new ones, on 1,000 images the gap is {challenges.size_gap:.1f} nats wider; and "
        "what 1,000 images reach at best is {challenges.size_data:.1f} nats below what 50,000 do.",
        "challenges/size.png",
        "challenges",
    ),
    Question(
        "Are a VAE's samples blurred?",
        "Their share of high spatial frequencies is {challenges.blur_vae:.2f} of that of test images, where a GAN's on "
        "the same nets is {challenges.ratio_gan:.2f} of it and a VAE/GAN's {challenges.ratio_vaegan:.2f} (above 1 is "
        "speckle), all after {challenges.blur_vae.steps:,} steps.",
        "challenges/blur.png",
        "challenges",
    ),
    Question(
        "How often does a GAN collapse?",
        "On a ring of eight modes, after {challenges.collapse_minimax.steps:,} steps, the share of ten seeds that "
        "cover half of them or fewer is {most:.0%} with the worst of seven: the minimax loss, the non-saturating one, "
        "least squares, hinge, the relativistic pairing, and WGAN with a clipped critic or a gradient penalty (with R1 "
        "beside it, {challenges.collapse_minimax_r1.mean:.0%} with the minimax loss; none of ten is a rate of 26% at "
        "most). On a grid of 25 modes they lose more: ten other seeds cover {challenges.collapse_grid_minimax:.1f} "
        "with the minimax loss, {challenges.collapse_grid_non_saturating:.1f} with the non-saturating one, "
        "{challenges.collapse_grid_least_squares:.1f} with least squares and {challenges.collapse_grid_hinge:.1f} with "
        "hinge; with R1 the first three cover {challenges.collapse_grid_minimax_r1:.1f}, "
        "{challenges.collapse_grid_non_saturating_r1:.1f} and {challenges.collapse_grid_least_squares_r1:.1f}, hinge "
        "{challenges.collapse_grid_hinge_r1:.1f}; WGAN, the slower one, has not found the modes by then.",
        "challenges/collapse_grid.png",
        "challenges",
        tuple(
            f"collapse_{loss}"
            for loss in (
                "minimax",
                "non_saturating",
                "least_squares",
                "hinge",
                "relativistic",
                "wasserstein",
                "wasserstein_gp",
            )
        ),
    ),
    Question(
        "Does it help a discriminator to judge two samples at once?",
        "PacGAN's answer, against collapse. On a ring of eight modes of deviation .01 a GAN's 2,500 samples find "
        "{mixtures.ring_modes_1:.1f} modes after {mixtures.ring_modes_1.steps:,} steps over ten seeds, with two at "
        "once {mixtures.ring_modes_2:.1f}, and the divergence of their shares from even ones falls by "
        "{mixtures.ring_less_kl:.2f} nats; {mixtures.ring_good_1:.0f} % and {mixtures.ring_good_2:.0f} % lie within "
        "three deviations of a mode (of the mixture itself 99 %).",
        "mixtures/ring-samples.png",
        "mixtures",
    ),
    Question(
        "Is a tighter bound a better one?",
        "For the model it may be: after {iwae.one_equal_50.steps:,} steps on MNIST the importance-weighted bound of 50 "
        "samples has led to a log p(x) {iwae.one_equal_50:.2f} nats above that of the ELBO with 50 (three seeds; Burda "
        "et al., after 250 times the steps: 1.57), and a VAE of one sample that goes on under it gains "
        "{iwae.switch_helps_more:.2f} more in {iwae.switch_helps_more.steps:,} steps than under its own (by 50 draws a "
        "step in place of one). For the encoder it is not: its own bound, of one sample, is {iwae.one_looser:.1f} nats "
        "looser, and near the optimum of a Gaussian model its gradient's signal over noise goes with k, the number of "
        "samples, as k^{iwae.noise_encoder:.2f}, the model's as k^{iwae.noise_model:.2f}.",
        "iwae/table1-one.png",
        "iwae",
    ),
    Question(
        "Does a model give its training data away?",
        "After {challenges.privacy_gan.steps:,} steps on 1,000 images a GAN's discriminator scores a training image "
        "above a new one in {challenges.privacy_gan:.1%} of the pairs, a VAE's bound in "
        "{challenges.privacy_vae:.1%}; on 50,000 images in {challenges.privacy_gan_many:.1%} and "
        "{challenges.privacy_vae_many:.1%} (a guess: 50%). On 5,000 images the GAN's does in "
        "{challenges.privacy_gan_open:.1%}, and in {challenges.privacy_gan_private:.1%} if it learns by DP-SGD "
        "(epsilon 10 at delta 1e-5): but then its samples are noise, {challenges.privacy_price:,.0f} further from "
        "real images in Frechet distance, where blank ones are {challenges.privacy_blank:,.0f} away (by the same "
        "network, trained once more).",
        "challenges/privacy.png",
        "challenges",
    ),
    Question(
        "Why is a GAN's training unstable, and what helps?",
        "On a GAN of two numbers with Goodfellow et al.'s loss, a step of both players at once multiplies the distance "
        "to the equilibrium, near it, by {dirac.simultaneous_factor:.4f}: they move away; one after the other they "
        "circle. With a gradient penalty (R1, gamma .3) it is {dirac.r1_simultaneous:.4f} at once and "
        "{dirac.r1_alternating:.4f} in turn, and at most {dirac.every_loss_r1:.3f} for any of the six losses with "
        "gamma 1: they converge.",
        "dirac/trajectories.png",
        "dirac",
    ),
)


READINGS = (
    Question(
        "The critic's warm-up (WGAN, figure 3)",
        "only the released code has it. With it the estimate's rank correlation with the samples' quality, at ten "
        "checkpoints of {wgan.spearman_wgan.steps:,} generator steps, is {wgan.spearman_wgan_warm:.3f} with a DCGAN "
        "generator, by the text's algorithm 1 {wgan.spearman_wgan:.2f}. By the text the estimate rises at first, while "
        "the critic catches up, and falls then: the figure, which falls all the way, is as the code has it, unless its "
        "first mark lies after that rise, as it would in the paper's hundreds of thousands of steps. With an MLP "
        "neither follows quality by then ({wgan.spearman_wgan_mlp_warm:.2f} and {wgan.spearman_wgan_mlp:.2f}).",
        "wgan/fig3.png",
        "wgan",
    ),
    Question(
        "N(0, 0.01) at the start (Kingma & Welling, section 5)",
        "a deviation, or a variance? On Frey faces with 5 latents AEVB is {vae.fig2_frey_nz5:.0f} nats above "
        "wake-sleep after {vae.fig2_frey_nz5.steps:,} steps by the first reading, under which wake-sleep stays where "
        "it began, and {vae.fig2_frey_wide_nz5:.0f} by the second, under which it rises as in figure 2.",
        "vae/fig2_frey_wide.png",
        "vae",
    ),
    Question(
        "A variance below 1 (Kingma & Welling, caption of figure 2)",
        "of the mean over a batch of 100 images it is {vae.bound_variance:.3f} nats squared, of one image's bound "
        "{vae.bound_variance_image:.1f}: the caption holds by the first reading alone.",
        "",
        "vae",
    ),
    Question(
        "Estimator B has less variance than A (Kingma & Welling, section 2.3)",
        "after {vae.estimator_b.steps:,} steps A's variance is {vae.estimator_b:.2f} times B's for the encoder's "
        "gradient, and {vae.estimator_b_bound:.2f} times for the bound: it holds of the gradient, not of the bound.",
        "",
        "vae",
    ),
    Question(
        "The output bias and z (Goodfellow et al., table 1)",
        "each at the best validation mark of the steps that it had: the released recipe, whose bias knows the black "
        "pixels to 1e-7, is at {gan.table1:.0f} nats within {gan.table1.steps:,} steps; with the bias kept off 0 and 1 "
        "by .001 the three seeds are at {gan.table1_margin:.0f} within {gan.table1_margin.steps:,}, and with a normal "
        "z in place of a uniform one at {gan.table1_normal:.0f}, where the released recipe is by then (target gan, "
        "part variants). Games are lost with either bias. Neither change leads the released recipe by "
        "then.",
        "",
        "gan",
    ),
    Question(
        "50,000 real digits (Radford et al., table 3)",
        "the first 50,000 have a 1-NN error of {dcgan.real_50k:.2f} %; 50,000 of all after a shuffle, as the released "
        "code takes them, {dcgan.real_50k_shuffled:.2f} % in the mean of five; all 60,000 {dcgan.real_60k:.2f} %. The "
        "published number, 3.1 (from memory), is nearest to what is had with all.",
        "",
        "dcgan",
    ),
    Question(
        "Adam (Burda et al., section 5)",
        "by the text beta1 is .9, by the released code .99, with second moments from 1. After "
        "{iwae.text_vae_1.steps:,} steps the text's changes the negative log-likelihood of the VAE with one sample by "
        "{iwae.text_vae_1:.2f} nats, of the IWAE with five by {iwae.text_iwae_5:.2f}: it leads at first, and by then "
        "no more than seeds do. The code's rates are rounded besides, and its 59,600 images (the text: 60,000) never "
        "shuffled; here they are.",
        "iwae/optimizers.png",
        "iwae",
    ),
    Question(
        "What Dis sees at once, and when it waits (Larsen et al.)",
        "by the text its fakes are samples and reconstructions, by the released scripts for faces samples alone: these "
        "change the samples' Frechet distance on MNIST by {vaegan.mnist_fakes_samples:.1f} (less is better) and take "
        "{vaegan.mnist_fakes_similarity:.3f} from the attributes' cosine similarity, within "
        "{vaegan.mnist_fakes_samples.steps:,} steps. Of the rest the text says nothing: the distance without the "
        "code's shared batch statistics less that with them is {vaegan.mnist_one_batch_samples:.1f}, the similarity "
        "with them less that without {vaegan.mnist_one_batch_similarity:.3f}; for its balance rule the two are "
        "{vaegan.mnist_balance_samples:.1f} and {vaegan.mnist_balance_similarity:.3f}: no gain by either by "
        "then.",
        "",
        "vaegan",
    ),
    Question(
        "What Dis_l is, and what it weighs (Larsen et al.)",
        "a hidden layer, and a gamma without a number; the released code has a convolution's raw output, and 1e-6. "
        "After {vaegan.mnist_raw_samples.steps:,} steps on MNIST the former changes the attributes' cosine similarity "
        "by {vaegan.mnist_raw_similarity:.3f}: before its normalisation the layer is of so small a scale that the KL "
        "outweighs it and the encoder gives its code up (its KL is in the table of part layer). The latter changes "
        "it by {vaegan.mnist_weight_similarity:.3f}, and brings the samples' Frechet distance down by "
        "{vaegan.mnist_weight_samples:.1f}: the paper's claim is nearer with a normalised layer and 1e-3.",
        "",
        "vaegan",
    ),
)
"""What a paper's text and its released code, or two readings of one text, do differently: the report lists them."""


class Missing(Exception):
    """A row that nobody has run, or by another rule."""


class Number:
    """A row's mean, and deviation over seeds, in one format; a few values where their mean says nothing."""

    def __init__(self, row: Mapping[str, Any], entry: published.Entry | None) -> None:
        self.row = row
        self.stale = entry is not None and row.get("rule_sha256", entry.sha256) != entry.sha256

    @property
    def mean(self) -> float:
        if self.row["ours"] is None or self.stale:
            raise Missing(self.row["id"])
        return float(self.row["ours"]["mean"])

    @property
    def steps(self) -> int:
        return int(self.row["steps"])

    def __format__(self, spec: str) -> str:
        mean, ours = format(self.mean, spec), self.row["ours"]
        if results.speak_for_themselves(ours["values"]):
            return ", ".join(format(value, spec) for value in ours["values"])
        return f"{mean} +- {format(ours['sd'], spec)}" if ours["n"] > 1 and ours["sd"] else mean


def text(folder: Path = results.FOLDER) -> str:
    """The questions with their answers, Markdown."""
    lines = []
    for question in QUESTIONS:
        lines.append(f"**{question.asked}** {answer(question, folder)}")
    return "\n\n".join(lines)


def readings(folder: Path = results.FOLDER) -> list[str]:
    """READINGS with their numbers, Markdown."""
    return [f"**{one.asked}**: {answer(one, folder, from_report=True)}" for one in READINGS]


def answer(question: Question, folder: Path = results.FOLDER, *, from_report: bool = False) -> str:
    """One sentence or two, and where its figure is (for a page at the top, or the report); or how to find out."""
    spaces = {}
    for target in TARGETS:
        rows = results.best(results.read(target, folder))
        named = ((row["id"].partition(".")[2], row) for row in rows)
        entries = published.entries()[target]
        spaces[target] = SimpleNamespace(**{name: Number(row, entries.get(name)) for name, row in named})
    try:
        most = max((getattr(spaces[question.target], name).mean for name in question.rows), default=0.0)
        said = question.answer.format(**spaces, most=most)
    except (Missing, AttributeError):
        return f"Not measured yet: `make reproduce-{question.target}`."
    there = bool(question.figure) and (folder / question.figure).exists()
    base = "results" if from_report else "experiments/results"
    return f"{said} ([figure]({base}/{question.figure}))" if there else said


def main(argv: Sequence[str] | None = None) -> int:
    check = "--check" in (sys.argv[1:] if argv is None else argv)
    return pages.put("experiments.reproduce.questions", text(), check=check)


if __name__ == "__main__":
    sys.exit(main())
