"""Which entry of a tar an error is about, and whether the archive is to blame or this host."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from lamina.errors import BadArchive

# what the kernel says of names and sizes that no tree can hold; all else it says is about this host
_IMPOSSIBLE: Final = frozenset(
    {errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EFBIG, errno.EMLINK}
)


@contextmanager
def named(path: bytes) -> Iterator[None]:
    """Errors say which entry they are about, and tell impossible archives from hosts that cannot."""
    try:
        yield
    except OSError as error:
        if error.errno in _IMPOSSIBLE:
            raise BadArchive(path, f"no tree can hold it: {error.strerror}") from error
        raise OSError(error.errno, error.strerror, os.fsdecode(path)) from error
    except (OverflowError, ValueError) as error:
        raise BadArchive(path, f"a number or name beyond what the kernel takes: {error}") from error
