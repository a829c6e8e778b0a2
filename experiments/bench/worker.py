"""One contender in a process of its own: `python -m experiments.bench.worker TASK CONTENDER DATA SEED`.

Reads a number of steps a line, runs them, and answers {"seconds", "losses"} in JSON; at the end of its input, its
peak memory. The first answer comes unasked, after two steps: the seconds they took, mostly compilation, and those since
the start of the imports.
"""

import importlib
import json
import os
import sys
import time
import traceback
from typing import Any

from experiments.bench import machine


def main(task: str, contender: str, source: str, seed: int) -> int:
    # Libraries print where they like: answers go to a copy of stdout, everything else to the log on stderr.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(**answer: Any) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    from experiments.bench import tasks

    module, mode = tasks.CONTENDERS[contender]
    x = tasks.images(source)
    begin = time.perf_counter()
    try:
        advance = importlib.import_module(module).build(task, mode, x, seed)
        say(compile=_first(advance), start=time.perf_counter() - begin)
        for line in sys.stdin:
            begin = time.perf_counter()
            losses = advance(int(line))
            say(seconds=time.perf_counter() - begin, losses=losses.tolist())
    except ImportError as error:
        say(missing=str(error))
    except Exception as error:  # reported by name in the table; the other contenders go on
        traceback.print_exc()
        say(failed=f"{type(error).__name__}: {error}")
    say(peak_mib=machine.own_peak_mib())
    return 0


def _first(advance: Any) -> float:
    begin = time.perf_counter()
    advance(2)  # the second is without what only the first one does
    return time.perf_counter() - begin


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
