"""The results of an evaluation: a table and warnings on the terminal, files in a folder, and the tests on the model's
card."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ribcage.bundle import card, history
from ribcage.bundle.io import find_bundle, upload_changed
from ribcage.metrics.evaluation import Evaluation
from ribcage.metrics.evaluation_file import METRICS_FILE, evaluation_json, write_evaluation
from ribcage.reports.classification import WIDE_ONLY
from ribcage.reports.console import print_table
from ribcage.reports.details import evaluation_title
from ribcage.reports.html import ResultWithPage, Table
from ribcage.runtime import files, terminal
from ribcage.runtime.remote import objects, uploading
from ribcage.runtime.remote.addresses import address_text

NARROW = 100
"""Columns of a terminal below which some of the table are left out."""


@dataclass(frozen=True)
class EvaluationFiles:
    """Where the results of an evaluation go."""

    run: Path
    folder: Path

    def write(self, result: Evaluation, page: str, table: str, save: Callable[[Path], None]) -> ResultWithPage:
        """Write a table of this name, metrics.json and index.html, and add the tests to the card; the numbers, which a
        notebook shows as the page."""
        again = (
            " The results of an earlier test with the same data and options were replaced."
            if objects.is_there(self.folder / METRICS_FILE)
            else ""
        )
        with uploading.local_folder(self.folder, METRICS_FILE) as out:
            with files.explained(out, "Free some."):
                files.refuse_links(self.run, out)
                out.mkdir(parents=True, exist_ok=True)
                save(out / table)
            write_evaluation(result, out / METRICS_FILE)
            files.write_text(out / "index.html", page)
        print(f"Wrote {address_text(self.folder / 'index.html')}, {METRICS_FILE} and {table}.{again}")
        note_on_card(self.run, result)
        return ResultWithPage(evaluation_json(result), lambda: page)


def note_on_card(run: Path, result: Evaluation) -> None:
    """Add the tests to the card of a bundle or of that of a run."""
    folder = find_bundle(run)
    file, tests = folder / "README.md", history.load_tests(folder)
    try:
        text = card.card_with_tests(files.regular(file).read_text(encoding="utf-8", errors="replace"), result, tests)
        with files.atomic(file) as part:
            part.write_text(text, encoding="utf-8", errors="backslashreplace")
        upload_changed(run, folder, file.name)
    except OSError as error:
        print(f"The card {address_text(file)} was not updated: {error.strerror or error}.")


def print_evaluation(result: Evaluation, table: Table, note: str) -> None:
    """Print the title, the table, its note and the warnings."""
    console = terminal.console()
    console.print(f"\n{evaluation_title(result)}", style="bold")
    if console.width < NARROW:  # fewer columns rather than half of each
        table = table.columns([place for place, name in enumerate(table.head) if name not in WIDE_ONLY])
    print_table(console, table)
    console.print(note)
    for text in [*result.warnings, *result.notes]:
        console.print(f"! {text}")
    if result.context.test.use == 1:
        console.print(result.context.test.text)
