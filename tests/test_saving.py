"""Sharded checkpoints: written while training goes on, killed at any moment, damaged, hostile."""

import errno
import itertools
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import processes
import pytest
import torch
import torch.distributed as dist
import toys
from torch.distributed.checkpoint import DefaultSavePlanner, SavePlan
from trainings import equal

from ribcage.runtime import digest, distributed, files, launcher
from ribcage.training import checkpoint, shards
from ribcage.training.run import InterruptedRun, Plan, Run
from ribcage.training.saving import Saver
from ribcage.training.shard_writer import ShardWriter
from ribcage.training.shards import Rows, read_shards, shard_bytes
from ribcage.training.trainer import Trainer

PIXELS = [(1.0, 1.0), (1.0, 2.0)]


@pytest.fixture(autouse=True)
def group() -> Iterator[None]:
    """A group of this process alone, which has all rows."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sharded_run(folder: Path, epochs: int = 3, **plan: Any) -> Run:
    run = toys.run(PIXELS, "adamw", epochs=epochs, shard=True)
    return Run(run, folder, Plan(**plan), lambda: {"auroc": 0.5}, lambda: None)


def whole(values: Any) -> Any:
    """With whole tensors, copied."""
    if isinstance(values, dict):
        return {key: whole(value) for key, value in values.items()}
    if isinstance(values, shards.SavedTensor):
        return values.whole()
    return distributed.own_part(values).clone() if isinstance(values, torch.Tensor) else values


def state_of(trainer: Trainer) -> Any:
    return {name: whole(value) for name, value in trainer.state().items() if name != "optimizer"}


def step(folder: Path) -> int:
    """That of the newest checkpoint."""
    return int(checkpoint.load_checkpoint(checkpoint.newest(folder)[0])["run"]["step"])


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is the state of the step at which the save began, bit by bit."""
    write, may_write = ShardWriter.write_data, threading.Event()

    def slow(self: ShardWriter, *asked: Any) -> Any:
        assert may_write.wait(10)
        return write(self, *asked)

    monkeypatch.setattr(ShardWriter, "write_data", slow)
    run, saver = toys.run(PIXELS, "adamw", epochs=3, shard=True), Saver(tmp_path)
    steps = run.fit()
    next(steps)
    expected = [whole(run.state()["optimizer"]["state"]), state_of(run)]
    saver.save({"run": run.state(), "standing": {}}, 1)
    list(steps)
    assert not checkpoint.has_checkpoint(tmp_path) and run.step == 6
    may_write.set()
    saver.finish()
    saved = whole(checkpoint.load_checkpoint(tmp_path / checkpoint.FOLDER)["run"])
    assert equal([saved["optimizer"]["state"], {name: saved[name] for name in expected[1]}], expected)
    assert not equal(saved["method"], state_of(run)["method"])


def test_a_run_resumes_from_shards_and_keeps_two(tmp_path: Path) -> None:
    first = sharded_run(tmp_path, save_minutes=0)
    for log in first.steps():
        if log.step == 4:
            break
    kept = {file.name for file in tmp_path.iterdir()}
    assert kept >= {checkpoint.FOLDER, checkpoint.OLDER_FOLDER} and not any(name.endswith(".part") for name in kept)
    again = sharded_run(tmp_path)
    assert again.resume() == [] and again.trainer.step == 3
    list(again.steps())
    expected = toys.run(PIXELS, "adamw", epochs=3, shard=True)
    list(expected.fit())
    assert equal(state_of(again.trainer), state_of(expected))


def test_a_second_save_of_a_step_replaces_only_what_is_not_divided(tmp_path: Path) -> None:
    run, saver = toys.run(PIXELS, "adamw", shard=True), Saver(tmp_path)
    for again, best in ((False, 0.1), (True, 0.2)):
        saver.save({"run": run.state(), "standing": {"best": best}}, 0, again=again)
    saver.finish()
    assert checkpoint.load_checkpoint(tmp_path / checkpoint.FOLDER)["standing"] == {"best": 0.2}
    assert checkpoint.newest(tmp_path) == (tmp_path / checkpoint.FOLDER, "")
    assert not (tmp_path / checkpoint.OLDER_FOLDER).exists()


def test_the_kind_of_a_checkpoint_may_change(tmp_path: Path) -> None:
    """As where a run is resumed with --shard, or without it."""
    run, saver = toys.run(PIXELS, "adamw", shard=True), Saver(tmp_path)
    for number, kind in enumerate(["pt", "folder", "pt", "pt", "folder", "folder", "pt"], 1):
        if kind == "pt":
            checkpoint.save_checkpoint(tmp_path / checkpoint.FILE, {"run": {"step": number}, "standing": {}})
        else:
            saver.save({"run": {**run.state(), "step": number}, "standing": {}}, number)
            saver.finish()
        found = [
            checkpoint.load_checkpoint(tmp_path / name) for name in checkpoint.PLACES if (tmp_path / name).exists()
        ]
        assert [one["run"]["step"] for one in found] == [number, number - 1][: len(found)] and len(found) == min(
            2, number
        )


