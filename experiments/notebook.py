"""Runs a notebook of experiments/notebooks from top to bottom and keeps what it shows.

python -m experiments.notebook article
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "notebooks"
INSTALL = "pip install -e '.[notebook]'"


def main(argv: Sequence[str] | None = None) -> int:
    names = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    parser = argparse.ArgumentParser(prog="python -m experiments.notebook", description=__doc__)
    parser.add_argument("name", choices=names)
    path = FOLDER / f"{parser.parse_args(argv).name}.ipynb"
    try:
        import nbformat
        from jupyter_client.kernelspec import NoSuchKernel
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, DeadKernelError
    except ImportError:
        print(f"experiments.notebook: nbclient is not installed: {INSTALL}", file=sys.stderr)
        return 1
    notebook: Any = nbformat.read(path, as_version=4)
    try:
        NotebookClient(notebook, timeout=None, record_timing=False).execute()
    except NoSuchKernel:
        print(f"experiments.notebook: ipykernel is not installed: {INSTALL}", file=sys.stderr)
        return 1
    except (CellExecutionError, DeadKernelError) as error:
        print(f"experiments.notebook: {path} is as it was, for a cell stopped:\n{error}", file=sys.stderr)
        return 1
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop("image/jpeg", None)  # Pillow shows each picture twice, and PNG is exact
    nbformat.write(notebook, path)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
