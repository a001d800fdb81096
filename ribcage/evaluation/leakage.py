"""Leakage check: no model is tested on images or patients that it has seen, unless allowed; the report then says so."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ribcage.bundle import history
from ribcage.data import dataset_folder
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.fingerprint_table import Fingerprints
from ribcage.data.provenance import Provenance
from ribcage.imaging import duplicates, fingerprint
from ribcage.metrics.evaluation_context import LeakageCheck, LeftOut


@dataclass(frozen=True)
class Leak:
    """What a model has seen of the images it is to be tested on."""

    patients: int
    """Test patients that were in training or selection."""
    images: int
    """Test images of such patients."""
    identical: int
    """Test images seen bit for bit."""
    alike: int
    """Test images of which a near-copy was seen (identical ones too)."""
    tested: int

    def __bool__(self) -> bool:
        return bool(self.images or self.identical or self.alike)

    def __str__(self) -> str:
        return self.said("test")

    def said(self, what: str) -> str:
        """The same of images that are for something else than a test."""
        return (
            f"Of {self.tested:,} {what} images, {self.images:,} show {self.patients:,} patients that the model has "
            f"seen in training or selection; {self.alike:,} are copies of images it has seen, {self.identical:,} of "
            "them to the bit"
        )


def find_leak(provenance: Provenance, tested: Fingerprints) -> Leak:
    """Look for the tested images and their patients in what a model has seen."""
    known = np.zeros(len(tested.pixels), bool)
    for hashes in (tested.patients, tested.without_key):
        known |= np.isin(hashes, provenance.patients) & (hashes > 0)
    identical, alike = seen_copies(provenance, tested)
    patients = len(np.unique(tested.patients[known]))
    return Leak(patients, int(known.sum()), int(identical.sum()), int(alike.sum()), len(tested.pixels))


def seen_copies(provenance: Provenance, tested: Fingerprints) -> tuple[np.ndarray, np.ndarray]:
    """(N,) which of the tested images a model has seen to the bit, and of which it has seen a near-copy."""
    identical = np.isin(tested.pixels, provenance.pixels) & (tested.pixels > 0)
    alike = identical.copy()
    alike[duplicates.duplicates_between(tested.prints, provenance.prints).first] = True
    return identical, alike


class LeakError(ValueError):
    """The model has seen what it is to be tested on."""

    def __init__(self, leak: Leak) -> None:
        super().__init__(
            f"{leak}. --drop-shared SPLIT leaves these out; or test on others, or pass --allow-leak: the report will "
            "say so."
        )
        self.leak = leak


def check_leakage(
    seen: Provenance, tested: Datasets, rows: np.ndarray, *, allow: bool = False, selected: bool = False
) -> LeakageCheck:
    """What the model has seen of these rows, for the report; LeakError if it has and that is not allowed.

    selected: images the model was selected on, though not trained on, are allowed: what others did is reproduced.
    """
    prints = fingerprints_of(tested, rows)
    leak, chosen = find_leak(seen, prints), 0
    forbidden = leak
    if leak and selected:
        chosen, forbidden = _apart(seen, prints)
    if forbidden and not allow:
        raise LeakError(forbidden)
    linked = [dataset.index.name for dataset in tested if dataset.facts.linked]
    return LeakageCheck(
        found=bool(leak),
        text=leakage_text(leak, chosen) + _of_other_sites(seen, tested),
        checked=len(rows),
        seen=len(seen.pixels),
        **asdict(leak),
        selected_on=chosen,
        unseen=int((seen.pixels == 0).sum()),
        unknown=tuple(seen.unknown.tolist()),
        linked=tuple(linked),
    )


def left_out_note(left: LeftOut) -> list[str]:
    """What was left out, if anything was."""
    if not left.images:
        return []
    return [
        f"{left.images:,} images are left out (--drop-shared): they show {left.patients:,} patients of the training or "
        f"validation data of the model, or are copies of its images ({left.copies:,})."
    ]


def unseen(seen: Provenance, tested: Datasets, rows: np.ndarray) -> tuple[np.ndarray, LeftOut]:
    """The rows whose patients and images a model has not seen, nor copies of them; and what that leaves out."""
    prints = fingerprints_of(tested, rows)
    known = np.isin(prints.patients, seen.patients) & (prints.patients > 0)
    _, alike = seen_copies(seen, prints)
    gone = known | alike
    if gone.all():
        raise ValueError(f"--drop-shared leaves nothing to test: all {len(rows):,} images were used in training.")
    return rows[~gone], LeftOut(
        images=int(gone.sum()), patients=len(np.unique(prints.patients[known])), copies=int(alike.sum())
    )


def first_weights(seen: Provenance, choosing: Datasets, rows: np.ndarray, split: str) -> str:
    """A warning where the weights that training begins with have learnt from what is to choose the model; else ""."""
    try:
        check_leakage(seen, choosing, rows, selected=True)
    except LeakError as error:
        found = f"WARNING: the first weights have learnt from split {split!r}, which chooses the model: it flatters it."
        return f"{found} {error.leak.said('validation')}."
    return ""


def leakage_text(leak: Leak, chosen: int) -> str:
    """One sentence."""
    if not leak:
        return f"none of the {leak.tested:,} images, and no patient on them, was seen in training or selection"
    said = f"; the model was selected on {chosen:,} of them" if chosen else ""
    return f"{leak}{said}"


def _of_other_sites(seen: Provenance, tested: Datasets) -> str:
    """Whose patients could not be compared, since the model's were hashed with the key of another site."""
    private = [
        dataset.index.name for dataset in tested if dataset.private and (dataset.index.table["patient"] != "").any()
    ]
    if not private or not seen.of_other_sites:
        return ""
    return (
        f"; patients of {', '.join(private)} could not be compared with those that it saw at another site, only images "
        "(docs/fingerprints.md)"
    )