@pytest.mark.slow
def test_a_save_that_is_killed_at_any_moment_leaves_one_to_resume_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each operation on files in turn is the first that does not happen, and none happens after it."""
    run, dead = toys.run(PIXELS, "adamw", shard=True), [False]
    for moment in itertools.count():
        folder, done = tmp_path / str(moment), itertools.count()
        folder.mkdir()
        for number in (1, 2):
            saver = Saver(folder)
            saver.save({"run": {**run.state(), "step": number}, "standing": {}}, number)
            saver.finish()

        def alive(do: Any, moment: int = moment, done: Any = done) -> Any:
            def act(*asked: Any, **how: Any) -> Any:
                dead[0] = dead[0] or next(done) == moment
                if dead[0]:
                    raise KeyboardInterrupt
                return do(*asked, **how)

            return act

        dead[0] = False
        with monkeypatch.context() as patch:
            for owner, name in ((files, "sync"), (files, "open_regular"), (shutil, "rmtree")):
                patch.setattr(owner, name, alive(getattr(owner, name)))
            for name in ("replace", "unlink", "mkdir"):
                patch.setattr(Path, name, alive(getattr(Path, name)))
            try:
                saver.save({"run": {**run.state(), "step": 3}, "standing": {}}, 3)
                saver.finish()
            except (KeyboardInterrupt, RuntimeError):
                pass
        if not dead[0]:
            break
        assert step(folder) == 2 or (step(folder) == 3 and not list(folder.glob("*.part")))
        saver = Saver(folder)  # and the next one clears up
        saver.save({"run": {**run.state(), "step": 4}, "standing": {}}, 4)
        saver.finish()
        assert step(folder) == 4 and not list(folder.glob("*.part"))
    assert step(folder) == 3 and moment > 8


@pytest.mark.parametrize("name", [checkpoint.REST, "0.safetensors", digest.SUMS])
@pytest.mark.parametrize("how", ["flipped", "truncated", "missing"])
def test_a_damaged_folder_gives_way_to_the_one_before(tmp_path: Path, name: str, how: str) -> None:
    list(sharded_run(tmp_path).steps())
    file = tmp_path / checkpoint.FOLDER / name
    content, middle = file.read_bytes(), file.stat().st_size // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    file.unlink()
    if how != "missing":
        file.write_bytes(flipped if how == "flipped" else content[:middle])
    again = sharded_run(tmp_path)
    said = " ".join(again.resume())
    assert checkpoint.FOLDER in said and checkpoint.OLDER_FOLDER in said and again.trainer.step == 4
    assert (tmp_path / checkpoint.DAMAGED_FOLDER).is_dir() and not (tmp_path / checkpoint.FOLDER).exists()
    list(again.steps())
    assert step(tmp_path) == 6


def in_two_files(place: Path, by_rows: bool) -> None:
    """Write a checkpoint as two processes do."""
    stored = read_shards([place / "0.safetensors"])
    parts: list[dict[str, Rows]] = [{}, {}]
    for number, (name, saved) in enumerate(stored.items()):
        value = saved.whole()
        cuts = [len(value) // 2 if by_rows else len(value) * (number % 2)]
        for part, start, stop in zip(parts, [0, *cuts], [*cuts, len(value)], strict=False):
            if stop > start:
                part[name] = Rows(start, len(value), value[start:stop].clone())
    for number, rows in enumerate(parts):
        (place / f"{number}.safetensors").write_bytes(shard_bytes(rows))
    files.write_text(place / digest.SUMS, digest.digest_lines({n: place / n for n in PARTS}))


PARTS = ("0.safetensors", "1.safetensors")


def test_a_process_without_rows_writes_no_file(tmp_path: Path) -> None:
    done = ShardWriter(tmp_path).write_data(SavePlan([], "1.safetensors"), DefaultSavePlanner())
    assert done.wait() == [] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("by_rows", [True, False])
@pytest.mark.parametrize("lost", [*PARTS, ""])
def test_a_list_of_digests_that_lost_a_line_gives_way_to_the_one_before(
    tmp_path: Path, lost: str, by_rows: bool
) -> None:
    list(sharded_run(tmp_path).steps())
    place = tmp_path / checkpoint.FOLDER
    in_two_files(place, by_rows)
    lines = (place / digest.SUMS).read_text().splitlines(keepends=True)
    files.write_text(place / digest.SUMS, "".join(line for line in lines if not lost or lost not in line))
    again = sharded_run(tmp_path)
    said = " ".join(again.resume())
    assert bool(said) == bool(lost), said
    assert again.trainer.step == (4 if lost else 6)
    assert not lost or (digest.SUMS in said and checkpoint.OLDER_FOLDER in said)


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No room for shards from now on."""
    sync = files.sync

    def full(file: Path) -> None:
        if file.suffix == ".safetensors":
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(file)

    monkeypatch.setattr(files, "sync", full)


