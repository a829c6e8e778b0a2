"""Published numbers and claims, each with the rule by which agreement is judged: written before the run it judges."""

import dataclasses
import functools
import hashlib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

FILE = Path(__file__).resolve().parents[1] / "published.toml"
STATUS = {
    "C": "in the paper's text, tables, figures or released code",
    "C2": "quoted by a second paper",
    "M": "unconfirmed, from memory",
    "V": "computed by us on the real data, no paper's number",
}
KINDS = ("within", "mean_at_most", "at_least", "at_most", "above", "below")
RANGE = "half of a range"  # error_is of a published range, which is shown as one
LEVEL = 0.95  # of the intervals of `above` and `below`
_JUDGING = ("metric", "dataset", "splits", "value", "error", "steps", "rule", "not_comparable")


@dataclasses.dataclass(frozen=True)
class Rule:
    """When ours agrees; `mean` is over training seeds, in the metric's unit.

    within: |mean - published value| <= bound. mean_at_most: mean <= bound, where less is better.
    at_least, at_most: every seed's value on that side of the bound.
    above, below: the 95 % t-interval of the mean over seeds lies on that side of the bound (three seeds or more).
    """

    kind: str
    bound: float
    because: str

    def holds(self, values: Sequence[float], value: float | None) -> bool:
        """Whether the values [n], one a seed, agree with the published one. NaN agrees with nothing."""
        v = np.asarray(values, np.float64)
        if v.size == 0 or not np.isfinite(v).all():
            return False
        if self.kind == "within":
            return value is not None and bool(abs(v.mean() - value) <= self.bound)
        if self.kind == "mean_at_most":
            return bool(v.mean() <= self.bound)
        if self.kind == "at_least":
            return bool((v >= self.bound).all())
        if self.kind == "at_most":
            return bool((v <= self.bound).all())
        if v.size < 3:
            return False
        half = student.ppf(0.5 + LEVEL / 2, v.size - 1) * v.std(ddof=1) / math.sqrt(v.size)
        return bool(v.mean() - half > self.bound if self.kind == "above" else v.mean() + half < self.bound)

    def opposite(self) -> "Rule | None":
        """The rule of the contrary claim, where both are of an interval: what holds for neither is undecided."""
        other = {"above": "below", "below": "above"}.get(self.kind)
        return dataclasses.replace(self, kind=other) if other else None

    def short(self) -> str:
        """Of a claim, in a table's cell."""
        bound = f"{self.bound:g}"
        return {
            "mean_at_most": f"mean <= {bound}", "at_least": f"each >= {bound}",
            "at_most": f"each <= {bound}", "above": f"> {bound}", "below": f"< {bound}",
        }[self.kind]  # fmt: skip

    def text(self) -> str:
        bound = f"{self.bound:g}"
        return {
            "within": f"mean within {bound} of it",
            "mean_at_most": f"mean at {bound} or below",
            "at_least": f"every seed at {bound} or above",
            "at_most": f"every seed at {bound} or below",
            "above": f"95 % interval of the mean above {bound}",
            "below": f"95 % interval of the mean below {bound}",
        }[self.kind]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One published number or claim. `value` is None for a claim; `steps` is the published schedule in our steps."""

    target: str
    name: str
    paper: str
    item: str
    dataset: str
    metric: str
    protocol: str
    splits: str
    rule: Rule | None
    value: float | None = None
    error: float | None = None
    error_is: str = ""
    status: str = ""
    steps: int | None = None
    early: str = ""
    """Why agreement before the schedule's end says nothing, where a model that has hardly learned agrees too.

    May be added after a run: it takes agreement away and gives none.
    """
    not_comparable: str = ""
    not_run: str = ""
    """Why nobody ran it, where nobody did; "data" may stand beside a rule, for who has the data."""
    sha256: str = ""
    """Of what judges, so not of the texts."""

    def verdict(self, values: Sequence[float], steps: int, *, flat: bool = False, failed: int = 0) -> str:
        """`flat`: a validation curve says that more steps would change nothing. A failed seed agrees with nothing."""
        if self.not_comparable:
            return f"not comparable: {self.not_comparable}"
        if self.rule is None:
            raise ValueError(f"{self.target}.{self.name} has neither a rule nor not_comparable.")
        short = self.steps is not None and steps < self.steps and not flat
        if not failed and self.rule.holds(values, self.value) and not (short and self.early):
            return "claim holds" if self.value is None else "reproduced"
        return self._too_small(steps) if short else "not reproduced"

    def with_early(self, verdict: str, steps: int) -> str:
        """A verdict of before the entry had its `early`, by it; whether a curve was flat is not asked again."""
        agreed = verdict in ("claim holds", "reproduced")
        return self._too_small(steps) if agreed and self.early and steps < (self.steps or 0) else verdict

    def _too_small(self, steps: int) -> str:
        return f"budget too small: {steps:,} of {self.steps:,} steps"


@functools.cache
def entries(path: Path = FILE) -> dict[str, dict[str, Entry]]:
    """target -> name -> Entry, in the file's order.

    Raises:
        ValueError: an entry that no verdict could be given by.
    """
    return read(path.read_text())


def read(text: str) -> dict[str, dict[str, Entry]]:
    """The same from TOML text, such as that of an earlier commit."""
    return {
        target: {name: _entry(target, name, raw) for name, raw in table.items() if isinstance(raw, dict)}
        for target, table in tomllib.loads(text).items()
    }


def headline(target: str, path: Path = FILE) -> str:
    """The name of the entry that stands for the target in the README."""
    return str(tomllib.loads(path.read_text())[target]["headline"])


def _entry(target: str, name: str, raw: Mapping[str, Any]) -> Entry:
    fields = {f.name for f in dataclasses.fields(Entry)} - {"target", "name", "sha256"}
    where = f"published.toml, [{target}.{name}]"
    if unknown := set(raw) - fields:
        raise ValueError(f"{where} has {', '.join(sorted(unknown))}: the fields are {', '.join(sorted(fields))}.")
    given = dict(raw)
    rule = given.pop("rule", None)
    needed = ("paper", "item", "dataset", "metric", "protocol", "splits")
    if missing := [name for name in needed if name not in raw]:
        raise ValueError(f"{where} lacks {', '.join(missing)}.")
    if rule is not None:
        if set(rule) != {"kind", "bound", "because"}:
            raise ValueError(f"{where}: rule has {', '.join(rule)}; kind, bound and because are expected.")
        rule = Rule(**rule)
        if rule.kind not in KINDS:
            raise ValueError(f"{where}: rule is {rule.kind!r}, one of {', '.join(KINDS)} is expected.")
        if (rule.kind == "within") and given.get("value") is None:
            raise ValueError(f"{where}: 'within' needs a published value.")
    elif not given.get("not_comparable") and not given.get("not_run"):
        raise ValueError(f"{where} has no rule: give one, or not_comparable, or not_run.")
    if given.get("early") and (rule is None or given.get("steps") is None):
        raise ValueError(f"{where} has early: give the rule and the steps before whose end it says nothing.")
    if (given.get("value") is not None or given.get("status")) and given.get("status") not in STATUS:
        raise ValueError(f"{where}: status is {given.get('status')!r}, one of {', '.join(STATUS)} is expected.")
    judging = {k: raw[k] for k in _JUDGING if k in raw}  # early may come later: it takes agreement away, never gives it
    digest = hashlib.sha256(json.dumps(judging, sort_keys=True).encode()).hexdigest()
    return Entry(target, name, rule=rule, sha256=digest, **given)
