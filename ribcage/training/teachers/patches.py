"""Teachers of patch features: a frozen vision transformer from a bundle or run."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.bundle.init import initial_spec
from ribcage.bundle.io import Classifier, load_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import TeacherRecord
from ribcage.models.tokens import check_patch_transformer, patch_features, token_features


class FrozenPatches:
    """The patch features of a model, for images as a student sees them.

    opened: the model.
    scale: mean and standard deviation by which the student's images are normalised.
    """

    def __init__(self, opened: Classifier, scale: tuple[float, float], device: torch.device) -> None:
        self.model, self.scale, self.backbone = opened.spec, scale, opened.network("teach patch features").backbone
        check_patch_transformer(self.backbone, f"--teacher {opened.folder}: patch features")
        self.backbone.accept_any_size()
        self.backbone.eval().requires_grad_(False).to(device)
        self.dim: int = self.backbone.model.embed_dim

    @torch.no_grad()
    def __call__(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        """(N, L, dim): the images are resized such that the model has as many patches as the student."""
        model, steps = self.model, self.backbone.model.patch_embed.patch_size
        shown = (images[:, :1] * self.scale[1] + self.scale[0] - model.mean) / model.std
        sides = [patches * step for patches, step in zip(grid, steps, strict=True)]
        if list(shown.shape[2:]) != sides:
            shown = F.interpolate(shown, sides, mode="bilinear", antialias=True)
        tokens = token_features(self.backbone, shown.expand(-1, model.channels, -1, -1))
        return patch_features(self.backbone, tokens)

    def __deepcopy__(self, memo: Any) -> "FrozenPatches":
        return self


def taught(name: str, student: ModelSpec, device: torch.device) -> dict[str, FrozenPatches]:
    """The keyword of a method that has a teacher; nothing without one."""
    scale = (student.mean, student.std)
    return {"teacher": FrozenPatches(open_patch_teacher(name), scale, device)} if name else {}


def with_patch_teacher(spec: ModelSpec, name: str) -> ModelSpec:
    """The spec of a student with its teacher, if it has one, whose training data the student depends on."""
    teacher = initial_spec(name) if name else None
    if teacher is None:
        return spec
    record = TeacherRecord(name=teacher.name, table=False, findings=teacher.findings)
    known = {one.source for one in spec.data}
    more = [replace(one, before=True) for one in teacher.data if one.source not in known]
    return replace(spec, data=(*spec.data, *more), training=replace(spec.training, teachers=(record,)))


def open_patch_teacher(name: str) -> Classifier:
    """The bundle of a teacher; ValueError for one without patch features."""
    opened = load_bundle(name)
    if not isinstance(opened, Classifier) or opened.spec.members:
        raise ValueError(f"--teacher {name} must be one vision transformer, not a detector or an ensemble.")
    return opened
