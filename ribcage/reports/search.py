"""Search page: the trials of a hyperparameter search as a table, and their results over each option that was varied."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from ribcage.reports import html, svg
from ribcage.reports.html import Table
from ribcage.reports.svg import Axes, Dots, Line, Ticks
from ribcage.runtime import files
from ribcage.training.search.result import METRIC_NAMES, SearchResult, counted, ranked, value_text, values_text
from ribcage.training.search.space import Choices, Dimension, Range, plain_number
from ribcage.training.search.study import FINISHED, TrialRecord

PAGE_FILE = "trials.html"


def write_search_page(result: SearchResult) -> Path:
    """trials.html in the folder of the search."""
    best, scored = result.best, [one for one in result.trials if one.score is not None]
    page = html.render(
        "search.html",
        title=f"Hyperparameter search: ribcage tune {result.command}",
        metric=METRIC_NAMES[result.metric],
        split=result.val,
        count=len(result.trials),
        facts=search_facts(result, best),
        best=best,
        plots=[history_plot(result, scored), *(option_plot(result, one, scored) for one in result.space)]
        if scored
        else [],
        table=trial_table(result),
    )
    files.write_text(result.folder / PAGE_FILE, page)
    return result.folder / PAGE_FILE


def search_facts(result: SearchResult, best: TrialRecord | None) -> list[tuple[str, str]]:
    """(name, text) of the search and of its best trial."""
    facts = [
        ("data", ", ".join(Path(one).name for one in result.data)),
        ("search space", ", ".join(f"{one.flag.name.replace('_', '-')}={one.text()}" for one in result.space)),
        ("trials", counted(result)),
        ("training time", f"{sum(one.seconds for one in result.trials):,.0f} s"),
    ]
    if best is not None:
        facts += [("best trial", f"{best.folder}: {values_text(best.values)}"), ("its result", score_text(best.score))]
    if result.deleted:
        names = ", ".join(f"{one.folder} ({score_text(one.score)})" for one in result.deleted)
        facts.append(("better trials with deleted models", names))
    return facts


def trial_table(result: SearchResult) -> Table:
    """A row per trial, the best first."""
    head = ["trial", *(name.replace("_", "-") for name in result.names), METRIC_NAMES[result.metric], "epoch"]
    rows = [
        [
            one.folder,
            *(value_text(one.values[name]) if name in one.values else "–" for name in result.names),
            score_text(one.score),
            one.epoch,
            f"{one.seconds:,.1f}",
            one.state,
            one.why,
        ]
        for one in ranked(result.trials)
    ]
    return Table([*head, "seconds", "state", "reason"], rows)


def score_text(score: float | None) -> str:
    """0.8312"""
    return "–" if score is None or math.isnan(score) else f"{score:.4f}"


def history_plot(result: SearchResult, scored: Sequence[TrialRecord]) -> Markup:
    """Results in the order of the trials, with the best finished one so far as a line."""
    finished = [one for one in scored if one.state == FINISHED]
    numbers = np.array([one.number for one in finished], float)
    best = np.maximum.accumulate([one.score or 0.0 for one in finished]) if finished else np.empty(0)
    line = Line(np.repeat(numbers, 2)[1:], np.repeat(best, 2)[:-1])
    last = float(max(2, *(one.number for one in scored)))
    dots = score_dots(scored, [float(one.number) for one in scored])
    across = [(value, f"{value:.0f}") for value in (1.0, last)]
    return svg.plot("trials", [line, *dots], _axes(scored, (1.0, last), "trial", across, result))


def option_plot(result: SearchResult, one: Dimension, scored: Sequence[TrialRecord]) -> Markup:
    """Results over the values of an option."""
    name = one.flag.name
    shown = [trial for trial in scored if name in trial.values]
    if isinstance(one, Choices):
        across: Ticks = [(float(place), word or "(none)") for place, word in enumerate(one.words)]
        places = [float(one.words.index(str(trial.values[name]))) for trial in shown]
        ends = (-0.5, len(one.words) - 0.5)
    else:
        across, ends = range_ticks(one)
        places = [_place(one, float(trial.values[name])) for trial in shown]
    title = name.replace("_", "-")
    return svg.plot(title, score_dots(shown, places), _axes(scored, ends, title, across, result))


def range_ticks(one: Range) -> tuple[Ticks, tuple[float, float]]:
    """The ends of a range as ticks, and where they are."""
    low, high = (_place(one, value) for value in (one.low, one.high))
    return [(low, plain_number(one.low)), (high, plain_number(one.high))], (low, high)


def _place(one: Range, value: float) -> float:
    return math.log10(value) if one.log else value


def score_dots(trials: Sequence[TrialRecord], places: Sequence[float]) -> list[Dots]:
    """Finished trials, and those that ended early in another colour."""
    found = []
    for kind, finished in (("other", False), ("", True)):
        chosen = [at for at, one in enumerate(trials) if (one.state == FINISHED) == finished]
        x, y = ([values[at] for at in chosen] for values in (places, [one.score for one in trials]))
        found.append(Dots(np.array(x, float), np.array(y, float), kind))
    return found


def _axes(
    scored: Sequence[TrialRecord], ends: tuple[float, float], label: str, across: Ticks, result: SearchResult
) -> Axes:
    y = np.array([one.score for one in scored], float)
    room = 0.05 * (np.ptp(y) or 0.1)
    low, high = float(y.min()) - room, float(y.max()) + room
    up = [(value, f"{value:.3f}".lstrip("0")) for value in (low + room, high - room)]
    return Axes(ends, (low, high), label, METRIC_NAMES[result.metric], across, up)
