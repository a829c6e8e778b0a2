"""Tables of committed pages are written from result files, between two comments; no number in them is typed by hand."""

import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
BENCH = Path(__file__).resolve().parent / "bench" / "REPORT.md"


def put(module: str, body: str, *, check: bool, path: Path = README) -> int:
    """Writes `body` between the marks of `module`; with check, only says whether it is there: 0, or 1 and a sentence.

    Raises:
        ValueError: a page without the marks.
    """
    begin, end = f"<!-- written by python -m {module} -->", f"<!-- end of {module} -->"
    page = path.read_text()
    if begin not in page or end not in page:
        raise ValueError(f"{path} has no part of {module}: it begins with {begin} and ends with {end}.")
    new = page.partition(begin)[0] + f"{begin}\n\n{body.strip()}\n\n{end}" + page.partition(end)[2]
    if check and new != page:
        print(f"{path}: a part is not what the results say: run `python -m {module}`.", file=sys.stderr)
    if not check:
        path.write_text(new)
    return int(check and new != page)
