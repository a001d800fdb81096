"""Blending: blends of some of the members, compared and calibrated on the validation split."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ribcage.bundle.blend import Mean, batch_norms, mean_predictions, mean_weights, network_to_blend
from ribcage.bundle.io import Classifier
from ribcage.bundle.spec import ModelSpec
from ribcage.data.collection import Datasets
from ribcage.data.label_policy import Policy
from ribcage.evaluation.classifier_validation import ClassifierValidation
from ribcage.methods.supervised import Supervised
from ribcage.training.batch_statistics import StatisticsImages, common_augmentation, recompute_statistics


@dataclass(frozen=True)
class BlendImages:
    """The images on which blends are compared and calibrated."""

    data: Datasets
    train_rows: np.ndarray
    """For the statistics of batch norms; may be empty."""
    val_rows: np.ndarray
    policy: Policy
    device: torch.device
    batch: int
    threads: int | None = None


@dataclass(frozen=True)
class Candidate:
    """A member that was tried."""

    member: int
    auroc: float
    """Of the member alone."""
    blended: float | None
    """Of the blend of this member and those selected before it; None without a selection."""
    used: bool


class Blends:
    """Blends of some of the members, which are given by their numbers."""

    def __init__(self, members: Sequence[Classifier], mean: Mean, images: BlendImages) -> None:
        self.members, self.mean, self.images, self.current = members, mean, images, network_to_blend(members[0])
        spec = members[0].spec
        self.validation = ClassifierValidation(
            lambda: self.current, images.data, images.val_rows, spec, device=images.device, batch=images.batch,
            policy=images.policy, threads=images.threads,
        )  # fmt: skip
        self.augmentation, self.augmentation_note = common_augmentation([one.spec for one in members])
        self.statistics = StatisticsImages(
            images.data, images.train_rows, spec, self.augmentation.view(spec.size), images.batch, images.device,
            images.threads,
        )  # fmt: skip

    def blended(self, chosen: Sequence[int]) -> Supervised:
        """The mean of these members; a single one is left as it is."""
        if len(chosen) == 1:
            return network_to_blend(self.members[chosen[0]])
        if self.mean == "predictions":
            return mean_predictions([self.members[one] for one in chosen])
        found = mean_weights([network_to_blend(self.members[one]) for one in chosen])
        recompute_statistics(found, self.statistics)
        return found

    def auroc(self, chosen: Sequence[int]) -> float:
        """Mean AUROC of the blend of these members on validation."""
        self.current = self.blended(chosen).to(self.images.device)
        self.validation.model = self.members[chosen[0]].spec  # for its normalisation
        found = self.validation()["auroc"]
        self.current.cpu()
        return found

    def candidates(self, greedy: bool) -> list[Candidate]:
        """All members with their AUROC, in the order in which they were tried."""
        aurocs = [self.auroc([one]) for one in range(len(self.members))]
        if greedy:
            return greedy_selection(aurocs, self.auroc)
        return [Candidate(one, auroc, None, True) for one, auroc in enumerate(aurocs)]

    def statistics_rows(self, chosen: Sequence[int]) -> np.ndarray:
        """The training images on which the batch norms of this blend were recomputed."""
        needed = self.mean == "weights" and len(chosen) > 1 and batch_norms(network_to_blend(self.members[0]))
        return self.statistics.drawn if needed else np.empty(0, np.int64)

    def calibrated(self, chosen: Sequence[int], spec: ModelSpec) -> tuple[Supervised, ModelSpec]:
        """The blend of these members, and the spec with its temperature, thresholds and metrics."""
        self.auroc(chosen)
        self.validation.model = spec
        return self.current, self.validation.chosen_spec()


def greedy_selection(aurocs: Sequence[float], score: Callable[[Sequence[int]], float]) -> list[Candidate]:
    """Greedy soup (Wortsman et al. 2022, recipe 1): from the best member to the worst, a member is added if the AUROC
    of the blend does not fall. Ties keep their order.

    aurocs: of each member alone.
    score: the AUROC of the blend of these members.
    """
    order = sorted(range(len(aurocs)), key=lambda member: -aurocs[member])
    chosen, best = [order[0]], aurocs[order[0]]
    found = [Candidate(order[0], best, best, True)]
    for member in order[1:]:
        blended = score([*chosen, member])
        used = blended >= best
        if used:
            chosen, best = [*chosen, member], blended
        found.append(Candidate(member, aurocs[member], blended, used))
    return found
