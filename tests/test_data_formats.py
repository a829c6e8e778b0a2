"""What could be taken for something else: float images, deep greys, foreign npz, spellings; preparing by TFDS."""

# ruff: noqa: F401, F811 (fixtures are imported)

import shlex
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image
from test_data_helpers import files, put_npm, world

from vaegan_jax import data
from vaegan_jax.data import __main__ as command
from vaegan_jax.data import cache, digits, prepared
from vaegan_jax.data.dataset import digest

# Float images


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_images_are_float32(dtype):
    x = np.linspace(0, 1, 2 * 4 * 4 * 3).reshape(2, 4, 4, 3).astype(dtype)
    dataset = data.Dataset(x)
    assert dataset.x.dtype == np.float32
    assert np.array_equal(dataset.x, x.astype(np.float32))
    assert dataset.sha256 == digest(x.astype(np.float32), None)
    assert data.Dataset(x[..., 0]).x.shape == (2, 4, 4, 1)


def test_float_images_come_from_npz(tmp_path):
    x = np.random.default_rng(0).uniform(size=(5, 4, 4, 1))
    np.savez(tmp_path / "a.npz", x=x)
    assert np.array_equal(data.load(f"npz:{tmp_path}/a.npz", "train[1:]").x, x[1:].astype(np.float32))
    with pytest.raises(data.DataError, match="crop and resize are for uint8 images; the set holds float32"):
        data.load(f"npz:{tmp_path}/a.npz@resize=2")


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (0, 255, r"values from 0 to 255, but float images lie in \[0, 1\]; scale them"),
        (-1, 1, "from -1 to 1"),
        (0, np.nan, "not finite"),
    ],
)
def test_float_images_of_another_range_are_refused(low, high, message):
    x = np.full((2, 4, 4, 1), low, np.float32)
    x[1, 3, 3] = high
    with pytest.raises(data.DataError, match=message):
        data.Dataset(x)
    if not np.isnan(high):
        assert data.Dataset(x.reshape(2, 16)).x.max() == high, "vectors have any range"


# Greys of more than 8 bits


def test_a_ramp_of_16_bits_keeps_its_whole_range(tmp_path):
    ramp = np.linspace(0, 65535, 256).reshape(16, 16).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "0.png")
    Image.fromarray(ramp).save(tmp_path / "1.tif")
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / "2.png")
    x = data.load(f"folder:{tmp_path}").x
    assert x.shape == (3, 16, 16, 1)
    assert (x == np.arange(256).reshape(16, 16, 1)).all()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "3.png")
    assert np.array_equal(data.load(f"folder:{tmp_path}").x[0], np.repeat(x[0], 3, axis=-1))


@pytest.mark.parametrize(("dtype", "mode"), [(np.int32, "I"), (np.float32, "F")])
def test_32_bits_are_refused_with_file_and_mode(tmp_path, dtype, mode):
    Image.fromarray(np.full((4, 4), 7, dtype)).save(tmp_path / "deep.tif")
    with pytest.raises(data.DataError, match=rf"deep\.tif has pixels of 32 bits \(mode {mode}\)"):
        data.load(f"folder:{tmp_path}")


# npz that is none


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"not a zip", b"\x80\x04\x95pickle"])
def test_what_is_no_npz_is_called_so_in_our_words(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(data.DataError, match=r"a\.npz is not an npz file \(damaged or truncated\)") as caught:
        data.load(f"npz:{tmp_path}/a.npz")
    assert "pickle" not in str(caught.value)


def test_other_files_named_npz(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{}], dtype=object))
    np.save(tmp_path / "b.npy", np.zeros(3))
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        archive.writestr("x", "text")
    for name, message in (
        ("a.npz", "'x' holds Python objects, which are refused"),
        ("b.npy", "is a single array, not an .npz"),
        ("c.npz", "'x' is not an array"),
        (".", "cannot be read: Is a directory"),
    ):
        with pytest.raises(data.DataError, match=message) as caught:
            data.load(f"npz:{tmp_path}/{name}")
        assert "allow_pickle" not in str(caught.value)


# Splits


def test_splits_take_underscores_in_numbers():
    assert np.array_equal(data.load("digits", "train[1_0:1_000]").x, data.load("digits", "train[10:1000]").x)
    assert len(data.load("digits", "train[-1_000:]")) == 1000
    for bad in ("train[_1:]", "train[1_:]", "train[1__0:]"):
        with pytest.raises(data.DataError, match="not understood"):
            data.load("digits", bad)


