"""Masks and points of the images in a batch: those of all datasets together, and how they move into the views.

In a mirrored view the left lung looks like a right one. Masks and points therefore exchange left and right there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ribcage.data.masks import PLACE
from ribcage.data.structures import WHOLES, mirrored_name
from ribcage.imaging.mask import Mask

if TYPE_CHECKING:  # imports torch, which an import does not need
    from ribcage.imaging.augment import Numbers

NOT_ANNOTATED = 255
"""Value of all pixels of a structure for which an image was not annotated."""


def related_names(structures: Sequence[str]) -> list[str]:
    """The structures, their parts, and both sides of each."""
    names = [part for name in structures for part in (name, *WHOLES.get(name, ()))]
    return list(dict.fromkeys(other for name in names for other in (name, mirrored_name(name))))


@dataclass(frozen=True)
class RowMasks:
    """Masks of images; arrays of one entry per mask, in the order of the rows."""

    structures: tuple[str, ...]
    """The K structures of a batch."""
    policy: str
    """How masks of several readers are combined: `majority`, `any` or `each`."""
    rows: np.ndarray
    names: np.ndarray
    """Names of the structures."""
    readers: np.ndarray
    places: np.ndarray
    """(M, 4) float64: x, y, width and height of the rectangle in stored pixels."""
    sides: np.ndarray
    """(M, 2): columns and lines of the rectangle."""
    runs: np.ndarray

    @classmethod
    def of(
        cls, tables: Sequence[pd.DataFrame], starts: Sequence[int], structures: Sequence[str], policy: str
    ) -> "RowMasks":
        """From the masks of each dataset and the numbers of their first rows."""
        wanted = related_names(structures)
        chosen = [
            table[table["structure"].isin(wanted)].assign(row=lambda found, start=start: found["row"] + start)
            for table, start in zip(tables, starts, strict=False)
        ]
        found = pd.concat([one for one in chosen if len(one)] or chosen[:1], ignore_index=True)
        return cls(
            structures=tuple(structures),
            policy=policy,
            rows=found["row"].to_numpy(),
            names=found["structure"].to_numpy(object),
            readers=found["reader"].to_numpy(object),
            places=found[list(PLACE)].to_numpy(),
            sides=found[["columns", "lines"]].to_numpy(),
            runs=found["runs"].to_numpy(object),
        )

    def views(self, rows: np.ndarray, numbers: "Numbers", chance: np.ndarray) -> np.ndarray:
        """(N, K, H, W) uint8 masks in a view of these rows: 1, 0 or NOT_ANNOTATED.

        chance: (N,) numbers in [0, 1) that draw a reader, for the policy `each`.
        """
        views = np.full((len(rows), len(self.structures), *numbers.size), NOT_ANNOTATED, np.uint8)
        first, end = (np.searchsorted(self.rows, rows, side=side) for side in ("left", "right"))
        flipped = numbers.flipped
        for n in np.flatnonzero(end > first).tolist():
            own = np.arange(first[n], end[n])
            names = [mirrored_name(name) if flipped[n] else name for name in self.structures]
            for k, name in enumerate(names):
                groups = self._annotated(own, name)
                if groups:
                    parts = [self._combined(masks, numbers.affine[n], numbers.size, chance[n]) for masks in groups]
                    views[n, k] = np.maximum.reduce(parts)
        return views

    def _annotated(self, own: np.ndarray, name: str) -> list[np.ndarray]:
        """The masks of a structure among those of an image; if it has none, those of its parts, if it has all."""
        masks = own[self.names[own] == name]
        if len(masks):
            return [masks]
        parts = [own[self.names[own] == part] for part in WHOLES.get(name, ())]
        return parts if all(map(len, parts)) else []

    def _combined(self, masks: np.ndarray, affine: np.ndarray, size: tuple[int, int], chance: float) -> np.ndarray:
        """(H, W) uint8: one mask from all of a structure; those of one reader are instances of it."""
        readers = np.unique(self.readers[masks].astype(str))
        if self.policy == "each":
            readers = readers[[int(chance * len(readers))]]
        votes = np.zeros(size, np.uint8)
        for reader in readers:
            drawn = [self._warped(place, affine, size) for place in masks[self.readers[masks] == reader].tolist()]
            votes += np.maximum.reduce(drawn)
        least = 0 if self.policy == "any" else len(readers) // 2
        return (votes > least).view(np.uint8)

    def _warped(self, place: int, affine: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        from ribcage.imaging.augment import warp_mask

        columns, lines = self.sides[place].tolist()
        if not columns * lines:
            return np.zeros(size, np.uint8)
        pixels = Mask(columns, lines, 0, 0, columns, lines, self.runs[place]).pixels()
        return warp_mask(pixels, self.places[place], affine, size)


@dataclass(frozen=True)
class RowPoints:
    """Points of images."""

    structures: tuple[str, ...]
    rows: np.ndarray
    """(M,) int64, ascending."""
    values: np.ndarray
    """(M, 5) float64: structure, structure in a mirrored image (-1 for those that are not asked for), number, x, y."""

    @classmethod
    def of(cls, tables: Sequence[pd.DataFrame], starts: Sequence[int], structures: Sequence[str]) -> "RowPoints":
        """From the points of each dataset and the numbers of their first rows."""
        places = {name: place for place, name in enumerate(structures)}
        rows, values = [np.empty(0, np.int64)], [np.empty((0, 5))]
        for table, start in zip(tables, starts, strict=False):
            own, mirrored = (
                table["structure"].map(lambda name, turn=turn: places.get(turn(name), -1)).to_numpy(np.float64)
                for turn in (str, mirrored_name)
            )
            kept = (own >= 0) | (mirrored >= 0)
            rows.append((table["row"].to_numpy(np.int64) + start)[kept])
            columns = [own, mirrored, *(table[name].to_numpy(np.float64) for name in ("number", "x", "y"))]
            values.append(np.stack(columns, axis=1)[kept])
        return cls(tuple(structures), np.concatenate(rows), np.concatenate(values))

    def views(self, rows: np.ndarray, numbers: "Numbers") -> np.ndarray:
        """(M, 5) float32 points in a view of these rows: n, structure, number, x, y."""
        from ribcage.imaging.augment import move_points

        first, end = (np.searchsorted(self.rows, rows, side=side) for side in ("left", "right"))
        count = end - first
        n = np.repeat(np.arange(len(rows)), count)
        found = self.values[np.repeat(first - (np.cumsum(count) - count), count) + np.arange(count.sum())]
        structure = np.where(numbers.flipped[n], found[:, 1], found[:, 0])
        points = np.concatenate([n[:, None], structure[:, None], found[:, 2:]], axis=1)
        return move_points(points[structure >= 0], numbers)
