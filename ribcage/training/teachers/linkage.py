"""Record linkage: matches the lines of a table of predictions to images of the data."""

import re

import numpy as np
import pandas as pd

from ribcage.data.readers import tables

GENERIC = re.compile(r"(view\d+|image|img|picture|x-?ray|cxr|chest|scan|frontal|lateral|pa|ap|[\W_])+", re.IGNORECASE)
"""File names, without suffix, that do not identify an image without their folder."""


def matched_rows(theirs: pd.DataFrame, own: pd.DataFrame) -> np.ndarray:
    """(lines,) the row of the image of each line of a table, -1 where there is no certain match.

    A match needs equal datasets where both are given, and paths that are equal from their ends as far as both go, up to
    the suffix of the file; no other image and no other line may match as well, and a generic name ('frontal.png') alone
    is no match."""
    place, named = np.full(len(theirs), -1), (theirs["set"] != "").to_numpy()
    for with_set in (True, False):
        lines = np.flatnonzero(named == with_set)
        for whole in (True, False):
            found = _fitting(_keys(theirs.iloc[lines], with_set, whole), _keys(own, with_set, whole))
            new = (place[lines] < 0) & (found >= 0) & ~np.isin(found, place)
            place[lines[new]] = found[new]
    return place


def _keys(images: pd.DataFrame, with_set: bool, whole: bool) -> list[list[str]]:
    """The parts of each path from its end, the first with the dataset; whole: with the suffix of the file."""
    sets = images["set"].str.casefold() if with_set else [""] * len(images)
    keys = []
    for name, path in zip(sets, images["path"], strict=True):
        parts = [part for part in re.split(r"^[A-Za-z]:|[/\\]", path) if part not in ("", ".", "..")][::-1] or [""]
        file = parts[0] if whole else tables.SUFFIX.sub("", parts[0])
        keys.append([f"{name}\0{file}", *parts[1:]])
    return keys


def _fitting(theirs: list[list[str]], own: list[list[str]]) -> np.ndarray:
    """(lines,) the only image that agrees with a line as far as both paths go, if the line is its only one; else -1.
    Matches with more parts in common go first."""
    place, lengths = np.full(len(theirs), -1), [np.array([len(one) for one in keys], int) for keys in (theirs, own)]
    for depth in range(min(lengths[0].max(initial=0), lengths[1].max(initial=0)), 0, -1):
        lines, images = (_common(keys, depth) for keys in (theirs, own))
        bare = lengths[0][lines.index] == depth, lengths[1][images.index] == depth
        to_image = pd.Series(np.where(bare[0], _only(lines, images), _only(lines, images[bare[1]])), lines.index)
        to_line = pd.Series(np.where(bare[1], _only(images, lines), _only(images, lines[bare[0]])), images.index)
        for line, image in to_image[to_image >= 0].items():
            sure = depth > 1 or lengths[0][line] == lengths[1][image] or not GENERIC.fullmatch(_stem(theirs[line]))
            if place[line] < 0 and to_line[image] == line and sure:
                place[line] = image
    return place


def _common(keys: list[list[str]], depth: int) -> pd.Series:
    """The first `depth` parts of those that have so many."""
    long = [place for place, parts in enumerate(keys) if len(parts) >= depth]
    return pd.Series(["/".join(keys[place][:depth]) for place in long], pd.Index(long, dtype="int64"), dtype="str")


def _only(keys: pd.Series, among: pd.Series) -> np.ndarray:
    """For each key the place of the only element of `among` that is equal to it; -1 for none or several."""
    once = among[~among.duplicated(keep=False)]
    return keys.map(pd.Series(once.index, once)).fillna(-1).to_numpy(np.int64)


def _stem(parts: list[str]) -> str:
    """The name of a file without dataset and suffix."""
    return tables.SUFFIX.sub("", parts[0].partition("\0")[2])
