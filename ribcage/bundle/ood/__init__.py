"""Out-of-distribution (OOD) check: whether, and how, an image differs from the training images.

It is fitted on training images only. The training images, mirrored, turned and inverted copies, laterals, and images
that show no chest (`ribcage.bundle.counterexamples`) are the eight classes of a linear classifier of feature vectors x
(`ribcage.imaging.appearance`):

    z = x W + b;   s = log(exp z_usual + exp z_mirrored) - log(sum of exp z_k over the other classes)

An image is flagged if s or z_usual - z_mirrored is below its limit, or if the component of x - m outside the first
principal components of the training images is longer than a limit. The limits are set on held-out images.
"""

from ribcage.bundle.ood.check import CLASSES, FILE, OODCheck, load_check, usualness
from ribcage.bundle.ood.fitting import KEPT, fit_check, fitted_check, halved, lazy_check, preferred_check, upper_limit
from ribcage.bundle.ood.warnings import image_warnings, weakness

__all__ = [
    "CLASSES",
    "FILE",
    "KEPT",
    "OODCheck",
    "fit_check",
    "fitted_check",
    "halved",
    "image_warnings",
    "lazy_check",
    "load_check",
    "preferred_check",
    "upper_limit",
    "usualness",
    "weakness",
]  # fmt: skip
