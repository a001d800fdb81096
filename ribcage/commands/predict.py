"""Ask a finished model about picture files: PNG, JPEG, TIFF, BMP, DICOM.

A classifier gives a probability for every finding; a detector gives boxes, in pixels of the file. A file that cannot be
read is said to be so, and the others are answered.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

POSITIONAL = ("model", "paths")


@dataclass(frozen=True)
class Options:
    """Whom to ask about what."""

    model: Path
    """A run, or the folder of a finished model."""
    paths: tuple[Path, ...]
    """Files, and folders of files."""
    out: Path | None = None
    """Write the answers to this table (.csv or .parquet)."""
    least: float | None = None
    """Of a detector: the least score of a box (default: what the model's validation chose for each finding)."""
    batch: int = 16
    """Files at a time."""


def run(options: Options) -> Any:
    """Open, ask, show, write; return the table."""
    from ribcage import bundle, inference, limits, prediction

    limits.check(options, wrong(options))
    paths = prediction.files(options.paths)
    if isinstance(opened := bundle.load_any(options.model), bundle.Detector):
        least = chosen(opened.model, options.least)
        table = prediction.boxes(opened, paths, least=least, batch=options.batch)
    else:
        if options.least is not None:
            raise ValueError(f"--least is of a detector's boxes, and {options.model} gives probabilities.")
        table = prediction.probabilities(bundle.load(options.model), paths, batch=options.batch)
    if options.out:
        inference.save(table, options.out)
        print(f"Wrote {options.out}.")
    show(table)
    return table


def wrong(options: Options) -> list[str]:
    """What cannot be done."""
    said = []
    if options.least is not None and not 0 <= options.least <= 1:
        said.append(f"--least {options.least:g} is not from 0 to 1")
    if options.out and options.out.suffix not in (".csv", ".parquet"):
        said.append(f"--out {options.out} is neither .csv nor .parquet")
    return said


def chosen(model: Any, least: float | None) -> list[float]:
    """The least score of a box of each finding: the one asked for, or validation's. Of a finding for which validation
    could choose none no box is shown; of a model that was never validated, all are."""
    from ribcage.bundle import CUT

    if least is not None or CUT not in model.thresholds:
        return [least or 0.0] * len(model.findings)
    cuts = model.thresholds[CUT]
    if mute := [name for name, cut in zip(model.findings, cuts, strict=True) if cut is None]:
        print(f"No box of {', '.join(mute)} is shown: validation found no score to trust. --least X shows them.")
    return [float("inf") if cut is None else cut for cut in cuts]


def show(table: Any) -> None:
    """A line for every row, and at the end how many files were bad."""
    for row in table.to_dict("records"):
        print(line(row))
    bad, every = int((table["error"] != "").sum()), table["path"].nunique()
    if bad == every:
        raise ValueError("No file could be read.")
    if bad:
        print(f"{bad:,} of {every:,} files could not be read.")


def line(row: dict[str, Any]) -> str:
    """What was said of a file, or of a box in it."""
    path, error = row.pop("path"), row.pop("error")
    if error:
        return f"! {error}" if path in error else f"! {path}: {error}"
    if "finding" not in row:
        return f"{path}  " + "  ".join(f"{name} {value:.3f}" for name, value in row.items())
    if not row["finding"]:
        return f"{path}  no box"
    sides = "  ".join(f"{name} {row[name]:.1f}" for name in ("x", "y", "width", "height"))
    return f"{path}  {row['finding']} {row['score']:.3f}  {sides}"
