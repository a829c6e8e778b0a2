"""Tar archives, read in memory: nothing is ever written under a name that an archive chose."""

import tarfile
import zlib
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import IO

from vaegan_jax.data.dataset import DataError

LARGEST = 1 << 28  # bytes of one member: far above any file we want, far below what a bomb would need


def members(stream: IO[bytes], wanted: Iterable[str], name: str) -> dict[str, bytes]:
    """Base name -> bytes of the wanted regular files in a tar (plain or compressed), wherever in it they lie.

    Raises DataError for an archive with an absolute path, a `..`, a link that leads outside or a device (Python's
    "data" filter), even where we would not have read that member; for a damaged archive; for one above `LARGEST`.
    """
    left, found = set(wanted), {}
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as archive:
            for member in archive:
                if member.name.startswith(("/", "\\")) or ".." in PurePosixPath(member.name.replace("\\", "/")).parts:
                    raise DataError(
                        f"{name} is not safe to unpack: its member {member.name!r} points outside; refused."
                    )
                tarfile.data_filter(member, "/nowhere")  # judges only; the folder need not exist
                base = PurePosixPath(member.name).name
                if base in left and member.isfile():
                    if member.size > LARGEST:
                        raise DataError(
                            f"{name}: {member.name!r} claims {member.size} bytes, more than {LARGEST}; refused."
                        )
                    content = archive.extractfile(member)
                    found[base] = content.read() if content else b""
                    left.discard(base)
    except tarfile.FilterError as error:
        raise DataError(f"{name} is not safe to unpack ({error}); refused.") from error
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{name} is a damaged archive ({error}); fetch it again.") from error
    return found
