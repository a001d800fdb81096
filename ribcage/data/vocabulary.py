"""Vocabulary: what each public dataset calls the findings and views, and which findings it does not label, as tables.

Each file in `datasets/` states its names in NAMES (finding → names in its tables) and VIEWS (word → view).
"""

from ribcage.data import datasets
from ribcage.data.findings import FINDINGS, chinese
from ribcage.data.index import VIEWS
from ribcage.data.readers.columns import VIEWS as USUAL_VIEWS

OWN = ("folder", "phantom")
"""Datasets that are not published: your own files, and synthetic images."""


def public_names() -> tuple[str, ...]:
    """The datasets that are published and state what they call the findings."""
    return tuple(name for name in datasets.dataset_names() if name not in OWN and source_names(name))


def source_names(name: str) -> dict[str, tuple[str, ...]]:
    """Finding → its names in the tables of a dataset; {} if the dataset does not state them."""
    return dict(getattr(datasets.load_dataset(name), "NAMES", {}))


def finding_table() -> str:
    """All findings as a Markdown table: which datasets label them, under which names, and which do not."""
    named = {name: source_names(name) for name in public_names()}
    head = ["| finding | Chinese | labelled by (other names) | not labelled by |", "|---|---|---|---|"]
    findings = [*FINDINGS, *sorted({each for own in named.values() for each in own} - set(FINDINGS))]
    rows = []
    for finding in findings:
        by = [_source(name, finding, own[finding]) for name, own in named.items() if finding in own]
        away = [f"`{name}`" for name, own in named.items() if finding not in own]
        others = "all others" if len(away) > len(by) else ", ".join(away) or "–"
        rows.append(f"| `{finding}` | {chinese(finding)} | {', '.join(by) or '–'} | {others} |")
    return "\n".join([*head, *rows])


def source_table() -> str:
    """All public datasets as a Markdown table: how many findings they label, and their words for views."""
    rows = ["| dataset | findings | not labelled | views |", "|---|---|---|---|"]
    for name in public_names():
        own = source_names(name)
        words: dict[str, str] = getattr(datasets.load_dataset(name), "VIEWS", {})
        views = "; ".join(f"{view}: {', '.join(of_view)}" for view, of_view in _by_view(words).items())
        unlabelled = len([finding for finding in FINDINGS if finding not in own])
        rows.append(f"| `{name}` | {len(own)} | {unlabelled} | {views or '–'} |")
    return "\n".join(rows)


def view_table() -> str:
    """The words by which views are recognised in `mimic`, in your own tables and in DICOM headers."""
    rows = [f"| {view or '(left empty)'} | {', '.join(words)} |" for view, words in USUAL_VIEWS.items()]
    return "\n".join(["| view | words |", "|---|---|", *rows])


def _source(name: str, finding: str, words: tuple[str, ...]) -> str:
    """A dataset, with its names of the finding if they differ from ours."""
    other = [word for word in words if word.replace(" ", "_").lower() != finding.lower()]
    shown = ", ".join(other[:3]) + f" and {len(other) - 3} more" * (len(other) > 3)
    return f"`{name}` ({shown})" if other else f"`{name}`"


def _by_view(words: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {view: [] for view in VIEWS if view}
    for word, view in words.items():
        found[view].append(word)
    return {view: of_view for view, of_view in found.items() if of_view}
