"""Masks and points of the images in a batch: those of all datasets together, and how they move into the views.

In a mirrored view the left lung looks like a right one. Masks and points therefore exchange left and right there.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionArray

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


def is_known(name: str, known: Collection[str]) -> bool:
    """Whether an image or a mirrored image can be annotated for a structure if there are annotations of `known`."""
    parts = WHOLES.get(name, ())
    return bool({name, mirrored_name(name)} & {*known}) or bool(parts and {*parts} <= {*known})


@dataclass(frozen=True)
class MaskColumns:
    """The columns of a table of masks from which a mask is made."""

    sides: tuple[np.ndarray, ...]
    """Columns and lines of the rectangles."""
    positions: tuple[np.ndarray, ...]
    """x, y, width and height of the rectangles in stored pixels."""
    runs: ExtensionArray

    @classmethod
    def of(cls, table: pd.DataFrame) -> "MaskColumns":
        """The columns of this table, without a copy."""
        sides, positions = (tuple(table[name].to_numpy() for name in names) for names in (("columns", "lines"), PLACE))
        return cls(sides, positions, table["runs"].array)

    def __len__(self) -> int:
        return len(self.runs)

    def position(self, place: int) -> np.ndarray:
        """(4,) float64: x, y, width and height of the rectangle of a mask in stored pixels."""
        return np.array([values[place] for values in self.positions])

    def pixels(self, place: int) -> np.ndarray:
        """(lines, columns) uint8: the pixels of the rectangle, 1 in the mask."""
        columns, lines = (int(values[place]) for values in self.sides)
        return Mask(columns, lines, 0, 0, columns, lines, self.runs[place]).pixels()


@dataclass(frozen=True)
class RowMasks:
    """Masks of images; arrays of one entry per mask, in the order of the rows."""

    structures: tuple[str, ...]
    """The K structures of a batch."""
    policy: str
    """How masks of several readers are combined: `majority`, `any` or `each`."""
    rows: np.ndarray
    """(M,) int64, ascending."""
    names: np.ndarray
    """(M,) int16: the number of the structure in `related_names`."""
    readers: np.ndarray
    """(M,) int32: the number of the reader, in the order of their names."""
    numbers: np.ndarray
    """(M,) int64: the position of the mask in the tables of all datasets."""
    tables: tuple[MaskColumns, ...]
    """The tables, which may be memory-mapped: masks are read when they are needed."""

    @classmethod
    def of(
        cls, tables: Sequence[pd.DataFrame], starts: Sequence[int], structures: Sequence[str], policy: str
    ) -> "RowMasks":
        """From the masks of each dataset and the numbers of their first rows."""
        wanted = {name: number for number, name in enumerate(related_names(structures))}
        parts = [[np.empty(0, kind)] for kind in (np.int64, np.int16, np.int32, np.int64)]
        before = 0
        for table, start in zip(tables, starts, strict=False):
            codes, names = pd.factorize(table["structure"])
            found = np.array([wanted.get(name, -1) for name in names], np.int16)[codes]
            kept = np.flatnonzero(found >= 0)
            drawn_by = pd.factorize(table["reader"], sort=True)[0].astype(np.int32)
            own_rows = table["row"].to_numpy()[kept] + start
            for part, values in zip(parts, (own_rows, found[kept], drawn_by[kept], kept + before), strict=True):
                part.append(values)
            before += len(table)
        rows, names, readers, numbers = map(np.concatenate, parts)
        return cls(tuple(structures), policy, rows, names, readers, numbers, tuple(map(MaskColumns.of, tables)))

    def views(self, rows: np.ndarray, numbers: "Numbers", chance: np.ndarray) -> np.ndarray:
        """(N, K, H, W) uint8 masks in a view of these rows: 1, 0 or NOT_ANNOTATED.

        chance: (N,) numbers in [0, 1) that draw a reader, for the policy `each`.
        """
        views = np.full((len(rows), len(self.structures), *numbers.size), NOT_ANNOTATED, np.uint8)
        first, end = (np.searchsorted(self.rows, rows, side=side) for side in ("left", "right"))
        flipped = numbers.flipped
        for n in np.flatnonzero(end > first).tolist():
            own = np.arange(first[n], end[n])
            for k, name in enumerate(map(mirrored_name, self.structures) if flipped[n] else self.structures):
                groups = self._annotated(own, name)
                if groups:
                    parts = [self._combined(masks, numbers.affine[n], numbers.size, chance[n]) for masks in groups]
                    views[n, k] = np.maximum.reduce(parts)
        return views

    def _annotated(self, own: np.ndarray, name: str) -> list[np.ndarray]:
        """The masks of a structure among those of an image; if it has none, those of its parts, if it has all."""
        masks, *parts = (own[self.names[own] == self._wanted[each]] for each in (name, *WHOLES.get(name, ())))
        if len(masks):
            return [masks]
        return parts if all(map(len, parts)) else []

    def _combined(self, masks: np.ndarray, affine: np.ndarray, size: tuple[int, int], chance: float) -> np.ndarray:
        """(H, W) uint8: one mask from all of a structure; those of one reader are instances of it."""
        readers = np.unique(self.readers[masks])
        if self.policy == "each":
            readers = readers[[int(chance * len(readers))]]
        votes = np.zeros(size, np.uint8)
        for reader in readers:
            drawn = [self._warped(place, affine, size) for place in masks[self.readers[masks] == reader].tolist()]
            votes += np.maximum.reduce(drawn)
        least = 0 if self.policy == "any" else len(readers) // 2
        return (votes > least).view(np.uint8)

    def _warped(self, mask: int, affine: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        from ribcage.imaging.augment import warp_mask

        place = int(self.numbers[mask])
        for table in self.tables:
            if place < len(table):
                break
            place -= len(table)
        pixels = table.pixels(place)
        return warp_mask(pixels, table.position(place), affine, size) if pixels.size else np.zeros(size, np.uint8)

    @cached_property
    def _wanted(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(related_names(self.structures))}


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