def test_all_is_refused_with_what_to_write(tmp_path):
    with pytest.raises(data.NoSplit, match=r"'train' and 'test'; got 'all' \(for all of it write 'train\+test'\)"):
        data.load("digits", "all")
    np.savez(tmp_path / "a.npz", x_all=np.zeros((3, 2)))
    assert len(data.load(f"npz:{tmp_path}/a.npz", "all")) == 3, "a user's own split of that name is one"


def test_the_splits_of_a_set(tmp_path, world):
    x = np.zeros((3, 2))
    np.savez(tmp_path / "a.npz", x_valid=x, x=x, x_test=x)
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "images" / "0.png")
    for name, expected in (
        ("digits", ("train", "test")),
        ("mnist", ("train", "test")),
        ("ring", ("train", "test")),
        (f"npz:{tmp_path}/a.npz", ("train", "test", "valid")),
        (f"folder:{tmp_path}/images", ("train",)),
    ):
        assert data.splits_of(name) == expected
        with pytest.raises(data.NoSplit) as caught:
            data.load(name, "tset")
        assert caught.value.splits == expected


def test_damage_is_not_taken_for_a_missing_split(monkeypatch):
    monkeypatch.setattr(digits, "MD5", "0" * 32)
    with pytest.raises(data.DataError) as caught:
        data.load("digits", "test")
    assert not isinstance(caught.value, data.NoSplit)


# Preparing by TFDS


@pytest.fixture
def tensorflow(tmp_path, monkeypatch):
    """A TensorFlow that can be found, and nothing more."""
    (tmp_path / "site" / "tensorflow").mkdir(parents=True)
    (tmp_path / "site" / "tensorflow" / "__init__.py").write_text("raise ImportError('not to be imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


@pytest.mark.parametrize("name", ["places365_small", "celeb_a", "lsun/bedroom", "celeb_a:2.1.0"])
def test_without_tensorflow_the_error_has_a_line_that_runs(world, name, capsys):
    assert command.main([f"{name}@crop=8"]) == 1
    said = capsys.readouterr().err
    assert "pip install tensorflow" in said and "..." not in said
    python, flag, code = shlex.split(said[said.index("python -c") :])
    assert (python, flag) == ("python", "-c")
    stub = "import sys, types\nclass B:\n def __init__(s, *a, **k): print((a, k))\n def download_and_prepare(s): pass\n"
    stub += "sys.modules['tensorflow_datasets'] = types.SimpleNamespace(builder=B)\n"
    done = subprocess.run([sys.executable, "-c", stub + code], capture_output=True, text=True, check=True)
    place = str(cache.root() / "tfds")
    assert done.stdout.strip() == str(((name,), {"data_dir": place, "file_format": "array_record"}))


def test_with_tensorflow_the_command_prepares_a_set(world, tensorflow, monkeypatch, capsys):
    import tensorflow_datasets as tfds
    from test_data_cache import prepare_pictures

    asked = []

    class Builder:
        def __init__(self, name, **options):
            asked.append((name, options))

        def download_and_prepare(self):
            prepare_pictures(cache.root() / "tfds", [(4, 4, 3)] * 3)

    monkeypatch.setattr(tfds, "builder", Builder)
    for _ in range(2):
        assert command.main(["faces@crop=2"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.partition(": ")[0] for line in lines] == ["faces@crop=2 train", "faces@crop=2 validation"]
        assert "uint8[3, 2, 2, 3]" in lines[0]
    assert asked == [("faces", {"data_dir": str(cache.root() / "tfds"), "file_format": "array_record"})]


def test_tfds_that_fails_or_lacks_the_set_is_one_sentence(world, tensorflow, monkeypatch, capsys):
    import tensorflow_datasets as tfds

    def no_network(*_, **__):
        raise ConnectionError("no\nroute")

    def unknown(*_, **__):
        raise tfds.core.DatasetNotFoundError("mnits")

    monkeypatch.setattr(tfds, "builder", no_network)
    assert command.main(["faces"]) == 1
    said = capsys.readouterr().err
    assert "TFDS could not prepare 'faces' in" in said and "ConnectionError: no route" in said
    monkeypatch.setattr(tfds, "builder", unknown)
    assert command.main(["mnits"]) == 1
    assert "Did you mean 'mnist'?" in capsys.readouterr().err


def test_names_that_no_set_of_tfds_has_are_not_offered(world, tensorflow, monkeypatch, capsys):
    monkeypatch.setattr(prepared, "make", lambda *_: pytest.fail("not to be prepared"))
    for name in ("../secret", "a b", "x;y"):
        assert command.main([name]) == 1
        said = capsys.readouterr().err
        assert "Unknown data set" in said and "python -c" not in said


def test_the_command_reports_the_splits_that_exist(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)))
    assert command.main([f"npz:{tmp_path}/a.npz"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"npz:{tmp_path}/a.npz train: float32[3, 2]")
