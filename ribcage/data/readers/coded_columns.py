"""Coded columns: views, splits, sexes and ages in the words and units of a table.

A word without a meaning here is left blank and reported once, with the number of its cells: a code such as 1 for the
sex means something else in every hospital.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ribcage.data.findings import canonical, closest_finding
from ribcage.data.readers.table_text import cell_error, shown

SEX = {"f": "F", "female": "F", "m": "M", "male": "M", "女": "F", "男": "M", "女性": "F", "男性": "M", "w": "F"}
UNKNOWN = ("", "nan", "na", "n/a", "none", "null", "unknown", "unk", "u", "o", "other", "x", "-", "?", "未知", "不详")
"""Words for an unknown value, which are left blank without a message. DICOM files have O (other) for the sex."""
PER_YEAR = {
    **dict.fromkeys(("", "y", "yr", "yrs", "year", "years", "岁"), 1.0),
    **dict.fromkeys(("mo", "mos", "mth", "mths", "month", "months", "月", "个月"), 12.0),
    **dict.fromkeys(("w", "wk", "wks", "week", "weeks", "周"), 52.18),
    **dict.fromkeys(("d", "day", "days", "天", "日"), 365.25),
}
"""Unit of an age → units per year. A small m may also mean male, and M means months, as in DICOM files."""
AGE = r"^(\d+(?:[.,]\d{0,2})?)\s*([a-zA-Z]*|岁|个?月|周|天|日)\.?(?:\s+old)?$"
OLDEST = 120
"""Ages above this number of years are unknown: tables contain 411 for 41 years and one month, and months as years."""
MOST_SHOWN = 8

log = logging.getLogger("ribcage")


def translated(column: pd.Series, ours: dict[str, str], what: str) -> pd.Series:
    """Text translated by a table, ignoring case; "" for other words, with a warning. what: plural, such as Views."""
    found = column.str.strip().str.lower().map(ours)
    report_unread(column, found.isna().to_numpy(), f"{what} with other words than {', '.join(ours)}")
    return found.fillna("").astype("str")


def known_words(column: pd.Series, ours: Mapping[str, str | float], file: Path) -> pd.Series:
    """Text translated by a table, ignoring case; ValueError for a cell with any other text. The column has the index of
    the file."""
    words = column.str.strip().str.lower()
    strange = ~words.isin(list(ours)).to_numpy()
    if strange.any():
        at = int(strange.argmax())
        expected = f"one of {', '.join(filter(None, ours))}"
        raise cell_error(file, int(column.index[at]), str(column.name), column.iloc[at], expected)
    return words.map(dict(ours))


def sexes(column: pd.Series) -> pd.Series:
    """F, M or "". Numbers are not understood, as 1 is the code for males in some tables and for females in others."""
    return translated(column, SEX, "Sexes")


def years(ages: pd.Series) -> pd.Series:
    """Ages such as 58, '058Y', '011M', '013D', '45 months', 58岁 or 8个月 in years; NaN for anything else and for ages
    above 120, with a warning."""
    parts = ages.str.strip().str.extract(AGE, expand=True)
    unit = parts[1].str.lower().map(PER_YEAR).mask(parts[1] == "M", 12.0)
    number = pd.to_numeric(parts[0].str.replace(",", "."), errors="coerce").astype("float64")
    found = (number / unit.astype("float64")).astype("float64")
    found = found.where(found <= OLDEST).astype("float32")
    report_unread(ages, found.isna().to_numpy(), f"Ages without a known unit or above {OLDEST} years")
    return found


def plausible_years(ages: pd.Series) -> pd.Series:
    """Ages in years, as numbers; NaN for negative ones and above 120, with a warning."""
    found = ages.where(ages.between(0, OLDEST))
    if lost := int((ages.notna() & found.isna()).sum()):
        log.warning("Ages below 0 or above %s years are left blank: %s.", OLDEST, f"{lost:,}")
    return found


def numbers(column: pd.Series) -> pd.Series:
    """Text as numbers; NaN for other cells, with a warning that does not show them, as they may be dates of birth."""
    found = pd.to_numeric(column.str.strip(), errors="coerce").astype("float64")
    odd = found.isna() & ~column.str.strip().str.lower().isin(UNKNOWN)
    if odd.any():
        log.warning("Cells in the column %r that are not numbers are left blank: %s.", column.name, f"{odd.sum():,}")
    return found


def named_findings(column: pd.Series, dataset: str, file: Path) -> pd.Series:
    """The vocabulary's names of findings; ValueError for an unknown one. The column has the index of the file."""
    meant = {}
    for name in column.unique():
        try:
            meant[name] = canonical(name, dataset)
        except ValueError:
            row = int(column.index[(column == name).to_numpy().argmax()])
            near = f" (such as {near!r})" if (near := closest_finding(name)) else ""
            raise cell_error(file, row, str(column.name), name, f"a finding of {dataset}{near}") from None
    return column.map(meant).astype("str")


def report_strange(counts: Counter[str], what: str) -> None:
    """Warn of words that do not occur in a published table, with the number of each. what: plural, such as Labels."""
    if counts:
        said = [f"{count:,} × {shown(word)}" for word, count in counts.most_common(MOST_SHOWN)]
        more = ", …" if len(counts) > len(said) else ""
        log.warning("%s that are not in the published table belong to no finding: %s%s.", what, ", ".join(said), more)


def report_unread(column: pd.Series, blank: np.ndarray, what: str) -> None:
    """Warn of cells that are left blank, with the number of each; cells with a word for 'unknown' are no surprise."""
    odd = column[blank & ~column.str.strip().str.lower().isin(UNKNOWN).to_numpy()]
    if len(odd):
        counts = odd.str.strip().value_counts()
        said = [f"{count:,} × {shown(str(cell))}" for cell, count in counts.head(MOST_SHOWN).items()]
        more = ", …" if len(counts) > len(said) else ""
        log.warning("%s are left blank: %s%s.", what, ", ".join(said), more)
