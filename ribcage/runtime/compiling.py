"""Compiling: loops as machine code by numba, kept on disk where a folder for it can be written."""

import functools
from collections.abc import Callable
from typing import Any


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as machine code, without the lock of the interpreter; compiled once per machine, or once per process
    where nothing can be kept: a read-only installation of a user without a home, a full disk, a damaged cache."""
    import numba

    unkept = numba.njit(nogil=True)(function)
    try:
        kept = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba found no folder
        return unkept

    def run(*arguments: Any) -> Any:
        try:
            return kept(*arguments)
        except (OSError, EOFError):  # of the cache's files: the loops open none
            return unkept(*arguments)

    return run
