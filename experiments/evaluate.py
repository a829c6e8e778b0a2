"""All the numbers of a run: one table on the terminal, and a JSON file beside the run.

python -m experiments.evaluate --workdir runs/x --metrics frechet,kernel,pr,dc,parzen --samples 10000 --seeds all

metrics: frechet, frechet_infinity, kernel, inception, pr (precision and recall), dc (density and coverage), prd,
classes, modes (of ring and grid), parzen, memory, likelihood (importance weighted, an encoder's), ais (any decoder's; a
GAN's needs --sigma), bdmc (the gap of ais on simulated data). The file keeps what was measured before of the
same step, seeds, data and key.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import common
from experiments.bench import machine


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True, help="of a run of fit or of a script")
    parser.add_argument("--metrics", default="frechet,kernel,pr,dc", help="with commas; default %(default)s")
    parser.add_argument("--samples", type=int, default=10_000, help="drawn of each seed; default %(default)s")
    parser.add_argument("--seeds", default="all", help="all, or some with commas; default %(default)s")
    parser.add_argument("--split", default="test", help="what samples are compared to; default %(default)s")
    parser.add_argument("--network", default=None, help="pixels, a data set's name, or a file of Inception's weights")
    parser.add_argument("--examples", type=int, default=1000, help="of likelihood and ais; default %(default)s")
    parser.add_argument("--draws", type=int, default=5000, help="k of likelihood; default %(default)s")
    parser.add_argument(
        "--sigma", type=float, default=None, help="of N(G(z), sigma^2 I), for models without a likelihood"
    )
    parser.add_argument("--chains", type=int, default=16, help="of ais and bdmc; default %(default)s")
    parser.add_argument("--distributions", type=int, default=1000, help="of ais and bdmc; default %(default)s")
    parser.add_argument("--key", type=int, default=0, help="seed of samples and estimators; default %(default)s")
    parser.add_argument("--data-dir", type=Path, default=None, help="as for the training scripts")
    parser.add_argument("--out", type=Path, default=None, help="default WORKDIR/evaluation.json")
    flags = parser.parse_args(argv)
    try:
        seeds = None if flags.seeds == "all" else [_seed(text) for text in flags.seeds.split(",")]
        out = flags.out or flags.workdir / "evaluation.json"
        if out.is_dir() or not (flags.out is None or out.parent.is_dir()):
            raise ValueError(f"out is {out}: give a file in a folder that is there.")
        common.use_compilation_cache()
        from vaegan_jax import metrics

        found = metrics.evaluate(
            flags.workdir,
            metrics=flags.metrics.split(","),
            samples=flags.samples,
            seeds=seeds,
            split=flags.split,
            network=flags.network,
            examples=flags.examples,
            draws=flags.draws,
            sigma=flags.sigma,
            chains=flags.chains,
            distributions=flags.distributions,
            key=flags.key,
            data_dir=flags.data_dir,
        )
        _save(found.as_json(), out)
    except (ValueError, OSError, ImportError) as error:
        print(f"experiments.evaluate: {error}", file=sys.stderr)
        return 1
    print(found)
    print(f"\n{out}", file=sys.stderr)
    return 0


def _save(found: dict[str, Any], out: Path) -> None:
    """Writes the rows, after those that the file has of the same models and that were not measured again."""
    same = ("algorithm", "step", "seeds", "data", "sha256", "key")
    found |= {"device": machine.device_name(), "versions": machine.versions("jax", "flax", "numpy")}
    found = json.loads(json.dumps(found, allow_nan=False))
    if out.exists():
        try:
            before = json.loads(out.read_text())
            kept = before["rows"] if all(before[name] == found[name] for name in same) else []
            measured = {row["metric"] for row in found["rows"]}
            found["rows"] = [row for row in kept if row["metric"] not in measured] + found["rows"]
        except (json.JSONDecodeError, KeyError, TypeError):
            raise ValueError(f"{out} is there and no evaluation: delete it, or give --out.") from None
    aside = out.with_name(f".{out.name}")
    aside.write_text(json.dumps(found, indent=1) + "\n")
    aside.replace(out)


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"seeds holds {text!r}: give all, or whole numbers with commas.") from None


if __name__ == "__main__":
    sys.exit(main())
