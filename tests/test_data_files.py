"""Files of users: folder:, npz:, idx:, frey_faces. Right arrays from good files, one sentence from bad ones."""

import gzip
import io
import tarfile

import numpy as np
import pytest
import scipy.io
from PIL import Image

from vaegan_jax import data
from vaegan_jax.data import archives, idx


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)


def save(path, array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


# folder:PATH


def test_folder_is_read_in_sorted_order(tmp_path, pixels):
    for position in (2, 0, 1):
        save(tmp_path / f"{position}.png", pixels[position])
    (tmp_path / "notes.txt").write_text("not an image")
    dataset = data.load(f"folder:{tmp_path}")
    assert np.array_equal(dataset.x, pixels[:3])
    assert dataset.label is None


def test_folder_classes_and_splits(tmp_path, pixels):
    for position, place in enumerate(["train/b/0.png", "train/a/1.png", "train/a/0.png", "test/b/0.png"]):
        save(tmp_path / place, pixels[position])
    train, test = data.load(f"folder:{tmp_path}"), data.load(f"folder:{tmp_path}", "test")
    assert np.array_equal(train.x, pixels[[2, 1, 0]])
    assert train.label.tolist() == [0, 0, 1]
    assert test.label.tolist() == [1], "a label means the same class in every split"
    assert np.array_equal(test.x, pixels[3:4])


def test_folder_of_grey_images_has_one_channel_and_a_mixed_one_three(tmp_path, pixels):
    save(tmp_path / "0.png", pixels[0, ..., 0])
    assert np.array_equal(data.load(f"folder:{tmp_path}").x, pixels[:1, ..., :1])
    save(tmp_path / "1.png", pixels[1])
    mixed = data.load(f"folder:{tmp_path}").x
    assert np.array_equal(mixed[0], np.repeat(pixels[0, ..., :1], 3, -1))
    assert np.array_equal(mixed[1], pixels[1])


def test_folder_crop_and_resize_make_sizes_equal(tmp_path, pixels):
    save(tmp_path / "0.png", pixels[0])
    save(tmp_path / "1.png", np.full((40, 30, 3), 77, np.uint8))
    with pytest.raises(data.DataError, match=r"1\.png is 40x30x3, but 0\.png is 6x5x3.*@resize=64"):
        data.load(f"folder:{tmp_path}")
    dataset = data.load(f"folder:{tmp_path}@crop=4,resize=8x8")
    assert dataset.x.shape == (2, 8, 8, 3)
    assert (dataset.x[1] == 77).all()
    assert np.array_equal(data.load(f"folder:{tmp_path}@crop=4").x[0], pixels[0, 1:5, 0:4])


def test_folder_whose_name_holds_an_at_sign(tmp_path, pixels):
    save(tmp_path / "me@home" / "0.png", pixels[0])
    assert np.array_equal(data.load(f"folder:{tmp_path}/me@home").x, pixels[:1])


def test_folder_refusals(tmp_path, pixels):
    with pytest.raises(data.DataError, match=r"no image in .*expected files that end in \.png"):
        data.load(f"folder:{tmp_path}")
    with pytest.raises(data.DataError, match="gone is not a folder"):
        data.load(f"folder:{tmp_path}/gone")
    save(tmp_path / "a" / "0.png", pixels[0])
    with pytest.raises(data.DataError, match=r"has the split 'train'; got 'test'"):
        data.load(f"folder:{tmp_path}", "test")
    save(tmp_path / "loose.png", pixels[0])
    with pytest.raises(data.DataError, match="both images and sub-folders"):
        data.load(f"folder:{tmp_path}")


def test_folder_with_a_truncated_image(tmp_path, pixels):
    save(tmp_path / "0.png", pixels[0])
    good = (tmp_path / "0.png").read_bytes()
    (tmp_path / "1.png").write_bytes(good[: len(good) // 2])
    with pytest.raises(data.DataError, match=r"1\.png is a damaged image"):
        data.load(f"folder:{tmp_path}")
    (tmp_path / "1.png").write_bytes(b"not a picture")
    with pytest.raises(data.DataError, match=r"1\.png is not a readable image"):
        data.load(f"folder:{tmp_path}")


# npz:PATH


def test_npz_vectors_and_images(tmp_path, pixels):
    file = tmp_path / "a.npz"
    vectors = np.random.default_rng(1).normal(size=(12, 7))
    np.savez(file, x=vectors, label=np.arange(12))
    dataset = data.load(f"npz:{file}", "train[:10]")
    assert dataset.x.dtype == np.float32
    assert np.array_equal(dataset.x, vectors[:10].astype(np.float32))
    assert dataset.label.tolist() == list(range(10))
    np.savez_compressed(file, images=pixels)
    assert np.array_equal(data.load(f"npz:{file}").x, pixels)
    assert data.load(f"npz:{file}@crop=4,resize=2").x.shape == (12, 2, 2, 3)


def test_npz_with_splits(tmp_path, pixels):
    file = tmp_path / "a.npz"
    np.savez(file, x_train=pixels[:8], y_train=np.arange(8), x_test=pixels[8:], y_test=np.arange(4))
    assert np.array_equal(data.load(f"npz:{file}").x, pixels[:8])
    test = data.load(f"npz:{file}", "test")
    assert np.array_equal(test.x, pixels[8:])
    assert test.label.tolist() == [0, 1, 2, 3]
    with pytest.raises(
        data.DataError, match=r"has the splits 'train' and 'test'; got 'valid' \(its keys are \['x_train'"
    ):
        data.load(f"npz:{file}", "valid")


def test_npz_is_never_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.savez(tmp_path / "a.npz", x=np.array([Trap()], dtype=object))
    with pytest.raises(data.DataError, match=r"'x' holds Python objects, which are refused"):
        data.load(f"npz:{tmp_path}/a.npz")
    with open(tmp_path / "b.npz", "wb") as stream:
        np.save(stream, np.array([Trap()], dtype=object))
    with pytest.raises(data.DataError, match=r"b\.npz is a single array"):
        data.load(f"npz:{tmp_path}/b.npz")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": np.zeros((3, 8, 8), int)}, r"x is int64 \[3, 8, 8\], but images"),
        ({"x": np.zeros((0, 4))}, "is empty"),
        ({"x": np.zeros((3, 4)), "label": np.zeros(2, int)}, "one integer for each of the 3 examples"),
        ({"x": np.zeros((3, 4)), "label": np.array(["a", "b", "c"])}, "label is <U1"),
        ({"data": np.zeros((3, 4))}, r"has no array 'x': its keys are \['data'\]; expected 'x'"),
    ],
)
def test_npz_refusals(tmp_path, content, message):
    np.savez(tmp_path / "a.npz", **content)
    with pytest.raises(data.DataError, match=message) as caught:
        data.load(f"npz:{tmp_path}/a.npz")
    assert "\n" not in str(caught.value)


def test_npz_options_need_images(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 4)))
    with pytest.raises(data.DataError, match="crop and resize are for uint8 images; the set holds float32"):
        data.load(f"npz:{tmp_path}/a.npz@resize=4")


