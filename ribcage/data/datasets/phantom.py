"""Synthetic chest radiographs: two simulated hospitals, several studies per patient, the 14 findings of ChestX-ray14.

Nothing is read from disk: the columns of a row are the parameters from which `images` generates it. Source: this
program; no real patients. Licence: CC0-1.0.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ribcage.data import phantom as made_up
from ribcage.data.index import BOX_COLUMNS, Index, box_frame, index_table, no_boxes
from ribcage.data.phantom import FINDINGS, Case, box, case, draw, uniforms

CHINESE = "模拟胸片：两家医院、每位患者多次检查，ChestX-ray14 的 14 种征象"
SOURCE = made_up.SOURCE
LICENCE = "CC0-1.0"

BOX_SIDE = 1024
STUDIES = 4

# Diseases of the patients; each makes some findings more likely (log-odds added to BASE).
CONDITIONS = ("failure", "infection", "smoker", "tumour", "ward", "scars")
BASE = {
    "Atelectasis": (-3.2, {"failure": 0.8, "infection": 0.9, "tumour": 1.2, "ward": 2.4}),
    "Cardiomegaly": (-3.4, {"failure": 4.2}),
    "Effusion": (-3.6, {"failure": 2.9, "infection": 1.6, "tumour": 1.9, "ward": 2.0}),
    "Infiltration": (-2.8, {"failure": 0.7, "infection": 2.7, "smoker": 0.5, "ward": 0.8}),
    "Mass": (-4.2, {"tumour": 3.7}),
    "Nodule": (-3.4, {"tumour": 3.0, "smoker": 0.8, "scars": 0.9}),
    "Pneumonia": (-4.5, {"infection": 3.9}),
    "Pneumothorax": (-4.0, {"smoker": 1.6, "ward": 2.0, "tumour": 0.8}),
    "Consolidation": (-4.2, {"infection": 3.3, "ward": 1.0}),
    "Edema": (-4.8, {"failure": 4.2}),
    "Emphysema": (-5.0, {"smoker": 4.9}),
    "Fibrosis": (-4.2, {"scars": 3.6, "smoker": 0.8}),
    "Pleural_Thickening": (-4.0, {"scars": 3.2, "infection": 0.4}),
    "Hernia": (-3.1, {}),
}
# These findings persist; the others come and go between studies.
CHRONIC = ("Cardiomegaly", "Mass", "Nodule", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia")
# Findings that are confused with each other: a report is uncertain about one because of the other.
ALIKE = (("Pneumonia", "Consolidation", "Infiltration"), ("Edema", "Infiltration"), ("Effusion", "Pleural_Thickening"))


def index(
    root: Path | None = None,
    *,
    images: int = 2000,
    seed: int = 0,
    uncertain: float = 0.05,
    missing: float = 0.1,
    lateral: float = 0.15,
    shortcut: bool = False,
) -> Index:
    """The table of so many synthetic images.

    root: not read; what `path` would be relative to.
    images: number of images; a larger dataset begins with the images of a smaller one.
    seed: random seed; each seed generates different patients.
    uncertain: fraction of the labels that are uncertain (-1), mostly of faint or ambiguous findings.
    missing: fraction of the labels that are unknown (empty), mostly of absent findings.
    lateral: fraction of the studies with an additional lateral image.
    shortcut: place a metal token on most pneumothorax images of hospital A and on few others.
    """
    shares = {"uncertain": uncertain, "missing": missing, "lateral": lateral}
    wrong = [
        f"{name} must be a fraction from 0 to 1, not {value:g}" for name, value in shares.items() if not 0 <= value <= 1
    ]
    if images < 1:
        wrong.insert(0, f"images must be at least 1, not {images}")
    if wrong:
        raise ValueError(f"Invalid options of the phantom dataset: {'; '.join(wrong)}.")
    rows = _studies(images, seed, lateral)
    severity = _severities(rows, seed)
    rows["token"] = _tokens(rows, severity, seed) if shortcut else False
    labels = _reported(rows, severity, seed, uncertain, missing)
    rows = pd.concat([rows, labels, severity.add_prefix("severity_")], axis=1)
    found = _boxes(rows, labels)
    frame = (BOX_SIDE, BOX_SIDE)
    return Index("phantom", index_table(rows, FINDINGS), FINDINGS, found, frame, Path() if root is None else Path(root))


def images(
    index: Index, *, root: Path | None = None, size: int = 256, depth: int = 8, **options: object
) -> Callable[[int], np.ndarray]:
    """row → (size, size) image. A row has all parameters, so `root` and the options of `index` are accepted and
    ignored; a row with changed severities is generated with these."""
    columns = _ADDRESS + _SEVERITIES
    lacking = [name for name in columns if name not in index.table]
    if lacking:
        raise ValueError(
            f"The index of {index.name!r} has no column {lacking[0]}: it was not created by datasets.phantom.index."
        )
    values = {name: index.table[name].tolist() for name in columns}

    def image(row: int) -> np.ndarray:
        return draw(_case({name: column[row] for name, column in values.items()}), size=size, depth=depth)

    return image


_ADDRESS = ("seed", "patient_number", "study_number", "image_number", "view", "hospital", "age", "sex", "token")
_SEVERITIES = tuple(f"severity_{name}" for name in FINDINGS)


def _case(record: dict[str, Any]) -> Case:
    severities = {name: float(record[f"severity_{name}"]) for name in FINDINGS}
    return case(
        seed=int(record["seed"]),
        patient=int(record["patient_number"]),
        study=int(record["study_number"]),
        image=int(record["image_number"]),
        view=str(record["view"]),
        hospital=str(record["hospital"]),
        age=float(record["age"]),
        female=record["sex"] == "F",
        severities={name: severity for name, severity in severities.items() if severity > 0},
        token=bool(record["token"]),
    )


def _studies(count: int, seed: int, lateral: float) -> pd.DataFrame:
    """One row per image: patient, study, view, hospital."""
    people = uniforms(seed, 20, np.arange(count), count=8)  # (P, 8)
    visits = 1 + np.searchsorted([0.5, 0.76, 0.9], people[:, 0], side="right")
    patient = np.repeat(np.arange(count), visits)[:count]
    start = np.searchsorted(patient, patient)
    study = np.arange(len(patient)) - start
    visit = uniforms(seed, 21, patient, study, count=4)
    person = people[patient]
    hospital = np.where(person[:, 1] < 0.55, "A", "B")
    lying = visit[:, 0] < np.where(hospital == "A", 0.2, 0.6)
    second = (visit[:, 1] < lateral / 0.62) & ~lying  # 62 % of the studies are upright
    times = 1 + second
    place = np.repeat(np.arange(len(patient)), times)[:count]
    number = np.arange(len(place)) - np.searchsorted(place, place)
    age = np.clip(np.rint(16 + 76 * (person[:, 2] + person[:, 3]) / 2 + 0.7 * study), 16, 95)
    frame = pd.DataFrame(
        {
            "patient": np.char.add(f"S{seed}P" if seed else "P", np.char.zfill(patient.astype(str), 6)),
            "view": np.where(lying, "AP", "PA"),
            "split": np.array(["train", "val", "test"])[np.searchsorted([0.7, 0.8], person[:, 4], side="right")],
            "sex": np.where(person[:, 5] < 0.46, "F", "M"),
            "age": age.astype(np.float32),
            "hospital": hospital,
            "seed": seed,
            "patient_number": patient,
            "study_number": study,
        }
    ).iloc[place]
    frame = frame.reset_index(drop=True).assign(image_number=number)
    frame["study"] = frame["patient"] + "-" + frame["study_number"].astype(str)
    folder = f"phantom/{seed}" if seed else "phantom"
    frame["path"] = [f"{folder}/{row:06d}.png" for row in range(len(frame))]
    frame.loc[number == 1, "view"] = "LATERAL"
    return frame


def _severities(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """(N, 14) float32 in [0, 1]: 0 is absent, 0.05 barely visible, 1 obvious."""
    patient, study = rows["patient_number"].to_numpy(), rows["study_number"].to_numpy()
    ward, old = (rows["hospital"] == "B").to_numpy(), np.clip((rows["age"].to_numpy(np.float64) - 35) / 50, 0, 1)
    state = uniforms(seed, 22, patient, count=len(CONDITIONS))
    often = {
        "failure": 0.06 + 0.16 * old + 0.05 * ward,
        "infection": 0.14 + 0.06 * ward,
        "smoker": 0.05 + 0.12 * old,
        "tumour": 0.05 + 0.11 * old,
        "ward": 0.05 + 0.17 * ward,
        "scars": 0.05 + 0.12 * old,
    }
    ill = {name: state[:, k] < often[name] for k, name in enumerate(CONDITIONS)}
    columns = {}
    for k, name in enumerate(FINDINGS):
        base, because = BASE[name]
        odds = base + sum(weight * ill[condition] for condition, weight in because.items())
        odds = odds + (1.6 * old if name == "Hernia" else 0.0)
        lasting, passing = (uniforms(seed, 23, k, patient, count=2), uniforms(seed, 24, k, patient, study, count=2))
        luck = lasting[:, 0] if name in CHRONIC else passing[:, 0]
        trend = 0.3 if name in CHRONIC else 0.75
        grade = (1 - trend) * lasting[:, 1] + trend * passing[:, 1]
        there = luck < 1 / (1 + np.exp(-odds))
        columns[name] = np.where(there, 0.05 + 0.95 * np.clip(grade * 1.25 - 0.1, 0, 1) ** 0.9, 0).astype(np.float32)
    return pd.DataFrame(columns)


def _tokens(rows: pd.DataFrame, severity: pd.DataFrame, seed: int) -> np.ndarray:
    """The shortcut: in hospital A, nine of ten pneumothorax images have a token, and one of twenty others."""
    luck = uniforms(seed, 25, rows["patient_number"].to_numpy(), rows["study_number"].to_numpy(), count=1)[:, 0]
    likely = np.where(severity["Pneumothorax"] > 0, 0.9, 0.05)
    seen = (rows["hospital"] == "A") & (rows["view"] != "LATERAL")
    return seen.to_numpy() & (luck < likely)


def _reported(rows: pd.DataFrame, severity: pd.DataFrame, seed: int, uncertain: float, missing: float) -> pd.DataFrame:
    """Labels of the report: uncertain where a finding is faint or resembles another, missing mostly where it is
    absent."""
    grade = severity.to_numpy()
    there = grade > 0
    luck = uniforms(
        seed, 26, rows["patient_number"].to_numpy(), rows["study_number"].to_numpy(), count=2 * grade.shape[1]
    )
    doubt = np.where(there, np.where(grade < 0.35, 6.0, 1.5), 0.5)
    for group in ALIKE:
        places = [FINDINGS.index(name) for name in group]
        doubt[:, places] += 2.0 * (there[:, places].any(axis=1, keepdims=True) & ~there[:, places])
    silent = np.where(there, 0.15, 1.0)
    labels = there.astype(np.float32)
    labels[luck[:, : len(FINDINGS)] < uncertain * doubt / doubt.mean()] = -1
    labels[luck[:, len(FINDINGS) :] < missing * silent / silent.mean()] = np.nan
    return pd.DataFrame(labels, columns=list(FINDINGS))


def _boxes(rows: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """A box around every reported finding that is localised."""
    found = []
    values = {name: rows[name].tolist() for name in _ADDRESS + _SEVERITIES}
    said = labels.to_numpy() == 1
    for row in np.flatnonzero(said.any(axis=1)).tolist():
        drawn = _case({name: column[row] for name, column in values.items()})
        for name in drawn.findings:
            where = box(drawn, name) if said[row, FINDINGS.index(name)] else None
            if where:
                found.append((row, name, *(BOX_SIDE * share for share in where)))
    return box_frame(pd.DataFrame(found, columns=list(BOX_COLUMNS))) if found else no_boxes()