def test_a_save_that_fails_in_the_background_ends_the_run_at_a_later_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = sharded_run(tmp_path, epochs=5)
    with pytest.raises(OSError, match=r"No space .*checkpoint"):
        for log in work.steps():
            if log.step in (3, 5):  # a save was begun after the step before
                work._saver.wait()
            if log.step == 3:
                full_disk(monkeypatch)
    assert work.trainer.step == 5 and step(tmp_path) == 2 and not list(tmp_path.glob("*.part"))


def test_a_signal_ends_the_run_after_its_checkpoint_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, begun = ShardWriter.write_data, threading.Event()

    def slow(self: ShardWriter, *asked: Any) -> Any:
        assert not begun.wait(0.2)
        return write(self, *asked)

    monkeypatch.setattr(ShardWriter, "write_data", slow)
    work = sharded_run(tmp_path)
    with pytest.raises(InterruptedRun, match=r"step 1\b"):
        for _ in work.steps():
            work.signal = signal.SIGTERM
    assert step(tmp_path) == 1


def failing(folder: str) -> None:
    """Rank 1 has no room, of which both learn."""
    with launcher.started(), pytest.MonkeyPatch.context() as patch:
        run = toys.run(PIXELS, "adamw", epochs=3, shard=True)
        if distributed.rank() == 1:
            full_disk(patch)
        with pytest.raises(OSError, match=r"No space .*checkpoint"):
            list(Run(run, Path(folder), Plan(), lambda: {"auroc": 0.5}, lambda: None).steps())


@pytest.mark.slow
def test_a_failure_in_one_process_is_raised_in_all(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    processes.together(failing, str(tmp_path / "run"), said=tmp_path)
    assert not list((tmp_path / "run").glob("checkpoint*"))


# ---- hostile folders


def stored(folder: Path) -> Path:
    """A checkpoint in a folder."""
    run, saver = toys.run(PIXELS, "adamw", shard=True), Saver(folder)
    saver.save({"run": run.state(), "standing": {}}, 0)
    saver.finish()
    return folder / checkpoint.FOLDER


def test_a_folder_runs_nothing_that_is_in_it(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    place = stored(tmp_path)
    torch.save({"ribcage": checkpoint.FORMAT, "run": {"step": Evil()}}, place / checkpoint.REST)
    digest.append_digest(place / checkpoint.REST)
    with pytest.raises(ValueError, match=checkpoint.REST):
        checkpoint.load_checkpoint(place)
    assert not (tmp_path / "ran").exists()


def test_links_in_a_folder_are_not_followed(tmp_path: Path) -> None:
    place = stored(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    (place / "0.safetensors").replace(elsewhere)
    (place / "0.safetensors").symlink_to(elsewhere)
    for read in (checkpoint.load_checkpoint, lambda place: checkpoint.newest(place.parent)):
        with pytest.raises(OSError, match=r"0\.safetensors .*symbolic link"):
            read(place)


def test_a_folder_that_names_files_elsewhere_is_damaged(tmp_path: Path) -> None:
    place = stored(tmp_path)
    for name in ("../secret.safetensors", "/etc/passwd", ".."):
        (place / digest.SUMS).write_text(f"{'0' * 64}  {name}\n")
        with pytest.raises(ValueError, match="checkpoint"):
            checkpoint.newest(tmp_path)


@pytest.mark.parametrize(
    "parts",
    [
        [(0, 4, 2)],  # rows are missing
        [(0, 4, 2), (1, 4, 3)],  # or given twice
        [(0, 4, 2), (2, 5, 2)],  # or of tensors of different sizes
        [(-1, 4, 5)],
        [(0, 1 << 60, 2)],
    ],
)
def test_rows_that_do_not_make_a_tensor_are_refused(tmp_path: Path, parts: list[tuple[int, int, int]]) -> None:
    for number, (start, total, count) in enumerate(parts):
        (tmp_path / str(number)).write_bytes(shard_bytes({"w": Rows(start, total, torch.zeros(count, 3))}))
    with pytest.raises(ValueError, match=r"\bw\b"):
        read_shards(tmp_path.iterdir())


def test_rows_are_read_across_files(tmp_path: Path) -> None:
    value = torch.arange(21.0).view(7, 3)
    for number, (start, stop) in enumerate([(0, 3), (3, 4), (4, 7)]):
        (tmp_path / str(number)).write_bytes(shard_bytes({"w": Rows(start, 7, value[start:stop])}))
    saved = read_shards(tmp_path.iterdir())["w"]
    assert saved.shape == value.shape
    for start, stop in itertools.combinations_with_replacement(range(8), 2):
        assert torch.equal(saved.rows(start, stop), value[start:stop])
