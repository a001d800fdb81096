"""Validation: the protocol by which a training scores its model on validation images, whatever the task."""

from typing import Protocol

from ribcage.bundle.spec import ModelSpec

DIVERGED = (
    "Predictions of validation images are not finite: the training has diverged, or the weights are damaged. Train "
    "again with a lower --lr or with --clip 1."
)


class Validation(Protocol):
    """A model scored on its validation images; called by all ranks after an epoch."""

    scores: dict[str, float]
    """The last scores; empty before the first call."""

    @property
    def judged(self) -> tuple[str, ...]:
        """The findings that can be scored on these images."""
        ...

    def __call__(self) -> dict[str, float]:
        """Scores of the current model, on rank 0; undefined values are left out."""
        ...

    def chosen_spec(self) -> ModelSpec:
        """The model's spec with the thresholds chosen on the last predictions, and the last scores."""
        ...
