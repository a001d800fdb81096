"""Leakage check: a model is not tested on images or patients it was trained or selected on, unless the user allows it,
which the report then states."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

import numpy as np

from ribcage.bundle import history
from ribcage.data import dataset_folder
from ribcage.data.collection import Datasets
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.fingerprint_table import Fingerprints
from ribcage.data.provenance import Provenance
from ribcage.imaging import duplicates, fingerprint
from ribcage.metrics.evaluation_context import LeakageCheck, LeftOut
from ribcage.runtime.spelling import count_phrase


@dataclass(frozen=True)
class Leak:
    """Overlap of the images to test with the images a model was trained and selected on."""

    patients: int
    """Test patients that occur in training or selection."""
    images: int
    """Test images of such patients."""
    identical: int
    """Test images with the same pixels as a training image."""
    alike: int
    """Test images that are copies of a training image, identical ones included."""
    tested: int

    def __bool__(self) -> bool:
        return bool(self.images or self.identical or self.alike)

    def __str__(self) -> str:
        return self.sentence("test")

    def sentence(self, what: str) -> str:
        """The overlap in words. what: the kind of images, such as "test"."""
        people = count_phrase(self.patients, "patient")
        copies = "are copies of training or validation images"
        return (
            f"Of {count_phrase(self.tested, f'{what} image')}, {count_phrase(self.images, 'is', 'are')} from {people} "
            "in the training or validation data of the model; "
            f"{count_phrase(self.alike, 'is a copy of a training or validation image', copies)}, "
            f"{self.identical:,} of them identical"
        )


def find_leak(provenance: Provenance, tested: Fingerprints) -> Leak:
    """Compare the images to test and their patients with those the model was trained and selected on."""
    known = seen_patients(provenance, tested)
    identical, alike = seen_copies(provenance, tested)
    patients = len(np.unique(tested.patients[known]))
    return Leak(patients, int(known.sum()), int(identical.sum()), int(alike.sum()), len(tested.pixels))


def seen_patients(provenance: Provenance, tested: Fingerprints) -> np.ndarray:
    """(N,) bool: which images show patients the model was trained or selected on, with or without the site's key."""
    known = np.zeros(len(tested.pixels), bool)
    for hashes in (tested.patients, tested.without_key):
        known |= np.isin(hashes, provenance.patients) & (hashes > 0)
    return known


def seen_copies(provenance: Provenance, tested: Fingerprints) -> tuple[np.ndarray, np.ndarray]:
    """(N,) bool: which of these images the model was trained or selected on, identical ones and copies of any kind."""
    identical = np.isin(tested.pixels, provenance.pixels) & (tested.pixels > 0)
    alike = identical.copy()
    alike[duplicates.duplicates_between(tested.prints, provenance.prints).first] = True
    return identical, alike


class LeakError(ValueError):
    """The model was trained or selected on images or patients of the test."""

    def __init__(self, leak: Leak, *, none_left: bool = False) -> None:
        """none_left: no image would be left without them, as in a test of the model's own validation split."""
        remedy = "Exclude these images with --drop-shared SPLIT, test on other data"
        if none_left:
            remedy = "Without these images, none is left to test. Test on another split or other data"
        super().__init__(f"{leak}. {remedy}, or pass --allow-leak, which the report will state.")
        self.leak = leak


def check_leakage(
    seen: Provenance, tested: Datasets, rows: np.ndarray, *, allow: bool = False, selected: bool = False
) -> LeakageCheck:
    """The result of the leakage check for the report; LeakError on overlap that is not allowed.

    selected: allow images that the model was only selected on, to reproduce published protocols.
    """
    prints = fingerprints_of(tested, rows)
    leak, selected_on = find_leak(seen, prints), 0
    forbidden = leak
    if leak and selected:
        selected_on, forbidden = _apart(seen, prints)
    if forbidden and not allow:
        raise LeakError(forbidden, none_left=bool((seen_patients(seen, prints) | seen_copies(seen, prints)[1]).all()))
    linked = [dataset.index.name for dataset in tested if dataset.facts.linked]
    other_sites = _of_other_sites(seen, tested)
    anonymous = bool(len(seen.pixels)) and (seen.without_patients or bool((prints.patients == 0).any()))
    return LeakageCheck(
        found=bool(leak),
        text=leakage_text(leak, selected_on, anonymous) + other_sites,
        patients_unknown=anonymous or bool(other_sites),
        checked=len(rows),
        seen=len(seen.pixels),
        **asdict(leak),
        selected_on=selected_on,
        unseen=int((seen.pixels == 0).sum()),
        unknown=tuple(seen.unknown.tolist()),
        linked=tuple(linked),
    )


def left_out_note(left: LeftOut) -> list[str]:
    """Note on the images that were left out, if any."""
    if not left.images:
        return []
    return [
        f"{count_phrase(left.images, 'image is', 'images are')} excluded (--drop-shared): images from "
        f"{count_phrase(left.patients, 'patient')} in the training or validation data of the model, or copies of "
        f"images in these data ({left.copies:,})."
    ]


