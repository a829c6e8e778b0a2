"""`load`, `Dataset`, splits and the embedded set; users' files: test_data_files, routes: test_data_routes."""

import subprocess
import sys

import numpy as np
import pytest

from vaegan_jax import data
from vaegan_jax.data import digits, images, splits
from vaegan_jax.data.dataset import digest


def test_digits_are_scikit_learns_scaled_to_bytes():
    from sklearn.datasets import load_digits

    raw = load_digits()
    test = np.arange(1797) % 7 == 6
    for split, rows in (("train", ~test), ("test", test)):
        dataset = data.load("digits", split)
        assert dataset.x.dtype == np.uint8
        assert dataset.label.dtype == np.int32
        assert np.array_equal(dataset.x[..., 0], np.round(raw.images[rows] * 255 / 16))
        assert np.array_equal(dataset.label, raw.target[rows])
    assert (len(data.load("digits")), len(data.load("digits", "test"))) == (1541, 256)


def test_digits_train_and_test_share_no_example_and_repeat_none():
    train, test = ({row.tobytes() for row in data.load("digits", s).x} for s in ("train", "test"))
    assert len(train) == 1541
    assert len(test) == 256
    assert not train & test


def test_every_class_of_digits_is_in_both_splits():
    for split, least in (("train", 100), ("test", 15)):
        assert np.bincount(data.load("digits", split).label).min() >= least


def test_digits_refuses_another_file(monkeypatch):
    monkeypatch.setattr(digits, "MD5", "0" * 32)
    with pytest.raises(data.DataError, match=r"digits\.csv from scikit-learn has MD5 a0339c.*expected 0000"):
        data.load("digits")


@pytest.mark.parametrize(
    ("split", "first", "last"),
    [
        ("train", 0, 1541),
        ("train[:50]", 0, 50),
        ("train[50:]", 50, 1541),
        ("train[-41:]", 1500, 1541),
        ("train[:-41]", 0, 1500),
        ("train[10%:]", 154, 1541),
        ("train[:50%]", 0, 770),  # 770.5 rounds to even, as in TFDS
        ("train[-10%:]", 1387, 1541),
        ("train[20:30]", 20, 30),
        (" train[20:30] ", 20, 30),
        ("train[:99999]", 0, 1541),  # beyond the end: clips
        ("train[1500:99999]", 1500, 1541),
        ("train[-99999:20]", 0, 20),
    ],
)
def test_slices(split, first, last):
    whole, part = data.load("digits"), data.load("digits", split)
    assert np.array_equal(part.x, whole.x[first:last])
    assert np.array_equal(part.label, whole.label[first:last])
    assert part.split == split
    assert len(part) == last - first


@pytest.mark.parametrize(
    "split", ["train[:50%]", "train[10%:]", "train[-10%:]", "train[33%:66%]", "train[:-7]", "train"]
)
@pytest.mark.parametrize("total", [100, 1541, 60000])
def test_slices_agree_with_tfds(split, total):
    import tensorflow_datasets as tfds

    info = tfds.core.SplitInfo(name="train", shard_lengths=[total], num_bytes=0, filename_template=None)
    (instruction,) = tfds.core.ReadInstruction.from_spec(split).to_absolute({"train": info})
    expected = (instruction.from_ or 0, total if instruction.to is None else instruction.to)
    assert splits.bounds(splits.parse(split)[0], total, "x") == expected


@pytest.mark.parametrize("split", ["train[:0]", "train[10:10]", "train[:0%]", "train[99999:]", "test[:-99999]"])
def test_a_slice_may_be_empty(split):
    dataset = data.load("digits", split)
    assert (len(dataset), dataset.x.shape, dataset.x.dtype) == (0, (0, 8, 8, 1), np.uint8)
    assert (dataset.label.shape, dataset.label.dtype) == ((0,), np.int32)
    assert dataset.sha256 == digest(np.zeros((0, 8, 8, 1), np.uint8), np.zeros(0, np.int32))


def test_an_empty_part_adds_nothing():
    assert data.load("digits", "test[:0]+train[:5]").sha256 == data.load("digits", "train[:5]").sha256


def test_complementary_slices_are_the_whole():
    first, rest = data.load("digits", "train[:1000]"), data.load("digits", "train[1000:]")
    whole = data.load("digits")
    assert np.array_equal(np.concatenate([first.x, rest.x]), whole.x)
    assert not {row.tobytes() for row in first.x} & {row.tobytes() for row in rest.x}


