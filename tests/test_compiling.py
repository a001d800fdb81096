"""Compiled loops also run where their cache cannot be written."""

import numba
import pytest
from numba.core import caching

from ribcage.runtime.compiling import compiled


def test_loops_run_where_no_folder_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only installation of a user without a home."""
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="no locator"):
        numba.njit(cache=True)(_twice)

    def own(value: int) -> int:
        return value * 2

    assert compiled(own)(21) == 42


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), EOFError("Ran out of input")])
def test_loops_run_where_the_cache_cannot_be_used(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    """A full disk, and a file that was cut off."""

    def fails(*_: object) -> None:
        raise fault

    monkeypatch.setattr(caching.IndexDataCacheFile, "load", fails)

    def own(value: int) -> int:
        return value * 2

    assert compiled(own)(21) == 42


def _twice(value: int) -> int:
    return value * 2
