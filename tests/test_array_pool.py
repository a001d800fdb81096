"""Memory is used again, but never while somebody can still see it."""

import numpy as np
import torch

from ribcage.runtime.array_pool import ArrayPool


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_is_used_again_when_the_last_reference_is_gone() -> None:
    pool = ArrayPool(1)
    first = pool.empty((3, 5))
    assert first.shape == (3, 5) and first.dtype == np.float32 and first.flags.c_contiguous and first.flags.writeable
    place = address(first)
    del first
    assert address(pool.empty((5, 3))) == place


def test_memory_in_use_is_never_used_again() -> None:
    """Through a view of a view, a tensor, a view of a tensor and an array of a tensor."""
    pool = ArrayPool(8)
    for keep in (
        lambda array: array[1:][0],
        torch.from_numpy,
        lambda array: torch.from_numpy(array)[:, None].expand(-1, 3, -1)[1],
        lambda array: torch.from_numpy(array).numpy()[2],
        lambda array: torch.from_numpy(array[1:]),
    ):
        array = pool.empty((4, 6))
        array[:] = 7
        kept = keep(array)
        del array
        others = [pool.empty((4, 6)) for _ in range(4)]
        for other in others:
            other[:] = 0
        assert (kept == 7).all()
        del kept, others


def test_it_keeps_no_more_than_asked_and_nothing_once_closed() -> None:
    pool = ArrayPool(2)
    arrays = [pool.empty((1, 1000)) for _ in range(5)]
    late = pool.empty((2,))
    arrays.clear()
    assert sum(len(free) for free in pool._free.values()) == 2
    pool.close()
    del late
    assert not pool._free
    assert pool.empty((0, 7)).shape == (0, 7)
