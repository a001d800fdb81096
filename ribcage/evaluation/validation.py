"""Validation: what a training asks of its validation images, whatever the kind of the model."""

from typing import Protocol

from ribcage.bundle.spec import ModelSpec

DIVERGED = "Predictions of validation images are not finite: training has diverged. Try a lower --lr or --clip 1."


class Validation(Protocol):
    """A model on the validation images of its training; called after an epoch, by all ranks."""

    scores: dict[str, float]
    """The last scores; empty before the first call."""

    @property
    def judged(self) -> tuple[str, ...]:
        """The findings that can be scored on these images."""
        ...

    def __call__(self) -> dict[str, float]:
        """The scores of the model as it is now, at rank 0; undefined ones are left out."""
        ...

    def chosen_spec(self) -> ModelSpec:
        """The spec of the model with what was chosen on the last predictions, and the last scores."""
        ...
