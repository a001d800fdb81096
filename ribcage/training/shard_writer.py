"""Sharded checkpoints, written in the background by `torch.distributed.checkpoint.async_save`.

torch copies the tensors to CPU memory and then plans, in a thread, which process writes which rows. The processes use a
separate group for this, so that training can go on meanwhile. This module writes the files.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future as Running
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint import async_save
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from ribcage.runtime import digest, files
from ribcage.training import checkpoint
from ribcage.training.shards import Rows, shard_bytes


def start_save(tensors: dict[str, Tensor], part: Path, group: dist.ProcessGroup) -> Running[Any]:
    """Begin to write the tensors to the folder `part`, which becomes the newest checkpoint. All processes must call it;
    the tensors may change as soon as it returns."""
    return cast("Running[Any]", async_save({**tensors}, storage_writer=ShardWriter(part), process_group=group))


class ShardWriter(StorageWriter):
    """Writes the rows that a process has to a file of its own. The first process completes the checkpoint."""

    def __init__(self, part: Path) -> None:
        self.part = part

    def reset(self, checkpoint_id: object = None) -> None:
        """A writer is used once."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: object, **options: object) -> None:
        """Nothing has to be prepared."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """The plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Plans with the names of the files."""
        return [replace(plan, storage_data=f"{number}.safetensors") for number, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write the file of this process, if it has any rows; its name, size and digest are in the results."""
        done: Future[list[WriteResult]] = Future()
        items = [item for item in plan.items if item.tensor_data and item.tensor_data.chunk.sizes.numel()]
        if not items:
            done.set_result([])
            return done
        content = shard_bytes({item.index.fqn: _rows(item, planner) for item in items})
        with files.explained(self.part.parent, checkpoint.FREE_SPACE):
            self.part.mkdir(exist_ok=True)  # on a network file system, it may not be visible here yet
            with files.open_regular(self.part / plan.storage_data, "xb") as stream:
                stream.write(content)
            files.sync(self.part / plan.storage_data)
        written = (plan.storage_data, len(content), hashlib.sha256(content).hexdigest())
        done.set_result([WriteResult(item.index, 0, written) for item in items])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Check that all files are there, list their digests, and make this the newest checkpoint."""
        written = sorted({result.storage_data for own in results for result in own})
        require_files(self.part, written)
        with files.explained(self.part.parent, checkpoint.FREE_SPACE):
            sums = "".join(f"{hashed}  {name}\n" for name, _, hashed in written)
            files.write_text(self.part / digest.SUMS, sums)
            files.sync(self.part)
            checkpoint.make_way(self.part.parent)
            self.part.replace(self.part.parent / checkpoint.FOLDER)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: object) -> bool:
        """A writer is made for its folder."""
        return False


def _rows(item: WriteItem, planner: SavePlanner) -> Rows:
    assert item.tensor_data is not None and not any(item.tensor_data.chunk.offsets[1:])  # FSDP2 divides rows
    return Rows(item.tensor_data.chunk.offsets[0], item.tensor_data.size[0], cast(Tensor, planner.resolve_data(item)))


def require_files(folder: Path, written: Sequence[tuple[str, int, str]]) -> None:
    """Raise unless each file, given with its size, is visible to this process."""
    for name, size, _ in written:
        if not (folder / name).is_file() or (folder / name).stat().st_size != size:
            raise OSError(
                f"{folder / name} was written by another process but is not visible to rank 0. Choose an --out on a "
                "file system that all processes share."
            )
