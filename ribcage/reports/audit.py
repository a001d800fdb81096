"""Audit page: the results of an audit of datasets, with sample images."""

from collections.abc import Sequence

import numpy as np

from ribcage.data.audit.audited import Member
from ribcage.data.audit.result import Ages, AuditResult, Copies, DatasetCounts
from ribcage.data.index import SIDES
from ribcage.reports import html
from ribcage.reports.html import Bar, Figure, Table
from ribcage.reports.numbers import finding_name

PREVALENCE_NOTE = (
    "The + columns count the positive images of each split. Prevalence is the share of positives among images labelled "
    "1 or 0; if the share of positives among all images differs, it is given after the slash."
)


def audit_page(members: Sequence[Member], result: AuditResult, samples: int) -> str:
    """The whole page."""
    return html.render(
        "audit.html",
        problems=result["problems"],
        datasets=[
            dataset_section(member, described, samples)
            for member, described in zip(members, result["sets"], strict=True)
        ],
        copies=[
            (title, *copy_tables(found))
            for title, found in (("Identical images", result["identical"]), ("Near-identical images", result["near"]))
            if found and found["groups"]
        ],
        prevalence_note=PREVALENCE_NOTE,
    )


def dataset_section(member: Member, described: DatasetCounts, samples: int) -> dict[str, object]:
    """What the page shows of one dataset."""
    cards = [(html.thousands(described[name]), name) for name in ("images", "patients", "studies", "rejected")]
    cards += [(html.thousands(count), split or "no split") for split, count in described["splits"].items()]
    ages = described["ages"]
    return {
        "name": described["label"],
        "cards": cards,
        "facts": dataset_facts(described),
        "findings": label_table(described) if described["findings"] else None,
        "ages": Table(["age in years", "images", ""], age_rows(ages["decades"])) if ages["known"] else None,
        "figures": sample_figures(member, samples) if member.dataset is not None else [],
    }


def dataset_facts(described: DatasetCounts) -> list[tuple[str, str]]:
    """(name, text) of all that is known of a dataset."""
    people = listed_counts(described["split_patients"], "no split")
    rows = [
        ("images", f"{described['images']:,} ({listed_counts(described['splits'], 'no split')})"),
        ("patients", f"{described['patients']:,} known ({people})" * bool(described["patients"])),
        ("studies", f"{described['studies']:,}" * bool(described["studies"])),
        ("curation", listed_counts(described["curation"])),
        ("stored", described["stored"]),
        ("views", listed_counts(described["views"])),
        ("sex", listed_counts(described["sexes"])),
        ("age", age_summary(described["ages"])),
        ("readers", reader_counts(described)),
        ("boxes", box_counts(described)),
        ("masks", mask_counts(described)),
        ("points", listed_counts(described["points"])),
        ("reports", report_counts(described)),
        ("rejected", f"{described['rejected']:,}"),
        ("source", described["source"]),
        ("licence", described["licence"]),
        ("decoding", "; ".join(f"{count:,} × {note}" for note, count in described["notes"].items())),
    ]
    if described["sides"]:
        sides = (f"{low:,}…{high:,}" if low < high else f"{low:,}" for low, _, high in described["sides"].values())
        own = " × ".join(sides) + " px"
        rows.insert(3, ("files", "; ".join(filter(None, [own, described["enlarged"]]))))
    return [(name, value) for name, value in rows if value]


def box_counts(described: DatasetCounts) -> str:
    """Number of boxes, and of each finding."""
    boxes = described["boxes"]
    if not boxes:
        return ""
    of_readers = " from all readers" * bool(described["readers"])
    return f"{sum(boxes.values()):,}{of_readers} on {described['boxed_images']:,} images ({listed_counts(boxes)})"


def mask_counts(described: DatasetCounts) -> str:
    """Number of masks, of images with masks, and for each structure the masks with and without pixels."""
    masks = described["masks"]
    if not masks:
        return ""
    total = sum(count["masks"] + count["empty"] for count in masks.values())
    listed = (f"{name} {count['masks']:,}" + f" and {count['empty']:,} empty" * bool(count["empty"])
              for name, count in masks.items())  # fmt: skip
    return f"{total:,} on {described['masked_images']:,} images ({', '.join(listed)})"


