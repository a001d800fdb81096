"""Batching: images of several requests → one batch for the model.

One thread runs the model. While it computes, images queue; the next batch takes what is there, and waits for more only
while files are being decoded, a few milliseconds at most. A single client does not wait.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Output = TypeVar("Output")


class FullError(RuntimeError):
    """The queue is full."""


class Batcher(Generic[Item, Output]):
    """Collects single items into batches.

    most: largest batch.
    wait: seconds that the first item of a batch waits for items that are being made.
    room: length of the queue.
    """

    def __init__(
        self,
        run: Callable[[list[Item]], Sequence[Output]],
        *,
        most: int,
        wait: float,
        room: int,
        noted: Callable[[int], object] = lambda count: None,
    ) -> None:
        self.run, self.most, self.wait, self.noted = run, most, wait, noted
        self.waiting: queue.Queue[tuple[Item, Future[Output]] | None] = queue.Queue(room)
        self.coming = 0
        self.ended = False
        self._lock = threading.Lock()
        self.thread = threading.Thread(target=self._work, name="batching", daemon=True)
        self.thread.start()

    @contextlib.contextmanager
    def on_its_way(self) -> Iterator[None]:
        """Context in which an item is prepared."""
        with self._lock:
            self.coming += 1
        try:
            yield
        finally:
            with self._lock:
                self.coming -= 1

    def submit(self, item: Item) -> "Future[Output]":
        """The future output for an item; raises FullError if the queue is full."""
        future: Future[Output] = Future()
        try:
            self.waiting.put_nowait((item, future))
        except queue.Full:
            raise FullError("Too many images are waiting for the model. Try again later.") from None
        return future

    def end(self) -> None:
        """Process the remaining items and stop."""
        self.waiting.put(None)
        self.thread.join()

    def _work(self) -> None:
        while not self.ended and (first := self.waiting.get()) is not None:
            batch = [first, *self._others()]
            batch = [(item, future) for item, future in batch if future.set_running_or_notify_cancel()]
            if batch:
                self.noted(len(batch))
                self._finish(batch)

    def _others(self) -> Iterator[tuple[Item, "Future[Output]"]]:
        """The items of a batch after the first."""
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

    def _finish(self, batch: list[tuple[Item, "Future[Output]"]]) -> None:
        try:
            outputs = self.run([item for item, _ in batch])
        except Exception as error:
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), output in zip(batch, outputs, strict=True):
            future.set_result(output)
