"""The base class of all methods: a module that takes a batch and returns a loss."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import register_pytree_node

from ribcage.data.batch import Batch
from ribcage.imaging.augment import View, gentle_view
from ribcage.models.backbone import Backbone
from ribcage.models.hyperparameters import USUAL, Hyperparameters, nearest_published
from ribcage.runtime import schedules
from ribcage.runtime.schedules import Ramp

Augment = Literal["radiograph", "paper"]


@dataclass(frozen=True)
class Step:
    """The loss of a batch, and numbers to log."""

    loss: Tensor
    """A scalar; averaged over ranks it is the loss of the global batch."""
    logs: dict[str, Tensor | float] = field(default_factory=dict)
    """Numbers to log; averaged over ranks they are those of the global batch."""


@dataclass(frozen=True)
class LabelCounts:
    """The labels of all training images, summed over the images: the labels themselves may not fit into memory."""

    images: int
    positive: Tensor
    """(F,) int64: the images with this finding, whose label is above 0.5."""
    negative: Tensor
    """(F,) int64: the images without it; the labels of all others are unknown."""
    lowest: Tensor
    """(F,) the lowest known label."""
    highest: Tensor
    """(F,) the highest known label; below the lowest if none is known."""

    @classmethod
    def of(cls, blocks: Iterable[Tensor], findings: int) -> "LabelCounts":
        """From (n, F) labels of some images at a time; NaN is unknown."""
        images, positive, negative = 0, *(torch.zeros(findings, dtype=torch.int64) for _ in range(2))
        lowest, highest = torch.full((findings,), torch.inf), torch.full((findings,), -torch.inf)
        for labels in blocks:
            images += len(labels)
            positive += (labels > 0.5).sum(0)
            negative += (labels <= 0.5).sum(0)
            if len(labels):
                lowest = torch.minimum(lowest, labels.nan_to_num(torch.inf).amin(0))
                highest = torch.maximum(highest, labels.nan_to_num(-torch.inf).amax(0))
        return cls(images, positive, negative, lowest, highest)

    def in_columns(self, columns: Sequence[int], findings: int) -> "LabelCounts":
        """The counts of each finding in another column, without labels in all other columns."""
        none, places = LabelCounts.of([], findings), (torch.tensor(columns, dtype=torch.int64),)
        return LabelCounts(
            self.images,
            none.positive.index_put(places, self.positive),
            none.negative.index_put(places, self.negative),
            none.lowest.index_put(places, self.lowest),
            none.highest.index_put(places, self.highest),
        )


# Wrappers of several processes must find the tensors in it; DDP does not average the first gradients otherwise.
register_pytree_node(Step, lambda step: ([step.loss, step.logs], None), lambda values, _: Step(*values))


class Method(nn.Module):
    """A training method. Options are keywords of `__init__`, with the paper's values as defaults.

    Results do not depend on the number of processes: batch norms are synchronised (unless `own_norms`), random numbers
    come from `batch.chance`, and losses between images gather the global batch by `distributed.gathered_rows`.
    """

    command: ClassVar[str] = "pretrain"
    """The command that trains it."""
    from_labels: ClassVar[bool] = False
    """Whether it uses labels."""
    hyperparameters: ClassVar[tuple[Hyperparameters, ...]] = (replace(USUAL["adamw"], warmup=1.0, epochs=100),)
    """Published hyperparameters; several where they depend on the epochs or the batch size."""
    own_norms: bool = False
    """Whether it computes the statistics of its batch norms itself."""
    divisible: ClassVar[bool] = True
    """Whether the loss of a batch is the weighted sum over its parts, so that gradients can be accumulated."""
    shardable: ClassVar[bool] = False
    """Whether all of it that has weights is computed in `forward`, so that they can be divided among processes."""
    ramps: Mapping[str, Ramp] = MappingProxyType({})
    """The attributes that have a schedule."""
    any_size: ClassVar[bool] = True
    """Whether the size of the images may change during training."""
    takes_teacher: ClassVar[bool] = False
    """Whether it learns from a frozen teacher, which is its keyword `teacher`."""
    pool: ClassVar[str] = ""
    """Pooling of the features of its backbone, if none is given; "": that of the architecture."""
    not_averaged: ClassVar[tuple[str, ...]] = ()
    """Buffers of which an average of the weights (--ema) has a copy, because their mean is meaningless."""
    same_patient: ClassVar[bool] = False
    """Whether, with `patient_aware`, its other views are drawn from another image of the same patient."""

    structures: tuple[str, ...] = ()
    """Structures and findings whose masks and points it needs (`Batch.masks`, `Batch.points`)."""

    def __init__(self, backbone: Backbone, findings: Sequence[str] = ()) -> None:
        super().__init__()
        self.backbone, self.findings = backbone, tuple(findings)

    @classmethod
    def published(cls, epochs: int | None, batch: int) -> Hyperparameters:
        """The published hyperparameters nearest to this batch size and number of epochs (None: as published)."""
        return nearest_published(cls.hyperparameters, epochs, batch)

    @property
    def untrained(self) -> frozenset[str]:
        """Names of weights that stay as they are when training starts; checkpoints leave them out."""
        return frozenset()

    def faults(self, images: int, batch: int) -> list[str]:
        """What is wrong with training on so many images in such batches."""
        return []

    def before_division(self, batch: Batch) -> Batch:
        """A batch that is divided into micro-batches, after all that involves several of its images, such as mixup."""
        return batch

    def faults_of_passes(self, images: int, processes: int) -> list[str]:
        """What is wrong with forward passes of so many images in each of so many processes."""
        return []

    @classmethod
    def faults_of_parts(cls, micro_batch: int) -> list[str]:
        """What is wrong with dividing batches into micro-batches."""
        if cls.divisible or issubclass(cls, ContrastiveMethod):
            return []
        return [
            f"--micro-batch {micro_batch} is not possible with {cls.__name__}, whose loss cannot be computed in parts: "
            f"use a smaller --batch, or more processes"
        ]

    @classmethod
    def faults_of_teacher(cls, teacher: str) -> list[str]:
        """What is wrong with this teacher, or with none."""
        name = cls.__module__.rpartition(".")[2]
        if cls.takes_teacher and not teacher:
            return [f"{name} needs --teacher: a run folder or bundle of a pretrained vision transformer"]
        return [f"--teacher has no effect with {name}"] if teacher and not cls.takes_teacher else []

    def views(self, size: tuple[int, int], augment: Augment = "radiograph") -> list[View]:
        """The views of each image: the paper's augmentation, or one for radiographs."""
        return [gentle_view(size)]

    @property
    def counts_labels(self) -> bool:
        """Whether `count` is to be called: counting millions of labels takes seconds."""
        return False

    def count(self, labels: LabelCounts) -> None:
        """Set what depends on the labels of all training images."""

    def forward(self, batch: Batch) -> Step:
        """The loss of a batch."""
        raise NotImplementedError

    def share(self, part: Batch, batch: Batch) -> float | Tensor:
        """The weight of the loss of a part in the loss of its batch."""
        return len(part) / len(batch)

    def counts(self, batch: Batch) -> dict[str, Tensor]:
        """Counts to log of a batch, which are summed over the processes."""
        return {}

    def schedule(self, name: str, value: float | str) -> None:
        """Set an attribute to a constant number or, with START:END, to a tensor that `before_step` updates; of a number
        that changes, a compiled step would be compiled anew."""
        ramp = schedules.ramp(f"--{name.replace('_', '-')}", value)
        if not isinstance(value, str):
            setattr(self, name, value)
            return
        self.ramps = {**self.ramps, name: ramp}
        self.register_buffer(name, torch.full((), ramp.start), persistent=False)

    def before_step(self, progress: float) -> dict[str, float]:
        """Update the numbers that have a schedule before a step; their values."""
        values = {name: ramp.at(progress) for name, ramp in self.ramps.items()}
        for name, value in values.items():
            getattr(self, name).fill_(value)
        return values

    def after_forward(self) -> None:
        """What is done after each forward pass in training, outside a compiled graph."""

    def after_step(self, progress: float) -> None:
        """Updates without a gradient after each step of the optimizer; progress runs from 0 to 1."""


