"""DCGAN. Radford, Metz & Chintala 2015, arXiv:1511.06434; the nets and recipe of the released MNIST code.

python -m experiments.dcgan                                 unconditional
python -m experiments.dcgan --recipe conditional            labels in every layer of both nets, as released
python -m experiments.dcgan --generator.norm none --discriminator.norm none     the guideline on BatchNorm, undone

Time: about 0.4 s a step on two cores; `cpu` (1,500 steps, 3.8 epochs) 10 minutes, `paper` (200 epochs) 4.5 hours.
Expected: clean strokes after 5 epochs; the paper's conditional nets reach 1.48 % 1-NN error on 10M generated digits.
"""

import functools
import sys
from collections.abc import Sequence

from experiments import common
from vaegan_jax import gan

SCRIPT = common.Script(
    "dcgan",
    gan,
    recipes={"paper": gan.dcgan, "conditional": functools.partial(gan.dcgan, conditional=True)},
    steps={"smoke": 10, "cpu": 1_500, "paper": 200 * 195},
)


def main(argv: Sequence[str] | None = None) -> int:
    return common.main(SCRIPT, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
