"""SwAV: the cluster assignment of a view is predicted from another view, with clusters of equal size.

Caron et al. 2020, https://arxiv.org/abs/2006.09882, eq. 2 and section 3.2. With the features z of V views, |z| = 1, of
which two are large, and the prototypes C, each of length 1:

  L = -mean_{i large} mean_{v != i} q_i.log softmax(C z_v / t)

q_i, the assignment of view i, results from distributing the images of the global batch evenly over the prototypes by
exp(C z_i / epsilon), with a few iterations of the Sinkhorn-Knopp algorithm. Small batches are assigned together with a
queue of earlier features.

Trained as in appendix A and by the authors' scripts, https://github.com/facebookresearch/swav: LARS along a cosine to a
thousandth; in batches of 4096 with a rate of 4.8, ten epochs of warm-up and 800 epochs; in batches of 256 with .6, no
warm-up, a queue and 400 epochs.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.data.batch import Batch
from ribcage.imaging.augment import View, published_view, strong_view
from ribcage.methods.base import Augment, ContrastiveMethod, Step, lowest, refuse_faults
from ribcage.models.backbone import Backbone
from ribcage.models.hyperparameters import Hyperparameters
from ribcage.models.layers import perceptron
from ribcage.models.multi_crop import by_size, crop_multiple, small_size
from ribcage.models.prototypes import prototypes_used, sinkhorn
from ribcage.runtime import distributed

CHINESE = "SwAV：由一个视图预测另一视图所属的原型，并要求各原型被均匀使用"


class SwAV(ContrastiveMethod):
    """Two large views, several small ones, and prototypes.

    crops: number of small views
    prototypes: number of prototypes, which should be far below the number of images
    temperature: temperature t of the softmax over prototypes
    epsilon: weight of the entropy regularisation of the assignments
    iterations: iterations of the Sinkhorn-Knopp algorithm
    queue: length of the queue of past features; in the paper, 3840 for small batches and 0 for batches of 4096
    queue_from: fraction of the run after which the queue is used; in the paper, the 15th epoch of 200
    freeze_prototypes: fraction of the run in which the prototypes are frozen; in the paper, the first epoch of 100
    hidden: hidden width of the projection head
    dim: width of the projections
    patient_aware: draw the other views from another image of the same patient, if there is one
    """

    same_patient = True
    hyperparameters = (
        Hyperparameters(
            optimizer="lars", lr=0.6, weight_decay=1e-6, end=1e-3, epochs=400, batch=256, own={"queue": 3840},
            source="swav_400ep_bs256_pretrain.sh",
        ),
        Hyperparameters(
            optimizer="lars", lr=0.3, weight_decay=1e-6, warmup=10, end=1e-3, epochs=800, batch=4096,
            source="swav_800ep_pretrain.sh",
        ),
    )  # fmt: skip
    not_averaged = ("queue", "progress")
    shardable = True
    temperature: float | Tensor
    queue: Tensor
    progress: Tensor

    def __init__(
        self,
        backbone: Backbone,
        findings: Sequence[str] = (),
        *,
        crops: int = 6,
        prototypes: int = 3000,
        temperature: float | str = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        queue: int = 0,
        queue_from: float = 0.075,
        freeze_prototypes: float = 0.01,
        hidden: int = 2048,
        dim: int = 128,
        patient_aware: bool = False,
    ) -> None:
        super().__init__(backbone, findings)
        counts = {"prototypes": prototypes, "iterations": iterations, "hidden": hidden, "dim": dim}
        refuse_faults(
            {
                f"--crops {crops} must be 0 or more": crops < 0,
                f"--queue {queue} must be 0 or more": queue < 0,
                **{f"--{name} {count} must be at least 1": count < 1 for name, count in counts.items()},
                f"--temperature {temperature} must be above 0": not lowest(temperature) > 0,
                f"--epsilon {epsilon} must be 0.03 or more": not epsilon >= 0.03,
                f"--queue-from {queue_from} must be between 0 and 1": not 0 <= queue_from <= 1,
                f"--freeze-prototypes {freeze_prototypes} must be between 0 and 1": not 0 <= freeze_prototypes <= 1,
            }
        )
        self.crops, self.epsilon, self.iterations = crops, epsilon, iterations
        self.schedule("temperature", temperature)
        self.queue_from, self.freeze_prototypes = queue_from, freeze_prototypes
        self.multiple = crop_multiple(backbone) if crops else 0
        self.head = perceptron(backbone.dim, hidden, dim, norm=True)
        self.prototypes = nn.Linear(dim, prototypes, bias=False)
        self.register_buffer("queue", torch.zeros(2, queue, dim))
        self.register_buffer("progress", torch.zeros(()))
        self.queued: bool | None = None
        """Whether the queue is in use; None: to be read from the device."""
        self.queue_due = False
        """Whether the run has come to `queue_from`."""
        self.register_load_state_dict_post_hook(SwAV._forget)  # type: ignore[no-untyped-call]
        self.after_step(0.0)

    def faults(self, images: int, batch: int) -> list[str]:
        """Errors of the batch size and the queue. Section 3.1: assigning features evenly to prototypes needs at least
        as many features."""
        queue, prototypes = self.queue.shape[1], len(self.prototypes.weight)
        shared = f"a batch of {batch:,} and a queue of {queue:,}"
        wrong = {
            f"--batch {batch} must be at least 2 for swav": batch < 2,
            f"--queue {queue} is longer than the {images:,} training images": queue > images,
            f"--prototypes {prototypes} is more than the {images:,} training images": prototypes > images,
            f"--prototypes {prototypes} is more than {shared}": prototypes > batch + queue,
        }
        return [text for text, is_so in wrong.items() if is_so]

    def views(self, size: tuple[int, int], augment: Augment = "radiograph") -> list[View]:
        """Large and small views, with sides as 224 to 96. The crops for radiographs are larger than the paper's."""
        small = small_size(size, self.multiple)
        if augment == "paper":
            return [published_view(size, (0.14, 1.0))] * 2 + [published_view(small, (0.05, 0.14))] * self.crops
        return [replace(strong_view(size), crop=(0.3, 1.0))] * 2 + [
            replace(strong_view(small), crop=(0.1, 0.3))
        ] * self.crops

    def representations(self, batch: Batch) -> Tensor:
        """(n, V, dim), of length 1: views of one size are passed through the backbone together."""
        features = by_size(batch.views, self.backbone)
        return F.normalize(self.head(features).float(), dim=1).unflatten(0, (len(batch.views), -1)).transpose(0, 1)

    def loss_of(self, z: Tensor, batch: Batch) -> Step:
        """Eq. 2 with the multi-crop of section 3.3."""
        z = z.transpose(0, 1)  # (V, n, dim)
        with torch.autocast(z.device.type, enabled=False):
            scores = F.linear(z, self._centres())  # (V, n, prototypes)
            q = self._assigned(scores[:2].detach())  # (2, n, prototypes)
            log_p = (scores / self.temperature).log_softmax(2)
        loss = -(q * (log_p.sum(0) - log_p[:2])).sum(2).mean() / (len(z) - 1)
        self._enqueue(z[:2].detach())
        return Step(loss, {"prototypes": prototypes_used(scores[:2].detach())})

    def _centres(self) -> Tensor:
        """(prototypes, dim), without gradients while they are frozen.

        AdamW has then counted steps of gradient 0, so the first ones after freezing are up to three times as large.
        """
        centres = self.prototypes.weight.float()
        return torch.where(self.progress < self.freeze_prototypes, centres.detach(), centres)

    @torch.no_grad()
    def _assigned(self, scores: Tensor) -> Tensor:
        """(2, n, prototypes): each large view separately, with the queue once it is full and in use."""
        count = scores.shape[1]
        if self._queue_used():
            part = self.queue.tensor_split(distributed.world_size(), 1)[distributed.rank()]
            scores = torch.cat([scores, F.linear(part, self.prototypes.weight.float())], 1)
        return torch.stack([sinkhorn(one, self.epsilon, self.iterations)[:count] for one in scores])

    def _queue_used(self) -> bool:
        """Whether the queue is full and the run is far enough; read from the device once, and while the queue fills."""
        if not self.queue.shape[1]:
            return False
        if self.queued is None:
            self.queued = bool((self.progress >= self.queue_from) & self.queue[:, -1].any())
        elif self.queue_due and not self.queued:
            self.queued = bool(self.queue[:, -1].any())
        return self.queued

    @staticmethod
    def _forget(method: nn.Module, _: object) -> None:
        """What was read of the queue before other weights were loaded."""
        setattr(method, "queued", None)  # noqa: B010 – no field of every module

    def _enqueue(self, z: Tensor) -> None:
        """Insert the features of all processes at the front; the oldest are dropped."""
        if self.training and self.queue.shape[1]:
            new = distributed.gathered_rows(z.transpose(0, 1)).transpose(0, 1)  # (2, N, dim)
            self.queue.copy_(torch.cat([new, self.queue], 1)[:, : self.queue.shape[1]])

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Normalise the prototypes."""
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        self.progress.fill_(progress)
        self.queue_due = progress >= self.queue_from
