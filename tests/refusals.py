"""A command that refuses says why in one line."""

import pytest

from ribcage import cli


def line(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says when it refuses."""
    capsys.readouterr()
    assert cli.main(words) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("ribcage: ") and "\n" not in said
    return said
