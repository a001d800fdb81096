"""Datasheet: an audit as one page a person can read, with a sheet of images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ribcage.data.audit import Member
from ribcage.reports import html

SHARES = "Shares: of the images whose label is said (1 or 0) / of all images, where these differ."


def page(members: Sequence[Member], result: dict[str, Any], samples: int) -> str:
    """The whole page."""
    parts = [html.heading("What to know before training")]
    parts += [html.problems(result["problems"])] if result["problems"] else [html.paragraph("No problems found.")]
    for member, described in zip(members, result["sets"], strict=True):
        parts += set_parts(described)
        parts += sheet(member, samples) if member.store is not None else []
    parts += copies_parts("Identical images", result["identical"]) + copies_parts(
        "Near-identical images", result["near"]
    )
    return html.page("Data sheet: " + ", ".join(described["label"] for described in result["sets"]), parts)


def set_parts(described: dict[str, Any]) -> list[str]:
    """One data set: cards, facts, findings, ages."""
    cards = [(html.number(described[name]), name) for name in ("images", "patients", "studies", "rejected")]
    cards += [(html.number(count), split or "no split") for split, count in described["splits"].items()]
    parts = [html.heading(described["label"]), html.cards(cards), html.facts(overview_rows(described))]
    if described["findings"]:
        parts += [html.heading("Findings", 3), html.table(*finding_table(described))]
        parts.append(html.paragraph(SHARES, soft=True))
    if described["ages"]["known"]:
        parts += [
            html.heading("Ages", 3),
            html.table(["years", "images", ""], age_rows(described["ages"]["decades"])),
        ]
    return parts


def overview_rows(described: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, how much) in words."""
    people = listed(described["split_patients"], "no split")
    rows = [
        ("images", f"{described['images']:,} ({listed(described['splits'], 'no split')})"),
        ("patients", f"{described['patients']:,} known ({people})" * bool(described["patients"])),
        ("studies", f"{described['studies']:,}" * bool(described["studies"])),
        ("stored", described["stored"]),
        ("views", listed(described["views"])),
        ("sex", listed(described["sexes"])),
        ("age", age_text(described["ages"])),
        ("boxes", box_text(described)),
        ("rejected", f"{described['rejected']:,}"),
        ("source", described["source"]),
        ("licence", described["licence"]),
        ("reading", "; ".join(f"{count:,} × {note}" for note, count in described["notes"].items())),
    ]
    if described["sides"]:
        sides = (f"{low:,}…{high:,}" if low < high else f"{low:,}" for low, _, high in described["sides"].values())
        own = " × ".join(sides) + " px"
        rows.insert(3, ("files", "; ".join(filter(None, [own, described["enlarged"]]))))
    return [(name, value) for name, value in rows if value]


def box_text(described: dict[str, Any]) -> str:
    """How many boxes, of what."""
    boxes = described["boxes"]
    if not boxes:
        return ""
    return f"{sum(boxes.values()):,} on {described['boxed_images']:,} images ({listed(boxes)})"


def listed(counts: dict[str, int], unnamed: str = "unknown") -> str:
    """train 700, val 100, unknown 3"""
    return ", ".join(f"{name or unnamed} {count:,}" for name, count in counts.items())


def age_text(ages: dict[str, Any]) -> str:
    """Median and quartiles in words."""
    if not ages["known"]:
        return ""
    low, middle, high = ages["quartiles"]
    children = f", {ages['children']:,} under 18" if ages["children"] else ""
    return f"median {middle:.0f} years (quartiles {low:.0f}–{high:.0f}), {ages['known']:,} known{children}"


def age_rows(decades: dict[str, int]) -> list[list[object]]:
    """A histogram as rows with bars."""
    most = max(decades.values())
    return [[name, count, html.Bar(count / most)] for name, count in decades.items()]


def finding_table(described: dict[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Head and rows: positives by split, their share, what is uncertain and unknown."""
    splits = list(described["splits"])
    names = list(dict.fromkeys(row["finding"] for row in described["findings"]))
    cells = {(row["finding"], row["split"]): row for row in described["findings"]}
    head = [
        "finding",
        *(f"{split or 'no split'} +" for split in splits),
        "share",
        "",
        "uncertain",
        "not said",
    ]
    rows = []
    for name in names:
        parts = [cells[name, split] for split in splits]
        positive, negative, uncertain, unknown = (
            sum(part[key] for part in parts) for key in ("positive", "negative", "uncertain", "unknown")
        )
        share = positive / (positive + negative) if positive + negative else float("nan")
        bar = html.Bar(0.0 if np.isnan(share) else share)
        every = positive + negative + uncertain + unknown
        text = "–" if np.isnan(share) else f"{100 * share:.1f}"
        text += f" / {100 * positive / every:.1f} %" if uncertain + unknown else " %"
        rows.append([name, *(part["positive"] for part in parts), text, bar, uncertain, unknown])
    return head, rows


def sheet(member: Member, samples: int) -> list[str]:
    """For each finding an image of it, a boxed one if there is any; then others, spread evenly over the data set."""
    assert member.store is not None
    figures = []
    for row in chosen_rows(member, samples):
        try:
            pixels = member.store.image(row)
        except (ValueError, OSError):  # a linked file that has gone
            continue
        boxes = member.index.boxes[member.index.boxes["row"] == row][["x", "y", "width", "height"]]
        figures.append(
            html.figure(np.asarray(pixels), caption(member, row), list(boxes.itertuples(index=False, name=None)))
        )
    return [html.heading("Samples", 3), html.sheet(figures)] if figures else []


def chosen_rows(member: Member, samples: int) -> list[int]:
    """For each finding in turn a positive image not shown yet, then others, evenly spaced; the same every time."""
    labels, shown = member.index.labels, dict[int, None]()
    boxed = np.zeros(len(labels), bool)
    boxed[member.index.boxes["row"].to_numpy()] = True
    queues = [sorted(np.flatnonzero(column == 1), key=lambda row: not boxed[row]) for column in labels.T]
    spread = np.linspace(0, len(member.index) - 1, min(samples, len(member.index))).astype(int)
    queues.append([*spread, *range(len(member.index))])
    while len(shown) < min(samples, len(member.index)):
        for queue in queues:
            fresh = next((int(row) for row in queue if int(row) not in shown), None)
            if fresh is not None and len(shown) < samples:
                shown[fresh] = None
    return list(shown)


def caption(member: Member, row: int) -> str:
    """What is said of an image: findings, view, sex, age."""
    values = member.index.table.iloc[row]
    found = [name + ("?" if values[name] == -1 else "") for name in member.index.findings if values[name] in (1, -1)]
    age = "" if np.isnan(values["age"]) else f"{values['age']:.0f}"
    person = " ".join(text for text in (values["view"], values["sex"], age) if text)
    return " · ".join(text for text in (", ".join(found).replace("_", " ") or "–", person) if text)


def copies_parts(title: str, found: dict[str, Any] | None) -> list[str]:
    """Where copies are, and the first groups by name."""
    if not found or not found["groups"]:
        return []
    places = [[*place["one"], *place["other"], place["groups"]] for place in found["places"]]
    examples = [[*member, number] for number, group in enumerate(found["examples"], 1) for member in group]
    return [
        html.heading(title),
        html.table(["in", "split", "and in", "split", "groups"], places),
        html.paragraph("The first groups:", soft=True),
        html.table(["in", "split", "image", "group"], examples),
    ]
