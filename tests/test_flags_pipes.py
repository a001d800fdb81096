"""A pipe where an option names a file is refused: no command waits for it, and none puts a file in its place."""

import os
import re
import signal
import stat
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from models import trained

from ribcage import cli
from ribcage.commands import export
from ribcage.data import dataset_folder, datasets
from ribcage.runtime import flags
from ribcage.training import trainer

SECONDS = 30
"""A command that takes longer waits for a pipe."""
GIVEN = {
    "blend": "RUN RUN --out OUT",
    "compare": "TABLE TABLE",
    "convert": "RUN/bundle --to timm --out OUT",
    "curate": "DATA --features RUN --out OUT",
    "demo": "--out OUT --images 0",
    "distil": "--data DATA --teacher RUN --out OUT --model test_resnet",
    "doctor": "--json ROOT",
    "evaluate": "RUN --data DATA --resamples 0",
    "export": "RUN --out OUT/model.onnx",
    "finetune": "--data DATA --out OUT --model test_resnet",
    "import": "folder ROOT --out OUT --csv list.csv",
    "inspect": "folder:ROOT",
    "labels": "RUN --data DATA",
    "localise": "--data DATA --out OUT --model test_resnet",
    "merge": "DATA",
    "predict": "RUN IMAGE",
    "pretrain": "moco --data DATA --out OUT --model test_resnet",
    "probe": "RUN --data DATA",
    "profile": "nothing",
    "recipes": "show nih-chexnet",
    "reshard": "DATA --out OUT",
    "run": "nih-chexnet --out OUT",
    "runs": "ROOT",
    "serve": "RUN --port 65536",
    "tune": "finetune --data DATA --out OUT --space lr=1e-4..1e-2:log --model test_resnet",
}
"""What a command is given beside the option that names a pipe."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A dataset folder, a trained model, an image, a folder of images and a table of predictions."""
    root = tmp_path_factory.mktemp("places")
    words = ["import", "phantom", "--out", str(root / "data"), "--images", "100", "--size", "32"]
    assert cli.main(words) == 0
    trained(root / "run", dataset_folder.open(root / "data"))
    (root / "images").mkdir()
    for name in ("a.png", "b.png"):
        (root / "images" / name).write_bytes(cv2.imencode(".png", np.eye(40, dtype=np.uint8) * 99)[1].tobytes())
    pd.DataFrame({"path": ["a.png", "b.png"], "Mass": [0, 1]}).to_csv(root / "images" / "list.csv", index=False)
    cells = {"path": ["a.png", "b.png"], "patient": ["1", "2"], "Mass": [0.2, 0.7], "Mass_label": [0, 1]}
    pd.DataFrame(cells).to_csv(root / "table.csv", index=False)
    found = {"DATA": "data", "RUN": "run", "IMAGE": "images/a.png", "ROOT": "images", "TABLE": "table.csv"}
    return {name: str(root / place) for name, place in found.items()}


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A command that waits is interrupted. Trainings and exports are not begun: by then nearly all has been read."""

    def too_long(*_: Any) -> None:
        raise AssertionError("it waits for the pipe")

    def begun(*_: Any) -> None:
        raise ValueError("the work begins")

    monkeypatch.setattr(trainer.Trainer, "fit", begun)
    monkeypatch.setattr(export, "written", begun)
    before = signal.signal(signal.SIGALRM, too_long)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def named(kind: Any) -> bool:
    """Whether an option may name a file: a path or a word, or several."""
    return kind in (str, Path) or any(map(named, typing.get_args(kind)))


def options_of(command: str, words: list[str]) -> Iterator[tuple[list[str], flags.Flag, int]]:
    """The words to begin with, each option that may name a file, and the place where it is given if by place."""
    module = cli.command(command)
    members = datasets.dataset_names() if command == "import" else ("",)
    for member in members:
        begin = [member, *words[1:]] if member else words
        found = flags.read_flags(module, begin)
        positional = [flag.name for flag in found if flag.positional]
        for flag in found:
            if named(flag.kind) and (not member or member == "folder" or flag.of_member):
                yield begin, flag, positional.index(flag.name) if flag.positional else -1
    yield words, flags.Flag("recipe", str, None, ""), -1


def with_pipe(words: list[str], flag: flags.Flag, place: int, pipe: Path) -> list[str]:
    """The words, with the pipe where the option names a file."""
    value = f"train={pipe}" if flag.name == "split_list" else str(pipe)
    if place >= 0:
        return [*words[:place], value, *words[place + 1 :]]
    if flag.option in words:
        at = words.index(flag.option)
        words = words[:at] + words[at + 2 :]
    return [*words, flag.option, value]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("command", cli.command_names())
def test_a_pipe_is_neither_waited_for_nor_replaced(
    command: str, places: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    known = {**places, "OUT": str(tmp_path / "out")}
    given = [re.sub("|".join(known), lambda name: known[name[0]], word) for word in GIVEN[command].split()]
    for words, flag, place in options_of(command, given):
        pipe = tmp_path / ("pipe.toml" if flag.name in ("recipe", "name") else "pipe.csv")
        if not pipe.exists():
            os.mkfifo(pipe)
        line = [command, *with_pipe(words, flag, place, pipe)]
        signal.alarm(SECONDS)
        code = cli.main(line)
        said = capfd.readouterr().err
        assert code in (0, 1, 2, 3) and "bug in Ribcage" not in said, (line, said)
        assert stat.S_ISFIFO(pipe.stat().st_mode), line