def fingerprints_of(tested: Datasets, rows: np.ndarray) -> Fingerprints:
    """Of these rows; those of linked folders, which store none, are computed."""
    parts = []
    for dataset, own in zip(tested, tested.own_rows(rows), strict=True):
        if not len(own):
            continue
        parts.append(_computed(dataset, own) if dataset.facts.linked else dataset.fingerprints.take(own))
    return Fingerprints.join(parts)


def _computed(dataset: DatasetFolder, rows: np.ndarray) -> Fingerprints:
    """As the import of the same images would have noted them."""
    read = dataset_folder.source(dataset.index, dataset.facts)

    def one(row: int) -> tuple[np.ndarray, int]:
        image = read(row)
        return fingerprint.fingerprint(image.pixels), fingerprint.pixel_hash(
            dataset_folder.square_image(image, dataset.facts)
        )

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(one, rows.tolist()))
    prints, pixels = np.stack([each for each, _ in found]), np.array([number for _, number in found], np.uint64)
    return replace(dataset.fingerprints.take(rows), prints=prints, pixels=pixels)


def _apart(seen: Provenance, tested: Fingerprints) -> tuple[int, Leak]:
    """How many of the tested images the model was only selected on, and what it was trained on.

    The patients of the former are known for that reason, also where an older file does not say which were selected on.
    """
    trained, chosen = _of_role(seen, 0), _of_role(seen, 1)
    on = seen_copies(chosen, tested)[1] & ~seen_copies(trained, tested)[1]
    patients, unkeyed = (np.where(on, np.uint64(0), each) for each in (tested.patients, tested.without_key))
    rest = replace(tested, patients=patients, unkeyed=unkeyed)
    return int(on.sum()), find_leak(replace(trained, patients=seen.trained), rest)


def _of_role(seen: Provenance, role: int) -> Provenance:
    """The images that were seen in training, or in selection."""
    kept = seen.role == role
    return replace(seen, pixels=seen.pixels[kept], prints=seen.prints[kept], role=seen.role[kept])


# ---- by what a test is known


def images_of(one: DatasetFolder) -> str:
    """A hash of all images of a folder; of a linked one of their names."""
    if one.facts.contents:
        return history.hashed(one.facts.contents)
    return history.hashed(one.index.name, *one.index.table["path"])


def key_of(data: Datasets, rows: np.ndarray, split: str, options: dict[str, Any]) -> str:
    """The key of a test of these rows."""
    parts = []
    for one, own in zip(data, data.own_rows(rows), strict=True):
        table = one.index.table.iloc[own]
        labels = table[list(one.index.findings)].to_numpy(np.float32)
        boxes = one.index.boxes[np.isin(one.index.boxes["row"], own)].to_csv(index=False)
        about = [*one.index.findings, *table["path"], *table["patient"]]
        parts.append(history.hashed(images_of(one), own.astype("<i8").tobytes(), labels.tobytes(), boxes, *about))
    return history.hashed(split, json.dumps(options, sort_keys=True), *sorted(parts))
