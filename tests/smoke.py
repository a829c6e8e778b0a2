"""What the tests of reproduction targets share: a smoke run of some parts, its rows checked."""

from pathlib import Path
from typing import Any

from experiments.reproduce import __main__ as reproduce
from experiments.reproduce import results


def smoke(target: str, folder: Path, *parts: str) -> dict[str, dict[str, Any]]:
    """Runs the parts at the smoke budget in `folder`: rows by name, those of the other parts among them."""
    flags = ["--budget", "smoke", "--workdir", str(folder), "--quiet", "--parts", *parts]
    assert reproduce.main([target, *flags]) == 0
    rows = results.read(target, folder / "results")
    for row in rows:
        results.check(row)
    return {row["id"].partition(".")[2]: row for row in rows}


def pictures(target: str, folder: Path) -> set[str]:
    return {file.name for file in (folder / "results" / target).glob("*.png")}
