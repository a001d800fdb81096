"""The problems of audited datasets, as sentences."""

from collections.abc import Sequence

from ribcage.data.audit.result import (
    AuditFindings,
    Copies,
    DatasetCounts,
    SharedCopies,
    SharedPatients,
    SharedSplits,
)
from ribcage.runtime.spelling import count_phrase


def problems(result: AuditFindings) -> list[str]:
    """Problems as sentences, the worst first."""
    texts = [_family_text(family) for family in result["families"]]
    crossing = [one for one in result["patients"] if not _set_aside(*zip(one["sets"], one["splits"], strict=True))]
    texts += [_patients_text(crossed) for crossed in crossing]
    texts += _copies_texts("identical images", result["identical"])
    texts += _copies_texts("near-duplicate images", result["near"]) if result["near"] else []
    if given := _giving(result, crossing):
        texts.append(
            f"--drop-shared {given}, at import, in training or in evaluate, removes these images from {given}."
        )
    for described in result["sets"]:
        texts += _set_texts(described)
    if result["not_compared"]:
        names = ", ".join(result["not_compared"])
        texts.append(f"The images of {names} were not compared, because they have not been imported.")
    return texts


def _giving(result: AuditFindings, crossing: Sequence[SharedPatients]) -> str:
    """The split to remove shared patients and duplicates from: the test split, if it has any; "" if none are shared."""
    joined = [tuple(one["splits"]) for one in crossing]
    copies = [*result["identical"]["places"], *(result["near"]["places"] if result["near"] else [])]
    joined += [(place["one"][1], place["other"][1]) for place in copies]
    shared = {name for one, other in joined if one and other and one != other for name in (one, other)}
    return next((name for name in ("test", "val") if name in shared), "")


def _family_text(family: SharedSplits) -> str:
    (one, part), (other, against) = family["one"], family["other"]
    own, theirs = (f"the {name} {split} split" if name != "list" else f"list {split}"
                   for name, split in ((one, part), (other, against)))  # fmt: skip
    of_patients = count_phrase(family["of_patients"], "patient")
    people = f" and {family['patients']:,} of its {of_patients}" if family["patients"] else ""
    tested = (
        " Do not train on one of these splits and test on the other." if (part, against) == ("test", "train") else ""
    )
    images = f"{family['images']:,} of the {family['of']:,} images in {own}"
    return f"{family['set']}: {images}{people} are in {theirs}.{tested}"


def _patients_text(crossed: SharedPatients) -> str:
    one, other = crossed["sets"]
    first, second = (split or "no split" for split in crossed["splits"])
    where = f"both {first} and {second}" if one == other else f"{first} of {one} and {second} of {other}"
    images = " and ".join(f"{count:,}" for count in crossed["images"])
    people = f"{count_phrase(crossed['patients'], 'patient')} {'is' if crossed['patients'] == 1 else 'are'}"
    return f"{one}: {people} in {where} ({images} images)."


def _copies_texts(kind: str, found: Copies) -> list[str]:
    texts = [_place_text(place) for place in found["places"] if not _set_aside(place["one"], place["other"])]
    if not texts:
        return []
    texts += [f"{found['other_patient']:,} with different patient identifiers"] if found["other_patient"] else []
    texts += [f"{found['other_labels']:,} with different labels"] if found["other_labels"] else []
    groups = count_phrase(found["groups"], "group")
    return [f"{groups} of {kind} ({found['images']:,} images): {'; '.join(texts)}."]


def _set_aside(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two places of a dataset, each a name and a split, are a split and the images outside any split: these are
    used neither for training nor for testing."""
    return one[0] == other[0] and bool(one[1]) != bool(other[1])


def _place_text(place: SharedCopies) -> str:
    one, other = (f"{split or 'no split'} of {name}" for name, split in (place["one"], place["other"]))
    if place["one"] == place["other"]:
        return f"{place['groups']:,} more than once in {one}"
    return f"{place['groups']:,} in both {one} and {other}"


def _set_texts(described: DatasetCounts) -> list[str]:
    label, texts = described["label"], []
    if described["bare"]:
        return [
            f"{label}: patients cannot be derived from file names alone; pass the dataset, too, to compare patients."
        ]
    if described["rejected"]:
        texts.append(
            f"{label}: {count_phrase(described['rejected'], 'image')} could not be imported; see rejected.csv."
        )
    if described["unknown_in_splits"]:
        unknown = f"the patient of {count_phrase(described['unknown_in_splits'], 'image')} is not known"
        texts.append(f"{label}: {unknown}, so images of one patient may be in several splits.")
    if described["ages"].get("impossible"):
        ages = count_phrase(described["ages"]["impossible"], "age is", "ages are")
        texts.append(f"{label}: {ages} outside the range from 0 to 110 years.")
    if described["damaged"]:
        texts.append(
            f"{label}: {count_phrase(described['damaged'], 'image has', 'images have')} changed since the import."
        )
    texts += [f"{label}: {notice}." for notice in described["notices"]]
    if not described["labelled"]:
        texts.append(f"{label}: no image has a label, so findings can be neither trained nor tested.")
    if set(described["splits"]) <= {""}:
        texts.append(f"{label}: no image is in a split: use --split-column or --split-list at import.")
    elif "test" not in described["splits"]:
        texts.append(f"{label}: no image is in the test split, so models cannot be tested on it.")
    texts += [f"{label}: the {family} split has no test images." for family in described["without_test"]]
    for split in described["splits"]:
        rows = [row for row in described["findings"] if row["split"] == split]
        empty = [row["finding"] for row in rows if row["positive"] == 0]
        one_sided = [row for row in rows if row["positive"] and not row["negative"]]
        for blank, way_out in ((False, ""), (True, " unless blank labels count as absent (blank=zeros)")):
            names = ", ".join(row["finding"] for row in one_sided if bool(row["unknown"]) == blank)
            if names and split:
                texts.append(
                    f"{label}: no image in {split} is labelled negative for {names}, so AUROC is undefined{way_out}."
                )
        if empty and split:
            texts.append(
                f"{label}: split {split} has no positive image for {', '.join(empty)}, so no AUROC can be computed "
                "there."
            )
    return texts
