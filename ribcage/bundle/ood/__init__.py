"""Out-of-distribution (OOD) check: whether an image is unlike the training images, and in what way.

It is fitted on the training images alone: they, mirrored, turned and inverted ones, laterals, and what is no chest
(`ribcage.bundle.counterexamples`) are eight classes of a linear classifier of their vectors x
(`ribcage.imaging.appearance`):

    z = x W + b;   s = log(exp z_usual + exp z_mirrored) - log(sum of exp z_k over the other classes)

An image is noticed when s is below a limit, when z_usual - z_mirrored is, or when the part of x - m outside of the
first principal components of the training images is longer than a limit. The limits are from held-out images.
"""

from ribcage.bundle.ood.check import CLASSES, FILE, OODCheck, load_check, usualness
from ribcage.bundle.ood.fitting import KEPT, fit_check, fitted_check, halved, kept, kept_by, lazy_check
from ribcage.bundle.ood.warnings import image_warnings, weakness

__all__ = [
    "CLASSES", "FILE", "KEPT", "OODCheck", "fit_check", "fitted_check", "halved", "image_warnings",
    "kept", "kept_by", "lazy_check",
    "load_check", "usualness", "weakness",
]  # fmt: skip
