"""A small stand-in for MNIST and fixtures for the tests of routes and cache; no tests here.

The stand-in takes MNIST's place in `SOURCES`; the package clients are scripts on a PATH of our own, the official source
is a server on this machine.
"""

import gzip
import hashlib
import http.server
import io
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from vaegan_jax import data
from vaegan_jax.data import cache, fetch, idx, sources


def make_files() -> dict[str, bytes]:
    """The four decompressed IDX files of the stand-in: 20 + 6 images of 4 x 4."""
    rng = np.random.default_rng(0)
    files = {}
    for split, n in (("train", 20), ("test", 6)):
        x, y = sources.FILES[split]
        files[x] = idx.encode(rng.integers(0, 256, (n, 4, 4), dtype=np.uint8))
        files[y] = idx.encode(rng.integers(0, 10, n, dtype=np.uint8))
    return files


def stand_in(files: dict[str, bytes], official: str = "http://127.0.0.1:9/", client: str = "npm") -> sources.Source:
    return sources.Source(
        title="MNIST",
        official=official,  # port 9: refused at once
        mirror=(client, "stand-in"),
        md5={name: hashlib.md5(content).hexdigest() for name, content in files.items()},
        members={s: idx.members_digest(*idx.split_arrays(files, s, "stand-in")) for s in sources.FILES},
    )


@pytest.fixture
def files() -> dict[str, bytes]:
    return make_files()


@pytest.fixture
def world(tmp_path, monkeypatch, files):
    """A cache, a TFDS place and a PATH that are empty, and the stand-in for MNIST."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("VAEGAN_JAX_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(
        fetch.shutil, "which", lambda c: str(tmp_path / "bin" / c) if (tmp_path / "bin" / c).exists() else None
    )
    monkeypatch.setitem(sources.SOURCES, "mnist", stand_in(files))
    return tmp_path


def tar_of(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/data/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def put_client(world: Path, name: str, script: str) -> None:
    path = world / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def put_npm(world: Path, files: dict[str, bytes], seconds: float = 0) -> None:
    """An npm that leaves the package in the current folder, and a line in `calls`."""
    (world / "package.tgz").write_bytes(tar_of(files))
    put_client(world, "npm", f"echo $@ >> {world}/calls; sleep {seconds}; cp {world}/package.tgz stand-in-1.tgz")


def put_folder(folder: Path, files: dict[str, bytes], zipped: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}{'.gz' * zipped}").write_bytes(gzip.compress(content) if zipped else content)


@pytest.fixture
def serve():
    """serve(files) -> the address of a server that has them, as .gz."""
    servers = []

    def start(files: dict[str, bytes]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                content = files.get(self.path.strip("/").removesuffix(".gz"))
                self.send_response(404 if content is None else 200)
                self.end_headers()
                self.wfile.write(b"" if content is None else gzip.compress(content))

            def log_message(self, *_):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def expect(files: dict[str, bytes], split: str = "train"):
    return idx.split_arrays(files, split, "expected")


def assert_right(dataset: data.Dataset, files: dict[str, bytes], split: str = "train") -> None:
    x, label = expect(files, split)
    assert np.array_equal(dataset.x, x)
    assert np.array_equal(dataset.label, label)


def origin(split: str = "train") -> str:
    kept = cache.read(cache.path(cache.root(), "mnist", split), "mnist", split)
    assert kept is not None
    return kept[1]
