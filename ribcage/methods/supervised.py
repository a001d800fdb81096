"""Supervised: a linear classifier of findings is trained on the features; unknown labels are ignored.

L = sum_{n,f known} l(z_nf, t_nf) / number known,   z = W features(x) + b
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ribcage.data.batch import Batch
from ribcage.methods.base import LabelCounts, Method, Step, refuse_faults
from ribcage.models import losses
from ribcage.models.adapters import Adaptation, AdaptedLayers, LowRank, adapt_backbone
from ribcage.models.backbone import Backbone
from ribcage.models.mixing import mixed
from ribcage.models.query_head import QueryHead
from ribcage.runtime import distributed

CHINESE = "监督预训练：特征上接一个线性层，未知标签不参与损失"


class Supervised(Method):
    """A backbone and a linear head, or one with query pooling.

    loss: loss function: cross-entropy for mutually exclusive findings, otherwise one of the others
    smoothing: label smoothing factor (towards 0.5, or 1/F for F mutually exclusive findings); 0 means no smoothing
    balanced: weight the positives and negatives of each finding by the effective number of samples
    prior: initialise the bias of the head from the prevalence of each finding
    mixup: alpha of the beta distribution of mixup; 0 means no mixup
    cutmix: alpha of the beta distribution of CutMix; 0 means no CutMix
    dropout: dropout probability before the classification head
    adapt: weights of the backbone that are trained: all (full), none (head; it stays in evaluation mode), the biases
        (bitfit), or low-rank adapters (lora), which are merged into the weights of the saved model
    lora_rank: rank of the adapters
    lora_alpha: alpha of the adapters, which are multiplied by alpha / rank
    lora_layers: layers with adapters: attention, mlp, or all linear layers and convolutions
    """

    from_labels = True
    shardable = True
    present: Tensor
    absent: Tensor

    def __init__(
        self,
        backbone: Backbone,
        findings: Sequence[str],
        *,
        loss: Literal["bce", "focal", "asymmetric", "cross-entropy"] = "bce",
        smoothing: float = 0.0,
        balanced: bool = False,
        prior: bool = False,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        dropout: float = 0.0,
        adapt: Adaptation = "full",
        lora_rank: int = 8,
        lora_alpha: float = 16.0,
        lora_layers: AdaptedLayers = "attention",
    ) -> None:
        super().__init__(backbone, findings)
        refuse_faults(
            {
                f"--mixup {mixup:g} must be 0 or more": not mixup >= 0,
                f"--cutmix {cutmix:g} must be 0 or more": not cutmix >= 0,
            }
        )
        self.dropout = nn.Dropout(dropout)
        self.head: Any = nn.Identity()
        if self.findings:
            self.head = classification_head(backbone, self.findings)
        self.loss, self.smoothing, self.adapt = losses.LOSSES[loss], smoothing, adapt
        self.mixup, self.cutmix = mixup, cutmix
        self.balanced, self.prior, self.exclusive = balanced, prior, loss == "cross-entropy"
        self.latest: tuple[Tensor, Tensor] | None = None
        """Logits and labels of the last forward pass, on the device."""
        self.outputs: deque[tuple[Tensor, Tensor]] = deque(maxlen=256)
        """Those of the last forward passes, for monitoring during training; a batch in parts leaves several."""
        self.register_buffer("present", torch.ones(len(self.findings)))
        self.register_buffer("absent", torch.ones(len(self.findings)))
        adapt_backbone(backbone, adapt, LowRank(lora_rank, lora_alpha, lora_layers))

    def forward(self, batch: Batch) -> Step:
        """The loss over all known labels of the global batch."""
        views, targets = self._mixed_once(batch)
        logits = self.logits(views[0]).float()  # (N, F)
        self.latest = logits.detach(), batch.labels
        weights = targets.nan_to_num() * self.present + (1 - targets.nan_to_num()) * self.absent
        loss = (self.loss(logits, targets) * weights).sum()
        return Step(loss * distributed.world_size() / distributed.total(losses.known_mask(targets).sum()).clamp(min=1))

    def before_division(self, batch: Batch) -> Batch:
        """A batch with mixed images and targets, so that its micro-batches are mixed like the whole batch."""
        views, targets = self._mixed_once(batch)
        return replace(batch, views=views, targets=targets)

    def share(self, part: Batch, batch: Batch) -> Tensor:
        """This part's share of the known labels, so that a batch computed in parts has the loss of the whole."""
        counts = [losses.known_mask(self._mixed_once(each)[1]).sum() for each in (part, batch)]
        known = distributed.total(torch.stack(counts))
        return known[0] / known[1].clamp(min=1)

    def logits(self, images: Tensor) -> Tensor:
        """(N, F)"""
        return self.head(self.dropout(self.backbone.head_input(self.backbone.hidden(images))))

    def after_forward(self) -> None:
        """Keep logits and labels. In a compiled graph, a growing list would have to be compiled anew in each step."""
        if self.latest is not None:
            self.outputs.append(self.latest)

    def train(self, mode: bool = True) -> "Supervised":
        """A backbone of which nothing is trained stays in evaluation mode."""
        super().train(mode)
        if self.adapt == "head":
            self.backbone.eval()
        return self

    @property
    def untrained(self) -> frozenset[str]:
        """Names of the weights of the backbone that are not trained."""
        if self.adapt == "full":
            return frozenset()
        return frozenset(f"backbone.{name}" for name, one in self.backbone.named_parameters() if not one.requires_grad)

    @property
    def counts_labels(self) -> bool:
        """`balanced` and `prior` depend on the number of positive labels."""
        return bool(self.balanced or self.prior)

    def count(self, labels: LabelCounts) -> None:
        """Compute the weights of `balanced` and the bias of `prior` from the training labels."""
        if self.balanced:
            present, absent = losses.class_weights(labels.positive, labels.negative)
            self.present.copy_(present)
            self.absent.copy_(absent)
        if self.prior and self.findings:
            share = (labels.positive + 0.5) / (labels.positive + labels.negative + 1)
            with torch.no_grad():
                self.head.bias.copy_(share.log() if self.exclusive else share.logit())

    def _targets(self, labels: Tensor) -> Tensor:
        """Smoothed labels. For mutually exclusive findings, an unknown one makes its image unknown."""
        if not self.exclusive:
            return losses.smoothed(labels, self.smoothing)
        return losses.smoothed(labels + 0 * labels.sum(1, keepdim=True), self.smoothing, 1 / labels.shape[1])

    def _mixed_once(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """The mixed views and targets of a batch, which may have been mixed before it was divided."""
        if batch.targets is not None:
            return batch.views, batch.targets
        return self._mixed(batch.views, self._targets(batch.labels), batch.chance)

    def _mixed(self, views: list[Tensor], targets: Tensor, chance: Tensor) -> tuple[list[Tensor], Tensor]:
        """Mixup or CutMix of all views and the targets, in training only."""
        return mixed(views, targets, chance, self.mixup, self.cutmix) if self.training else (views, targets)


def classification_head(backbone: Backbone, findings: Sequence[str]) -> nn.Module:
    """One logit per finding, from the pooled features or by query pooling."""
    if backbone.pools_by_query:
        return QueryHead(backbone.dim, len(findings))
    head = nn.Linear(backbone.dim, len(findings))
    nn.init.normal_(head.weight, std=0.01)
    nn.init.zeros_(head.bias)
    return head