class ContrastiveMethod(Method):
    """A method whose loss compares all images of a batch with each other.

    The loss depends on the network only through the representations of the images, so that large batches can be passed
    through the network in parts (`training/gradient_caching.py`).
    """

    divisible = False

    def representations(self, batch: Batch) -> Tensor:
        """(n, …): all that the loss uses of the network's outputs, one row for each image of this process."""
        raise NotImplementedError

    def loss_of(self, z: Tensor, batch: Batch) -> Step:
        """The loss of the representations of a batch. It may gather those of other processes."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> Step:
        """The loss of a batch."""
        return self.loss_of(self.representations(batch), batch)


def method_options(kind: type[Method], options: object, **more: object) -> dict[str, Any]:
    """The keywords of a method, also inherited ones, that are fields of a command's options; and more."""
    kinds = [one for one in kind.__mro__ if issubclass(one, Method) and "__init__" in vars(one)]
    parameters = [parameter for one in kinds for parameter in inspect.signature(one).parameters.values()]
    names = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    return {name: getattr(options, name) for name in dict.fromkeys(names) if hasattr(options, name)} | more


def lowest(value: float | str) -> float:
    """The lowest value of an option that may be given as START:END."""
    ramp = schedules.ramp("a schedule", value)
    return min(ramp.start, ramp.end)


def refuse_faults(wrong: Mapping[str, bool]) -> None:
    """Raise one ValueError with all texts whose condition holds."""
    if any(wrong.values()):
        raise ValueError("; ".join(text for text, is_so in wrong.items() if is_so) + ".")
