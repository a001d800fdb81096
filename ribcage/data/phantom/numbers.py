"""Parameters of one synthetic chest radiograph – Anatomy, Pose and Film – each drawn by seed, patient, study and image.

Lengths are shares of a typical image side (1 cm is about 0.025). x runs to the patient's left (right on the image),
y down from the apex of the lungs, z towards the sternum; x = 0 is the middle of the spine.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ribcage.data.findings import CHESTXRAY14

FINDINGS = CHESTXRAY14

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FULL = 0xFFFFFFFFFFFFFFFF
_STEPS = _GOLDEN * np.arange(1, 65, dtype=np.uint64)


def uniforms(*address: int | np.ndarray, count: int) -> np.ndarray:
    """(…, count) numbers in [0, 1) that depend on the address alone (SplitMix64): the same on every machine."""
    if all(isinstance(part, int) for part in address):
        return _shares(np.uint64(_key(address)) + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64))[None]
    key: np.ndarray = np.zeros(1, np.uint64)
    for part in address:
        key = _mixed((key + _GOLDEN) ^ _mixed(np.atleast_1d(np.asarray(part)).astype(np.uint64)))
    return _shares(key[..., None] + _GOLDEN * np.arange(1, count + 1, dtype=np.uint64))


def _shares(words: np.ndarray) -> np.ndarray:
    return (_mixed(words) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _stream(address: tuple[int, ...]) -> Iterator[float]:
    """The numbers of `uniforms`, without end."""
    key = _key(address)
    while True:
        yield from _shares(np.uint64(key) + _STEPS).tolist()
        key = key + int(_STEPS[-1]) & _FULL


def _key(address: tuple[int | np.ndarray, ...]) -> int:
    """A single key from plain integers, ten times faster than with arrays."""
    key = 0
    for part in address:
        key = _mixed_one((key + int(_GOLDEN) & _FULL) ^ _mixed_one(int(part) & _FULL))
    return key


def _mixed_one(word: int) -> int:
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & _FULL
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & _FULL
    return word ^ (word >> 31)


def _mixed(words: np.ndarray) -> np.ndarray:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


class Draws:
    """Random numbers of one address, drawn one after the other."""

    def __init__(self, *address: int) -> None:
        self._left = _stream(address)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A uniform number between the two."""
        return low + (high - low) * next(self._left)

    def normal(self, mean: float = 0.0, deviation: float = 1.0) -> float:
        """An approximately normal number, at most three deviations away (sum of four uniforms: exact everywhere)."""
        total = next(self._left) + next(self._left) + next(self._left) + next(self._left) - 2.0
        return mean + deviation * max(-3.0, min(3.0, total * 1.7320508))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return next(self._left) < probability


@dataclass(frozen=True)
class Anatomy:
    """Parameters common to all images of a patient."""

    seed: int
    """Address of vessels and textures."""
    female: bool
    age: float
    width: float
    """Half the width of the lungs at their widest."""
    height: float
    """Apex to the top of the right dome, in full inspiration."""
    roundness: float
    """Exponent of the lateral lung border: 1.6 is a bell, 3 a barrel."""
    apex: float
    """x of the apex, from the middle."""
    lean: float
    """Left lung wider (+) or narrower (-) than the right."""
    fat: float
    """0 thin … 1 obese."""
    breast: float
    shoulder: float
    """Slope of the shoulders."""
    neck: float
    heart: float
    """Half-width of a healthy heart on the left."""
    heart_right: float
    heart_tilt: float
    """-1 vertical … 1 horizontal heart."""
    aorta: float
    """Radius of the aortic knob."""
    unfolded: float
    """Bulge of the ascending and descending aorta (age)."""
    hilum: float
    """Size of the hila."""
    spine: float
    """Half-width of a vertebra."""
    scoliosis: float
    scoliosis_phase: float
    dome: tuple[float, float]
    """Height of the domes above the angles, right and left."""
    dome_left: float
    """How much lower the left dome is."""
    ribs: int
    rib_gap: float
    rib_first: float
    rib_drop: float
    """Drop of a rib from back to front."""
    rib_width: float
    bone: float
    """Density of the skeleton."""
    clavicle: float
    """Slope of the clavicles."""
    scapula: float
    bubble: tuple[float, float, float]
    """Gastric bubble: half-width, half-height (0: none), position."""
    bowel: float
    vessels: float
    """Contrast of the vessels."""


