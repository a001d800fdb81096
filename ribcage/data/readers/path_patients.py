"""Patients from the paths of images, by a regular expression, and suggestions for it."""

import re

import pandas as pd

from ribcage.data.readers.table_text import printable_text
from ribcage.runtime.spelling import count_phrase

# File names with a patient, and the folder of one.
PATTERNS = (
    r"((?:person|patient|pat|subject|subj|sub|case|pid)[-_ ]?\d+)",
    r"((?:person|patient|pat|subject|subj|sub|case|pid|pt|p|病人|患者|病例)[-_ ]?\d+)/",
    r"(?:^|/)(\d{3,})[-_][^/]*$",
    r"(?:^|/)([A-Za-z]{1,4}[-_]?\d{2,})[-_][^/]*$",
)


def proposed_pattern(paths: list[str]) -> str:
    """Suggestion of a pattern that finds patients in file names shared by several images; "" if there is none."""
    best: tuple[int, str, list[str]] = (0, "", [])
    for pattern in PATTERNS:
        expression = re.compile(pattern, re.IGNORECASE)
        found = [match[1] for path in paths if (match := expression.search(path))]
        if 1 < len(set(found)) < len(found) and len(found) > max(best[0], len(paths) // 5):
            best = (len(found), pattern, found)
        if best[0] > 0.8 * len(paths):
            break
    count, pattern, found = best
    if not count:
        return ""
    return (
        f"File names may contain patient identifiers: --patient-pattern '(?i){pattern}' finds "
        f"{count_phrase(len(set(found)), 'patient')} in {count:,} of {count_phrase(len(paths), 'path')}, "
        f"such as {printable_text(found[0])!r}. If this is correct, pass this option."
    )


def patients_in_paths(paths: pd.Series, pattern: str) -> pd.Series:
    """(N,) match of the pattern's group in each path; "" if there is none."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"--patient-pattern {pattern!r} is not a regular expression: {error}.") from None
    if groups != 1:
        raise ValueError(
            f"--patient-pattern {pattern!r} needs one group in parentheses, as in (person\\d+)_, for the patient."
        )
    return paths.str.extract(pattern, expand=False).fillna("").astype("str")
