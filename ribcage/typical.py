"""Typical: what a model's training pictures look like, so that one unlike them is noticed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ribcage.store import Store


@dataclass(frozen=True)
class Typical:
    """A short description of pictures, and how far from it held-out ones lie."""

    @classmethod
    def of(cls, stores: Sequence[Store], rows: np.ndarray, held_out: np.ndarray) -> "Typical | None":
        """Of these rows, counted through all stores, with limits from those held out; None of too few pictures."""
        return None


def load(folder: Path) -> Typical | None:
    """The description in a bundle; None where there is none."""
    return None


def remarks(known: Typical | None, square: np.ndarray, tags: dict[str, str]) -> tuple[str, ...]:
    """What is unusual about a picture, in plain sentences: what its DICOM says, and how it looks."""
    return ()
