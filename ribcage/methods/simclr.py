"""SimCLR: the other view of the same image is identified among all views of the batch.

Chen et al. 2020, https://arxiv.org/abs/2002.05709, eq. 1 (NT-Xent). With the projections z_i and z_j of the two views
of an image, |z| = 1, and the projections z_k of all 2N views of the global batch:

    L_ij = -log(exp(z_i.z_j/t) / sum_{k != i} exp(z_i.z_k/t)),   L = mean over all 2N views

Views of all processes are negatives: `distributed.gathered_rows` gathers the projections; gradients flow back to the
process that computed them. As in section 2.2, the projection head is a perceptron with one hidden layer.

Trained as in section 2.2: LARS, 0.3 per 256 images, weight decay 1e-6, batches of 4096, ten epochs of warm-up, a
cosine to 0, 100 epochs; the temperature is the default of the authors' code, run.py of
https://github.com/google-research/simclr.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.data.batch import Batch
from ribcage.imaging.augment import View, published_view, strong_view
from ribcage.methods.base import Augment, ContrastiveMethod, Step, lowest, refuse_faults
from ribcage.models.backbone import Backbone
from ribcage.models.hyperparameters import Hyperparameters
from ribcage.models.layers import perceptron
from ribcage.runtime import distributed

CHINESE = "SimCLR：在整个批次的所有视图中找出同一图像的另一视图"


class SimCLR(ContrastiveMethod):
    """A backbone and a projection head; the negatives of a view are the views of all other images of the batch.

    temperature: temperature t of the softmax
    dim: width of the projections
    patient_aware: draw the second view from another image of the same patient; images of one patient are
        never negatives
    """

    same_patient = True
    shardable = True
    hyperparameters = (
        Hyperparameters(
            optimizer="lars", lr=0.3, weight_decay=1e-6, warmup=10, epochs=100, batch=4096, source="section 2.2"
        ),
    )

    temperature: float | Tensor

    def __init__(
        self,
        backbone: Backbone,
        findings: Sequence[str] = (),
        *,
        temperature: float | str = 0.1,
        dim: int = 128,
        patient_aware: bool = False,
    ) -> None:
        super().__init__(backbone, findings)
        refuse_faults(
            {
                f"--temperature {temperature} must be above 0": not lowest(temperature) > 0,
                f"--dim {dim} must be at least 1": dim < 1,
            }
        )
        self.patient_aware = patient_aware
        self.schedule("temperature", temperature)
        self.head = perceptron(backbone.dim, backbone.dim, dim)

    def faults(self, images: int, batch: int) -> list[str]:
        """Error if a batch has a single image, which has no negatives."""
        return [f"--batch {batch} must be at least 2 for simclr"] * (batch < 2)

    def views(self, size: tuple[int, int], augment: Augment = "radiograph") -> list[View]:
        """Two views, drawn alike. The paper's (appendix A) have twice MoCo's jitter; without colour jitter, which does
        not apply to gray."""
        paper = replace(published_view(size, crop=(0.08, 1.0)), brightness=0.4, contrast=0.8)
        return [strong_view(size) if augment == "radiograph" else paper] * 2

    def representations(self, batch: Batch) -> Tensor:
        """(n, 2, dim): the projections of both views, of length 1."""
        z = self.head(self.backbone(torch.cat(batch.views))).float().unflatten(0, (2, -1))  # (2, n, dim)
        return F.normalize(z.transpose(0, 1), dim=2)

    def loss_of(self, z: Tensor, batch: Batch) -> Step:
        """Eq. 1, the mean over both views of all images."""
        z = z.flatten(0, 1)  # (2n, dim), the two views of an image side by side
        everyone = distributed.gathered_rows(z)  # (2N, dim)
        with torch.autocast(z.device.type, enabled=False):
            logits = (z @ everyone.T / self.temperature).masked_fill(self._left_out(batch), -torch.inf)  # (2n, 2N)
        other = distributed.local_rows(torch.arange(len(everyone), device=z.device)) ^ 1  # the adjacent row
        right = (logits.argmax(1) == other).float().mean()
        return Step(F.cross_entropy(logits, other), {"acc1": 100 * right})

    def _left_out(self, batch: Batch) -> Tensor:
        """(2n, 2N), views of this process × all views: True for a view itself and, if patient-aware, for other images
        of its patient."""
        patients = distributed.gathered_rows(batch.patients)
        same_image, same_view = (_own(len(patients) * views, patients.device) for views in (1, 2))
        same_patient = batch.patients[:, None] == patients if self.patient_aware else same_image
        return same_view | (same_patient & ~same_image).repeat_interleave(2, 0).repeat_interleave(2, 1)


def _own(count: int, device: torch.device) -> Tensor:
    """This process's rows of the identity matrix."""
    return distributed.local_rows(torch.eye(count, dtype=torch.bool, device=device))
