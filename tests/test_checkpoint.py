"""Checkpoints: a save killed at any moment, a damaged file, a hostile file."""

import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from refusals import has_facts
from trainings import equal

from ribcage.runtime import digest, files
from ribcage.training import checkpoint
from ribcage.training.run import Plan, Run


def spoilt(whole: bytes) -> dict[str, bytes]:
    middle = len(whole) // 2
    return {
        "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "zeroed": whole[:middle] + bytes(64) + whole[middle + 64 :],
        "torn": whole[:middle],
        "empty": b"",
        "text": b"text",
    }


@pytest.mark.parametrize("how", spoilt(bytes(200)).keys())
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, how: str) -> None:
    run = toys.run([(1.0, 1.0)] * 2, epochs=3)
    list(Run(run, tmp_path, Plan(), lambda: {"auroc": 0.5}, lambda: None).steps())
    file = tmp_path / checkpoint.FILE
    older = checkpoint.load_checkpoint(tmp_path / checkpoint.OLDER)["run"]["step"]
    assert (checkpoint.load_checkpoint(file)["run"]["step"], older) == (6, 4)
    file.write_bytes(spoilt(file.read_bytes())[how])
    with pytest.raises(ValueError, match=r"checkpoint\.pt .*SHA-256"):
        checkpoint.load_checkpoint(file)
    again = toys.run([(1.0, 1.0)] * 2, epochs=3)
    work = Run(again, tmp_path, Plan(), lambda: {"auroc": 0.5}, lambda: None)
    said = " ".join(work.resume())
    assert "checkpoint.pt" in said and "checkpoint.previous.pt" in said and again.step == 4
    list(work.steps())
    assert equal(again.state(), run.state())
    logged = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert checkpoint.load_checkpoint(tmp_path / checkpoint.OLDER)["run"]["step"] == 4, (
        "a damaged one replaces no good one"
    )


class FailingDisk(io.FileIO):
    """A file whose content a disk cannot read any more."""

    number = errno.EIO

    def read(self, size: int | None = -1, /) -> bytes:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("name", [checkpoint.FILE, f"{checkpoint.FOLDER}/{checkpoint.REST}"])
def test_a_checkpoint_that_the_disk_cannot_read_gives_way_to_the_one_before(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save_checkpoint(tmp_path / checkpoint.OLDER, {"run": 1})
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes((tmp_path / checkpoint.OLDER).read_bytes())
    if name != checkpoint.FILE:
        (tmp_path / checkpoint.FOLDER / digest.SUMS).write_text(f"{'0' * 64}  0.safetensors\n")
    plain = Path.open

    def opened(file: Path, *how: Any, **more: Any) -> Any:
        return FailingDisk(file) if file == tmp_path / name else plain(file, *how, **more)

    monkeypatch.setattr(Path, "open", opened)
    file, warning = checkpoint.newest(tmp_path)
    assert file == tmp_path / checkpoint.OLDER
    assert has_facts(warning, str(tmp_path / name.split("/")[0]), os.strerror(errno.EIO), checkpoint.OLDER)
    monkeypatch.setattr(FailingDisk, "number", errno.EACCES)  # a permission is to be corrected: nothing is damaged
    with pytest.raises(PermissionError):
        checkpoint.newest(tmp_path)


def test_without_a_good_checkpoint_nothing_goes_on(tmp_path: Path) -> None:
    for name in (checkpoint.FILE, checkpoint.OLDER):
        (tmp_path / name).write_bytes(b"text")
    with pytest.raises(ValueError, match=r"checkpoint\.pt.*checkpoint\.previous\.pt"):
        checkpoint.newest(tmp_path)


@pytest.mark.parametrize("step", ["part", "older", "renamed"])
def test_a_save_that_is_killed_at_any_moment_leaves_one_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Nothing happens from that moment on, as in a killed process."""
    file, replace, fsync = tmp_path / checkpoint.FILE, Path.replace, files.sync
    for number in (1, 2):
        checkpoint.save_checkpoint(file, {"step": number})
    dead: list[str] = []

    def act(name: str, do: Any, *asked: Any) -> Any:
        if dead or name == step:
            dead.append(name)
            raise KeyboardInterrupt
        return do(*asked)

    monkeypatch.setattr(files, "sync", lambda part: act("part", fsync, part))
    monkeypatch.setattr(Path, "unlink", lambda part, **how: act("unlink", os.unlink, part) if part.exists() else None)
    monkeypatch.setattr(
        Path, "replace", lambda one, to: act("renamed" if one.suffix == ".part" else "older", replace, one, to)
    )
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save_checkpoint(file, {"step": 3})
    monkeypatch.undo()
    found, _ = checkpoint.newest(tmp_path)
    assert checkpoint.load_checkpoint(found)["step"] == 2


@pytest.mark.parametrize(
    "content",
    [{}, {"run": 3, "standing": {}}, {"run": {"step": -1}, "standing": {}}, {"run": {}, "standing": {"x": 1}}],
)
def test_a_checkpoint_of_another_kind_is_one_line(tmp_path: Path, content: dict[str, Any]) -> None:
    checkpoint.save_checkpoint(tmp_path / checkpoint.FILE, content)
    work = Run(toys.run([(1.0, 1.0)]), tmp_path, Plan(), dict, lambda: None)
    with pytest.raises(ValueError, match=r"/checkpoint\.pt .*this run"):
        work.resume()
    torch.save({"anything": 1}, tmp_path / "d.pt")
    digest.append_digest(tmp_path / "d.pt")
    with pytest.raises(ValueError, match=r"/d\.pt .*another version"):
        checkpoint.load_checkpoint(tmp_path / "d.pt")


def test_a_checkpoint_runs_nothing_that_is_in_it(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"ribcage": checkpoint.FORMAT, "x": Evil()}, tmp_path / "evil.pt")
    digest.append_digest(tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"/evil\.pt "):
        checkpoint.load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("spoil", ["gradient", "statistics"])
def test_what_is_not_finite_is_never_saved(tmp_path: Path, spoil: str) -> None:
    """The gradient of the third step is infinite and its loss is not; or a buffer is, and no gradient."""
    good, bad = [(1.0, 1.0)] * 2, [(1.0, 1.0), (1e30, 1.0)]
    run = toys.run(good, epochs=3)
    work = Run(run, tmp_path, Plan(save_minutes=0), lambda: {"auroc": 0.5}, lambda: None)
    with pytest.raises(ValueError, match=r"--lr \(now 0.1\) or --clip 1. .* --resume"):
        for log in work.steps():
            if log.step == 2 and spoil == "gradient":
                run.loader.pixels = bad  # type: ignore[attr-defined]
            if log.step == 3 and spoil == "statistics":
                run.method.ema.fill_(float("inf"))  # type: ignore[operator, union-attr]
    saved = checkpoint.load_checkpoint(tmp_path / "checkpoint.pt")["run"]
    assert saved["step"] == (3 if spoil == "gradient" else 2)
    assert all(value.isfinite().all() for value in saved["method"].values())
