"""Compiling: numba-compiled loops, cached on disk where possible."""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any


@functools.cache
def compiled(function: Callable[..., Any], *, contract: bool = False) -> Callable[..., Any]:
    """The function compiled to machine code that releases the GIL. It is compiled once per machine; once per process
    where the cache cannot be written or read (a read-only installation, a full disk, a damaged cache).

    contract: a product and a sum are rounded only once, if the processor can do so.
    """
    import numba

    jit = functools.partial(numba.njit, nogil=True, fastmath={"contract"} if contract else False)
    uncached = jit()(function)
    try:
        cached = jit(cache=True)(function)
    except RuntimeError:  # numba found no writable folder
        return uncached

    def run(*arguments: Any) -> Any:
        try:
            return cached(*arguments)
        except (OSError, EOFError):  # raised by the cache's files: the loops themselves open none
            return uncached(*arguments)

    return run


@functools.cache
def is_numba_installed() -> bool:
    """Whether `compiled` can be used; training also works without numba."""
    return importlib.util.find_spec("numba") is not None
