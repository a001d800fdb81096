"""Logit model: what predictions, validation and teachers need of a model – images in, logits out.

Classifiers with a backbone of timm's are logit models, and so are opaque networks, which are only a file.
"""

from typing import Protocol

from torch import Tensor


class LogitModel(Protocol):
    """A classifier of which only the logits are needed."""

    findings: tuple[str, ...]
    exclusive: bool
    """Whether the findings are mutually exclusive."""

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""

    def train(self, mode: bool = True) -> object:
        """Switch to training mode, or to evaluation mode if `mode` is False."""

    def logits(self, images: Tensor) -> Tensor:
        """(N, F) from normalised images (N, C, H, W)."""
