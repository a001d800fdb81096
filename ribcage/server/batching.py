"""Batching: images that several requests bring → one batch for the model.

One thread asks the model. While it computes, images gather; it takes what is there, and waits for more only while
more are on their way, a few milliseconds at most. So one client alone waits for nobody.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class FullError(RuntimeError):
    """More is waiting than can be answered soon."""


class Batcher(Generic[Item, Answer]):
    """Ask by single items what answers batches.

    most: items of a batch.
    wait: seconds that the first of a batch waits for others that are on their way.
    room: items that may wait.
    """

    def __init__(
        self,
        answer: Callable[[list[Item]], Sequence[Answer]],
        *,
        most: int,
        wait: float,
        room: int,
        noted: Callable[[int], object] = lambda count: None,
    ) -> None:
        self.answer, self.most, self.wait, self.noted = answer, most, wait, noted
        self.waiting: queue.Queue[tuple[Item, Future[Answer]] | None] = queue.Queue(room)
        self.coming = 0
        self.ended = False
        self._lock = threading.Lock()
        self.thread = threading.Thread(target=self._work, name="batching", daemon=True)
        self.thread.start()

    @contextlib.contextmanager
    def on_its_way(self) -> Iterator[None]:
        """While an item is being made."""
        with self._lock:
            self.coming += 1
        try:
            yield
        finally:
            with self._lock:
                self.coming -= 1

    def ask(self, item: Item) -> "Future[Answer]":
        """What the model will say of it; FullError where too many wait."""
        future: Future[Answer] = Future()
        try:
            self.waiting.put_nowait((item, future))
        except queue.Full:
            raise FullError("Too many images wait for the model.") from None
        return future

    def end(self) -> None:
        """Answer what waits, and stop."""
        self.waiting.put(None)
        self.thread.join()

    def _work(self) -> None:
        while not self.ended and (first := self.waiting.get()) is not None:
            batch = [first, *self._others()]
            asked = [(item, future) for item, future in batch if future.set_running_or_notify_cancel()]
            if asked:
                self.noted(len(asked))
                self._answer(asked)

    def _others(self) -> Iterator[tuple[Item, "Future[Answer]"]]:
        """What joins the first."""
        until = time.monotonic() + self.wait
        for _ in range(self.most - 1):
            try:
                left = until - time.monotonic() if self.coming else 0.0
                other = self.waiting.get(timeout=left) if left > 0 else self.waiting.get_nowait()
            except queue.Empty:
                return
            if other is None:
                self.ended = True  # after this batch
                return
            yield other

    def _answer(self, asked: list[tuple[Item, "Future[Answer]"]]) -> None:
        try:
            answers = self.answer([item for item, _ in asked])
        except Exception as error:
            for _, future in asked:
                future.set_exception(error)
            return
        for (_, future), answer in zip(asked, answers, strict=True):
            future.set_result(answer)