def reader_counts(described: DatasetCounts) -> str:
    """Number of readers and of the images that they labelled."""
    if not described["readers"]:
        return ""
    return f"{described['readers']:,} ({described['readings']:,} readings of {described['read_images']:,} images)"


def report_counts(described: DatasetCounts) -> str:
    """Number of reports, of the images that they describe, and of the reports with each section."""
    counts = dict(described["reports"])
    if not counts:
        return ""
    reports, images = counts.pop("reports"), counts.pop("images")
    return f"{reports:,} on {images:,} images ({listed_counts(counts)})"


def listed_counts(counts: dict[str, int], unnamed: str = "unknown") -> str:
    """train 700, val 100, unknown 3"""
    return ", ".join(f"{name or unnamed} {count:,}" for name, count in counts.items())


def age_summary(ages: Ages) -> str:
    """Median, quartiles, and how many ages are known."""
    if not ages["known"]:
        return ""
    low, middle, high = ages["quartiles"]
    children = f", {ages['children']:,} under 18" if ages["children"] else ""
    return f"median {middle:.0f} years (quartiles {low:.0f}–{high:.0f}), age known for {ages['known']:,}{children}"


def age_rows(decades: dict[str, int]) -> list[list[object]]:
    """A histogram as rows with bars."""
    most = max(decades.values())
    return [[name, count, Bar(count / most)] for name, count in decades.items()]


def label_table(described: DatasetCounts) -> Table:
    """For each finding: positives by split, prevalence, uncertain and unlabelled images."""
    splits = list(described["splits"])
    names = list(dict.fromkeys(row["finding"] for row in described["findings"]))
    cells = {(row["finding"], row["split"]): row for row in described["findings"]}
    head = ["finding", *(f"{split or 'no split'}+" for split in splits), "prevalence", "", "uncertain", "unknown"]
    rows = []
    for name in names:
        parts = [cells[name, split] for split in splits]
        positive, negative, uncertain, unknown = (
            sum(part[key] for part in parts) for key in ("positive", "negative", "uncertain", "unknown")
        )
        share = positive / (positive + negative) if positive + negative else float("nan")
        bar = Bar(0.0 if np.isnan(share) else share)
        every = positive + negative + uncertain + unknown
        text = "–" if np.isnan(share) else f"{100 * share:.1f}"
        text += f"/{100 * positive / every:.1f} %" if uncertain + unknown else " %"
        rows.append([finding_name(name), *(part["positive"] for part in parts), text, bar, uncertain, unknown])
    return Table(head, rows)


def sample_figures(member: Member, samples: int) -> list[Figure]:
    """For each finding an image of it, one with boxes if there is any; then others, evenly spaced."""
    assert member.dataset is not None
    figures = []
    for row in sample_rows(member, samples):
        try:
            pixels = member.dataset.image(row)
        except (ValueError, OSError):  # a linked file that has gone
            continue
        boxes = member.index.boxes[member.index.boxes["row"] == row][list(SIDES)]
        drawn = list(boxes.itertuples(index=False, name=None))
        masks = member.dataset.masks_of(row)
        figures.append(html.gray_figure(np.asarray(pixels), sample_caption(member, row), drawn, masks=masks))
    return figures


def sample_rows(member: Member, samples: int) -> list[int]:
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


def sample_caption(member: Member, row: int) -> str:
    """Findings, view, sex and age of an image; uncertain findings with a question mark."""
    values = member.index.table.iloc[row]
    found = [name + ("?" if values[name] == -1 else "") for name in member.index.findings if values[name] in (1, -1)]
    age = "" if np.isnan(values["age"]) else f"{values['age']:.0f}"
    person = " ".join(text for text in (values["view"], values["sex"], age) if text)
    return " · ".join(text for text in (", ".join(found).replace("_", " ") or "–", person) if text)


def copy_tables(found: Copies) -> tuple[Table, Table]:
    """In which datasets and splits copies are, and the first groups by name."""
    places = [[*place["one"], *place["other"], place["groups"]] for place in found["places"]]
    examples = [[*member, number] for number, group in enumerate(found["examples"], 1) for member in group]
    return (
        Table(["dataset", "split", "dataset", "split", "groups"], places),
        Table(["dataset", "split", "image", "group"], examples),
    )
