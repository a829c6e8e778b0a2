"""results/<device>.json: what was measured, and of which run each part is.

{"device", "threads", "runs": [{"of": [task, "wholes" or "accelerator"], "date", "versions", "repeats", "source",
"gemm_gflops", "quiet", "unrest"}], "tasks", "wholes", "accelerator"}; the last run comes first.
"""

import json
from pathlib import Path
from typing import Any

from experiments.bench.tasks import TASKS

Row = dict[str, Any]


class Record:
    """The file of a device, written after every part: what was measured stays if a run is broken off.

    Parts that this run does not measure stay as they were, with the run that they are of.
    """

    def __init__(self, file: Path, device: str, threads: int, **run: Any) -> None:
        before = json.loads(file.read_text()) if file.exists() else {}
        self.result: Row = {"runs": [], "tasks": {}, "wholes": [], "accelerator": []} | before
        self.result |= {"device": device, "threads": threads}
        self._file, self._older, self._run = file, self.result["runs"], {"of": [], **run}
        file.parent.mkdir(parents=True, exist_ok=True)

    def keep(self, part: str, rows: Any, **machine: Any) -> None:
        """rows: of a task, or a list of them. machine: gemm_gflops, quiet and unrest, as far as the run has seen."""
        self._run |= machine | {"of": [*self._run["of"], part]}
        older = [run | {"of": [name for name in run["of"] if name != part]} for run in self._older]
        self._older = [run for run in older if run["of"]]
        self.result["runs"] = [self._run, *self._older]
        if part in TASKS:
            tasks = self.result["tasks"] | {part: rows}
            self.result["tasks"] = {name: tasks[name] for name in TASKS if name in tasks}
        else:
            self.result[part] = rows
        self._file.write_text(json.dumps(self.result, indent=1, allow_nan=False) + "\n")
