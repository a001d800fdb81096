"""Hyperparameters: published optimizer settings, and their adaptation to another batch size and a shorter run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

Optimizer = Literal["adamw", "sgd", "lars"]
BATCH = 256
"""Batch size of published learning rates: the linear scaling rule, Goyal et al. 2017,
https://arxiv.org/abs/1706.02677."""


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Default optimizer settings."""

    optimizer: Optimizer
    lr: float
    """Peak learning rate; if `scaled`, for a batch of 256."""
    weight_decay: float | str
    """START:END is a cosine, as in --weight-decay."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Betas of AdamW."""
    warmup: float = 0.0
    """Epochs of linear warm-up."""
    most: float = 0.1
    """Limit on warm-up as a share of the run, for short runs."""
    end: float = 0.0
    """Final rate of the cosine, as a share of the peak."""
    clip: float = 0.0
    """Maximum norm of the gradient; 0: not clipped."""
    scaled: bool = True
    """Whether the rate is proportional to the batch size."""
    epochs: int = 0
    """Epochs of the published run; 0: the command's default."""
    batch: int = BATCH
    """Batch size of the published run."""
    own: Mapping[str, Any] = field(default_factory=dict)
    """Options of the method used with it that differ from the method's defaults."""
    source: str = "Ribcage's own"

    def rate(self, batch: int) -> float:
        """The peak learning rate for a batch size."""
        return self.lr * batch / BATCH if self.scaled else self.lr

    def rise(self, epochs: int) -> float:
        """Warm-up epochs of a run."""
        return max(0.0, min(self.warmup, self.most * epochs))

    def by(self, optimizer: Optimizer) -> "Hyperparameters":
        """The same run with another optimizer, at that one's learning rate and weight decay."""
        if optimizer == self.optimizer:
            return self
        return replace(USUAL[optimizer], warmup=self.warmup, most=self.most, epochs=self.epochs, own=self.own)


USUAL: dict[Optimizer, Hyperparameters] = {
    "adamw": Hyperparameters(optimizer="adamw", lr=1e-3, weight_decay=0.05),
    "sgd": Hyperparameters(
        optimizer="sgd", lr=0.03, weight_decay=1e-4, source="MoCo, https://arxiv.org/abs/1911.05722"
    ),
    "lars": Hyperparameters(
        optimizer="lars", lr=0.3, weight_decay=1e-6, source="SimCLR, https://arxiv.org/abs/2002.05709"
    ),
}
"""Defaults of an optimizer for methods and commands published with another one."""


def nearest_published(rows: Sequence[Hyperparameters], epochs: int | None, batch: int) -> Hyperparameters:
    """The published run with the nearest batch size; of several, the longest that is not longer, else the shortest."""
    apart = [abs(math.log(row.batch / max(1, batch))) for row in rows]
    alike = [row for row, far in zip(rows, apart, strict=True) if far == min(apart)]
    alike.sort(key=lambda row: row.epochs)
    return next((row for row in reversed(alike) if epochs is None or row.epochs <= epochs), alike[0])


def default_texts(row: Hyperparameters, rows: Sequence[Hyperparameters] = ()) -> dict[str, str]:
    """Defaults as text by option, for a help page. rows: all published runs, of which shorter ones may differ."""
    cut = f", at most {row.most:.0%} of the run" if row.warmup > 1 else ""
    scaled = f" × batch / {BATCH}" if row.scaled else ""
    return {
        "optimizer": row.optimizer,
        "lr": f"{row.lr:g}{scaled}{_of_shorter(row, rows, 'lr', scaled)}",
        "min_lr": f"{row.end:g} × lr" if row.end else "0",
        "warmup": f"{row.warmup:g}{cut}",
        "weight_decay": f"{_as_text(row.weight_decay)}{_of_shorter(row, rows, 'weight_decay')}",
        "clip": f"{row.clip:g}",
        **({"betas": f"{row.betas[0]:g} {row.betas[1]:g}"} if row.optimizer == "adamw" else {}),
        **({"epochs": str(row.epochs)} if row.epochs else {}),
        **{name: str(value) for name, value in row.own.items()},
    }


def _of_shorter(row: Hyperparameters, rows: Sequence[Hyperparameters], option: str, unit: str = "") -> str:
    """The values of an option in shorter published runs with the same batch size where they differ, as text."""
    alike = sorted((one for one in rows if one.batch == row.batch), key=lambda one: -one.epochs)
    pairs = [(getattr(short, option), getattr(long, option), long.epochs) for long, short in pairwise(alike)]
    return "".join(
        f", {_as_text(value)}{unit} below {epochs} epochs" for value, longer, epochs in pairs if value != longer
    )


def _as_text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}"
