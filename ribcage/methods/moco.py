"""MoCo: each view is contrasted with its key and a queue of earlier keys, computed by a momentum encoder.

He et al. 2020, https://arxiv.org/abs/1911.05722, and with an MLP head, v2, Chen et al. 2020,
https://arxiv.org/abs/2003.04297. With the query q of one view, the key k of the other and the keys k_i of the queue:

    L = -log(exp(q.k/t) / (exp(q.k/t) + sum_i exp(q.k_i/t))),   w_key <- m w_key + (1 - m) w_query

Batch statistics leak information if a query and its key are normalised together with the same images. The paper
shuffles images between GPUs; here batch norms normalise groups of `bn_group` images: queries in the order of the batch,
the key of image i in group i mod G of G. The groups of a query and of its key then share only one image in G, also on a
single process, and results do not depend on the number of processes.

Trained as in section 4 of the first paper, along the cosine of the second: SGD, .03 for a batch of 256, 200 epochs.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.data.batch import Batch
from ribcage.imaging.augment import View, published_view, strong_view
from ribcage.methods.base import Augment, Method, Step, lowest, refuse_faults
from ribcage.models.backbone import Backbone
from ribcage.models.hyperparameters import Hyperparameters
from ribcage.models.layers import follow, follower, group_norms, perceptron
from ribcage.runtime import distributed

CHINESE = "MoCo：在由历史图像组成的队列中辨认同一图像的另一视图"

LOWEST = torch.finfo(torch.float32).min
NOBODY = torch.iinfo(torch.int64).min


class MoCo(Method):
    """MoCo v2; for v1: --head linear --temperature 0.07 --augment paper --view blur_probability=0.

    dim: width of queries and keys
    queue: length of the queue of negative keys
    momentum: momentum m of the key encoder
    temperature: temperature t of the softmax; 0.2 in v2, 0.07 in v1
    head: projection head: mlp (v2) or linear (v1)
    bn_group: images per batch normalisation group, with at least two groups per batch; 0 means no groups, which leaks
        information between the views
    patient_aware: treat keys of the same patient as positives, never as negatives
    """

    shardable = True
    hyperparameters = (
        Hyperparameters(optimizer="sgd", lr=0.03, weight_decay=1e-4, epochs=200, source="section 4; v2, table 1"),
    )
    same_patient = True
    not_averaged = ("queue",)
    temperature: float | Tensor
    queue: Tensor
    queue_patients: Tensor
    queue_at: Tensor

    def __init__(
        self,
        backbone: Backbone,
        findings: Sequence[str] = (),
        *,
        dim: int = 128,
        queue: int = 65536,
        momentum: float = 0.999,
        temperature: float | str = 0.2,
        head: Literal["mlp", "linear"] = "mlp",
        bn_group: int = 32,
        patient_aware: bool = False,
    ) -> None:
        super().__init__(backbone, findings)
        _check(dim, queue, momentum, temperature, head, bn_group)
        self.momentum, self.patient_aware = momentum, patient_aware
        self.schedule("temperature", temperature)
        self.head = perceptron(backbone.dim, *([backbone.dim] if head == "mlp" else []), dim)
        self.key = follower(nn.Sequential(backbone, self.head))
        self.bn_group = (
            bn_group if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in self.modules()) else 0
        )
        self.own_norms = bool(self.bn_group)
        self.statistics = group_norms(self, bn_group) if self.bn_group else None
        self.register_buffer("queue", F.normalize(torch.randn(queue, dim), dim=1))
        self.register_buffer("queue_patients", torch.full((queue,), NOBODY))
        self.register_buffer("queue_at", torch.zeros((), dtype=torch.int64))
        self.latest: tuple[Tensor, Tensor] | None = None
        """Keys and patients of the last forward pass."""
        self.arrived: list[tuple[Tensor, Tensor]] = []
        """Keys and patients of this step, one entry for each micro-batch, to be queued."""

    def faults(self, images: int, batch: int) -> list[str]:
        """Errors of a queue that is longer than the dataset: it would contain keys of the query's own image as
        negatives."""
        queue = len(self.queue)
        fitting = max(batch, 1 << max(0, (images // 8).bit_length() - 1))
        advice = f"use a shorter queue, such as --queue {fitting}"
        too_long = f"--queue {queue} is longer than the {images:,} training images: {advice}"
        return [too_long] * (queue > images) + [self._too_short(batch)] * (queue < batch)

    def _too_short(self, keys: int) -> str:
        return f"--queue {len(self.queue)} is shorter than the {keys} keys of one step"

    def views(self, size: tuple[int, int], augment: Augment = "radiograph") -> list[View]:
        """The views of query and key, drawn alike. The paper's are v2's without colour jitter; v1 has no blur."""
        return [strong_view(size) if augment == "radiograph" else published_view(size)] * 2

    def forward(self, batch: Batch) -> Step:
        """Eq. 1; if patient-aware, the mean over a query's positives of -log(exp(+) / (exp(+) + sum_i exp(-)))."""
        q = F.normalize(self.head(self.backbone(batch.views[0])).float(), dim=1)
        k = self._keys(batch.views[1])  # (N, dim)
        positive = (q * k).sum(1) / self.temperature
        with torch.autocast(q.device.type, enabled=False):
            queued = q @ self.queue.T / self.temperature  # (N, queue)
        same = batch.patients[:, None] == self.queue_patients if self.patient_aware else None
        negative = queued if same is None else queued.masked_fill(same, LOWEST)
        against = negative.logsumexp(1)  # (N,)
        loss = F.softplus(against - positive)
        if same is not None:
            more = F.softplus(against[:, None] - queued).where(same, 0)
            loss = (loss + more.sum(1)) / (1 + same.sum(1))
        if self.training:
            self.latest = k, batch.patients
        nearer = (negative >= positive[:, None]).sum(1)
        return Step(loss.mean(), {f"acc{top}": 100 * (nearer < top).float().mean() for top in (1, 5)})

    @torch.no_grad()
    def _keys(self, images: Tensor) -> Tensor:
        """(N, dim): keys, each normalised with few of the images of its query's group."""
        if not self.bn_group:
            return F.normalize(self.key(images).float(), dim=1)
        order = self._order(len(images), images.device)
        # channels last in memory: the key encoder sees the layout that the query encoder saw
        last = images.movedim(1, -1)
        shown = distributed.gathered_rows(last)[distributed.local_rows(order)].movedim(-1, 1)
        keys = F.normalize(self.key(shown).float(), dim=1)
        return distributed.local_rows(distributed.gathered_rows(keys)[order.argsort()])

    def _order(self, count: int, device: torch.device) -> Tensor:
        """Order of all images of all processes by key group."""
        if faults := self.faults_of_passes(count, distributed.world_size()):
            raise ValueError(f"{faults[0]}.")
        return torch.arange(count * distributed.world_size(), device=device).view(self.bn_group, -1).T.flatten()

    def faults_of_passes(self, images: int, processes: int) -> list[str]:
        """Errors of images that cannot be divided into groups."""
        whole, least = images * processes, 2 * self.bn_group
        if not self.bn_group or (images % self.bn_group == 0 and whole >= least):
            return []
        fits = (size for size in range(self.bn_group, 1, -1) if images % size == 0 and whole >= 2 * size)
        larger = f"--batch {least * processes} or, if it is given, --micro-batch {least}"
        return [
            f"--bn-group {self.bn_group} requires that each process has a whole number of groups, and that there are "
            f"at least two groups in all, but each process has {images} of the {whole} images of a forward pass: use "
            f"{next((f'--bn-group {size}' for size in fits), larger)}"
        ]

    def after_forward(self) -> None:
        """Collect the keys, and update the running statistics of the batch norms."""
        if self.latest is not None:
            self.arrived.append(self.latest)
        self.latest = None
        if self.statistics is not None:
            self.statistics.settle()

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Update the key encoder; the keys of all processes replace the oldest in the queue."""
        self.after_forward()  # does nothing where the training loop has called it
        follow(self.key, nn.Sequential(self.backbone, self.head), self.momentum)
        keys, patients = (distributed.gathered_rows(torch.cat(parts)) for parts in zip(*self.arrived, strict=True))
        self.arrived.clear()
        if len(keys) > len(self.queue):
            raise ValueError(f"{self._too_short(len(keys))}.")
        places = (self.queue_at + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[places], self.queue_patients[places] = keys, patients
        self.queue_at.add_(len(keys)).remainder_(len(self.queue))


def _check(dim: int, queue: int, momentum: float, temperature: float | str, head: str, bn_group: int) -> None:
    """Refuse invalid options."""
    refuse_faults(
        {
            f"--dim {dim} must be at least 1": dim < 1,
            f"--queue {queue} must be at least 1": queue < 1,
            f"--momentum {momentum} must be between 0 and 1": not 0 <= momentum <= 1,
            f"--temperature {temperature} must be above 0": not lowest(temperature) > 0,
            f"--head {head!r} must be mlp or linear": head not in ("mlp", "linear"),
            f"--bn-group {bn_group} must be 0 or at least 2": bn_group < 0 or bn_group == 1,
        }
    )