def unseen(seen: Provenance, tested: Datasets, rows: np.ndarray) -> tuple[np.ndarray, LeftOut]:
    """The rows without patients and copies of images that the model was trained or selected on, and what was left
    out."""
    prints = fingerprints_of(tested, rows)
    known = seen_patients(seen, prints)
    _, alike = seen_copies(seen, prints)
    gone = known | alike
    if gone.all():
        raise ValueError(
            f"--drop-shared leaves no image to test: each of the {len(rows):,} images, or another image of the same "
            "patient, was used to train or select the model."
        )
    return rows[~gone], LeftOut(
        images=int(gone.sum()), patients=len(np.unique(prints.patients[known])), copies=int(alike.sum())
    )


def initial_weights_warning(seen: Provenance, validation: Datasets, rows: np.ndarray, split: str) -> str:
    """Warning if the initial weights were trained on images or patients of the validation split; else ""."""
    if not len(seen.pixels) and not len(seen.patients):
        return ""
    try:
        check_leakage(seen, validation, rows, selected=True)
    except LeakError as error:
        found = (
            f"The initial weights were trained on images or patients of split {split!r}, so validation scores are too "
            f"high."
        )
        return f"{found} {error.leak.sentence('validation')}."
    return ""


def leakage_text(leak: Leak, selected_on: int, anonymous: bool = False) -> str:
    """One sentence. anonymous: some images have no patient identifier."""
    if not leak and anonymous:
        return (
            f"none of the {leak.tested:,} images occurs in the training or validation data; patients could not be "
            "compared for all images, because some have no patient identifier"
        )
    if not leak:
        return f"none of the {leak.tested:,} images or their patients occurs in the training or validation data"
    more = f"; the model was selected on {selected_on:,} of them" if selected_on else ""
    return f"{leak}{more}"


def _of_other_sites(seen: Provenance, tested: Datasets) -> str:
    """Datasets whose patients cannot be compared, because the model's patients were hashed with another site's key."""
    private = [
        dataset.index.name for dataset in tested if dataset.private and (dataset.index.table["patient"] != "").any()
    ]
    if not private or not seen.of_other_sites:
        return ""
    return (
        f"; patients of {', '.join(private)} could not be compared with those of the model, whose identifiers were "
        f"hashed at another site, so only images were compared (docs/fingerprints.md)"
    )


def fingerprints_of(tested: Datasets, rows: np.ndarray) -> Fingerprints:
    """Fingerprints of these rows; for linked folders, which store none, they are computed."""
    parts = []
    for dataset, own in zip(tested, tested.own_rows(rows), strict=True):
        if not len(own):
            continue
        parts.append(_computed(dataset, own) if dataset.facts.linked else dataset.fingerprints.take(own))
    return Fingerprints.join(parts)


def _computed(dataset: DatasetFolder, rows: np.ndarray) -> Fingerprints:
    """Fingerprints as the import of the same images would have stored them."""
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
    """The number of tested images that the model was only selected on, and the overlap with its training data.

    Patients of the former are expected to be known to the model, also in older files that do not record which images it
    was selected on.
    """
    trained, chosen = _of_role(seen, 0), _of_role(seen, 1)
    on = seen_copies(chosen, tested)[1] & ~seen_copies(trained, tested)[1]
    patients, unkeyed = (np.where(on, np.uint64(0), each) for each in (tested.patients, tested.without_key))
    rest = replace(tested, patients=patients, unkeyed=unkeyed)
    return int(on.sum()), find_leak(replace(trained, patients=seen.trained), rest)


def _of_role(seen: Provenance, role: int) -> Provenance:
    """The images with this role: 0 training, 1 selection."""
    own = seen.role == role
    return replace(seen, pixels=seen.pixels[own], prints=seen.prints[own], role=seen.role[own])


# ---- identity of a test


def images_of(one: DatasetFolder) -> str:
    """Hash of all images of a folder; of a linked folder, of their file names."""
    if one.facts.contents:
        return history.hashed(one.facts.contents)
    return history.hashed(one.index.name, *one.index.table["path"])


def key_of(data: Datasets, rows: np.ndarray, split: str, options: dict[str, object]) -> str:
    """The key of a test of these rows: a hash of images, labels (of each reader, too), boxes and options."""
    parts = []
    for one, own in zip(data, data.own_rows(rows), strict=True):
        table = one.index.table.iloc[own]
        labels = table[list(one.index.findings)].to_numpy(np.float32)
        boxes = one.index.boxes[np.isin(one.index.boxes["row"], own)].to_csv(index=False)
        read = one.index.readings[np.isin(one.index.readings["row"], own)]
        boxes += read.to_csv(index=False) if len(read) else ""
        about = [*one.index.findings, *table["path"], *table["patient"]]
        parts.append(history.hashed(images_of(one), own.astype("<i8").tobytes(), labels.tobytes(), boxes, *about))
    return history.hashed(split, json.dumps(options, sort_keys=True), *sorted(parts))
