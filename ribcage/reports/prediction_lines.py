"""Predictions of image files as lines of text: one line per probability row or box, a legend, and counts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from ribcage.bundle.spec import DEFAULT_RULE, HALF, ModelSpec
from ribcage.inference import image_files
from ribcage.inference.image_files import ABOVE
from ribcage.inference.sanity import ALIKE, Likeness
from ribcage.runtime import terminal

Row = dict[str, object]
FEW = 6
"""Up to so many findings are all shown on a line; of more, those that reach their threshold and the most probable."""
NEXT = 3
"""How many of the most probable others."""
SHOWN = 20
"""Files printed where the predictions are also written to a table, besides unusual and unreadable ones."""
KINDS = 6
"""Kinds of skipped files that are named."""


@dataclass(frozen=True)
class PredictionLines:
    """How a model's predictions are printed."""

    model: ModelSpec
    rule: str = ""
    """Rule of the thresholds; empty: the default one."""
    notes: bool = False
    """Print how each file was read."""
    table: str = ""
    """The file that all predictions are written to; of long ones only the beginning is printed then."""

    def of_files(self, predictions: pd.DataFrame) -> Iterator[str]:
        """The lines of every file."""
        hidden = 0
        for number, (path, rows) in enumerate(predictions.groupby("path", sort=False)):
            several = rows.assign(path=terminal.plain_line(str(path))).to_dict("records")
            unusual = several[0]["error"] or several[0]["image_warnings"]
            if self.table and number >= SHOWN and not unusual:
                hidden += 1
                continue
            yield from self._of_file(several)
        if hidden:
            yield f"… {hidden:,} more files are in {self.table}."

    def _of_file(self, rows: Sequence[Row]) -> list[str]:
        first = rows[0]
        path, error = str(first["path"]), str(first["error"])
        if error:
            return [f"! {error}" if path in error else f"! {path}: {error}"]
        lines = [_box_line(row) for row in rows] if "finding" in first else [self._probabilities(first)]
        lines += [f"    warning: {first['image_warnings']}"] if first["image_warnings"] else []
        return lines + ([f"    decoding: {first['notes'] or 'no conversion'}"] if self.notes else [])

    def _probabilities(self, row: Row) -> str:
        """All of a few findings; of many those that reach their threshold, the next, and how many more there are."""
        findings = self.model.findings
        values, high, kept = {name: float(str(row[name])) for name in findings}, crossing(row, findings), list(findings)
        if len(findings) > FEW:
            ordered = sorted(findings, key=lambda name: -values[name])
            kept = [name for name in ordered if name in high]
            kept += [name for name in ordered if name not in high][:NEXT]
        line = "  ".join(f"{name} {values[name]:.3f}{'*' * (name in high)}" for name in kept)
        more = len(findings) - len(kept)
        return f"{row['path']}  {line}" + (f"  … {more} more" if more else "")

    def legend(self) -> list[str]:
        """What a star means, and which findings have no threshold."""
        if self.model.detector:
            return []
        cuts = image_files.cuts(self.model, self.rule)
        unknown = [name for name, cut in zip(self.model.findings, cuts, strict=True) if cut is None]
        if len(unknown) == len(cuts):
            return [
                "The model has no thresholds, so no finding is marked. Pass --rule half to mark probabilities ≥ 0.5."
            ]
        rule = self.rule or DEFAULT_RULE
        star = "* probability ≥ 0.5"
        star = star if rule == HALF else f"* probability ≥ threshold ({rule}, chosen on validation images)"
        return [star] + ([f"There is no threshold for {', '.join(unknown)}."] if unknown else [])


def crossing(row: Row, findings: Sequence[str]) -> list[str]:
    """The findings that reach their threshold, as far as that is known."""
    return [name for name in findings if row[name + ABOVE] is True]


def errors(predictions: pd.DataFrame) -> list[str]:
    """The error of each file; empty for a file that was read."""
    return [str(error) for error in predictions.groupby("path", sort=False)["error"].first()]


def counts_line(predictions: pd.DataFrame) -> str:
    """How many files were predicted, how many of them are unusual, how many could not be read."""
    each = errors(predictions)
    total, bad = len(each), sum(map(bool, each))
    unusual = predictions.loc[predictions["image_warnings"] != "", "path"].nunique()
    line = f"{total - bad:,} of {total:,} files predicted"
    line += f", {unusual:,} of them with warnings" if unusual else ""
    return line + (f"; {bad:,} of {total:,} files could not be read." if bad else ".")


def skipped_line(found: image_files.Files) -> str:
    """How many files were skipped, and what kinds they are by their names."""
    kinds = ", ".join(f"{count:,} × {ending}" for ending, count in found.endings[:KINDS])
    more = ", …" if len(found.endings) > KINDS else ""
    several = "1 file" if found.others == 1 else f"{found.others:,} files"
    return f"Skipped {several} ({kinds}{more}) that are not PNG, JPEG, TIFF, BMP or DICOM by their first bytes."


def _box_line(row: Row) -> str:
    if not row["finding"]:
        return f"{row['path']}  no box"
    sides = "  ".join(f"{name} {row[name]:.1f}" for name in ("x", "y", "width", "height"))
    return f"{row['path']}  {row['finding']} {row['score']:.3f}  {sides}"


def sanity_lines(found: Likeness, coarse: str) -> Iterator[str]:
    """How similar maps are under random weights, as a table, and what follows.

    coarse: a warning about maps with few cells; empty for none.
    """
    yield (
        f"Rank correlation of these maps with maps from randomised weights (1 = identical), for {found.images:,} "
        f"{'image' if found.images == 1 else 'images'} and {found.draws} randomisations:"
    )
    wide = max(map(len, (*found.findings, "mean")))
    yield f"{'':{wide}}  last layer  all layers"
    for name, *values in zip(found.findings, found.head, found.network, strict=True):
        yield f"{name:{wide}}" + "".join(f"{'–' if value != value else f'{value:.2f}':>12}" for value in values)
    if unchanged := found.independent_of_weights():
        yield (
            f"! The maps for {', '.join(unchanged)} hardly change when the weights are randomised (correlation ≥ "
            f"{ALIKE:g}): they depend on the image and do not explain the model."
        )
    elif coarse:
        yield f"! {coarse} With so few cells this check is not informative."
    elif found.known:
        yield "The maps depend on the trained weights."
    else:
        yield "All maps are empty, because no region raises the score of any finding. Try other images."
