"""Spelling: suggestions for misspelt words."""

import difflib
from collections.abc import Iterable


def nearest_word(word: str, known: Iterable[str]) -> str | None:
    """The known word most similar to this one; None if none is similar."""
    spellings = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(spellings), n=1, cutoff=0.6)
    return spellings[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean 'x'?' to end a message with, or ""."""
    near = nearest_word(word, known)
    return f" Did you mean {near!r}?" if near else ""


def count_phrase(number: int, noun: str = "", plural: str = "") -> str:
    """1,234 images; 1 image; 1,234. plural: default: the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}" if noun else f"{number:,}"
