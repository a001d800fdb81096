"""The demo runs from nothing to a served model and one page, and resumes after a stop."""

import json
import re
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest

from ribcage import cli
from ribcage.commands import demo
from ribcage.reports import demo as showcase
from ribcage.reports import demo_steps
from ribcage.reports.demo_steps import DemoProgress, DemoStep
from ribcage.runtime import flags

SMALL = ["--images", "240", "--size", "32", "--input-size", "32", "--model", "test_resnet"]
SMALL += ["--epochs", "1", "--pretrain-epochs", "1", "--distil-epochs", "1", "--localise-epochs", "1"]


@pytest.mark.integration
def test_the_demo_goes_the_whole_way_without_a_network_and_shows_it_on_one_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = socket.socket.connect

    def near(self: socket.socket, address: Any) -> None:
        assert address[0] == "127.0.0.1", f"the demo opened a connection to {address}"
        own(self, address)

    monkeypatch.setattr(socket.socket, "connect", near)
    monkeypatch.setattr(demo, "STUDENT", "test_byobnet")
    out = tmp_path / "示范 demo"
    assert cli.main(["demo", "--out", str(out), *SMALL]) == 0
    said = capsys.readouterr().out
    every_command_that_it_shows_is_understood(said)
    assert re.findall(r"^\[(\d)/9\] ", said, re.M) == list("123456789") and "[9/9] " in said
    page = (out / "index.html").read_text(encoding="utf-8")
    sections = ("make", "train", "pretrain", "few", "distil", "localise", "export", "commands")
    assert re.findall(r'<h2 id="(\w+)">', page) == list(sections) and "phantom-" in page
    for line in re.findall(r"^\$ (.*)$", said, re.M):
        assert line.split()[1] in page
    for name in re.findall(r'href="([^"#]+)"', page):
        assert (out / name).is_file(), name
    assert not re.search(r'(src|href)="https?:', page)
    assert len(json.loads((out / showcase.SERVED).read_text(encoding="utf-8"))["results"][0]["findings"]) == 14
    (out / showcase.EXPORTED).unlink()
    assert cli.main(["demo", "--out", str(out), *SMALL]) == 0
    said = capsys.readouterr().out
    assert said.count("already done") == 8 and "[8/9] " in said and (out / showcase.EXPORTED).is_file()


def every_command_that_it_shows_is_understood(said: str) -> None:
    shown = [line[2:] for line in said.splitlines() if line.startswith("$ ")]
    names = [line.split()[1] for line in shown]
    tuned = ["finetune", "evaluate"]
    few, small = [*tuned, *tuned, "compare"], ["finetune", "distil", "evaluate", "evaluate", "compare"]
    assert names == ["import", "inspect", *tuned, "pretrain", *few, *small, "localise", "evaluate", "export", "serve"]
    for line in shown:
        name, *words = shlex.split(line)[1:]
        module = cli.command(name)
        assert flags.parse(name, module, flags.read_flags(module, words), words)


def test_quick_asks_for_less_of_what_nobody_asked_for() -> None:
    asked = demo.quickened(demo.Options(quick=True, epochs=7))
    assert (asked.epochs, asked.images) == (7, demo.QUICK["images"])
    assert demo.quickened(demo.Options()) == demo.Options()


# ---- the way


STEPS = (DemoStep("a", "First", 30, ("a.txt",)), DemoStep("b", "Second", 60, ()), DemoStep("c", "Third", 10, ()))


def walked(folder: Path, asked: dict[str, Any], *names: str) -> DemoProgress:
    way = DemoProgress(folder, STEPS, asked)
    for part in STEPS:
        if part.name in names:
            with way.running(part) as done:
                done.commands.append(f"ribcage {part.name}")
                (folder / f"{part.name}.txt").touch()
    return way


def test_a_way_goes_on_behind_what_is_done_and_still_there(tmp_path: Path) -> None:
    walked(tmp_path, {"size": (1, 2)}, "a")
    again = DemoProgress(tmp_path, STEPS, {"size": (1, 2)})
    assert [again.finished(part) for part in STEPS] == [True, False, False]
    assert again.done["a"].commands == ["ribcage a"]
    (tmp_path / "a.txt").unlink()
    assert not again.finished(STEPS[0])
    assert not DemoProgress(tmp_path, STEPS, {"size": (3, 2)}).done["a"].finished
    (tmp_path / demo_steps.FILE).write_text('{"done": 3}', encoding="utf-8")
    assert not DemoProgress(tmp_path, STEPS, {"size": (1, 2)}).done["a"].finished


def test_what_a_part_took_is_kept_when_it_is_interrupted(tmp_path: Path) -> None:
    way = DemoProgress(tmp_path, STEPS, {})
    with pytest.raises(KeyboardInterrupt), way.running(STEPS[1]):
        raise KeyboardInterrupt
    again = DemoProgress(tmp_path, STEPS, {})
    assert again.done["b"].seconds == way.done["b"].seconds > 0 and not again.finished(STEPS[1])


def test_what_is_left_follows_the_pace_so_far(tmp_path: Path) -> None:
    way = walked(tmp_path, {})
    assert way.remaining() is None and way.line(STEPS[0]) == "[1/3] First · 0:00 elapsed"
    way = walked(tmp_path, {}, "a")
    way.done["a"].seconds = 60
    assert way.remaining() == pytest.approx(140)
    assert way.line(STEPS[1]) == "[2/3] Second · 1:00 elapsed, about 2:20 left"
