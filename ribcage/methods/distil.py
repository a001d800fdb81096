"""Knowledge distillation: a student learns the softened predictions of teachers in addition to the known labels.

Hinton et al. 2015, https://arxiv.org/abs/1503.02531, for findings that do not exclude each other: each has a sigmoid
and a temperature of its own, there is no softmax over them. With z the student's logits, t the teachers', y labels,

L = a sum_known l(z, y) / known + (1 - a) T² sum_taught KL(σ(t / T) || σ(z / T)) / taught + b L_features + c L_relations
L_features  = mean_n 1 - cos(P f_n, f'_n)      f features of the student, f' of a teacher, P learnt
L_relations = mean_nij (R_nij - R'_nij)²       R_nij = cos(m_ni, m_nj) for places i and j of the map of image n
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.data.batch import Batch
from ribcage.methods.base import LabelCounts, Step
from ribcage.methods.supervised import Supervised
from ribcage.models import losses
from ribcage.models.backbone import Backbone, Hidden
from ribcage.runtime import distributed

CHINESE = "知识蒸馏：同时学习教师模型软化后的输出和已知标签"


@dataclass(frozen=True)
class TeacherOutput:
    """The output of a teacher for a batch."""

    logits: Tensor
    """(N, F); NaN where it has no prediction."""
    features: Tensor | None = None
    """(N, D)"""
    maps: Tensor | None = None
    """(N, D, h, w)"""


class Teacher(Protocol):
    """A classifier that predicts on the same images, or stored predictions."""

    weight: Tensor
    """(F,): its weight for each finding among several teachers."""
    dim: int
    """Dimension of its features; 0 where it has none."""

    def __call__(self, batch: Batch, views: list[Tensor], inside: bool) -> TeacherOutput:
        """Its output for the views of a batch; inside: with features and feature maps."""


class Teachers(tuple[Teacher, ...]):
    """The teachers: no submodules of the student, so they are not saved, trained or copied with it."""

    def __deepcopy__(self, memo: Any) -> "Teachers":
        return self


class Distil(Supervised):
    """The student: a backbone and a linear head. Its other options are those of `Supervised`.

    teachers: the teachers
    columns: the finding of each column of a batch's labels (default: in their order)
    label_weight: weight a of the label loss; the distillation loss has 1 - a
    temperature: temperature T of the distillation loss
    distil_loss: distillation loss: kl, or mse, its limit for a high temperature: (t - z)² / 8 for each finding;
        for mutually exclusive findings the sum of (t - z)² / 2 F, with the mean of each image subtracted
    feature_weight: weight b of the feature loss
    relation_weight: weight c of the relation loss
    """

    command: ClassVar[str] = "distil"
    shardable = True

    temperature: float | Tensor

    def __init__(
        self,
        backbone: Backbone,
        findings: Sequence[str],
        *,
        teachers: Sequence[Teacher] = (),
        columns: Sequence[int] | None = None,
        label_weight: float = 0.5,
        temperature: float | str = 2.0,
        distil_loss: Literal["kl", "mse"] = "kl",
        feature_weight: float = 0.0,
        relation_weight: float = 0.0,
        **supervised: Any,
    ) -> None:
        super().__init__(backbone, findings, **supervised)
        self.teachers = Teachers(teachers)
        self.columns = list(range(len(self.findings))) if columns is None else list(columns)
        self.label_weight, self.distil_loss = label_weight, distil_loss
        self.schedule("temperature", temperature)
        self.feature_weight, self.relation_weight = feature_weight, relation_weight
        shown = [teacher.dim for teacher in self.teachers if feature_weight and teacher.dim]
        self.projections = nn.ModuleList(nn.Linear(backbone.dim, dim) for dim in shown)

    def forward(self, batch: Batch) -> Step:
        """The weighted sum of the losses over the known labels and the predictions of the global batch."""
        labels = self._spread(batch.labels)
        views, targets = self._mixed(batch.views, self._targets(labels), batch.chance)
        inside = bool(self.feature_weight or self.relation_weight)
        answers = [teacher(batch, views, inside) for teacher in self.teachers]
        hidden = self.backbone.hidden(views[0])
        logits = self.head(self.dropout(self.backbone.head_input(hidden))).float()  # (N, F)
        self.latest = logits.detach(), labels
        taught = self._whole(agreed(answers, [teacher.weight for teacher in self.teachers], logits))  # (N, F)
        weights = targets.nan_to_num() * self.present + (1 - targets.nan_to_num()) * self.absent
        parts = {
            "hard": (self.label_weight, per_known(self.loss(logits, targets) * weights, targets)),
            "soft": (1 - self.label_weight, per_known(self.apart(logits, taught), taught)),
        }
        if inside and self.feature_weight:
            parts["features"] = (self.feature_weight, self._unlike(self.backbone.pool(hidden).float(), answers))
        if inside and self.relation_weight:
            parts["relations"] = (self.relation_weight, self._unrelated(hidden, views[0], answers))
        loss = torch.stack([share * part for share, part in parts.values()]).sum()
        return Step(loss, {name: part.detach() for name, (_, part) in parts.items()})

    def apart(self, logits: Tensor, taught: Tensor) -> Tensor:
        """(N, F): the distillation loss, 0 without a teacher's prediction."""
        there, t = losses.known_mask(taught), _zero_if_unknown(taught)
        if self.distil_loss == "mse":
            if not self.exclusive:
                return (logits - t).square() / 8 * there
            return ((logits - t) - (logits - t).mean(1, keepdim=True)).square() / 2 * there
        z, t = logits / self.temperature, t / self.temperature
        if self.exclusive:  # one softmax over all, its sum distributed over the columns
            return self.temperature**2 * (t.softmax(1) * (t.log_softmax(1) - z.log_softmax(1))) * there * t.shape[1]
        p = t.sigmoid()
        entropy = -p * F.logsigmoid(t) - (1 - p) * F.logsigmoid(-t)
        return self.temperature**2 * (F.binary_cross_entropy_with_logits(z, p, reduction="none") - entropy) * there

    def count(self, labels: LabelCounts) -> None:
        """Compute the weights of `balanced` from the labels of the findings that the data has."""
        super().count(labels.in_columns(self.columns, len(self.findings)))

    def _spread(self, labels: Tensor) -> Tensor:
        """(N, F): the labels of a batch in the columns of their findings, NaN for findings that the data lacks."""
        there = dict(zip(self.columns, labels.unbind(1), strict=True))
        unknown = labels.new_full((len(labels),), torch.nan)
        return torch.stack([there.get(place, unknown) for place in range(len(self.findings))], dim=1)

    def _whole(self, taught: Tensor) -> Tensor:
        """For mutually exclusive findings, an unknown one makes its image unknown."""
        return taught + 0 * taught.sum(1, keepdim=True) if self.exclusive else taught

    def _unlike(self, features: Tensor, answers: Sequence[TeacherOutput]) -> Tensor:
        """1 - cos(P f, f'), the mean over images and teachers."""
        theirs = [answer.features for answer in answers if answer.features is not None]
        pairs = zip(self.projections, theirs, strict=True)
        return per_image(torch.stack([1 - F.cosine_similarity(own(features), f.float()) for own, f in pairs]).mean(0))

    def _unrelated(self, hidden: Hidden, view: Tensor, answers: Sequence[TeacherOutput]) -> Tensor:
        """Squared difference of the relations between places, the mean over images and teachers."""
        maps = self.backbone.grid(hidden, (view.shape[-2], view.shape[-1])).float()
        theirs = [answer.maps.float() for answer in answers if answer.maps is not None]
        unlike = [(related(maps, m) - related(m, maps)).square().mean((1, 2)) for m in theirs]
        return per_image(torch.stack(unlike).mean(0))