def test_npz_missing_truncated_or_flipped(tmp_path, pixels):
    file = tmp_path / "a.npz"
    with pytest.raises(data.DataError, match=r"a\.npz does not exist"):
        data.load(f"npz:{file}")
    np.savez(file, x=pixels)
    good = file.read_bytes()
    file.write_bytes(good[:-50])
    with pytest.raises(data.DataError, match=r"is not an npz file"):
        data.load(f"npz:{file}")
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    file.write_bytes(flipped)
    with pytest.raises(data.DataError, match="'x' cannot be read"):
        data.load(f"npz:{file}")


# idx:PATH


def idx_folder(folder, pixels, suffix="") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, rows in (("train", slice(0, 8)), ("t10k", slice(8, 12))):
        for kind, array in (
            ("images-idx3", pixels[rows, ..., 0]),
            ("labels-idx1", np.arange(12, dtype=np.uint8)[rows]),
        ):
            content = idx.encode(array)
            name = f"{prefix}-{kind}-ubyte{suffix}"
            (folder / name).write_bytes(gzip.compress(content) if suffix else content)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_folder(tmp_path, pixels, suffix):
    idx_folder(tmp_path, pixels, suffix)
    train, test = data.load(f"idx:{tmp_path}"), data.load(f"idx:{tmp_path}", "test")
    assert np.array_equal(train.x, pixels[:8, ..., :1])
    assert np.array_equal(test.x, pixels[8:, ..., :1])
    assert train.label.tolist() == list(range(8))
    assert test.label.tolist() == [8, 9, 10, 11]