@dataclass(frozen=True)
class Pose:
    """Position of the patient and framing of one image."""

    seed: int
    view: str
    scale: float
    x: float
    y: float
    roll: float
    """Radians in the image plane."""
    yaw: float
    """Rotation to one side: anterior structures shift against posterior ones."""
    pitch: float
    """Tilt of the tube: in AP, the clavicles project above the apices."""
    inspiration: float
    arms: float
    """0 hanging … 1 lifted away."""
    blades: float
    """Scapulae: 0 over the lungs … 1 rotated out."""
    mirrored: bool = False
    """A lateral image of a patient who faces right."""


@dataclass(frozen=True)
class Film:
    """Tube, detector, processing and labelling of one image."""

    seed: int
    hospital: str
    exposure: float
    contrast: float
    toe: float
    noise: float
    scatter: float
    shading: tuple[float, float]
    """Heel effect: a slope across the image."""
    collimation: tuple[float, float, float, float]
    """Black borders: left, top, right, bottom, as shares of the side."""
    tilt: float
    """Tilt of the collimator."""
    marker: tuple[float, float]
    """Position of the side letter."""
    marker_size: float
    label: str
    """Further text on the image."""


@dataclass(frozen=True)
class PhantomFinding:
    """One visible finding: `severity` 0 … 1; `side` -1 right, 1 left, 0 both; `u` medial to lateral; `v` apex to
    base."""

    name: str
    severity: float
    side: int
    u: float
    v: float
    seed: int


def anatomy(seed: int, patient: int, *, age: float, female: bool) -> Anatomy:
    """The anatomy of this patient."""
    draw = Draws(seed, 1, patient)
    fat = min(1.0, max(0.0, draw.normal(0.38, 0.26)))
    old = max(0.0, (age - 40) / 45)
    width = draw.normal(0.345 if female else 0.365, 0.024)
    return Anatomy(
        seed=(seed * 1_000_003 + patient) & 0x7FFFFFFFFFFF,
        female=female,
        age=age,
        width=width,
        height=draw.normal(0.53 if female else 0.565, 0.05),
        roundness=draw.uniform(1.75, 2.9),
        apex=draw.uniform(0.11, 0.17),
        lean=draw.normal(0, 0.035),
        fat=fat,
        breast=draw.uniform(0.25, 1.0) * (0.6 + 0.5 * fat) if female else 0.0,
        shoulder=draw.uniform(0.02, 0.16),
        neck=draw.uniform(0.075, 0.1) + 0.03 * fat,
        heart=draw.normal(0.197, 0.024) + 0.012 * old,
        heart_right=draw.normal(0.092, 0.013),
        heart_tilt=draw.normal(0.0, 0.45) + 0.5 * (fat - 0.4),
        aorta=draw.uniform(0.024, 0.034) + 0.013 * old,
        unfolded=max(0.0, draw.normal(0.1, 0.25) + 0.7 * old),
        hilum=draw.uniform(0.75, 1.35),
        spine=draw.uniform(0.036, 0.045),
        scoliosis=draw.normal(0, 0.011),
        scoliosis_phase=draw.uniform(0, 6.28),
        dome=(draw.uniform(0.07, 0.135), draw.uniform(0.06, 0.125)),
        dome_left=draw.normal(0.02, 0.018),
        ribs=10,
        rib_gap=draw.uniform(0.056, 0.07),
        rib_first=draw.uniform(-0.025, 0.02),
        rib_drop=draw.uniform(0.15, 0.32),
        rib_width=draw.uniform(0.021, 0.028),
        bone=draw.uniform(0.75, 1.25) - 0.25 * old,
        clavicle=draw.normal(0.07, 0.05),
        scapula=draw.uniform(-0.02, 0.02),
        bubble=(
            draw.uniform(0.03, 0.085),
            draw.uniform(0.015, 0.05) if draw.chance(0.6) else 0.0,
            draw.uniform(0.12, 0.22),
        ),
        bowel=draw.uniform(),
        vessels=draw.uniform(0.7, 1.3),
    )