def agreed(answers: Sequence[TeacherOutput], weights: Sequence[Tensor], like: Tensor) -> Tensor:
    """(N, F): the weighted mean of the teachers' logits over those that predict the finding; NaN if none does."""
    if not answers:
        return torch.full_like(like, torch.nan)
    logits = torch.stack([answer.logits.float() for answer in answers])  # (K, N, F)
    shares = losses.known_mask(logits) * torch.stack(list(weights))[:, None].to(logits.dtype)
    return (_zero_if_unknown(logits) * shares).sum(0) / shares.sum(0)  # 0 / 0 is NaN


def _zero_if_unknown(logits: Tensor) -> Tensor:
    """NaN becomes 0; infinite logits stay, so that they show in the loss."""
    return logits.nan_to_num(0.0, torch.inf, -torch.inf)


def per_known(loss: Tensor, targets: Tensor) -> Tensor:
    """Sum of a loss over the number of known targets in the global batch; averaged over ranks it is the loss of the
    global batch."""
    count = distributed.total(losses.known_mask(targets).sum())
    return loss.sum() * distributed.world_size() / count.clamp(min=1)


def per_image(loss: Tensor) -> Tensor:
    """Mean of (N,) over the images of the global batch, even if ranks have unequal shares."""
    count = distributed.total(torch.full((), float(len(loss)), device=loss.device))
    return loss.sum() * distributed.world_size() / count.clamp(min=1)


def related(maps: Tensor, other: Tensor) -> Tensor:
    """(N, D, h, w) → (N, h' w', h' w'): cosine similarities between positions, on the coarser grid of the two maps."""
    grid = (min(maps.shape[2], other.shape[2]), min(maps.shape[3], other.shape[3]))
    places = F.normalize(F.adaptive_avg_pool2d(maps, grid).flatten(2), dim=1)
    return places.transpose(1, 2) @ places


def map_places(backbone: Backbone, size: tuple[int, int]) -> int:
    """Number of positions in the map of an image of this size."""
    like = next(backbone.parameters())
    was, channels = backbone.training, backbone.channels
    with torch.no_grad():
        maps = backbone.eval().grid(backbone.hidden(like.new_zeros(1, channels, *size)), size)
    backbone.train(was)
    return maps.shape[2] * maps.shape[3]
