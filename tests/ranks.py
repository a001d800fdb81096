"""Every method for a few steps, by as many processes as the environment says.

Losses, gradients and weights of several processes are compared with those of one.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from batches import batch, part
from torch import Tensor, nn

from ribcage import methods
from ribcage.bundle.io import Classifier
from ribcage.bundle.spec import ModelSpec
from ribcage.data.batch import Batch
from ribcage.data.provenance import Provenance
from ribcage.methods import Method
from ribcage.methods.supervised import Supervised
from ribcage.models.backbone import Backbone
from ribcage.runtime import distributed, launcher, synchronised_norms
from ribcage.training.teachers.live import LiveTeacher
from ribcage.training.teachers.patches import FrozenPatches

SIZE, FINDINGS, BATCH, STEPS = (32, 32), ("a", "b", "c"), 16, 2
TRANSFORMERS_ONLY = ("dinov2", "eva", "ijepa", "mae")
CNNS_ONLY = ("mae_unet",)
SMALL = {"queue": 32, "hidden": 24, "dim": 12, "bn_group": 4, "prototypes": 20, "crops": 2, "decoder": "dec128d2b"}
SMALL |= {"targets": 2, "predictor_dim": 24, "predictor_depth": 1}
"""Options that make a method small, where it has them."""
DETECTOR = {"width": 16, "depth": 1, "freeze": False}
"""A small detector without frozen layers."""
TAUGHT = {"feature_weight": 0.5, "relation_weight": 0.5}
"""Additional options of a method with teachers."""


@dataclass(frozen=True)
class Trace:
    """Losses, gradients and weights of a short training."""

    losses: list[float]
    gradients: dict[str, Tensor]
    """Of the first step."""
    state: dict[str, Tensor]
    """After the last."""


def options(name: str) -> dict[str, Any]:
    """Those of SMALL that the method has."""
    known = inspect.signature(methods.load_method(name).__init__).parameters
    wanted = SMALL | (TAUGHT if "teachers" in known else {}) | (DETECTOR if name == "detect" else {})
    return {option: value for option, value in wanted.items() if option in known}


def teacher(student: str, size: tuple[int, int], device: torch.device | None = None) -> LiveTeacher:
    """A model of the other kind, with a temperature, that knows two of the findings and one of its own."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(7)
        name = "test_vit" if student == "test_resnet" else "test_resnet"
        method = Supervised(Backbone(name, channels=3, size=size), ("c", "other", "a"))
        torch.nn.init.normal_(method.head.weight, std=0.3)
    model = ModelSpec(name, method.findings, size, 32, "pad", 0.45, 0.22, channels=3, temperature=(1.5, 1.0, 0.7))
    opened = Classifier(Path(), model, method, Provenance.nothing())
    device = device or torch.device("cpu")
    return LiveTeacher(opened, FINDINGS, torch.ones(3), view=0, scale=(0.5, 0.25), device=device)


def patch_teacher(
    size: tuple[int, int] = (32, 32), scale: tuple[float, float] = (0.5, 0.25), device: torch.device | None = None
) -> FrozenPatches:
    """A transformer of three channels, with another normalisation than the student's."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(7)
        method = Supervised(Backbone("test_vit", channels=3, size=size), ("a",))
    model = ModelSpec("test_vit", method.findings, size, 32, "pad", 0.45, 0.22, channels=3)
    opened = Classifier(Path(), model, method, Provenance.nothing())
    return FrozenPatches(opened, scale, device or torch.device("cpu"))


def made(
    name: str, model: str = "test_resnet", channels: int = 1, size: tuple[int, int] = SIZE, seed: int = 0, **more: Any
) -> Method:
    """A small one, the same for the same seed."""
    torch.manual_seed(seed)
    backbone = Backbone(model, channels=channels, size=size)
    chosen = {**options(name), **more}
    if "relation_weight" in chosen:
        chosen.setdefault("teachers", [teacher(model, size)])
    if methods.load_method(name).takes_teacher:
        chosen.setdefault("teacher", patch_teacher(size))
    return methods.load_method(name)(backbone, FINDINGS, **chosen).train()  # type: ignore[call-arg]


def images(
    method: Method, seed: int = 0, channels: int = 1, size: tuple[int, int] = SIZE, count: int = BATCH, **more: Any
) -> Batch:
    """A batch of what the method wants to see."""
    sides = [view.shape[0] for view in method.views(size)]
    return batch(count, sides=sides, channels=channels, findings=len(FINDINGS), seed=seed, **more)


@contextmanager
def doubled() -> Iterator[None]:
    """Numbers in double precision, also where a method asks for whole precision.

    Many processes add in another order. In single precision the last bit so opens a ReLU that is shut on one process, and
    a gradient jumps by a thousandth; in double nothing is that near to 0.
    """
    usual = torch.Tensor.float
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.Tensor.float = usual  # type: ignore[method-assign]


@doubled()
def trace(name: str, **more: Any) -> Trace:
    """A few steps on this process's part of each batch, in the loop's order."""
    method = made(name, "test_vit" if name in TRANSFORMERS_ONLY else "test_resnet", **more)
    if not method.own_norms:
        synchronised_norms.synchronise_norms(method, torch.device("cpu"))
    forward: nn.Module = method
    if distributed.active():
        forward = distributed.data_parallel(method, same_graph=True)
    optimizer = torch.optim.SGD([weight for weight in method.parameters() if weight.requires_grad], lr=0.05)
    losses, gradients = [], dict[str, Tensor]()
    for number in range(STEPS):
        optimizer.zero_grad()
        patients = [1, 1, 2, *range(3, BATCH - 1), 2]  # one on both ranks
        whole = images(method, number, patients=patients)
        whole = replace(whole, views=[view.double() for view in whole.views], labels=whole.labels.double())
        whole = replace(whole, boxes=[boxes.double() for boxes in whole.boxes])
        loss = forward(part(whole, distributed.rank(), distributed.world_size())).loss
        loss.backward()
        found = {key: weight.grad.clone() for key, weight in method.named_parameters() if weight.grad is not None}
        gradients = gradients or found
        optimizer.step()
        method.after_step((number + 1) / STEPS)
        losses.append(float(distributed.total(loss)) / distributed.world_size())
    return Trace(losses, gradients, method.state_dict())


def write(file: str, name: str, more: dict[str, Any]) -> None:
    """A training by all processes together; rank 0 writes its trace, as a plain dict."""
    torch.set_num_threads(1)
    with launcher.started():
        found = trace(name, **more)
        if distributed.rank() == 0:
            torch.save(vars(found), file)
