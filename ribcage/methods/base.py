"""What every method is: a module that takes a batch and answers a loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from torch import Tensor, nn

from ribcage.data.batch import Batch
from ribcage.imaging.augment import View, gentle_view
from ribcage.models.backbone import Backbone
from ribcage.models.hyperparameters import USUAL, Hyperparameters, nearest

Augment = Literal["radiograph", "paper"]


@dataclass(frozen=True)
class Step:
    """What a method makes of a batch."""

    loss: Tensor
    """A scalar; averaged over ranks it is the loss of the global batch."""
    logs: dict[str, Tensor | float] = field(default_factory=dict)
    """Numbers to show and keep; averaged over ranks they are those of the global batch."""


class Method(nn.Module):
    """A way to learn. Options are keywords of `__init__`, with the paper's values as defaults.

    Many processes compute what one would: batch norms take their statistics from all (unless `own_norms`), chance comes
    from `batch.chance`, and what looks at other images of the batch looks at `distributed.gathered_rows`'s.
    """

    command: ClassVar[str] = "pretrain"
    """What it is trained by."""
    from_labels: ClassVar[bool] = False
    """Whether it learns from findings."""
    hyperparameters: ClassVar[tuple[Hyperparameters, ...]] = (replace(USUAL["adamw"], warmup=1.0, epochs=100),)
    """How its paper trains it; several where that depends on the length of the run or on the batch."""
    own_norms: bool = False
    """Whether it sees to the statistics of its batch norms itself."""
    divisible: ClassVar[bool] = True
    """Whether the loss of a batch is the sum of those of its parts, so that it can be computed part by part."""
    same_patient: ClassVar[bool] = False
    """Whether, told to mind patients, its other views may show another image of the same patient."""

    def __init__(self, backbone: Backbone, findings: Sequence[str] = ()) -> None:
        super().__init__()
        self.backbone, self.findings = backbone, tuple(findings)

    @classmethod
    def published(cls, epochs: int | None, batch: int) -> Hyperparameters:
        """How its paper trains it in such batches for so many epochs, or for as many as the paper."""
        return nearest(cls.hyperparameters, epochs, batch)

    def faults(self, images: int, batch: int) -> list[str]:
        """Why nothing, or something else, would be learnt from so many images in such batches."""
        return []

    def views(self, size: tuple[int, int], augment: Augment = "radiograph") -> list[View]:
        """What each image of a batch is shown as; the paper's own augmentation, or one that suits radiographs."""
        return [gentle_view(size)]

    def count(self, labels: Tensor) -> None:
        """Take what it must know of all (N, F) labels before it begins."""

    def forward(self, batch: Batch) -> Step:
        """The loss of a batch."""
        raise NotImplementedError

    def share(self, part: Batch, batch: Batch) -> float:
        """How much of the loss of a batch the loss of a part of it is."""
        return len(part) / len(batch)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """What to log of a whole batch beside its loss: numbers that add up over the processes."""
        return {}

    def after_step(self, progress: float) -> None:
        """What changes without a gradient once the optimizer has stepped; progress runs from 0 to 1."""


def refuse(wrong: Mapping[str, bool]) -> None:
    """Raise one ValueError with all that is so of what would be wrong."""
    if any(wrong.values()):
        raise ValueError("; ".join(text for text, is_so in wrong.items() if is_so) + ".")
