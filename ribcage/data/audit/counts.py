"""Counts of one dataset: images, patients, labels, ages, views, boxes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ribcage.data import dataset_facts, splits
from ribcage.data.audit.audited import Member
from ribcage.data.audit.result import Ages, DatasetCounts, FindingCount, MaskCount
from ribcage.data.curation import COLUMN, DUPLICATE, LEFT_OUT, SELECTED
from ribcage.data.importer import tables as importer_tables
from ribcage.data.index import SPLITS, Index
from ribcage.data.radiology_reports import SECTIONS

AGE_EDGES = np.arange(0, 101, 10)


def describe(member: Member) -> DatasetCounts:
    """The counts of one dataset."""
    index, table = member.index, member.index.table
    facts = member.dataset.facts if member.dataset is not None else None
    masks = index.masks if member.dataset is None else member.dataset.masks
    return {
        "label": member.label,
        "bare": member.bare,
        "name": index.name,
        "source": facts.source if facts else "",
        "licence": facts.licence if facts else "",
        "root": str(index.root),
        "images": len(table),
        "patients": int((table["patient"].unique() != "").sum()),
        "without_patient": int((table["patient"] == "").sum()),
        "unknown_in_splits": int(((table["patient"] == "") & splits.rows_in_use(table["split"])).sum()),
        "studies": len(table.loc[table["study"] != "", ["patient", "study"]].drop_duplicates()),
        "rejected": facts.rejected if facts else 0,
        "stored": storage_phrase(facts) if facts else "tables only",
        "notes": facts.notes if facts else {},
        "splits": value_counts(table["split"], SPLITS),
        "split_patients": value_counts(
            table.loc[table["patient"] != "", ["split", "patient"]].drop_duplicates()["split"], SPLITS
        ),
        "findings": finding_counts(index),
        "curation": curation_counts(table),
        "views": value_counts(table["view"]),
        "sexes": value_counts(table["sex"]),
        "ages": ages(table["age"]),
        "sides": sides(table),
        "enlarged": importer_tables.enlarged(table, facts) if facts else "",
        "labelled": int((~np.isnan(index.labels)).any(axis=1).sum()) if index.findings else 0,
        "damaged": len(member.dataset.damaged()) if member.dataset is not None else 0,
        "without_test": [name for name, part in published(table).items() if "test" not in set(part)],
        "notices": notices(index),
        "boxes": value_counts(index.boxes["finding"]),
        "boxed_images": int(index.boxes["row"].nunique()),
        "readers": int(index.readings["reader"].nunique()),
        "readings": len(index.readings),
        "read_images": int(index.readings["row"].nunique()),
        "masks": mask_counts(masks),
        "masked_images": int(masks["row"].nunique()),
        "points": value_counts((index if member.dataset is None else member.dataset).points["structure"]),
        "reports": report_counts(index.reports if member.dataset is None else member.dataset.reports),
    }


def mask_counts(masks: pd.DataFrame) -> dict[str, MaskCount]:
    """For each structure the number of masks with pixels and without, most frequent first."""
    empty = (masks["columns"] == 0) & (masks["file"] == "" if "file" in masks else True)
    drawn, without = value_counts(masks["structure"][~empty]), value_counts(masks["structure"][empty])
    return {name: {"masks": drawn.get(name, 0), "empty": without.get(name, 0)} for name in {**drawn, **without}}


def curation_counts(table: pd.DataFrame) -> dict[str, int]:
    """Number of images that `curate` selected, and of those that it did not select; empty if there was none."""
    if COLUMN not in table:
        return {}
    counts = value_counts(table[COLUMN].astype(str), (SELECTED, DUPLICATE, LEFT_OUT))
    return {name: count for name, count in counts.items() if name}


def report_counts(reports: pd.DataFrame) -> dict[str, int]:
    """Number of reports, of the images that they describe, and of the reports with each section."""
    if not len(reports):
        return {}
    sections = {name: int((reports[name] != "").sum()) for name in SECTIONS}
    images = int(reports["rows"].map(len).sum())
    return {"reports": len(reports), "images": images, **{name: count for name, count in sections.items() if count}}


def storage_phrase(facts: dataset_facts.Facts) -> str:
    """Storage of the images, as a phrase."""
    if facts.linked:
        return f"linked, read at {facts.size} px"
    return f"{facts.size} × {facts.size} px, {facts.depth} bit, {facts.fit}, mean {facts.mean:.3f}, std {facts.std:.3f}"


def value_counts(values: pd.Series, order: Sequence[str] = ()) -> dict[str, int]:
    """Number of occurrences of each value, in the given order, else most frequent first."""
    found = values.value_counts()
    names = [name for name in order if name in found.index] + [name for name in found.index if name not in order]
    return {str(name): int(found[name]) for name in names}


def finding_counts(index: Index) -> list[FindingCount]:
    """For each finding and split: how many are positive, negative, uncertain and not said."""
    rows: list[FindingCount] = []
    for split, part in index.table.groupby("split", sort=False):
        labels = part[list(index.findings)].to_numpy(np.float32)
        for number, finding in enumerate(index.findings):
            column = labels[:, number]
            rows.append(
                {
                    "finding": finding,
                    "split": str(split),
                    "positive": int((column == 1).sum()),
                    "negative": int((column == 0).sum()),
                    "uncertain": int((column == -1).sum()),
                    "unknown": int(np.isnan(column).sum()),
                }
            )
    return rows


def ages(values: pd.Series) -> Ages:
    """Ages in years: number known, quartiles, histogram by decade, and number of impossible ones."""
    known = values.dropna()
    if known.empty:
        return {"known": 0}
    low, middle, high = (float(value) for value in np.percentile(known, [25, 50, 75]))
    histogram = np.histogram(known.clip(0, 100), AGE_EDGES)[0]
    strange = int(((known < 0) | (known > 110)).sum())
    children = int((known < 18).sum())
    return {
        "known": len(known), "quartiles": [low, middle, high], "children": children, "impossible": strange,
        "decades": {f"{edge}–{edge + 9}": int(count) for edge, count in zip(AGE_EDGES[:-1], histogram, strict=True)},
    }  # fmt: skip


def sides(table: pd.DataFrame) -> dict[str, list[int]]:
    """Minimum, median and maximum width and height of the original images."""
    known = [name for name in ("width", "height") if name in table]
    return {name: [int(value) for value in np.percentile(table[name], [0, 50, 100])] for name in known if len(table)}


def published(table: pd.DataFrame) -> dict[str, pd.Series]:
    """The published splits of a dataset, by name."""
    return {str(name).removeprefix("split_"): table[name] for name in table if str(name).startswith("split_")}


def notices(index: Index) -> list[str]:
    """Warnings about a table that a reader of the audit must know."""
    table = index.table
    known = table["patient"][table["patient"] != ""]
    if index.name in ("rsna", "vindr") and len(known) and known.is_unique:
        return [
            "the patient identifiers identify images, so images of one patient may be in several splits "
            "(docs/datasets.md)"
        ]
    return []