def test_idx_single_file(tmp_path, pixels):
    (tmp_path / "images").write_bytes(idx.encode(pixels[..., 0]))
    dataset = data.load(f"idx:{tmp_path}/images")
    assert np.array_equal(dataset.x, pixels[..., :1])
    assert dataset.label is None
    with pytest.raises(data.DataError, match="a single file, has the split 'train'; got 'test'"):
        data.load(f"idx:{tmp_path}/images", "test")


def test_idx_header_is_the_published_format():
    assert idx.encode(np.zeros((2, 3, 4), np.uint8))[:16].hex() == "00000803000000020000000300000004"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-1], "is truncated: 375 bytes, but shape .* needs 376"),
        (lambda b: b + b"x", "is too long"),
        (lambda b: b[:10], "10 bytes do not hold the header of 16"),
        (lambda b: b"", "starts with nothing"),
        (lambda b: b"\x89PNG" + b, "not an IDX file: it starts with 89504e47"),
        (lambda b: b"\0\0\x0d\x03" + b[4:], "IDX type 0x0d of rank 3; only unsigned bytes"),
        (lambda b: gzip.compress(b)[:-20], "damaged gzip"),
        (lambda b: gzip.compress(b)[:100] + b"\xff" * 20 + gzip.compress(b)[120:], "damaged gzip"),
    ],
)
def test_idx_damage(tmp_path, pixels, damage, message):
    (tmp_path / "images").write_bytes(damage(idx.encode(pixels[..., 0])))
    with pytest.raises(data.DataError, match=message) as caught:
        data.load(f"idx:{tmp_path}/images")
    assert "\n" not in str(caught.value)
    assert "images" in str(caught.value)


def test_idx_refusals(tmp_path, pixels):
    with pytest.raises(data.DataError, match="does not exist"):
        data.load(f"idx:{tmp_path}/gone")
    with pytest.raises(data.DataError, match=r"lacks train-images-idx3-ubyte and train-labels-idx1-ubyte"):
        data.load(f"idx:{tmp_path}")
    idx_folder(tmp_path, pixels)
    with pytest.raises(data.DataError, match="splits 'train' and 'test'; got 'valid'"):
        data.load(f"idx:{tmp_path}", "valid")
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx.encode(np.zeros(7, np.uint8)))
    with pytest.raises(data.DataError, match=r"\[8, 6, 5\] and labels \[7\] do not belong together"):
        data.load(f"idx:{tmp_path}")


# frey_faces


@pytest.fixture
def faces() -> np.ndarray:
    return np.random.default_rng(2).integers(8, 239, (1965, 28, 20, 1), dtype=np.uint8)


