"""Converts the public FID weights of Inception-v3 from PyTorch's .pth to safetensors, once.

python -m experiments.convert_inception pt_inception-2015-12-05-6726825d.pth               into the cache
python -m experiments.convert_inception pt_inception-2015-12-05-6726825d.pth out.safetensors

The .pth (91 MB) is at https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights. It needs torch (any version
with weights_only) and safetensors: pip install torch 'vaegan_jax[inception]'. A .pth is a pickle: it is read here with
weights_only=True, which runs nothing in it, and the package itself reads no pickle at all. Names and shapes are checked
and kept; numbers are not changed.
"""

import hashlib
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path


def convert(source: Path, target: Path | None = None) -> Path:
    """Writes the arrays of `source` to `target` (None: where metrics.inception looks for them), and returns it.

    Raises:
        ValueError: a file without the network's arrays, or that holds more than arrays.
        FileNotFoundError, ImportError: with what to do.
    """
    from vaegan_jax.data import cache
    from vaegan_jax.metrics import inception

    target = cache.root() / inception.FILE if target is None else target
    if not source.is_file():
        raise FileNotFoundError(f"There is no file {source}: download it from {inception.SOURCE}.")
    try:
        import torch
    except ImportError as error:
        raise ImportError("Reading a .pth needs PyTorch, this once: pip install torch.") from error
    try:
        loaded = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{source} holds no state dict that can be read safely ({error}).") from error
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ValueError(f"{source} holds a {type(loaded).__name__}: a state dict, of names and tensors, is expected.")
    arrays = {name: value.numpy() for name, value in loaded.items()}
    inception.write(target, arrays, hashlib.sha256(source.read_bytes()).hexdigest())
    return target


def main(argv: Sequence[str] | None = None) -> int:
    """0; 1 and one sentence for a user's mistake."""
    import tyro

    def arguments(source: Path, target: Path | None = None, /) -> tuple[Path, Path | None]:
        return source, target

    try:
        source, target = tyro.cli(
            arguments, args=argv, prog="python -m experiments.convert_inception", description=__doc__
        )
        print(f"weights: {convert(source, target)}")
    except (ValueError, OSError, ImportError) as error:
        print(f"experiments.convert_inception: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
