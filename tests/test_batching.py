"""Requests that wait are predicted in one batch; too many are refused."""

import threading
import time

import pytest

from ribcage.server.batching import Batcher, FullError


def test_what_waits_is_answered_together() -> None:
    busy, sizes = threading.Event(), list[int]()

    def answer(items: list[int]) -> list[int]:
        sizes.append(len(items))
        busy.wait(10)
        return [2 * item for item in items]

    batcher = Batcher(answer, most=4, wait=0, room=10)
    first = batcher.submit(0)
    while not sizes:
        time.sleep(0.001)
    rest = [batcher.submit(item) for item in range(1, 8)]
    busy.set()
    assert [one.result(10) for one in [first, *rest]] == [0, 2, 4, 6, 8, 10, 12, 14] and sizes == [1, 4, 3]
    batcher.end()


def test_an_image_waits_only_for_others_on_their_way() -> None:
    sizes = list[int]()
    batcher = Batcher(lambda items: sizes.append(len(items)) or items, most=2, wait=5, room=10)  # type: ignore[func-returns-value]
    began = time.monotonic()
    batcher.submit(1).result(10)
    assert time.monotonic() - began < 3
    with batcher.on_its_way():
        first = batcher.submit(2)
        time.sleep(0.05)
        second = batcher.submit(3)
        assert first.result(3) == 2 and second.result(3) == 3
    assert sizes == [1, 2]
    batcher.end()


def test_too_many_that_wait_are_refused_and_a_fault_is_everybodys_in_the_batch() -> None:
    go = threading.Event()

    def fail(items: list[int]) -> list[int]:
        go.wait(10)
        raise ArithmeticError

    batcher = Batcher(fail, most=2, wait=0, room=1)
    first = batcher.submit(1)
    while batcher.waiting.qsize():
        time.sleep(0.001)
    second = batcher.submit(2)
    with pytest.raises(FullError):
        batcher.submit(3)
    go.set()
    for one in (first, second):
        assert isinstance(one.exception(10), ArithmeticError)
    batcher.end()