def test_sum_of_splits_is_their_concatenation():
    both = data.load("digits", "test+train[:3]")
    train, test = data.load("digits"), data.load("digits", "test")
    assert np.array_equal(both.x, np.concatenate([test.x, train.x[:3]]))
    assert np.array_equal(both.label, np.concatenate([test.label, train.label[:3]]))


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("validation", "digits has the splits 'train' and 'test'; got 'validation'"),
        ("", "split '' is not understood"),
        ("train[", "not understood; expected a name with an optional slice"),
        ("train[5]", "not understood"),
        ("train[1.5:]", "not understood"),
        ("train[::2]", "not understood"),
        ("train+", "not understood"),
        ("train test", "not understood"),
        ("train[101%:]", "'101%' of digits is outside of -100%..100%"),
        ("train[20:10]", r"'train\[20:10\]' of digits runs backwards: it is 20:10 of 1541 examples"),
        ("train[99999:10]", "runs backwards: it is 1541:10"),
    ],
)
def test_nonsense_splits_get_one_sentence(split, message):
    with pytest.raises(data.DataError, match=message) as caught:
        data.load("digits", split)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", "Unknown data set 'mnits'. Did you mean 'mnist'\\?"),
        ("digit", "Did you mean 'digits'\\?"),
        ("fashionmnist", "Did you mean 'fashion_mnist'\\?"),
        ("floder:/x", "Did you mean 'folder:'\\?"),
        ("../secret", "Unknown data set"),
        ("digits@size=4", "option 'size=4' is not crop=N"),
        ("digits@resise=4", "Did you mean 'resize'\\?"),
        ("digits@resize=0", "option 'resize=0' is not"),
        ("digits@resize=4,resize=5", "once each"),
        ("digits@crop=9", "image 0 is 8x8, smaller than the crop of 9x9"),
        ("celeb_a", "is a TFDS set, and no prepared one is in .*file_format=.array_record."),
        ("npz:", "'npz:' lacks a path"),
        ("", "name is ''; expected one of digits, mnist"),
        (None, "name is None; expected"),
    ],
)
def test_unknown_names_get_one_sentence(name, message, tmp_path):
    with pytest.raises(data.DataError, match=message) as caught:
        data.load(name, data_dir=tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir()), "a refusal leaves nothing behind"


def test_names_lists_what_load_knows():
    assert {"digits", "mnist", "fashion_mnist", "frey_faces", "celeb_a", "folder:PATH", "npz:PATH"} <= set(data.names())


def test_options_crop_the_centre_and_resize_with_antialiasing():
    whole = data.load("digits", "test").x
    assert np.array_equal(data.load("digits@crop=4", "test").x, whole[:, 2:6, 2:6])
    assert np.array_equal(data.load("digits@crop=8x4", "test").x, whole[:, :, 2:6])
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
    _, options = images.parse("x@resize=16")
    small = options.apply(board, "board").astype(float)
    assert small.shape == (16, 16, 1)
    assert np.abs(small - 127.5).max() < 8  # without antialiasing it is 0 or 255


def test_resize_trims_rather_than_stretches():
    image = np.zeros((10, 20, 3), np.uint8)
    image[:, 5:15] = 200  # the central square
    _, options = images.parse("x@resize=5")
    assert np.array_equal(options.apply(image, "it"), np.full((5, 5, 3), 200, np.uint8))


def test_digest_depends_on_bytes_shapes_dtypes_and_labels():
    x = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    label = np.zeros(1, np.int32)
    one = data.Dataset(x, label)
    assert one.sha256 == digest(x, label) == data.Dataset(x.copy(), label.copy(), "other", "test").sha256
    changed = x.copy()
    changed[0, 0, 0, 0] = 1
    others = [(changed, label), (x.reshape(1, 2, 8, 1), label), (x, label + 1), (x, None)]
    assert len({one.sha256, *(data.Dataset(a, b).sha256 for a, b in others)}) == 5


def test_a_slice_has_the_digest_of_its_content():
    part, whole = data.load("digits", "train[:10]"), data.load("digits")
    assert part.sha256 == digest(whole.x[:10], whole.label[:10]) != whole.sha256


def test_dataset_is_read_only_and_leaves_the_callers_array_alone():
    x = np.zeros((2, 3), np.float32)
    dataset = data.Dataset(x)
    with pytest.raises(ValueError, match="read-only"):
        dataset.x[0, 0] = 1
    x[0, 0] = 1  # still allowed
    with pytest.raises(AttributeError):
        dataset.split = "test"  # type: ignore[misc]


def test_dataset_brings_arrays_into_form():
    assert data.Dataset(np.zeros((2, 5, 6), np.uint8)).x.shape == (2, 5, 6, 1)
    vectors = data.Dataset(np.ones((2, 3)), np.array([1, 2], np.int64))
    assert vectors.x.dtype == np.float32
    assert vectors.label.dtype == np.int32


@pytest.mark.parametrize(
    ("x", "label", "message"),
    [
        (np.zeros((2, 0, 8, 1), np.uint8), None, r"x is uint8 \[2, 0, 8, 1\]"),
        (np.zeros((2, 8, 8, 1), np.int32), None, r"x is int32 \[2, 8, 8, 1\], but images .*convert x"),
        (np.zeros((2, 8, 8, 4), np.uint8), None, "with C = 1 or 3"),
        (np.zeros((2, 8), np.int64), None, "x is int64"),
        (np.zeros((2, 0), np.float32), None, r"x is float32 \[2, 0\]"),
        (np.float32(1), None, r"x is float32 \[\]"),
        (np.array([[1, np.nan]]), None, "not finite"),
        (np.array([[1e300]]), None, "not finite as float32"),
        (np.zeros((2, 3)), np.zeros(3, np.int32), r"label is int32 \[3\], but one integer for each of the 2 examples"),
        (np.zeros((2, 3)), np.zeros(2), "label is float64"),
        (np.zeros((2, 3)), np.array([0, 2**40]), "do not fit in int32"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_dataset_refuses_other_arrays(x, label, message):
    with pytest.raises(data.DataError, match=message):
        data.Dataset(x, label)


def test_importing_and_loading_are_light():
    """Beyond what `import vaegan_jax` brings, neither the import nor a load of arrays needs a large package."""
    code = (
        "import sys, vaegan_jax; before = set(sys.modules); from vaegan_jax import data; data.load('digits');"
        "heavy = {'jax', 'tensorflow_datasets', 'tensorflow', 'sklearn', 'scipy', 'PIL', 'torch', 'array_record'};"
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
