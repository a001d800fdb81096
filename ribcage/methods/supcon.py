"""SupCon: supervised contrastive learning, in which images with the same findings are positives.

Khosla et al. 2020, https://arxiv.org/abs/2004.11362, eq. 2 (L_out), where two images are positives or not. Findings are
not mutually exclusive, so here two images are positives with a weight w_ij from 0 to 1; with a single class per image
this is eq. 2:

  L_i = -sum_j w_ij log p_ij / sum_j w_ij,   p_ij = exp(z_i.z_j/t) / sum_{a in A_i} exp(z_i.z_a/t),   |z| = 1

  w_ij = sum_f min(y_if, y_jf) / sum_f max(y_if, y_jf)   over the findings known in both images

w is the overlap (Jaccard index) of the findings, also for labels between 0 and 1, which a policy makes of uncertain
ones. If all findings known in both images are absent, w is 1 only if all findings are known in both, and else 0, as
unknown ones may be present. Another view of the same image always has w = 1; with --patient-aware, so has every image
of the same patient. A_i are all others with a finding, present or absent, that is known in i, too, or with w = 1 by the
last rule; images without a common known finding are neither attracted nor repelled.

Trained as by the authors' code, https://github.com/HobbitLong/SupContrast, main_supcon.py, with --warm and --cosine:
SGD, .05 for a batch of 256, ten epochs of warm-up, a cosine to a thousandth, 1000 epochs.

The authors' code multiplies the loss by temperature / base temperature, both .07; this factor of 1 is omitted.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.data.batch import Batch
from ribcage.imaging.augment import View, published_view, strong_view
from ribcage.methods.base import Augment, ContrastiveMethod, LabelCounts, Step, lowest, refuse_faults
from ribcage.models.backbone import Backbone
from ribcage.models.hyperparameters import Hyperparameters
from ribcage.models.layers import perceptron
from ribcage.runtime import distributed

CHINESE = "监督对比学习：征象相同的图像特征相近，征象不同的图像特征相远"


class SupCon(ContrastiveMethod):
    """A backbone and a perceptron; positives are weighted by the overlap of their findings.

    temperature: temperature of the softmax; 0.07 in the authors' code, 0.1 in the table of the paper
    dim: width of the projections
    patient_aware: treat images of the same patient as positives, whatever their findings
    """

    from_labels = True
    shardable = True
    hyperparameters = (
        Hyperparameters(
            optimizer="sgd", lr=0.05, weight_decay=1e-4, warmup=10, end=1e-3, epochs=1000, source="main_supcon.py"
        ),
    )

    temperature: float | Tensor

    def __init__(
        self,
        backbone: Backbone,
        findings: Sequence[str] = (),
        *,
        temperature: float | str = 0.07,
        dim: int = 128,
        patient_aware: bool = False,
    ) -> None:
        super().__init__(backbone, findings)
        _check(self.findings, temperature, dim)
        self.patient_aware = patient_aware
        self.schedule("temperature", temperature)
        self.head = perceptron(backbone.dim, backbone.dim, dim)

    def views(self, size: tuple[int, int], augment: Augment = "radiograph") -> list[View]:
        """Two views, drawn alike."""
        return [published_view(size) if augment == "paper" else strong_view(size)] * 2

    @property
    def counts_labels(self) -> bool:
        """Labels that are equal in all images contrast nothing."""
        return True

    def count(self, labels: LabelCounts) -> None:
        """Refuse labels that are all unknown or equal in all images, as there is nothing to contrast."""
        if not (labels.positive + labels.negative).any():
            raise ValueError("supcon needs labels, but no image has any. Use moco or byol, which need none.")
        if (labels.lowest >= labels.highest).all():
            raise ValueError(
                f"supcon contrasts images with different findings, but all {labels.images:,} images have the "
                f"same known labels for {', '.join(self.findings)}."
            )

    def faults(self, images: int, batch: int) -> list[str]:
        """Error if a batch has a single image, which has nothing to contrast with."""
        return [f"--batch {batch} must be at least 2 for supcon"] * (batch < 2)

    def representations(self, batch: Batch) -> Tensor:
        """(n, V, dim): the projections of all views, of length 1."""
        z = self.head(self.backbone(torch.cat(batch.views))).float()  # (V · n, dim)
        return F.normalize(z.unflatten(0, (len(batch.views), -1)).transpose(0, 1), dim=2)

    def loss_of(self, z: Tensor, batch: Batch) -> Step:
        """The mean over all anchors of the global batch that have positives."""
        z = z.flatten(0, 1)  # (n · V, dim), the views of an image side by side
        everyone = distributed.gathered_rows(z)  # (N · V, dim)
        own = distributed.local_rows(torch.eye(len(everyone), dtype=torch.bool, device=z.device))  # (n · V, N · V)
        w, compared = (pairs.masked_fill(own, 0) for pairs in self._pairs(batch))
        with torch.autocast(z.device.type, enabled=False):
            losses = contrast((z @ everyone.T / self.temperature).masked_fill(~compared, _NEVER), w)  # (n · V,)
        anchors = distributed.total((w.sum(1) > 0).sum()).clamp(min=1)
        return Step(losses.sum() * distributed.world_size() / anchors, {"positives": w.sum(1).mean()})

    def _pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(n · V, N · V) twice, views of this process × all views: their weights as positives, and whether they are
        compared."""
        patients, everyone = (distributed.gathered_rows(each) for each in (batch.patients, batch.labels))
        same = distributed.local_rows(torch.eye(len(everyone), dtype=torch.bool, device=everyone.device))  # (n, N)
        if self.patient_aware:
            same = same | (batch.patients[:, None] == patients)
        w = label_overlap(batch.labels.float(), everyone.float()).masked_fill(same, 1)
        compared = same | comparable(batch.labels, everyone)
        views = len(batch.views)
        w, compared = (pairs.repeat_interleave(views, 0).repeat_interleave(views, 1) for pairs in (w, compared))
        return w, compared


def label_overlap(some: Tensor, others: Tensor) -> Tensor:
    """(n, F), (N, F) → (n, N): the share of the findings present in either of two images that is present in both."""
    both, either = (
        pair(some[:, None], others).nansum(2)  # NaN in both if one of them is unknown
        for pair in (torch.minimum, torch.maximum)
    )
    complete = [~labels.isnan().any(1) for labels in (some, others)]
    nothing = (complete[0][:, None] & complete[1]).float()  # nothing is present, and everything is known
    return torch.where(either > 0, both / either.clamp(min=1e-12), nothing)


def comparable(some: Tensor, others: Tensor) -> Tensor:
    """(n, F), (N, F) → (n, N): whether any finding is known in both of two images."""
    return (~some.isnan()[:, None] & ~others.isnan()).any(2)


def contrast(logits: Tensor, w: Tensor) -> Tensor:
    """(n, N) logits and weights → (n,): the loss of each image; 0 without positives."""
    return -(w * logits.log_softmax(1)).sum(1) / w.sum(1).masked_fill(w.sum(1) == 0, 1)


_NEVER = -1e9
"""Logit of pairs that are not compared; finite, since 0 times infinity is NaN."""


def _check(findings: tuple[str, ...], temperature: float | str, dim: int) -> None:
    """Refuse invalid options."""
    refuse_faults(
        {
            "supcon needs findings; specify them with --findings": not findings,
            f"--temperature {temperature} must be above 0": not lowest(temperature) > 0,
            f"--dim {dim} must be at least 1": dim < 1,
        }
    )
