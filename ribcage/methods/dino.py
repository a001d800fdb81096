"""DINO: the network predicts, from any crop, what its momentum encoder assigns to a large crop of the same image.

Caron et al. 2021, https://arxiv.org/abs/2104.14294, eq. 1 to 4. With the cosines s_v of the student's projections of V
crops, of which two are large, with K prototypes, the teacher's cosines t_u of the large crops and their centre c:

    L = -mean_{u large} mean_{v != u} p_u.log softmax(s_v / tau),   p_u = softmax((t_u - c) / tau_teacher),
    c <- m c + (1 - m) mean t_u,   w_teacher <- l w_teacher + (1 - l) w_student,   l from 0.996 to 1 along a cosine

The mean of the centre is that over both large crops of all images of the global batch. Centring alone would spread all
images evenly over the prototypes, a low temperature tau_teacher alone would assign them to one: together they prevent a
collapse.

Trained as in section 3.2 and by the authors' code, main_dino.py of https://github.com/facebookresearch/dino: AdamW,
5e-4 per 256 images, ten epochs of warm-up, a cosine to 1e-6, a weight decay from 0.04 to 0.4, gradients clipped at 3
(there for each tensor, here in total), batches of 1024, 100 epochs.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from ribcage.data.batch import Batch
from ribcage.imaging.augment import View, published_view, strong_view
from ribcage.methods.base import Augment, Method, Step, lowest, refuse_faults
from ribcage.models.backbone import Backbone
from ribcage.models.hyperparameters import Hyperparameters
from ribcage.models.layers import follow, teacher_copy
from ribcage.models.multi_crop import by_image, by_size, crop_multiple, different_crops, small_size
from ribcage.models.prototypes import PrototypeHead, cross_entropy, prototypes_used
from ribcage.runtime import distributed
from ribcage.runtime.schedules import Ramp

CHINESE = "DINO：由任一裁剪区域预测动量编码器对同一图像大区域的原型分配"


class DINO(Method):
    """Two large crops, several small ones, prototypes, and a teacher: the moving average of the network.

    crops: number of small crops
    crop_side: height of small crops in pixels; 0 means 96 for images of 224 pixels, and in proportion
    prototypes: number of prototypes
    temperature: temperature tau of the student
    teacher_temperature: temperature of the teacher after its warm-up
    warmup_temperature: temperature of the teacher at the start, from which it rises linearly
    temperature_warmup: fraction of the run in which the teacher's temperature rises; in the paper, 30 epochs of 100
    centre_momentum: momentum m of the centre
    momentum: initial momentum of the teacher, which rises to 1
    freeze_prototypes: fraction of the run in which the prototypes are frozen; in the paper, the first epoch of 100
    hidden: hidden width of the projection head
    dim: width of the projections
    patient_aware: draw the other views from another image of the same patient, if there is one
    """

    same_patient = True
    shardable = True
    between: ClassVar[float] = 0.4
    """Share of the area that large crops have at least and small ones at most, as published."""
    hyperparameters = (
        Hyperparameters(
            optimizer="adamw", lr=5e-4, weight_decay="0.04:0.4", warmup=10, end=5e-4, clip=3.0, epochs=100, batch=1024,
            source="section 3.2; main_dino.py",
        ),
    )  # fmt: skip
    temperature: float | Tensor
    tau_teacher: Tensor
    frozen: Tensor
    centre: Tensor

    def __init__(
        self,
        backbone: Backbone,
        findings: Sequence[str] = (),
        *,
        crops: int = 8,
        crop_side: int = 0,
        prototypes: int = 65536,
        temperature: float | str = 0.1,
        teacher_temperature: float = 0.07,
        warmup_temperature: float = 0.04,
        temperature_warmup: float = 0.3,
        centre_momentum: float = 0.9,
        momentum: float = 0.996,
        freeze_prototypes: float = 0.01,
        hidden: int = 2048,
        dim: int = 256,
        patient_aware: bool = False,
    ) -> None:
        super().__init__(backbone, findings)
        counts = {"prototypes": prototypes, "hidden": hidden, "dim": dim}
        shares = {
            "temperature-warmup": temperature_warmup, "centre-momentum": centre_momentum, "momentum": momentum,
            "freeze-prototypes": freeze_prototypes,
        }  # fmt: skip
        temperatures = {
            "temperature": temperature, "teacher-temperature": teacher_temperature,
            "warmup-temperature": warmup_temperature,
        }  # fmt: skip
        refuse_faults(
            {
                f"--crops {crops} must be 0 or more": crops < 0,
                f"--crop-side {crop_side} must be 0 or more": crop_side < 0,
                **{f"--{name} {count} must be at least 1": count < 1 for name, count in counts.items()},
                **{f"--{name} {value} must be above 0": not lowest(value) > 0 for name, value in temperatures.items()},
                **{f"--{name} {value} must be between 0 and 1": not 0 <= value <= 1 for name, value in shares.items()},
            }
        )
        self.crops, self.crop_side = crops, crop_side
        self.schedule("temperature", temperature)
        self.tau = (warmup_temperature, teacher_temperature, temperature_warmup)
        self.centre_momentum, self.momentum, self.freeze_prototypes = centre_momentum, momentum, freeze_prototypes
        self.multiple = crop_multiple(backbone) if crops else 0
        self.head = PrototypeHead(backbone.dim, hidden, dim, prototypes)
        self.teacher = teacher_copy(nn.Sequential(backbone, self.head))
        self.register_buffer("centre", torch.zeros(prototypes))
        self.register_buffer("tau_teacher", torch.full((), warmup_temperature), persistent=False)
        self.register_buffer("frozen", torch.zeros(()), persistent=False)
        self.latest: Tensor | None = None
        """The teacher's cosines in the last forward pass, summed over crops and images; their number comes last."""
        self.arrived: list[Tensor] = []
        """Those of this step, one entry for each micro-batch."""
        self.before_step(0.0)

    def views(self, size: tuple[int, int], augment: Augment = "radiograph") -> list[View]:
        """Large and small crops. The paper's large ones differ in their blur; without colour jitter and solarisation,
        which do not apply to gray images. Small crops for radiographs are larger than the paper's."""
        small = small_size(size, self.multiple, self.crop_side)
        if augment == "paper":
            large = [replace(published_view(size, (self.between, 1.0)), blur_probability=share) for share in (1.0, 0.1)]
            return large + [published_view(small, (0.05, self.between))] * self.crops
        return [replace(strong_view(size), crop=(self.between, 1.0))] * 2 + [
            replace(strong_view(small), crop=(0.1, self.between))
        ] * self.crops

    def forward(self, batch: Batch) -> Step:
        """Eq. 1 to 3 with all crops, the mean over pairs of different crops."""
        s = self._student(batch.views)  # (n, V, K)
        t = self._teacher(batch.views[:2])  # (n, 2, K)
        p = ((t - self.centre) / self.tau_teacher).softmax(2)
        loss = different_crops(cross_entropy(p, s / self.temperature)).mean()
        if self.training:
            self.latest = torch.cat([t.sum((0, 1)), t.new_full((1,), t.shape[0] * t.shape[1])])
        return Step(loss, {"prototypes": prototypes_used(t)})

    def _student(self, views: Sequence[Tensor]) -> Tensor:
        """(n, V, K): cosines of all crops."""
        return self.head(by_image(by_size(views, self.backbone), len(views)), self.frozen)

    @torch.no_grad()
    def _teacher(self, views: Sequence[Tensor]) -> Tensor:
        """(n, 2, K): cosines of the large crops."""
        return by_image(self.teacher(torch.cat(list(views))), len(views))

    def before_step(self, progress: float) -> dict[str, float]:
        """Set the teacher's temperature, and freeze the prototypes or not."""
        start, end, share = self.tau
        tau = start + (end - start) * (min(1.0, progress / share) if share else 1.0)
        self.tau_teacher.fill_(tau)
        self.frozen.fill_(float(progress < self.freeze_prototypes))
        return {**super().before_step(progress), "teacher_temperature": tau}

    def after_forward(self) -> None:
        """Collect the teacher's outputs."""
        if self.latest is not None:
            self.arrived.append(self.latest)
        self.latest = None

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Update the centre (eq. 4) and the teacher, whose momentum rises to 1."""
        self.after_forward()  # does nothing where the training loop has called it
        if self.arrived:
            *sums, count = distributed.total(torch.stack(self.arrived).sum(0)).split((len(self.centre), 1))
            self.centre.lerp_(sums[0] / count, 1 - self.centre_momentum)
        self.arrived.clear()
        follow(self.teacher, nn.Sequential(self.backbone, self.head), Ramp(self.momentum, 1.0).at(progress))
