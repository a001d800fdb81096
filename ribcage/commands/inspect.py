"""Audit datasets before training: counts, patients in several splits, duplicates, and sample images.

The arguments are dataset folders, or DATASET:ROOT (nih:/data/nih) for the tables of a dataset that has not been
imported. The results are printed as tables; --html writes a self-contained report, and --json writes the numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ribcage.runtime.remote.addresses import address_text
from ribcage.runtime.remote.places import Place

if TYPE_CHECKING:
    from ribcage.data.index import Index
    from ribcage.reports.html import ResultWithPage

POSITIONAL = ("folders",)
PLACES = {"folders": Place.DATASET, "split_list": Place.FILE, "html": Place.FILE_OUT, "json": Place.FILE_OUT}
EXAMPLES = ("inspect data/nih", "inspect data/nih data/rsna --html audit.html")


@dataclass(frozen=True)
class Options:
    """What to audit, and where to write."""

    folders: tuple[str, ...] = ()
    """Dataset folders, or DATASET:ROOT; without them, the lists of --split-list are compared by image names alone."""
    html: Path | None = None
    """Write an HTML report with tables and sample images to this file."""
    json: Path | None = None
    """Write all numbers to this JSON file."""
    near_duplicates: bool = True
    """Find near-duplicates (re-encoded, resized, cropped, mirrored or rotated images) as well as identical images."""
    samples: int = 24
    """Number of sample images per folder in the report."""
    split_list: tuple[str, ...] = ()
    """Files with image names, one per line, which are compared with each other: train=FILE test=FILE."""
    member: dict[str, object] = field(default_factory=dict)


def member(name: str) -> "Callable[..., Index | None]":
    """The function whose keywords are further options: for NAME:ROOT those of `import NAME`."""
    from ribcage.data import datasets
    from ribcage.data.audit import audited

    meant = audited.not_imported(str(name if isinstance(name, str | Path) else next(iter(name), "")))
    return datasets.load_dataset(meant[0]).index if meant else _nothing


def _nothing() -> None:
    """A dataset folder has no further options."""


def run(options: Options) -> "ResultWithPage":
    """Audit, print, write; return the numbers."""
    import json

    from ribcage.data import audit
    from ribcage.data.audit import audited
    from ribcage.reports.audit import audit_page
    from ribcage.reports.html import ResultWithPage
    from ribcage.runtime import files

    check(options)
    members = audited.members(options.folders, options.split_list, **options.member)
    numbers = audit.audit(members, near=options.near_duplicates)
    result = ResultWithPage(numbers, lambda: audit_page(members, numbers, options.samples))
    show(result)
    for file, text in ((options.json, json.dumps(result, indent=1, ensure_ascii=False)), (options.html, "")):
        if file is None:
            continue
        files.write_text(file, text or result.page())
        print(f"Wrote {address_text(file)}")
    return result


def check(options: Options) -> None:
    """Raise one ValueError with everything that is wrong with the options."""
    wrong = []
    repeated = [word for word in dict.fromkeys(options.folders) if options.folders.count(word) > 1]
    wrong += [f"{word} is given twice" for word in repeated]
    wrong += ["FOLDERS is missing: pass dataset folders, DATASET:ROOT, or --split-list"] * (
        not options.folders and not options.split_list
    )
    wrong += [f"--samples {options.samples} must be 0 or more"] * (options.samples < 0)
    for name in ("html", "json"):
        file = getattr(options, name)
        if file is not None and (file.is_dir() or not file.name):
            wrong.append(f"--{name} {file} is a folder, not a file")
    if wrong:
        raise ValueError("; ".join(wrong) + ". See 'ribcage inspect --help'.")


def show(result: "ResultWithPage") -> None:
    """Print everything as tables."""
    from ribcage.reports.audit import PREVALENCE_NOTE, dataset_facts, label_table
    from ribcage.reports.console import print_table
    from ribcage.runtime import terminal

    console = terminal.console()
    for described in result["sets"]:
        console.print(f"\n{described['label']}", style="bold")
        for name, value in dataset_facts(described):
            console.print(f"  {name:<10} {value}", soft_wrap=not console.is_terminal)
        if described["findings"]:
            print_table(console, label_table(described))
            console.print(f"  {PREVALENCE_NOTE}", highlight=False, markup=False, soft_wrap=not console.is_terminal)
    console.print()
    for problem in result["problems"] or ["No problems found."]:
        line = f"! {problem}" if result["problems"] else problem
        console.print(line, soft_wrap=not console.is_terminal)
