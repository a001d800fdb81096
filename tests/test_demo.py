"""The demo goes from nothing to a tested model, and goes on where it was."""

import shlex
import socket
from pathlib import Path

import pytest

from ribcage import cli, flags

SMALL = ["--pictures", "240", "--size", "32", "--seen", "32", "--model", "test_resnet"]
SMALL += ["--epochs", "1", "--pretrain-epochs", "1", "--distil-epochs", "1", "--localise-epochs", "1"]


def test_the_demo_makes_inspects_trains_tests_pretrains_distils_and_localises_without_a_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError(f"the demo opened a connection: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    out = tmp_path / "示范 demo"
    assert cli.main(["demo", "--out", str(out), *SMALL]) == 0
    every_command_that_it_shows_is_understood(capsys.readouterr().out)
    assert cli.main(["demo", "--out", str(out), *SMALL]) == 0
    assert "is complete already" in capsys.readouterr().out
    assert (out / "inspect.html").read_text(encoding="utf-8").count("<figure>") == 24
    for page in (
        "model/evaluation/phantom-test/index.html",
        "pretraining.html",
        "distillation.html",
        "few-pretrained/evaluation/phantom-test/index.html",
    ):
        assert "AUROC" in (out / page).read_text(encoding="utf-8")
    assert "multiply-adds" in (out / "distillation.html").read_text(encoding="utf-8")
    assert "mAP" in (out / "boxes" / "evaluation" / "phantom-test" / "index.html").read_text(encoding="utf-8")
    assert "pretrained" in (out / "pretrained" / "bundle" / "README.md").read_text(encoding="utf-8")


def every_command_that_it_shows_is_understood(said: str) -> None:
    shown = [line[2:] for line in said.splitlines() if line.startswith("$ ")]
    names = [line.split()[1] for line in shown]
    tuned = ["finetune", "evaluate"]
    assert names == [
        "import",
        "inspect",
        *tuned,
        "pretrain",
        *tuned,
        *tuned,
        "compare",
        "finetune",
        "distil",
        "evaluate",
        "evaluate",
        "compare",
        "localise",
        "evaluate",
    ]
    for line in shown:
        name, *words = shlex.split(line)[1:]
        module = cli.command(name)
        assert flags.parse(name, module, flags.read_flags(module, words), words)
