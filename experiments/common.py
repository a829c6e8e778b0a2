"""What the training scripts share: flags, recipes, one sentence for a user's mistake, the run and its figures."""

import contextlib
import ctypes
import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

Budget = Literal["smoke", "cpu", "paper"]
SAMPLES = 1000  # judged by their nearest neighbours
VALIDATION = 2000  # examples of the validation split, at every checkpoint
MAY_BE_VECTORS = ("npz:", "ring", "grid")  # data sets whose examples decide the nets; all are local
INTERRUPTED = 130  # what a shell reports for Ctrl-C


@dataclasses.dataclass(frozen=True)
class Flags:
    """The flags of every script; the other ones are the fields of its config."""

    dataset: str = "mnist"
    """A name of `python -m vaegan_jax.data`, or folder:PATH, npz:PATH, idx:PATH."""
    data_dir: Path | None = None
    """The cache of data; None: $VAEGAN_JAX_DATA, or $XDG_CACHE_HOME/vaegan_jax, or ~/.cache/vaegan_jax."""
    steps: int | None = None
    """Training steps; None: the budget's."""
    budget: Budget = "cpu"
    """smoke: seconds; cpu: at most about an hour on two cores; paper: the published schedule."""
    seeds: tuple[int, ...] = (0,)
    """Trained side by side in one program."""
    workdir: Path | None = None
    """None: runs/SCRIPT-DATASET. Started again with the same flags, a run goes on (--steps may grow)."""
    checkpoint_every: int | None = None
    """None: ten times a run, at least 500 steps apart."""
    log_every: int = 100
    recipe: str = "paper"
    """Which config the other flags start from; the script's first lines name them."""
    tensorboard: bool = False
    """Also write TensorBoard files to the workdir (extra `logging`)."""
    wandb: bool = False
    """Also log to Weights & Biases (extra `logging`; sends data out)."""


@dataclasses.dataclass(frozen=True)
class _Early(Flags):
    """What decides the defaults of the other flags."""

    splits: tuple[str, str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Script:
    """One paper's script."""

    name: str
    algorithm: Any
    recipes: Mapping[str, Callable[[], Any]]
    """What a recipe's name stands for. "paper" is the default."""
    steps: Mapping[Budget, int]
    seeds: tuple[int, ...] = (0,)
    """The default of --seeds."""


def main(script: Script, doc: str | None, argv: Sequence[str] | None = None) -> int:
    """Parses, runs, and turns a user's mistake into one sentence and exit code 1 (a wrong flag: 2, Ctrl-C: 130)."""
    return_freed_memory()
    use_compilation_cache()
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        run(script, doc, argv)
    except (ValueError, OSError, ImportError, FloatingPointError) as error:
        print(f"experiments.{script.name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from the last checkpoint.", file=sys.stderr)
        return INTERRUPTED
    return 0


def return_freed_memory() -> None:
    """Has glibc give freed memory back to the system: what compilation left now, blocks above 8 MB whenever freed.

    By itself it keeps both in its heap, torn: DCGAN on MNIST then peaks at 2.1 GB, not 1.4.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 8 << 20)  # M_MMAP_THRESHOLD, which else grows to 32 MB with what is freed
        libc.malloc_trim(0)


def use_compilation_cache() -> None:
    """Keeps compiled programs in `xla` of the data's cache; $JAX_COMPILATION_CACHE_DIR names another place."""
    import jax

    from vaegan_jax.data import cache

    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache.root() / "xla"))


def parse(script: Script, doc: str | None, argv: Sequence[str]) -> tuple[Flags, Any, tuple[Any, Any, Any]]:
    """(flags, config, data). The defaults of the config's flags follow the recipe and the training data.

    data: training, validation (its first VALIDATION examples) and test set; None for one of the latter two that is
    empty, or that the data set lacks and no flag asked for.

    Raises:
        ValueError: an unknown recipe, data that cannot be had or do not fit together.
        SystemExit: a wrong flag (2), --help (0).
    """
    import tyro

    from vaegan_jax import data

    # First what decides the defaults, so that --help and overrides are about the config that will run.
    asked = [a for a in argv if a not in ("-h", "--help")]
    early, _ = tyro.cli(_Early, args=asked, return_unknown_args=True)
    if early.recipe not in script.recipes:
        raise ValueError(f"recipe is {early.recipe!r}: {script.name} has {', '.join(script.recipes)}.")
    default = script.recipes[early.recipe]()
    if not early.dataset.startswith(MAY_BE_VECTORS):
        _read(script, doc, argv, default)  # a wrong flag is told, and --help given, before any data are fetched
    train = data.load(early.dataset, (early.splits or default.splits)[0], data_dir=early.data_dir)
    if train.x.ndim == 2:
        if early.recipe != "paper":
            raise ValueError(
                f"recipe is {early.recipe!r}, but {early.dataset} holds vectors {list(train.x.shape[1:])}, which "
                "have one recipe: leave --recipe out, and set single fields by their flags."
            )
        default = script.algorithm.vectors(train.x.shape[1])
    default = dataclasses.replace(default, dataset_size=max(1, len(train)))
    parsed = _read(script, doc, argv, default)
    config = parsed.config
    if len(train) and config.dataset_size != len(train):
        raise ValueError(
            f"dataset_size is {config.dataset_size:,}, but {train.name} {train.split} has {len(train):,} examples, "
            "which is what it stands for: leave it out."
        )
    wanted = zip(config.splits[1:], default.splits[1:], strict=True)
    held_out = [_held_out(parsed, config, train, split, split != usual) for split, usual in wanted]
    if held_out[0] is not None:
        one = held_out[0]
        held_out[0] = data.Dataset(
            one.x[:VALIDATION], None if one.label is None else one.label[:VALIDATION], one.name, one.split
        )
    return parsed, config, (train, held_out[0], held_out[1])


