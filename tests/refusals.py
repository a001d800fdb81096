"""What errors and notes must hold: the facts – option, file, number, choices – in order, whatever the words between."""

import re

import pytest

from ribcage import cli


def has_facts(text: str, *facts: object) -> bool:
    """Whether one line of a text holds all facts in this order; a word or number counts only whole."""
    return re.search(".*".join(_whole(str(fact)) for fact in facts), text) is not None


def _whole(fact: str) -> str:
    before, after = (r"(?<!\w)" * fact[:1].isalnum(), r"(?!\w)" * fact[-1:].isalnum())
    return before + re.escape(fact) + after


def line(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that refuses its options."""
    capsys.readouterr()
    assert cli.main(words) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("ribcage: ") and "\n" not in said
    return said
