"""Compare models on the same images: differences with 95 % intervals, paired tests, adjusted p-values.

Evaluated runs, evaluation folders, or tables of predictions are each compared with the first one. The cost of
Ribcage models is shown as well: parameters, multiply-adds, size on disk and, with --latency, time per image.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ribcage.runtime.remote.addresses import address_text
from ribcage.runtime.remote.places import Place

if TYPE_CHECKING:
    from ribcage.evaluation.comparison import ComparisonResult
    from ribcage.reports.html import ResultWithPage

POSITIONAL = ("runs",)
PLACES = {"runs": Place.RESULTS, "html": Place.FILE_OUT, "json": Place.FILE_OUT}
EXAMPLES = ("compare runs/a runs/b", "compare runs/a runs/b --on nih-test --html compare.html")


@dataclass(frozen=True)
class Options:
    """What to compare, and where to write."""

    runs: tuple[str, ...]
    """Two or more run folders, evaluation folders, or tables of predictions (.parquet or .csv)."""
    on: str = ""
    """Evaluation to compare: the name of its folder, such as nih-test, or the first digits of its test key, which is
    listed in the model card (default: the only evaluation that all runs have in common)."""
    thresholds: tuple[str, ...] = ()
    """Thresholds for tables of predictions: one probability for all findings, or FINDING=PROBABILITY for each
    finding."""
    html: Path | None = None
    """Write an HTML report to this file."""
    json: Path | None = None
    """Write all numbers to this JSON file."""
    resamples: int = 1000
    """Number of bootstrap resamples of patients."""
    seed: int = 0
    """Random seed for the bootstrap."""
    latency: bool = False
    """Measure the inference time per image in PyTorch and in ONNX Runtime."""
    threads: int = 0
    """Number of CPU threads for --latency; 0 means one per core."""


def run(options: Options) -> "ResultWithPage":
    """Read, compare, print, write; return the numbers."""
    import json

    from ribcage.bundle import cost
    from ribcage.evaluation import comparison, comparison_entries
    from ribcage.reports.comparison import comparison_page
    from ribcage.reports.html import ResultWithPage
    from ribcage.runtime import files, limits, typed_json

    limits.check_options(
        options, ["--threads has no effect without --latency"] if options.threads and not options.latency else ()
    )
    entries = comparison_entries.entries(options.runs, options.on, options.thresholds)
    timing = cost.Timing(options.threads, batches=(1,)) if options.latency else None
    result = comparison.compare(entries, resamples=options.resamples, seed=options.seed, timing=timing)
    show(result)
    for file, text in (
        (options.json, json.dumps(typed_json.to_json(result), indent=1, ensure_ascii=False, allow_nan=False) + "\n"),
        (options.html, comparison_page(result)),
    ):
        if file is None:
            continue
        files.write_text(file, text)
        print(f"Wrote {address_text(file)}")
    return ResultWithPage(typed_json.to_json(result), lambda: comparison_page(result))


def show(result: "ComparisonResult") -> None:
    """One table for each model beside the first."""
    from ribcage.evaluation import comparison
    from ribcage.reports import comparison as report
    from ribcage.reports.console import print_table
    from ribcage.runtime import terminal

    console = terminal.console()
    shown = range(len(report.DIFFERENCE_HEAD)) if console.width >= 100 else (0, 3, 4, 5, 6, 7, 8)
    console.print(f"\n{report.comparison_summary(result)}")
    print_table(console, report.model_table(result))
    console.print(report.model_note(result))
    for place, pair in enumerate(result.differences, 1):
        console.print(f"\n{pair.model} minus {pair.minus}", style="bold")
        print_table(console, report.difference_table(result, place).columns(shown))
        print_table(console, report.mean_difference_table(result, place))
    console.print(f"{report.DIFFERENCE_NOTE}\n{report.mean_difference_note(result)}")
    for text in comparison.comparison_notes(result):
        console.print(f"! {text}")
