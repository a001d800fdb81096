"""Tracking: what trackers get, in a thread of their own, and that their failures end no training."""

import contextlib
import json
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import toys

from ribcage.commands import finetune, localise, pretrain
from ribcage.runtime import distributed
from ribcage.training import tracking
from ribcage.training.metrics_log import TrackedNumbers
from ribcage.training.run import InterruptedRun, Plan, Run, opened_run
from ribcage.training.trackers.base import TrackedImage, TrackedRun, Tracker


@dataclass
class Notes(Tracker):
    """A tracker that remembers what it got."""

    run: TrackedRun
    packages: ClassVar[tuple[str, ...]] = ()
    local: ClassVar[bool] = True
    all: ClassVar[list["Notes"]] = []
    lines: list[TrackedNumbers] = field(default_factory=list)
    images: list[tuple[str, int, int]] = field(default_factory=list)
    state: str = ""

    def __post_init__(self) -> None:
        self.all.append(self)

    @classmethod
    def is_local(cls) -> bool:
        return cls.local

    def log(self, lines: Sequence[TrackedNumbers]) -> None:
        self.lines += lines

    def show(self, name: str, images: Sequence[TrackedImage], step: int) -> None:
        self.images.append((name, len(images), step))

    def close(self, state: str) -> None:
        self.state = state


def use(monkeypatch: pytest.MonkeyPatch, kind: type[Tracker]) -> None:
    monkeypatch.setattr(tracking, "load_tracker", lambda name: kind)


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Notes]]:
    use(monkeypatch, Notes)
    Notes.all.clear()
    yield Notes.all


def asked(folder: Path, **more: Any) -> finetune.Options:
    return finetune.Options(data=("/ward/set",), out=folder / "run", **{"track": ("notes",), "epochs": 2, **more})


def work(options: finetune.Options) -> Run:
    trainer = toys.run([(1.0, 2.0), (1.0, 4.0)], epochs=options.epochs)
    return Run(trainer, options.out, Plan(), lambda: {"auroc": trainer.step / 10}, lambda: None)


def trained(options: finetune.Options, stop_at: int | None = None) -> Run:
    run = work(options)
    with contextlib.suppress(InterruptedRun), opened_run("finetune", options, run, []):
        for log in run.steps():
            if log.step == stop_at:
                run.signal = 15
    return run


def test_a_tracker_gets_each_number_of_the_log(tmp_path: Path, notes: list[Notes]) -> None:
    trained(asked(tmp_path))
    (one,) = notes
    assert one.state == "finished" and one.run.step == 0
    log = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line.step for line in one.lines] == [line["step"] for line in log] == [1, 2, 2, 3, 4, 4]
    for line, logged in zip(one.lines, log, strict=True):
        kind, values = ("validation", logged["validation"]) if "validation" in logged else ("train", logged)
        assert line.numbers == {f"{kind}/{name}": value for name, value in values.items() if name != "step"}
    assert {"train/loss", "train/lr", "train/seconds", "validation/auroc"} <= {
        name for line in one.lines for name in line.numbers
    }


def test_a_resumed_run_is_the_same_run_to_a_tracker(tmp_path: Path, notes: list[Notes]) -> None:
    trained(asked(tmp_path), stop_at=3)
    trained(asked(tmp_path, resume=True))
    first, second = notes
    assert (first.state, second.state) == ("stopped", "finished")
    assert re.fullmatch("[0-9a-f]{16}", first.run.id) and second.run.id == first.run.id and second.run.step == 3
    assert [line.step for line in second.lines] == [4, 4]


@pytest.mark.parametrize("text", ["{", "[]", '{"id": 3}', '{"id": "../../x"}'])
def test_a_damaged_or_invented_id_is_replaced(tmp_path: Path, notes: list[Notes], text: str) -> None:
    trained(asked(tmp_path), stop_at=3)
    (tmp_path / "run" / tracking.ID_FILE).write_text(text)
    trained(asked(tmp_path, resume=True))
    assert re.fullmatch("[0-9a-f]{16}", notes[1].run.id) and notes[1].run.id != notes[0].run.id


def test_a_tracker_can_be_added_when_resuming(tmp_path: Path, notes: list[Notes]) -> None:
    trained(asked(tmp_path, track=()), stop_at=3)
    assert notes == [] and not (tmp_path / "run" / tracking.ID_FILE).exists()
    trained(asked(tmp_path, resume=True))
    assert [line.step for line in notes[0].lines] == [4, 4]


def test_a_failed_run_is_told_to_trackers_without_its_message(tmp_path: Path, notes: list[Notes]) -> None:
    options = asked(tmp_path)
    with pytest.raises(OSError, match="Meier"), opened_run("finetune", options, work(options), []):
        raise OSError("/ward/Meier.dcm cannot be read")
    assert notes[0].state == "failed" and "Meier" not in repr(notes[0])


