"""Compare models on the same images: differences with intervals, paired tests, p-values adjusted for their number.

Takes runs that were evaluated, folders of evaluations, or tables of predictions; each is compared with the first. Where
the model itself is known, what it costs stands there, too: parameters, multiply-adds, size on disk, time if asked for.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

POSITIONAL = ("runs",)
EXAMPLES = ("compare runs/a runs/b", "compare runs/a predictions.csv --on data/nih --html compare.html")


@dataclass(frozen=True)
class Options:
    """What to compare, and where to write."""

    runs: tuple[str, ...]
    """Two or more runs, folders of evaluations, or tables of predictions."""
    on: str = ""
    """Which evaluation of the runs, such as nih-test, or the first digits of a test's key (default: the only test that
    all have in common)."""
    thresholds: tuple[str, ...] = ()
    """Of tables of predictions that know none: a probability for all findings, or FINDING=PROBABILITY …"""
    html: Path | None = None
    """Write a page to this file."""
    json: Path | None = None
    """Write all numbers to this file."""
    resamples: int = 1000
    """Of the patients, for the intervals."""
    seed: int = 0
    """Of the resamples."""
    latency: bool = False
    """Measure the time of one image, by turns, as it runs here and exported to ONNX Runtime."""
    threads: int = 0
    """With --latency: to measure it by; 0 takes one for each core."""


def run(options: Options) -> dict[str, Any]:
    """Read, compare, show, write; return the numbers."""
    import json

    from ribcage.bundle import cost
    from ribcage.evaluation import comparison
    from ribcage.reports import classification
    from ribcage.reports.html import Shown
    from ribcage.runtime import files, limits

    limits.check(options, ["--threads goes with --latency"] if options.threads and not options.latency else ())
    entries = comparison.entries(options.runs, options.on, options.thresholds)
    timing = cost.Timing(options.threads, batches=(1,)) if options.latency else None
    result = comparison.compare(entries, resamples=options.resamples, seed=options.seed, timing=timing)
    show(result)
    for file, text in (
        (options.json, json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n"),
        (options.html, classification.comparison_page(result)),
    ):
        if file is None:
            continue
        files.write(file, text)
        print(f"Wrote {file}")
    return Shown(result, lambda: classification.comparison_page(result))


def show(result: dict[str, Any]) -> None:
    """One table for each model beside the first."""
    from ribcage.commands.inspect import grid
    from ribcage.evaluation import comparison
    from ribcage.reports import classification
    from ribcage.runtime import terminal

    console = terminal.console()
    shown = range(len(classification.COMPARED_HEAD)) if console.width >= 100 else (0, 3, 4, 5, 6, 7, 8)
    console.print(f"\n{classification.compared_text(result)}")
    console.print(grid(classification.beside_head(result), classification.beside_rows(result)))
    console.print(classification.beside_text(result))
    for place, pair in enumerate(result["differences"], 1):
        console.print(f"\n{pair['model']} minus {pair['minus']}", style="bold")
        rows = [[row[column] for column in shown] for row in classification.compared_rows(result, place)]
        console.print(grid([classification.COMPARED_HEAD[column] for column in shown], rows))
        console.print(grid(classification.means_head(result), classification.means_rows(result, place)))
    console.print(f"{classification.COMPARED_TEXT}\n{classification.means_text(result)}")
    for text in comparison.notes(result):
        console.print(f"! {text}")
