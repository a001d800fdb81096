"""Steps that are left out: their changes are undone on the device, without synchronising it; the loss scale of fp16."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor


@contextlib.contextmanager
def unchanged_if(tensors: Callable[[], Sequence[Tensor]], stop: Tensor | None) -> Iterator[None]:
    """Undo changes of the tensors if `stop` is 1, without synchronising the device. Those that are new, such as the
    momentum after the first step, become 0."""
    if stop is None:
        yield
        return
    with torch.no_grad():
        before = {id(tensor): (tensor, tensor.clone()) for tensor in tensors()}
        yield
        for tensor in tensors():
            old = before[id(tensor)][1] if id(tensor) in before else torch.zeros_like(tensor)
            tensor.copy_(torch.where(stop > 0, old, tensor))


class LossScale:
    """The factor of the loss in fp16, whose small gradients would else become 0.

    Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740, section 3.2, with the values of torch.amp.GradScaler. A
    step whose gradient exceeds the range of fp16 is left out and the scale is halved; after 2,000 good steps the scale
    doubles. At a scale of 1, such a gradient is a divergence. Everything is computed on the device; GradScaler would
    synchronise it for optimizers without `found_inf`.
    """

    START, GROWTH = 65536.0, 2000

    def __init__(self, device: torch.device) -> None:
        self.value = torch.full((), self.START, device=device)
        self.good = torch.zeros((), device=device)
        """Steps since the last change."""
        self.exceeded = torch.zeros((), device=device)
        """1 if the last step is left out."""

    def updated(self, norm: Tensor) -> Tensor:
        """Adapt the scale to the norm of the gradient; the norm, 0 if its step is left out."""
        finite, least = norm.isfinite(), self.value <= 1
        good = torch.where(finite, self.good + 1, 0.0)
        grown = good >= self.GROWTH
        self.exceeded = 1.0 - finite.to(self.exceeded)
        self.value = torch.where(finite, torch.where(grown, 2 * self.value, self.value), self.value / 2).clamp(min=1)
        self.good = torch.where(grown, 0.0, good)
        return torch.where(finite | least, norm, 0.0)

    def state(self) -> dict[str, Tensor]:
        """For the checkpoint."""
        return {"value": self.value, "good": self.good}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        self.value, self.good = (state[name].to(self.value) for name in ("value", "good"))