def pose(seed: int, patient: int, study: int, image: int, *, view: str) -> Pose:
    """The position of this patient in this image."""
    draw = Draws(seed, 2, patient, study, image)
    lying, turned = view == "AP", view == "LATERAL"
    mirrored = turned and draw.chance(0.35)
    shift = draw.normal(0, 0.065 if turned else 0.05 if lying else 0.04)
    return Pose(
        seed=study * 16 + image,
        view=view,
        scale=draw.normal(1.12 if turned else 1.03 if lying else 1.05, 0.11 if turned else 0.09),
        x=0.5 + shift + (0.03 if mirrored else -0.03 if turned else 0.0),
        y=draw.normal(0.115, 0.06 if turned else 0.052),
        roll=draw.normal(0, 0.09 if turned else 0.06 if lying else 0.028),
        yaw=0.0 if turned else draw.normal(0, 0.25 if lying else 0.1),
        pitch=0.0 if turned else draw.normal(0.32 if lying else 0.1, 0.24),
        inspiration=draw.normal(0.87 if lying else 0.99, 0.09),
        arms=draw.uniform(0, 0.7) if lying else draw.uniform(0.0 if turned else 0.1, 1.0),
        blades=draw.uniform(0.0, 0.5) if lying else draw.uniform(0.35, 1.0),
        mirrored=mirrored,
    )


def film(seed: int, patient: int, study: int, image: int, *, hospital: str, view: str) -> Film:
    """The exposure and labelling of this image in this hospital."""
    draw = Draws(seed, 3, patient, study, image)
    portable = hospital == "B" and view == "AP"
    borders = [max(0.0, draw.uniform(-0.06, 0.04)) for _ in range(4)]
    if hospital == "B":
        borders = [max(0.0, draw.uniform(-0.08, 0.08)) if draw.chance(0.6) else 0.0 for _ in range(4)]
    words = [word for word, often in (("AP", 0.7), ("PORTABLE", 0.6), ("SUPINE", 0.3)) if draw.chance(often)]
    return Film(
        seed=(patient * 64 + study * 16 + image) & 0x7FFFFFFF,
        hospital=hospital,
        exposure=draw.normal(0.0, 0.1) + (0.05 if hospital == "B" else 0.0),
        contrast=draw.normal(1.12 if hospital == "A" else 0.95, 0.17),
        toe=draw.uniform(0.0, 1.0),
        noise=draw.uniform(0.4, 1.0) if hospital == "A" else draw.uniform(0.8, 2.2),
        scatter=draw.uniform(0.02, 0.10) if hospital == "A" else draw.uniform(0.06, 0.22),
        shading=(draw.normal(0, 0.08), draw.normal(0, 0.08)),
        collimation=(borders[0], borders[1], borders[2], borders[3]),
        tilt=draw.normal(0, 0.012) if hospital == "B" else 0.0,
        marker=(draw.uniform(0.86, 0.95), draw.uniform(0.04, 0.2)),
        marker_size=draw.uniform(0.02, 0.034),
        label="\n".join(words) if portable or (lying_label(view) and draw.chance(0.4)) else "",
    )


def lying_label(view: str) -> bool:
    """AP images are usually labelled as such."""
    return view == "AP"


# Distribution of each finding's position: the probability of both sides, of the right otherwise, ranges of u and v.
_PLACES = {
    "Atelectasis": (0.0, 0.5, (0.1, 0.9), (0.3, 0.95)),
    "Effusion": (0.3, 0.55, (0.2, 0.8), (0.9, 1.0)),
    "Infiltration": (0.0, 0.55, (0.15, 0.75), (0.2, 0.85)),
    "Mass": (0.0, 0.55, (0.2, 0.85), (0.15, 0.85)),
    "Nodule": (0.0, 0.5, (0.15, 0.9), (0.1, 0.9)),
    "Pneumonia": (0.0, 0.6, (0.3, 0.7), (0.25, 0.9)),
    "Pneumothorax": (0.0, 0.55, (0.5, 0.9), (0.0, 0.3)),
    "Consolidation": (0.0, 0.55, (0.2, 0.75), (0.2, 0.9)),
    "Fibrosis": (0.7, 0.5, (0.5, 0.9), (0.8, 1.0)),
    "Pleural_Thickening": (0.2, 0.5, (0.0, 1.0), (0.1, 1.0)),
}


def phantom_finding(name: str, severity: float, seed: int, patient: int) -> PhantomFinding:
    """Position of this finding in this patient: the same in all studies."""
    draw = Draws(seed, 4, patient, FINDINGS.index(name))
    both, right, across, down = _PLACES.get(name, (1.0, 0.5, (0.0, 1.0), (0.0, 1.0)))
    side = 0 if draw.chance(both) else (-1 if draw.chance(right) else 1)
    if both < 1 and side == 0:
        draw.chance(0.5)
    u, v = draw.uniform(*across), draw.uniform(*down)
    return PhantomFinding(name, severity, side, u, v, int(draw.uniform(1, 2**31)))