def test_only_rank_0_tracks(tmp_path: Path, notes: list[Notes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "rank", lambda: 1)
    with tracking.tracked("finetune", asked(tmp_path)) as none:
        none.log({"step": 1, "loss": 1.0})
    assert notes == []


# ---- what is sent


def test_no_folder_is_sent(tmp_path: Path) -> None:
    options = pretrain.Options(
        method="mae",
        data=("/ward/Meier/set one", r"C:\ward\Meier\nih\ "[:-1], "s3://Meier:key@bucket/cxr?token=Meier"),
        probe=("chexpert",),
        out=tmp_path / "Meier" / "run",
        init="/ward/Meier/moco",
        lr=0.1,
        member={"mask_ratio": 0.5},
        track=("wandb",),
    )
    sent = tracking.sent_options("pretrain", options)
    assert "Meier" not in repr(sent) and str(tmp_path) not in repr(sent)
    assert {name: sent[name] for name in ("command", "data", "probe", "out", "init", "lr", "mask_ratio")} == {
        "command": "pretrain",
        "data": "set one nih cxr",
        "probe": "chexpert",
        "out": "run",
        "init": "moco",
        "lr": 0.1,
        "mask_ratio": 0.5,
    }
    assert not {"member", "track", "resume"} & set(sent)


@pytest.mark.parametrize(
    ("which", "local", "shown"),
    [("local", True, True), ("local", False, False), ("all", False, True), ("none", True, False)],
)
def test_images_go_to_this_machine_only_unless_asked(
    tmp_path: Path, notes: list[Notes], monkeypatch: pytest.MonkeyPatch, which: Any, local: bool, shown: bool
) -> None:
    monkeypatch.setattr(Notes, "local", local)
    (tmp_path / "run").mkdir()
    with tracking.tracked("finetune", asked(tmp_path, track_images=which)) as found:
        assert found.wants_images == shown
        found.show("errors", [TrackedImage(np.zeros((2, 2), np.uint8), "")], 4)
        found.show("none", [], 4)
    assert notes[0].images == ([("errors", 1, 4)] if shown else [])


# ---- failures


class Broken(Notes):
    """Fails at the second line."""

    def log(self, lines: Sequence[TrackedNumbers]) -> None:
        super().log(lines)
        if len(self.lines) > 1:
            raise ConnectionError("the server\nis away")


class Refusing(Notes):
    """Does not begin."""

    def __post_init__(self) -> None:
        raise SystemExit("no key")


@pytest.mark.parametrize(("kind", "reason"), [(Broken, "the server is away"), (Refusing, "SystemExit: no key")])
def test_a_tracker_that_fails_is_one_line_and_training_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: Any, reason: str
) -> None:
    use(monkeypatch, kind)
    assert trained(asked(tmp_path, epochs=4)).trainer.step == 8
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "WARNING" in line]
    assert "--track notes" in line and reason in line and "metrics.jsonl" in line


def test_an_id_that_cannot_be_written_ends_tracking_only(
    tmp_path: Path, notes: list[Notes], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run" / tracking.ID_FILE).mkdir(parents=True)
    assert trained(asked(tmp_path)).trainer.step == 4
    assert notes == [] and capsys.readouterr().out.count("WARNING: --track notes") == 1


class Stuck(Notes):
    """Waits for a server that does not answer, as long as the test lasts."""

    go = threading.Event()

    def log(self, lines: Sequence[TrackedNumbers]) -> None:
        self.go.wait(20)


@pytest.mark.parametrize(("waiting", "reason"), [(2, "2 lines"), (100, "0.1 s")])
def test_training_does_not_wait_for_a_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], waiting: int, reason: str
) -> None:
    use(monkeypatch, Stuck)
    Stuck.go.clear()
    monkeypatch.setattr(tracking, "WAITING", waiting)
    monkeypatch.setattr(tracking, "PATIENCE", dict.fromkeys(tracking.PATIENCE, 0.1))
    run = trained(asked(tmp_path, epochs=4))
    Stuck.go.set()
    assert run.trainer.step == 8
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "WARNING" in line]
    assert "--track notes" in line and reason in line


# ---- options


def test_a_detector_without_training_tracks_nothing(tmp_path: Path) -> None:
    options = localise.Options(data=("set",), out=tmp_path, head="cam", init=str(tmp_path), track=("wandb",))
    assert any("--track" in one for one in localise.wrong(options))
    assert not any("--track" in one for one in localise.wrong(replace(options, track=())))
