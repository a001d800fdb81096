"""Saving: the checkpoints of a run folder. Weights that are divided among processes are written in the background."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, cast

import torch.distributed as dist

from ribcage.runtime import distributed
from ribcage.training import checkpoint, sharding
from ribcage.training.run_folder import warn


class Saver:
    """Saves the checkpoints of a run folder, at most one at a time. All processes must call its methods."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: Future[Any] | None = None
        self._part = folder
        self._group: dist.ProcessGroup | None = None

    def save(self, state: Mapping[str, object], step: int, *, again: bool = False) -> None:
        """Save a state, after the save before is complete. If tensors in it are divided among the processes, they are
        written in the background, and may change as soon as this returns.

        again: the newest checkpoint is of the same step.
        """
        self.finish()
        rest, tensors = sharding.split(state)
        if not tensors:
            file = self.folder / checkpoint.FILE
            distributed.run_on_first(lambda: checkpoint.save_checkpoint(file, rest, again=again))
        elif not again or not distributed.run_on_first(lambda: checkpoint.replace_rest(self.folder, rest)):
            from ribcage.training.shard_writer import start_save

            self._part = self.folder / f"{checkpoint.FOLDER}.{step}.part"
            distributed.run_on_first(lambda: checkpoint.begin_folder(self._part, rest))
            if self._group is None:
                self._group = cast(dist.ProcessGroup, dist.new_group(backend="gloo"))
            self._running = start_save(tensors, self._part, self._group)

    @property
    def failed(self) -> bool:
        """Whether a save in the background has failed, as far as this process knows."""
        return self._running is not None and self._running.done() and self._running.exception() is not None

    def wait(self) -> None:
        """Wait for a save in the background, whatever its outcome."""
        if self._running is not None:
            wait([self._running])

    def finish(self) -> None:
        """Wait for a save in the background, and raise its error, which is the same in all processes."""
        running, self._running = self._running, None
        if running is None or (error := running.exception()) is None:
            return
        if distributed.rank() == 0:
            shutil.rmtree(self._part, ignore_errors=True)
        raise distributed.echoed(self._explained(error)) from None

    @contextlib.contextmanager
    def completed(self) -> Iterator[None]:
        """Wait for a save in the background when the block ends. Its error is raised, or printed if the block ends with
        another error."""
        try:
            yield
        except BaseException:
            try:
                self.finish()
            except Exception as error:
                warn(str(error))
            raise
        self.finish()

    def _explained(self, error: BaseException) -> Exception:
        """The error of the first process that failed; that of a lost process is explained elsewhere."""
        from torch.distributed.checkpoint.api import CheckpointException

        if isinstance(error, Exception):
            return error
        assert isinstance(error, CheckpointException)
        first = error.failures[min(error.failures)][0]
        if isinstance(first, Exception) and type(first) in distributed.PLAIN:
            return type(first)(str(first))
        place = self.folder / checkpoint.FOLDER
        return RuntimeError(f"{place} could not be written ({type(first).__name__}: {first}).")
