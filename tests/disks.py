"""A disk that is full: no file of this process grows beyond a limit."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def full_disk(limit: int = 1000) -> Iterator[None]:
    """Writes beyond so many bytes of a file fail (EFBIG), which Ribcage reports as a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
