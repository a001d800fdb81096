"""Render one synthetic chest radiograph from its parameters: tissue thickness along the beam, then the exposure.

    image = draw(case(seed=0, patient=12, study=0, image=0, view="PA", hospital="A", age=61, female=True,
                        severities={"Effusion": 0.6}), size=256)

The same numbers give the same pixels, in any order, on any thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from ribcage.data.phantom import devices, disease, exposure, frontal, lateral
from ribcage.data.phantom.chest import Chest
from ribcage.data.phantom.numbers import (
    FINDINGS,
    Anatomy,
    Draws,
    Film,
    PhantomFinding,
    Pose,
    anatomy,
    film,
    phantom_finding,
    pose,
    uniforms,
)
from ribcage.data.phantom.plate import Plate, Points

__all__ = [
    "FINDINGS",
    "SOURCE",
    "Anatomy",
    "Case",
    "Draws",
    "Film",
    "PhantomFinding",
    "Pose",
    "anatomy",
    "box",
    "case",
    "draw",
    "film",
    "phantom_finding",
    "pose",
    "uniforms",
]

SOURCE = "drawn by Ribcage (ribcage.data.phantom)"
"""Source of synthetic images, as recorded in dataset folders and bundles."""

# Small images are drawn larger and averaged: lines thinner than a pixel would vanish.
_SMALLEST = 128


@dataclass(frozen=True)
class Case:
    """All parameters of one image."""

    body: Anatomy
    pose: Pose
    film: Film
    findings: Mapping[str, PhantomFinding]
    token: bool = False
    """A metal token on the shoulder: the shortcut."""


def case(
    *,
    seed: int,
    patient: int,
    study: int,
    image: int,
    view: str,
    hospital: str,
    age: float,
    female: bool,
    severities: Mapping[str, float],
    token: bool = False,
) -> Case:
    """The parameters at this address; `severities` (0 … 1) are those of the findings that are present."""
    return Case(
        anatomy(seed, patient, age=age, female=female),
        pose(seed, patient, study, image, view=view),
        film(seed, patient, study, image, hospital=hospital, view=view),
        {name: phantom_finding(name, severity, seed, patient) for name, severity in severities.items() if severity > 0},
        token,
    )


def draw(what: Case, *, size: int = 256, depth: int = 8) -> np.ndarray:
    """(size, size) uint8 or, with depth 16, uint16; bright where the beam was absorbed."""
    if depth not in (8, 16):
        raise ValueError(f"depth must be 8 or 16, not {depth}.")
    if not 16 <= size <= 4096:
        raise ValueError(f"size must be from 16 to 4096, not {size}.")
    side = -(-size * max(1, -(-_SMALLEST // size)) // 16) * 16
    plate, chest = Plate(side, what.pose), _chest(what)
    beam = lateral if what.pose.view == "LATERAL" else frontal
    total = beam.thickness(chest, plate)
    if what.pose.view != "LATERAL":
        things = devices.metal(chest, plate, Draws(what.film.seed, 8), what.token)
        if things.any():
            total += things.astype(np.int16) * np.int16(6)
    gray = exposure.expose(total, what.film, plate)
    if side != size:
        gray = cv2.resize(gray, (size, size), interpolation=cv2.INTER_AREA)
    return gray if depth == 16 else (gray >> 8).astype(np.uint8)


def box(what: Case, name: str) -> tuple[float, float, float, float] | None:
    """x, y, width, height of a finding as shares of the image side; None if it is not localised."""
    outline = disease.outline(_chest(what), what.findings[name])
    if outline is None:
        return None
    low, high = _bounds(Plate(1024, what.pose).place(outline))
    width, height = (high - low).tolist()
    return (*low.tolist(), width, height) if width > 0.008 and height > 0.008 else None


def _bounds(points: Points) -> tuple[np.ndarray, np.ndarray]:
    return np.clip(points.min(0), 0, 1), np.clip(points.max(0), 0, 1)


def _chest(what: Case) -> Chest:
    kind = lateral.SideChest if what.pose.view == "LATERAL" else Chest
    return kind(what.body, what.pose, what.findings)
