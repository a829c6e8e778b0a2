"""`python -m vaegan_jax.data mnist fashion_mnist`: fetch ahead of time, one line for each thing in place.

An image set of TFDS is prepared as array_record in the cache where TensorFlow is installed.
"""

import argparse
import sys
import time

from vaegan_jax.data import DataError, NotPrepared, cache, images, load, prepared, splits_of
from vaegan_jax.data.sources import SOURCES


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 when everything is in place, 1 with one message for each set that is not."""
    parser = argparse.ArgumentParser(prog="python -m vaegan_jax.data", description=__doc__)
    parser.add_argument("names", nargs="*", default=list(SOURCES), help="data sets (default: %(default)s)")
    parser.add_argument("--data-dir", help="the folder to keep them in (default: the cache)")
    parser.add_argument("--no-tfds", action="store_true", help="leave out the TFDS folder (10 s and 85 MB a set)")
    options = parser.parse_args(arguments)
    failed = 0
    for name in options.names:
        try:
            for split in _splits(name, options.data_dir):
                start = time.perf_counter()
                dataset = load(name, split, data_dir=options.data_dir)
                seconds = time.perf_counter() - start
                kept = name in SOURCES and cache.read(
                    cache.path(cache.root(options.data_dir), name, split), name, split
                )
                route = kept[1] if kept else "local"
                shape = f"{dataset.x.dtype}{list(dataset.x.shape)}"
                print(f"{name} {split}: {shape} sha256 {dataset.sha256[:16]} {seconds:.1f} s, from {route}", flush=True)
            if name in SOURCES and not options.no_tfds:
                from vaegan_jax.data import builders

                start = time.perf_counter()
                folder = builders.prepare(name, options.data_dir)
                print(f"{name} TFDS folder: {folder} {time.perf_counter() - start:.1f} s", flush=True)
        except DataError as error:
            failed += 1
            print(f"{name}: {error}", file=sys.stderr, flush=True)
    return 1 if failed else 0


def _splits(name: str, data_dir: str | None) -> tuple[str, ...]:
    """What the set has; one of TFDS is prepared first."""
    try:
        return splits_of(name, data_dir=data_dir)
    except NotPrepared:
        base, _ = images.parse(name)
        if not prepared.make(base, prepared.folders(data_dir, cache.root(data_dir))[-1]):
            raise
    return splits_of(name, data_dir=data_dir)


if __name__ == "__main__":
    sys.exit(main())
