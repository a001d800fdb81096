"""Geometry of one chest in one image: lung borders, diaphragm domes and heart, from Anatomy, Pose and findings."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ribcage.data.phantom.numbers import Anatomy, PhantomFinding, Pose
from ribcage.data.phantom.plate import Points, smooth_curve


@dataclass(frozen=True)
class Chest:
    """Frontal outlines. `side` is -1 for the patient's right (left on the image) and 1 for the left."""

    body: Anatomy
    pose: Pose
    findings: Mapping[str, PhantomFinding]

    mirrored = True
    """There are two lungs side by side."""
    middle = 0.03
    """x behind the heart, at the oesophagus."""

    def severity(self, name: str) -> float:
        """0 where the finding is absent."""
        return self.findings[name].severity if name in self.findings else 0.0

    @functools.cached_property
    def height(self) -> float:
        """Distance from apex to right dome."""
        trapped = 1 + 0.12 * self.severity("Emphysema") - 0.10 * self.severity("Fibrosis")
        return max(0.36, self.body.height * self.pose.inspiration * trapped)

    @functools.cached_property
    def heart_width(self) -> float:
        """Extent of the heart to the left: larger lying down, in expiration, and when enlarged."""
        squeezed = 1 + 0.55 * (1 - self.pose.inspiration) + (0.07 if self.pose.view == "AP" else 0.0)
        sick = 1 + (0.13 + 0.42 * self.severity("Cardiomegaly") if "Cardiomegaly" in self.findings else 0.0)
        return min(0.32, self.body.heart * squeezed * sick * (1 - 0.2 * self.severity("Emphysema")))

    def width(self, side: int) -> float:
        """Half-width of the lungs on this side."""
        return self.body.width * (1 + side * self.body.lean) * (1 + 0.04 * self.severity("Emphysema"))

    def base(self, side: int) -> float:
        """y of the costophrenic angle."""
        return self.dome(side) + self.dome_height(side)

    def dome_height(self, side: int) -> float:
        """Height of the dome above the angle."""
        return self.body.dome[0 if side < 0 else 1] * (1 - 0.7 * self.severity("Emphysema"))

    def dome(self, side: int) -> float:
        """y of the top of the dome; volume loss raises it."""
        collapse = self.findings.get("Atelectasis")
        pulled = 0.07 * max(0.0, collapse.severity - 0.45) if collapse and collapse.side in (0, side) else 0.0
        return self.height + (self.body.dome_left if side > 0 else 0.0) - pulled

    def lateral(self, side: int, y: np.ndarray | float) -> np.ndarray:
        """x of the lateral lung border (positive) at these heights."""
        width, apex, power = self.width(side), self.body.apex, self.body.roundness
        widest = 0.8 * self.base(side)
        up = np.clip(1 - np.asarray(y) / widest, 0, 1)
        down = np.clip(np.asarray(y) / widest - 1, 0, 1)
        return apex + (width - apex) * (1 - up**power) ** (1 / power) - 0.18 * width * down**1.5

    def at(self, side: int, u: float, v: float) -> tuple[float, float]:
        """Lung coordinates (medial to lateral, apex to base) → chest coordinates."""
        y = v * self.dome(side) + 0.01
        inner = 0.055 + 0.03 * v + (self.heart_width * 0.75 * max(0.0, v - 0.55) if side > 0 else 0.0)
        return side * (inner + u * (float(self.lateral(side, y)) - inner)), y

    def sides(self, finding: PhantomFinding) -> tuple[int, ...]:
        """The sides on which this finding is visible."""
        return (finding.side,) if finding.side else (-1, 1)

    def hilum(self, side: int) -> tuple[float, float]:
        """Origin of the vessels of this lung; the left one is slightly higher."""
        return side * (0.07 + 0.01 * self.body.unfolded), self.height * (0.455 if side < 0 else 0.42)

    def lung(self, side: int) -> Points:
        """The visible lung, down to the dome; the mediastinum is drawn over its inner border."""
        base, apex = self.base(side), self.body.apex
        y = base * _LUNG_STEPS
        outer = np.stack([side * self.lateral(side, y), y], 1)
        floor = self.floor(side)
        inner = np.array([(0.03, 0.75 * base), (0.028, 0.4 * base), (0.03, 0.12), (0.5 * apex, 0.018), (apex, 0.0)])
        return np.concatenate([outer, floor[1:], inner * (side, 1)])

    def floor(self, side: int) -> Points:
        """The dome of the diaphragm, from the angle to the middle."""
        base, high = self.base(side), self.dome_height(side)
        x = float(self.lateral(side, base))
        points = [(x, base), (0.88 * x, base - 0.5 * high), (0.7 * x, base - 0.87 * high), (0.48 * x, base - high)]
        points += [(0.26 * x, base - 0.9 * high), (0.03, base - 0.62 * high)]
        return smooth_curve(np.array(points) * (side, 1), steps=4)

    def mediastinum(self) -> Points:
        """Great vessels and heart in one outline."""
        body, h, left = self.body, self.height, self.heart_width
        right = body.heart_right * (1 + 0.3 * self.severity("Cardiomegaly")) * (1 - 0.25 * self.severity("Emphysema"))
        knob, bulge, tilt = body.aorta, 0.018 * body.unfolded, 0.05 * body.heart_tilt
        wide = 0.01 * body.fat + (0.01 if self.pose.view == "AP" else 0.0)
        apex = self.dome(1) - 0.01 - 0.4 * max(0.0, tilt)
        points = [
            (-0.034 - wide, -0.06),
            (-0.04 - wide, 0.05),
            (-0.046 - wide - 0.5 * bulge, 0.22 * h),
            (-0.05 - wide - 0.7 * bulge, 0.4 * h),
            (-right * 0.8, 0.54 * h),
            (-right, 0.74 * h),
            (-right * 0.85, 0.92 * h),
            (-0.06, 1.15 * h),
            (0.06, 1.2 * h),
            (0.6 * left, apex + 0.075),
            (0.93 * left, apex + 0.025),
            (left, apex - 0.05 + 0.4 * tilt),
            (0.86 * left, apex - 0.15 + tilt),
            (0.62 * left, 0.58 * h),
            (0.058 + 0.12 * left, 0.47 * h),
            (0.052 + wide + 0.3 * bulge, 0.4 * h),
            (0.03 + wide + 1.2 * knob, 0.245 * h + knob),
            (0.034 + wide + 1.45 * knob, 0.245 * h),
            (0.03 + wide + 0.9 * knob, 0.245 * h - knob),
            (0.038 + wide, 0.05),
            (0.034 + wide, -0.06),
        ]
        return smooth_curve(points, closed=True, steps=4)

    def heart(self) -> Points:
        """The heart alone (for its box)."""
        line = self.mediastinum()
        return line[(line[:, 1] > 0.47 * self.height)]

    def spine(self, y: np.ndarray) -> np.ndarray:
        """x of the middle of the spine at these heights."""
        return self.body.scoliosis * np.sin(4.5 * y + self.body.scoliosis_phase)


_LUNG_STEPS = np.array([0.0, 0.006, 0.02, 0.045, 0.09, 0.15, 0.22, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.87, 0.93, 1.0])
