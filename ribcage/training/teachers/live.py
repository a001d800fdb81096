"""Live teachers: classifiers that predict on the augmented image of the student."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.bundle.io import Classifier
from ribcage.bundle.spec import EXCLUSIVE, ModelSpec
from ribcage.data.batch import Batch
from ribcage.methods.distil import TeacherOutput
from ribcage.methods.supervised import Supervised
from ribcage.runtime.devices import on_device


class LiveTeacher:
    """A classifier that predicts on the same augmented image as the student, at its own size and normalisation."""

    def __init__(
        self,
        opened: Classifier,
        findings: Sequence[str],
        weight: Tensor,
        *,
        view: int,
        scale: tuple[float, float],
        device: torch.device,
        exclusive: bool = False,
    ) -> None:
        self.name, self.nonfinite = str(opened.folder), torch.zeros((), dtype=torch.bool, device=device)
        self.method = opened.method.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        self.model, self.weight, self.view, self.scale = opened.spec, weight.to(device), view, scale
        self.dim = opened.method.backbone.dim if isinstance(opened.method, Supervised) else 0
        own = [place for place, name in enumerate(opened.spec.findings) if name in findings]
        self.own = torch.tensor(own, dtype=torch.int64, device=device)
        """Columns of its findings that the student has, too; and below, their columns in the student."""
        self.places = torch.tensor(
            [findings.index(opened.spec.findings[place]) for place in own], dtype=torch.int64, device=device
        )
        self.count, self.exclusive = len(findings), exclusive

    def __call__(self, batch: Batch, views: list[Tensor], inside: bool) -> TeacherOutput:
        """Its calibrated logits; with `inside`, features and feature maps, too. Logits that are not finite stop the run
        by its loss, without synchronising the device in each step; `nonfinite` then tells which teacher it was."""
        model = self.model
        shown = (views[self.view][:, :1] * self.scale[1] + self.scale[0] - model.mean) / model.std
        with torch.no_grad():
            shown = shown.expand(-1, model.channels, -1, -1).contiguous(memory_format=torch.channels_last)
            found = self._output(shown, inside)
            predicted = calibrated_logits(found.logits.float(), model, self.exclusive)
            own = predicted[:, self.own]
            self.nonfinite |= ~own.isfinite().all()
            logits = predicted.new_full((len(predicted), self.count), torch.nan)
            logits[:, self.places] = own.nan_to_num(torch.inf, torch.inf, -torch.inf)  # NaN: not predicted
        return replace(found, logits=logits)

    def _output(self, shown: Tensor, inside: bool) -> TeacherOutput:
        """Its own logits and, with `inside`, features and feature maps; an opaque network has none."""
        if not isinstance(self.method, Supervised):
            return TeacherOutput(self.method.logits(shown))
        backbone = self.method.backbone
        hidden = backbone.hidden(shown)
        logits = self.method.head(backbone.head_input(hidden))
        if not inside:
            return TeacherOutput(logits)
        return TeacherOutput(logits, backbone.pool(hidden), backbone.grid(hidden, (shown.shape[2], shown.shape[3])))


def calibrated_logits(logits: Tensor, model: ModelSpec, exclusive: bool = False) -> Tensor:
    """(N, F): logits after temperature scaling, as log(p / (1 - p)), or as log p for mutually exclusive findings."""
    if model.temperature:
        logits = logits / on_device(np.asarray(model.temperature), logits.device).to(logits.dtype)
    if model.loss != EXCLUSIVE:
        return F.logsigmoid(logits) if exclusive else logits
    if exclusive:
        return logits.log_softmax(1)
    others = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    return logits - logits[:, None].masked_fill(others, -torch.inf).logsumexp(2)
