"""Progress: a line now and then in a file, one line that is overwritten in a notebook."""

import sys
import time
from types import SimpleNamespace

import pytest

from ribcage.runtime import progress


def said(capsys: pytest.CaptureFixture[str]) -> str:
    assert list(progress.track([1, 1, 1], 3, "train", "images", note=lambda: "loss 0.5")) == [1, 1, 1]
    return capsys.readouterr().err


def test_a_file_gets_whole_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    lines = said(capsys).splitlines()
    assert len(lines) == 3 and lines[-1].startswith("train 3/3") and lines[-1].endswith("loss 0.5")


def test_a_notebook_gets_one_line_that_is_drawn_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr(progress, "NOTEBOOK_SECONDS", 0.0)
    text = said(capsys)
    assert text.count("\r") == 3 and text.count("\n") == 1 and text.endswith("\n") and "train 3/3" in text


def test_ipython_in_a_terminal_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: object()))
    assert not progress._notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not progress._notebook()


def test_what_cannot_be_counted_says_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.02)
    with progress.working("writing model.onnx"):
        time.sleep(0.07)
    first, *more, last = capsys.readouterr().err.splitlines()
    assert first == "writing model.onnx …" and last.startswith("writing model.onnx: ") and len(more) >= 1
    assert all("model.onnx" in line for line in more)
