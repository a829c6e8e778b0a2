"""What devices say to each other in one training step, read from the program that XLA made."""

import math
import re
from collections import Counter
from typing import Any

Row = dict[str, Any]
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_COLLECTIVE = re.compile(rf"%\S+ = (.*?) ({'|'.join(KINDS)})(?:-start)?\(([^)]*)\)")
_TRIPS = re.compile(r" while\(.*known_trip_count\D+(\d+)")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|\w+_computations?)=\{?((?:%[\w.-]+(?:, )?)+)")


def collectives(text: str) -> list[Row]:
    """The collectives of one training step, from a chunk's optimised HLO; equal ones are one row.

    times: a step (a loop inside it counts as often as it turns); operands; values: the numbers in them; gradients:
    whether one has two axes longer than 1, as only a kernel's gradient has (statistics and biases have one).
    """
    bodies, current = dict[str, list[str]](), ""
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith((" ", "HloModule")):
            current = line.removeprefix("ENTRY ").split()[0].lstrip("%").split("(")[0]
            bodies[current] = []
        elif current:
            bodies[current].append(line)
    # The loop over steps has a traced bound; so has that over epochs' orders, where no step is.
    whiles = [line for line in text.splitlines() if " while(" in line and not _TRIPS.search(line)]
    loop_bodies = [name for line in whiles for name in re.findall(r"body=%([\w.-]+)", line)]
    steps = [name for name in loop_bodies if any("train_step" in line for line in bodies[name])]
    if len(steps) != 1:
        raise ValueError(f"The program has {len(steps)} loops over train_step: a chunk's has one.")
    found: Counter[tuple[str, int, int, bool]] = Counter()

    def collect(name: str, times: int) -> None:
        for line in bodies[name]:
            if match := _COLLECTIVE.search(line):
                shapes = [[int(n) for n in dims.split(",") if n] for dims in re.findall(r"\w\[([\d,]*)\]", match[1])]
                values, kernels = sum(map(math.prod, shapes)), any(sum(n > 1 for n in shape) > 1 for shape in shapes)
                found[match[2], match[3].count("%"), values, kernels] += times
            trips = _TRIPS.search(line)
            for called in (c for names in _CALLED.findall(line) for c in re.findall(r"%([\w.-]+)", names)):
                collect(called, times * (int(trips[1]) if trips else 1))

    collect(steps[0], 1)
    return [{"times": n, "kind": k, "operands": o, "values": v, "gradients": g} for (k, o, v, g), n in found.items()]
