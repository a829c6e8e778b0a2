"""What a run says: JSON lines (the truth), progress with time left, and TensorBoard or W&B when asked.

rich, tensorboardX and wandb are imported where they are used; nothing leaves the machine unless `wandb` is called.
Their writers open at the first line: before it, the workdir may turn out to be another run's.
"""

import contextlib
import functools
import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np

Writer = Callable[[int, Mapping[str, Any]], None]
PATIENCE = 5.0  # seconds that `steps` waits before it says a word
_silent = ContextVar("silent", default=False)  # where `steps` shows nothing: in `quiet`, and while a progress is shown


class JsonLines:
    """Appends one JSON object a line to a file, flushed each, so that a kill loses at most a line being written.

    Numbers are written so that they read back exactly: the shortest decimal of the float64 that equals the value (a
    float32 is one). JSON has no NaN and no infinity: they are written as null, and read back as None. Arrays and
    scalars of NumPy and JAX become lists and numbers, keys become strings. A torn last line, left by a kill, is removed
    when the file is opened. `with JsonLines(path) as log: log.write({"step": 1, ...})`.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        _drop_torn_line(path)
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  (closed by `close`)

    def write(self, record: Mapping[str, Any]) -> None:
        """Raises ValueError, before anything is written, for a value that JSON cannot hold."""
        self._file.write(_line(record))
        self._file.flush()

    def sync(self) -> None:
        """Until it returns, a power cut may take lines that were written."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: str | Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, in order; a torn last line is left out.

    Raises FileNotFoundError, and ValueError naming the line for damage anywhere else.
    """
    return [record for record, _ in _records(Path(path))]


def truncate(path: str | Path, step: int) -> None:
    """Drop the lines whose "step" is above `step`, and a torn last line: atomically, every other line byte for byte.

    Lines without a step stay. A file that does not exist is left so.
    """
    path = Path(path)
    if not path.exists():
        return
    kept = b"".join(line for record, line in _records(path) if record.get("step", step) <= step)
    if kept == path.read_bytes():
        return
    aside = path.with_name(path.name + ".aside")
    with open(aside, "wb") as file:
        file.write(kept)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _records(path: Path) -> list[tuple[dict[str, Any], bytes]]:
    """Every whole line with the object in it. A line is whole when its newline is there."""
    *lines, _torn = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("not an object")
        except ValueError as error:
            raise ValueError(f"{path}, line {number}, is not a JSON object: repair or remove that line.") from error
        records.append((record, line + b"\n"))
    return records


def _drop_torn_line(path: Path) -> None:
    if not path.exists():
        return
    with open(path, "rb+") as file:
        content = file.read()
        if not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps({str(key): _plain(value, str(key)) for key, value in record.items()}, allow_nan=False) + "\n"


def _plain(value: Any, name: str) -> Any:
    """`value` in JSON's own types; NaN and infinities become None."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(v, f"{name}.{key}") for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, name) for v in value]
    if isinstance(value, Path):
        return str(value)
    try:
        array = np.asarray(value)
    except Exception as error:  # whatever an unknown object's conversion raises
        raise ValueError(f"The value of {name} is a {type(value).__name__}: JSON has no such thing.") from error
    if array.dtype.kind not in "biuf" and "float" not in array.dtype.name:  # bfloat16's kind is V
        raise ValueError(f"The value of {name} is a {type(value).__name__}: JSON has no such thing.")
    return _plain((array if array.dtype.kind in "biu" else array.astype(np.float64)).tolist(), name)


def progress(
    total: int,
    *,
    initial: int = 0,
    description: str = "",
    stream: TextIO | None = None,
    every: float = 10.0,
    began: float | None = None,
) -> "Progress":
    """`with progress(20_000, initial=0) as bar: bar.update(step, {"elbo": ...})`: steps, rate, time left, metrics.

    In a terminal one live line (rich); elsewhere plain lines, the first update, the last (step >= total), and between
    them at most one in `every` seconds. `stream` is sys.stderr by default. A resumed run starts at step `initial`;
    `began` is when (time.monotonic), if the rate is to count from there rather than from the first update.
    """
    stream = sys.stderr if stream is None else stream
    terminal = bool(getattr(stream, "isatty", lambda: False)()) and os.environ.get("TERM") != "dumb"
    return (_Bar if terminal else Progress)(total, initial, description, stream, every, began)


def steps(total: int, description: str) -> Iterator[int]:
    """0, 1, ... total - 1 for a loop that may take long: `for i in steps(len(blocks), "kernel distance"): ...`.

    Once a step ends more than `PATIENCE` seconds after the first one began, with others left, `progress` is shown on
    stderr, time left included. Nothing is shown inside `quiet`, nor inside a loop or run that shows its progress.
    """
    began = mark = time.monotonic()
    initial = 0
    with contextlib.ExitStack() as held:
        shown: Progress | None = None
        for step in range(total):
            yield step
            now = time.monotonic()
            if shown is None and now - began > PATIENCE and step + 1 < total and not _silent.get():
                shown = held.enter_context(progress(total, initial=initial, description=description, began=mark))
            if shown is not None:
                shown.update(step + 1)
            elif step == 0:
                mark, initial = now, 1  # the first step is often compilation


@contextlib.contextmanager
def quiet(when: bool = True) -> Iterator[None]:
    """`with quiet():` no `steps` shows anything inside; `with quiet(not progress):` only where `when` is true."""
    before = _silent.get()
    _silent.set(before or when)
    try:
        yield
    finally:
        _silent.set(before)


