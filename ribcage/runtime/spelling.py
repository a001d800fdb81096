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
