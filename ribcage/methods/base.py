"""What every method is: a module that takes a batch and answers a loss."""

from dataclasses import dataclass, field

from torch import Tensor, nn

from ribcage.backbone import Backbone
from ribcage.loader import Batch
from ribcage.views import View, gentle


@dataclass(frozen=True)
class Step:
    """What a method makes of a batch."""

    loss: Tensor
    """A scalar; averaged over ranks it is the loss of the global batch."""
    logs: dict[str, Tensor | float] = field(default_factory=dict)
    """Numbers to show and keep."""


class Method(nn.Module):
    """A way to learn. Options are keywords of `__init__`, with the paper's values as defaults."""

    backbone: Backbone

    @staticmethod
    def views(size: tuple[int, int]) -> list[View]:
        """What each picture of a batch is shown as."""
        return [gentle(size)]

    def forward(self, batch: Batch) -> Step:
        """The loss of a batch."""
        raise NotImplementedError

    def share(self, part: Batch, batch: Batch) -> float:
        """How much of the loss of a batch the loss of a part of it is."""
        return len(part) / len(batch)

    def after_step(self, progress: float) -> None:
        """What changes without a gradient once the optimizer has stepped; progress runs from 0 to 1."""