def _read(script: Script, doc: str | None, argv: Sequence[str], default: Any) -> Any:
    """Flags and config from the command line, where `default` is what the flags of the config start from."""
    import tyro

    @dataclasses.dataclass(frozen=True)
    class Arguments(Flags):
        seeds: tuple[int, ...] = script.seeds
        """Trained side by side in one program."""
        config: Annotated[Any, tyro.conf.arg(name="", constructor=type(default))] = default

    return tyro.cli(
        Arguments,
        registry=_activations(),
        args=argv,
        prog=f"python -m experiments.{script.name}",
        description="\n\n".join(line for line in (doc or "").splitlines() if line),  # else it would join the lines
        config=(tyro.conf.AvoidSubcommands,),
    )


def _activations() -> Any:
    """Lets a flag name an activation, which the configs hold as a function."""
    import flax.linen as nn
    from tyro import constructors

    from vaegan_jax import nets

    known = {"relu": nn.relu, "leaky_relu": nets.leaky_relu, "tanh": nn.tanh, "softplus": nn.softplus, "elu": nn.elu}
    registry = constructors.ConstructorRegistry()

    @registry.primitive_rule
    def rule(info: constructors.PrimitiveTypeInfo) -> constructors.PrimitiveConstructorSpec | None:
        if info.type != nets.Activation:
            return None
        return constructors.PrimitiveConstructorSpec(
            nargs=1,
            metavar="{" + ",".join(known) + "}",
            instance_from_str=lambda words: known[words[0]],
            is_instance=callable,
            str_from_instance=lambda f: [
                next((name for name, g in known.items() if g is f), getattr(f, "__name__", "?"))
            ],
            choices=tuple(known),
        )

    return registry


def run(script: Script, doc: str | None, argv: Sequence[str]) -> Any:
    """One training run as the flags say it; prints where things are. Returns fit's Run."""
    flags, config, (train, held_out, test) = parse(script, doc, argv)

    import jax
    import numpy as np

    from experiments import figures, neighbours
    from vaegan_jax import fit, logs

    steps = script.steps[flags.budget] if flags.steps is None else flags.steps
    slug = "".join(c if c.isalnum() else "-" for c in flags.dataset).strip("-")
    workdir = flags.workdir or Path("runs") / f"{script.name}-{slug}"
    print(
        f"{script.name} on {train.name} {train.split}: {len(train):,} examples {list(train.x.shape[1:])}, "
        f"{steps:,} steps of batch {config.batch_size}, seeds {', '.join(map(str, flags.seeds))}, in {workdir}",
        file=sys.stderr,
    )
    writers = ((logs.tensorboard, flags.tensorboard), (logs.wandb, flags.wandb))

    def trim(*_: Any) -> None:  # at every line, so before a checkpoint's copies of the state
        return_freed_memory()

    trained = fit.fit(
        script.algorithm,
        config,
        train,
        steps=steps,
        seeds=flags.seeds,
        workdir=workdir,
        validation=held_out,
        log_every=flags.log_every,
        checkpoint_every=max(500, steps // 10) if flags.checkpoint_every is None else flags.checkpoint_every,
        write=[trim, *(make(workdir) for make, on in writers if on)],
    )
    return_freed_memory()
    paths = figures.draw(trained, test or train, workdir)
    if test is not None:
        print(f"test ({len(test):,} examples): {_summary(script.algorithm, trained, test)}")
        if train.label is not None and train.label.ndim == 1 and train.x.ndim == 4:
            key, state = jax.random.key(4), trained.state(trained.seeds[0])
            samples = np.asarray(script.algorithm.sample(trained.config, state, key, SAMPLES))
            print(f"samples: {neighbours.neighbours(samples, train, test)}")
    print(f"pictures: {', '.join(str(path) for path in paths)}")
    print(f"in Python: import vaegan_jax; model = vaegan_jax.load({str(workdir)!r})")
    return trained


def _held_out(flags: Flags, config: Any, train: Any, split: str, asked_for: bool) -> Any:
    """A split that is not for training; None where it is empty, or missing and no flag asked for it.

    Raises:
        ValueError: damaged data, or data that the trained model could not be judged by.
    """
    from vaegan_jax import checks, data

    try:
        found = data.load(flags.dataset, split, data_dir=flags.data_dir)
    except data.NoSplit:
        if asked_for:
            raise
        return None
    if not len(found):
        if asked_for and not split.endswith("[:0]"):
            raise ValueError(
                f"split {split!r} of {found.name} is empty: give one with examples, or 'train[:0]' for none."
            )
        return None
    checks.held_out(config, train, found)
    return found


def _summary(algorithm: Any, trained: Any, test: Any) -> str:
    """`elbo -98.6 +- 0.2, ...`: means of algorithm.validate, and the deviation over seeds where there are several."""
    import numpy as np

    from vaegan_jax import fit

    each = [fit.validate(algorithm, trained.config, trained.state(seed), test) for seed in trained.seeds]
    parts = []
    for name in each[0]:
        values = np.array([values[name] for values in each])
        spread = f" +- {values.std(ddof=1):.2g} over {len(values)} seeds" if len(values) > 1 else ""
        parts.append(f"{name} {values.mean():.5g}{spread}")
    return ", ".join(parts)