class Progress:
    """Plain lines; see `progress`.

    The rate is that of the last 30 seconds, and counts from the first update on: what lies before it is mostly
    compilation.
    """

    window = 30.0  # seconds

    def __init__(
        self, total: int, initial: int, description: str, stream: TextIO, every: float, began: float | None
    ) -> None:
        self.total, self.initial, self.description, self.stream, self.every = total, initial, description, stream, every
        # (seconds, step): the window, and the mark just before it
        self._marks: deque[tuple[float, int]] = deque([] if began is None else [(began, initial)])
        self._shown = -math.inf
        self._pending = ""

    def __enter__(self) -> Self:
        self._before = _silent.get()
        _silent.set(True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show the last update if it was not, so that an interrupted run says how far it came."""
        _silent.set(self._before)
        if self._pending:
            self._print(self._pending)

    def update(self, step: int, metrics: Mapping[str, Any] | None = None) -> None:
        """`step` steps are done, those before `initial` included."""
        now = time.monotonic()
        self._mark(now, step)
        self._pending = self.line(step, metrics or {})
        if now - self._shown >= self.every or step >= self.total:
            self._shown = now
            self._print(self._pending)
            self._pending = ""

    @property
    def rate(self) -> float | None:
        """Steps a second, or None while there is nothing to measure."""
        if len(self._marks) < 2:
            return None
        (start, first), (end, last) = self._marks[0], self._marks[-1]
        return (last - first) / (end - start) if end > start and last > first else None

    def line(self, step: int, metrics: Mapping[str, Any]) -> str:
        """`step 2,000/20,000  elbo -104.31  kl 25.1  812 steps/s  22 s left`."""
        parts = [self.description] if self.description else []
        return "  ".join([*parts, self._count(step), *_pairs(metrics), *self._time(step)])

    def _count(self, step: int) -> str:
        return f"step {step:,}/{self.total:,}"

    def _time(self, step: int) -> list[str]:
        if self.rate is None:
            return []
        left = [f"{duration((self.total - step) / self.rate)} left"] if step < self.total else []
        return [_rate(self.rate), *left]

    def _mark(self, now: float, step: int) -> None:
        self._marks.append((now, step))
        while len(self._marks) > 2 and self._marks[1][0] < now - self.window:
            self._marks.popleft()

    def _print(self, text: str) -> None:
        print(text, file=self.stream, flush=True)


class _Bar(Progress):
    """One live line in a terminal."""

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            *([TextColumn(self.description, markup=False)] if self.description else []),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[text]}", markup=False),
            console=Console(file=self.stream),
            refresh_per_second=4,
        )
        # A bar of no steps is a full one.
        self._task = self._bar.add_task(
            "", total=self.total or 1, completed=self.initial if self.total else 1, text="compiling"
        )
        self._bar.start()
        return super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._marks:
            self._bar.update(self._task, text=self._count(self.initial))
        self._bar.stop()
        super().__exit__(kind, error, trace)

    def update(self, step: int, metrics: Mapping[str, Any] | None = None) -> None:
        self._mark(time.monotonic(), step)
        text = "  ".join([self._count(step), *self._time(step)])
        room = self._bar.console.width - len(self.description) - 19  # the bar and the gaps between columns
        for pair in _pairs(metrics or {}):  # as many as fit: the time left is what one looks for
            if len(text) + 2 + len(pair) > room:
                break
            text += "  " + pair
        self._bar.update(self._task, completed=step if self.total else 1, text=text)


def duration(seconds: float) -> str:
    """`22 s`, `3 min 20 s`, `1 h 05 min`, `2 d 3 h`."""
    if not math.isfinite(seconds):
        return "unknown time"
    whole = max(0, round(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{minutes} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{days} d {hours % 24} h"


def _rate(rate: float) -> str:
    return f"{rate:,.0f} steps/s" if rate >= 100 else f"{rate:.3g} steps/s" if rate >= 1 else f"{1 / rate:.3g} s/step"


def _pairs(metrics: Mapping[str, Any]) -> list[str]:
    """The first four scalars, in five digits."""
    pairs = []
    for name, value in list(metrics.items())[:4]:
        number = float(value)
        whole = number.is_integer() and abs(number) < 1e6
        pairs.append(f"{name} {number:.0f}" if whole else f"{name} {number:.5g}")
    return pairs


def tensorboard(workdir: str | Path) -> Writer:
    """A function (step, metrics) that writes scalars to `workdir`/tensorboard, made at the first line.

    Raises:
        ImportError: at once, with what to install.
    """
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise ImportError("TensorBoard logs need tensorboardX: pip install 'vaegan_jax[logging]'.") from error

    @functools.cache
    def writer() -> Any:
        return SummaryWriter(str(Path(workdir) / "tensorboard"))

    def write(step: int, metrics: Mapping[str, Any]) -> None:
        for name, value in metrics.items():
            writer().add_scalar(name, float(value), step)
        writer().flush()

    return write


def wandb(workdir: str | Path, **settings: Any) -> Writer:
    """A function (step, metrics) that logs to Weights & Biases; `settings` go to `wandb.init` (project, mode).

    The run begins at the first line.

    Raises:
        ImportError: at once, with what to install.
    """
    try:
        import wandb as library
    except ImportError as error:
        raise ImportError("Weights & Biases logs need wandb: pip install 'vaegan_jax[logging]'.") from error

    @functools.cache
    def run() -> Any:
        return library.init(dir=str(workdir), **settings)

    def write(step: int, metrics: Mapping[str, Any]) -> None:
        run().log({name: float(value) for name, value in metrics.items()}, step=step)

    return write
