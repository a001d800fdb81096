"""Building teachers: opened bundles and tables become live or stored teachers with weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ribcage.bundle.io import Classifier
from ribcage.bundle.spec import ModelSpec
from ribcage.data.collection import Datasets
from ribcage.data.label_policy import Policy
from ribcage.methods.distil import Teacher
from ribcage.training.run_folder import say
from ribcage.training.teachers.live import LiveTeacher
from ribcage.training.teachers.opening import OpenedTeacher, teacher_findings
from ribcage.training.teachers.stored import StoredTeacher, count_predicted, predicted_logits
from ribcage.training.teachers.tables import TeacherTable, table_logits
from ribcage.training.teachers.weighting import Weigh, stored_aurocs, teacher_weights, validation_aurocs


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """The task of the teachers: the student, its images, and how predictions are made and weighted."""

    data: Datasets
    train_rows: np.ndarray
    val_rows: np.ndarray
    student: ModelSpec
    policy: Policy
    sizes: Sequence[tuple[int, int]]
    """Sizes of the views: the student's, then those of live teachers that differ, or all of these if the size of the
    student changes during training."""
    live: bool
    """Whether bundles predict on each augmented image, instead of once on each original image."""
    weigh: Weigh
    batch: int
    threads: int | None
    dtype: torch.dtype
    device: torch.device

    @property
    def exclusive(self) -> bool:
        """Whether the findings of the student are mutually exclusive."""
        return self.student.loss == "cross-entropy"


def build_teachers(opened: Mapping[str, OpenedTeacher], task: Distillation) -> list[Teacher]:
    """A live or stored teacher of each bundle and table."""
    stored = {name: logits for name, one in opened.items() if (logits := _stored_logits(name, one, task)) is not None}
    aurocs = [_aurocs(one, stored.get(name), task) for name, one in opened.items()]
    unknown = [name for name, found in zip(opened, aurocs, strict=True) if np.isnan(found).all()]
    if task.weigh == "auroc" and unknown:
        raise ValueError(
            f"--teacher-weights auroc needs the validation AUROC of {' and '.join(unknown)}, which is unknown. Use "
            "--teacher-weights mean, or tables with predictions for the --val split."
        )
    weights = teacher_weights(aurocs, task.weigh)
    if len(opened) > 1:
        for (name, one), weight in zip(opened.items(), weights, strict=True):
            say(f"Weights of {name}: {_weight_summary(task.student.findings, teacher_findings(one), weight)}.")
    built: list[Teacher] = []
    for (name, one), weight in zip(opened.items(), weights, strict=True):
        if isinstance(one, Classifier) and name not in stored:
            built.append(_live_teacher(one, weight, task))
        else:
            built.append(StoredTeacher(stored[name], weight, task.device))
    return built


def _stored_logits(name: str, teacher: OpenedTeacher, task: Distillation) -> np.ndarray | None:
    """(all rows, F): the predictions of a stored teacher; None for a live one."""
    findings, exclusive = task.student.findings, task.exclusive
    if isinstance(teacher, TeacherTable):
        logits = table_logits(teacher, task.data, findings, exclusive=exclusive)
        count, of = count_predicted(logits, task.train_rows), [each for each in findings if each in teacher.odds]
        say(
            f"{name} has predictions for {count:,} of {len(task.train_rows):,} training images (findings: "
            f"{', '.join(of)})."
        )
        return logits
    if task.live:
        return None
    teacher.method.to(task.device)
    return predicted_logits(
        teacher, task.data, task.train_rows, findings, exclusive=exclusive,
        device=task.device, batch=task.batch, threads=task.threads, dtype=task.dtype,
    )  # fmt: skip


def _aurocs(teacher: OpenedTeacher, stored: np.ndarray | None, task: Distillation) -> np.ndarray:
    """(F,) the validation AUROC of a teacher."""
    if isinstance(teacher, Classifier):
        return validation_aurocs(teacher.spec, task.student.findings)
    assert stored is not None
    return stored_aurocs(stored, task.data, task.val_rows, task.student.findings, task.policy)


def _weight_summary(findings: Sequence[str], known: Sequence[str], weight: torch.Tensor) -> str:
    pairs = zip(findings, weight.tolist(), strict=True)
    return ", ".join(f"{name} {value:.2f}" for name, value in pairs if name in known)


def _live_teacher(teacher: Classifier, weight: torch.Tensor, task: Distillation) -> LiveTeacher:
    return LiveTeacher(
        teacher,
        task.student.findings,
        weight,
        view=max(place for place, size in enumerate(task.sizes) if size == teacher.spec.size),
        scale=(task.student.mean, task.student.std),
        device=task.device,
        exclusive=task.exclusive,
    )
