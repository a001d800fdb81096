"""Measure the AUROC of a probe on frozen features for several numbers of labelled images, and forecast it for more.

MODEL is a run folder or bundle, or an architecture with --init. The features are computed once. Each number of images
is drawn several times, by patient; a power law is fitted to the mean AUROCs, and the AUROC is forecast with prediction
intervals. There is no forecast from fewer than 4 numbers of images, or if the AUROC does not increase significantly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ribcage.commands import probe
from ribcage.runtime.remote.places import Place

if TYPE_CHECKING:
    from ribcage.training.label_efficiency import LabelCurves

POSITIONAL = ("model",)
PLACES = {"model": Place.MODEL, "data": Place.DATASET, "init": Place.WEIGHTS, "out": Place.FOLDER_OUT}
EXAMPLES = ("labels runs/moco --data data/nih --out labels", "labels runs/moco --data data/nih --labels 0.01 0.1 1")
GROUPS = {"batch": "Run"}


@dataclass(frozen=True)
class Options(probe.Options):
    """Options of a learning curve."""

    labels: tuple[float, ...] = ()
    """Fractions of the training patients whose labels are used."""
    counts: tuple[int, ...] = ()
    """Numbers of training images whose labels are used, in addition to --labels (default without both: all images, and
    half as many up to six times, but at least 50)."""
    seeds: int = 5
    """Number of random subsets of patients per number of images."""
    forecast: tuple[float, ...] = (2.0, 5.0, 10.0)
    """Multiples of the largest number of images for which the AUROC is forecast, at most 10."""
    out: Path | None = None
    """Output folder for labels.json and labels.html."""


def run(options: Options) -> "LabelCurves":
    """Compute the features, fit the probes, then fit the curves, show and write them."""
    from ribcage.training import label_efficiency

    check(options)
    data, model, parts, leaks = probe.features(options)
    available = len(parts[0].rows)
    amounts: Sequence[float] = (*options.labels, *options.counts) or label_efficiency.default_counts(available)
    scored = list(label_efficiency.subset_scores(data, parts, amounts, options.seeds))
    result = label_efficiency.label_curves(scored, model.findings, available, len(parts[2].rows), options.forecast)
    show(result)
    for leak in leaks:
        if leak.found:
            print(f"! LEAK: {leak.text}.")
    write(options, result)
    return result


def check(options: Options) -> None:
    """All that is wrong with the numbers asked for, at once."""
    from ribcage.metrics.learning_curve import MOST_AHEAD

    wrong = [f"--counts {count} must be 2 or more" for count in options.counts if count < 2]
    wrong += [
        f"--forecast {factor:g} must be above 1 and at most {MOST_AHEAD:g}"
        for factor in options.forecast
        if not 1 < factor <= MOST_AHEAD
    ]
    probe.check_numbers(options, wrong)


def show(result: "LabelCurves") -> None:
    """The tables on the terminal."""
    from ribcage.reports import label_efficiency as report
    from ribcage.reports.console import print_table
    from ribcage.runtime import terminal

    console = terminal.console()
    console.print(f"\nAUROC of frozen features on {result.tested:,} test images", style="bold")
    print_table(console, report.count_table(result))
    console.print(f"The mean is over {len(result.averaged)} of {len(result.findings)} findings.")
    console.print("\nForecast", style="bold")
    if result.macro.reason:
        console.print(result.macro.reason)
    else:
        print_table(console, report.forecast_table(result.macro))
    console.print("\nWhat more labels would gain", style="bold")
    for one in result.findings:
        console.print(f"{one.name}: {report.gain_phrase(one)}")


def write(options: Options, result: "LabelCurves") -> None:
    """labels.json and labels.html."""
    import json

    from ribcage.data import dataset_folder
    from ribcage.reports.label_efficiency import write_label_page
    from ribcage.runtime import files, typed_json

    if options.out is None:
        return
    facts = [
        ("model", options.model),
        ("weights", options.model if probe.named(options) else options.init or "random"),
        ("data", ", ".join(options.data)),
        ("split", options.split),
        ("command", command_line(options)),
    ]
    content = {**typed_json.to_json(result), **dict(facts), "versions": dataset_folder.versions()}
    with files.explained(options.out, "Free some."):
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        files.write_text(options.out / "labels.json", text)
        page = write_label_page(result, facts, options.out)
    print(f"Wrote {options.out / 'labels.json'} and {page}.")


def command_line(options: Options) -> str:
    """The command that repeats this."""
    import shlex
    import sys

    from ribcage.runtime import flags

    return shlex.join(["ribcage", "labels", *flags.option_line(sys.modules[__name__], options)])