@pytest.mark.parametrize("as_folder", [False, True])
@pytest.mark.parametrize("suffix", ["npz", "mat"])
def test_frey_faces(tmp_path, faces, suffix, as_folder):
    file = tmp_path / ("frey_faces.npz" if suffix == "npz" else "frey_rawface.mat")
    if suffix == "npz":
        np.savez(file, images=faces)
    else:
        scipy.io.savemat(file, {"ff": faces.reshape(1965, 560).T})
    where = tmp_path if as_folder else file
    train, test = data.load("frey_faces", data_dir=where), data.load("frey_faces", "test", data_dir=where)
    order = np.random.default_rng(0).permutation(1965)
    assert np.array_equal(train.x, faces[order[:1600]])
    assert np.array_equal(test.x, faces[order[1600:]])
    assert train.label is None
    film = {frame.tobytes(): i for i, frame in enumerate(faces)}
    where = sorted(film[frame.tobytes()] for frame in test.x)
    assert where[0] < 20 and where[-1] > 1945 and np.diff(where).max() < 60  # from the whole of it


def test_frey_faces_refusals(tmp_path, faces):
    with pytest.raises(
        data.DataError, match=r"not shipped and not in .*put frey_faces\.npz or frey_rawface\.mat there"
    ):
        data.load("frey_faces", data_dir=tmp_path)
    with pytest.raises(data.DataError, match=r"gone\.mat does not exist"):
        data.load("frey_faces", data_dir=tmp_path / "gone.mat")
    with pytest.raises(data.DataError, match="splits 'train' and 'test'"):
        data.load("frey_faces", "all", data_dir=tmp_path)
    (tmp_path / "bad.mat").write_bytes(b"MATLAB 5.0" + b"\0" * 40)
    with pytest.raises(data.DataError, match=r"not a readable \.mat"):
        data.load("frey_faces", data_dir=tmp_path / "bad.mat")
    scipy.io.savemat(tmp_path / "other.mat", {"gg": np.zeros((560, 9))})
    with pytest.raises(data.DataError, match="does not hold 'ff'"):
        data.load("frey_faces", data_dir=tmp_path / "other.mat")
    np.savez(tmp_path / "float.npz", images=faces / 255)
    with pytest.raises(data.DataError, match=r"float64 .*Frey faces are uint8 \[1965, 28, 20, 1\]"):
        data.load("frey_faces", data_dir=tmp_path / "float.npz")
    np.savez(tmp_path / "key.npz", pictures=faces)
    with pytest.raises(data.DataError, match="lacks the key 'images'"):
        data.load("frey_faces", data_dir=tmp_path / "key.npz")


# archives


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    stream.seek(0)
    return stream


def link(name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


def test_archive_gives_the_wanted_members_only():
    stream = tar_of((tarfile.TarInfo("package/data/a"), b"one"), (tarfile.TarInfo("./b"), b"two"))
    assert archives.members(stream, ["a", "c"], "it") == {"a": b"one"}


@pytest.mark.parametrize(
    "evil",
    [
        tarfile.TarInfo("../evil"),
        tarfile.TarInfo("package/../../evil"),
        tarfile.TarInfo("/etc/evil"),
        tarfile.TarInfo("..\\evil"),
        link("evil", "/etc/passwd"),
        link("package/evil", "../../evil"),
    ],
    ids=lambda info: info.name,
)
def test_archive_that_points_outside_is_refused(evil, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = b"" if evil.issym() else b"evil"
    with pytest.raises(data.DataError, match="not safe to unpack"):
        archives.members(tar_of((evil, content), (tarfile.TarInfo("a"), b"one")), ["a"], "it")
    assert not list(tmp_path.iterdir())


def test_archive_limits_and_damage(monkeypatch):
    stream = tar_of((tarfile.TarInfo("a"), b"one" * 1000))
    broken = io.BytesIO(stream.getvalue()[:40])
    with pytest.raises(data.DataError, match="damaged archive"):
        archives.members(broken, ["a"], "it")
    monkeypatch.setattr(archives, "LARGEST", 100)
    with pytest.raises(data.DataError, match="claims 3000 bytes"):
        archives.members(stream, ["a"], "it")
