"""Blends: several classifiers as one, by the mean of their weights or of their predictions.

Weights ("model soup", Wortsman et al. 2022, https://arxiv.org/abs/2203.05482):  w = 1/K sum_k w_k
Predictions ("ensemble"), with the temperature t_k of each model:                z = 1/K sum_k z_k / t_k

The mean of weights is only useful for models that were fine-tuned from the same initial weights. The means and
variances of batch norms are not those of the averaged weights and have to be recomputed
(`training/batch_statistics.py`).
"""

import copy
import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ribcage.bundle import history
from ribcage.bundle.io import Classifier, build_member, load_classifier
from ribcage.bundle.spec import EXCLUSIVE, MOST_MEMBERS, WEIGHTS_FILE, MemberSpec, ModelSpec
from ribcage.bundle.training_record import BlendRecord, MemberRecord, TrainingRecord
from ribcage.data import dataset_folder
from ribcage.data.provenance import Provenance
from ribcage.methods.supervised import Supervised
from ribcage.models.ensemble import Ensemble, ensemble_name
from ribcage.models.query_head import POOL
from ribcage.runtime import digest

FEWEST = 2
"""Minimum number of members."""
Mean = Literal["weights", "predictions"]
SAME: dict[str, Callable[[ModelSpec], object]] = {
    "architecture": lambda spec: spec.name,
    "findings": lambda spec: spec.findings,
    "input size": lambda spec: spec.size,
    "stored size": lambda spec: spec.stored,
    "--fit": lambda spec: spec.fit,
    "number of channels": lambda spec: spec.channels,
    "normalisation": lambda spec: (spec.mean, spec.std, *spec.rgb_normalisation),
    "pooling": lambda spec: spec.pool,
    "type of findings": lambda spec: "mutually exclusive" if spec.loss == EXCLUSIVE else "not mutually exclusive",
}
"""What models must have in common for a mean of their weights."""
OF_PREDICTIONS = (
    "findings", "input size", "stored size", "--fit", "number of channels", "type of findings",
)  # fmt: skip
"""Of these, what models must have in common for a mean of their predictions."""


def open_members(folders: Sequence[Path], mean: Mean) -> list[Classifier]:
    """The classifiers to blend; ValueError if one is given twice or they cannot be blended."""
    if not FEWEST <= len(folders) <= MOST_MEMBERS:
        raise ValueError(f"A blend needs {FEWEST} to {MOST_MEMBERS} models, not {len(folders)}.")
    members = [load_classifier(folder) for folder in folders]
    for member in members:
        network_to_blend(member)
    known: dict[str, Path] = {}
    for member in members:
        found = weights_digest(member)
        if found in known:
            raise ValueError(f"{known[found]} and {member.folder} have the same weights. Leave one of the two out.")
        known[found] = member.folder
        if member.spec.members:
            raise ValueError(f"{member.folder} is already an ensemble. Pass the models that it was made from instead.")
        if mean == "predictions" and member.spec.pool == POOL:
            raise ValueError(
                f"{member.folder} uses query pooling, so its predictions cannot be averaged in one model. Leave it "
                f"out, or average the weights of models that were fine-tuned from the same weights."
            )
        refuse_different(members[0], member, mean)
    return members


def refuse_different(first: Classifier, other: Classifier, mean: Mean) -> None:
    """Raise ValueError unless the weights or predictions of two models can be averaged."""
    for name in SAME if mean == "weights" else OF_PREDICTIONS:
        read = SAME[name]
        values = [_shown(read(one.spec)) for one in (first, other)]
        if read(first.spec) != read(other.spec):
            raise ValueError(
                f"The {mean} of {first.folder} and {other.folder} cannot be averaged, because they differ in {name}: "
                f"{values[0]} and {values[1]}. Leave one of the two models out."
            )


def _shown(value: object) -> str:
    """A value of `SAME` in an error."""
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 100 else f"{text[:100]} …"


def network_to_blend(member: Classifier) -> Supervised:
    """The network of a member; ValueError for an opaque network, whose weights and predictions are not a layer's."""
    return member.network("be blended")


def weights_digest(member: Classifier) -> str:
    """SHA-256 of the file with the weights."""
    return digest.file_digest(member.folder / WEIGHTS_FILE)


# ---- the mean


@torch.no_grad()
def mean_weights(members: Sequence[Supervised]) -> Supervised:
    """A model with the mean of the weights, computed in float64; what is not floating-point (tables of positions, a
    count of batches) must be equal or is taken from the first."""
    blended = copy.deepcopy(members[0])
    states = [one.state_dict() for one in members]
    for name, value in blended.state_dict().items():
        if value.is_floating_point():
            total = functools.reduce(operator.add, (state[name].double() for state in states))
            value.copy_(total / len(states))
    return blended.eval()


@torch.no_grad()
def mean_predictions(members: Sequence[Classifier]) -> Supervised:
    """A model whose logits are the mean of the logits of the members, each divided by its temperature."""
    first = members[0].spec
    backbones = [build_member(first, member_spec(first, one.spec)) for one in members]
    for built, one in zip(backbones, members, strict=True):
        built.model.load_state_dict(network_to_blend(one).backbone.model.state_dict())
    scales = [torch.tensor(one.spec.temperature or [1.0] * len(first.findings)).double() for one in members]
    heads = [network_to_blend(one).head for one in members]
    method = Supervised(Ensemble(backbones), first.findings, loss=first.loss)  # type: ignore[arg-type]
    weight = [head.weight.double() / scale[:, None] for head, scale in zip(heads, scales, strict=True)]
    bias = [head.bias.double() / scale for head, scale in zip(heads, scales, strict=True)]
    method.head.weight.copy_(torch.cat(weight, 1) / len(members))
    method.head.bias.copy_(torch.stack(bias).mean(0))
    return method.eval()


def member_spec(first: ModelSpec, spec: ModelSpec) -> MemberSpec:
    """The spec of a member of an ensemble that takes images as the first model does."""
    own: tuple[tuple[float, ...], ...] = spec.rgb_normalisation
    if not own and (spec.mean, spec.std) != (first.mean, first.std):
        own = ((spec.mean,) * spec.channels, (spec.std,) * spec.channels)
    return MemberSpec(spec.name, spec.pool, own)


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The layers that normalise by the statistics of training images."""
    return [one for one in model.modules() if isinstance(one, _BatchNorm) and one.track_running_stats]


# ---- what the blend was made from


def joint_provenance(members: Sequence[Classifier]) -> Provenance:
    """The training and validation data of all members, so that a test on the data of any of them is detected."""
    return functools.reduce(operator.or_, (one.provenance for one in members))


def member_record(
    member: Classifier, used: bool, auroc: float | None = None, blended: float | None = None
) -> MemberRecord:
    """One line on a member for model.json."""
    folder = member.folder.absolute()
    return MemberRecord(
        name=member.spec.name, folder=(folder.parent if folder.name == "bundle" else folder).name,
        sha256=weights_digest(member), used=used, tests=len(history.load_tests(member.folder)), auroc=auroc,
        blended=blended,
    )  # fmt: skip


def blend_spec(
    members: Sequence[Classifier], record: BlendRecord, seen: Provenance, options: dict[str, object], policy: str
) -> ModelSpec:
    """The spec of a blend of all these members, without temperature, thresholds and metrics, which are its own."""
    specs = [one.spec for one in members]
    dropped = [name for spec in specs for name in _listed(spec.training.option("drop_shared"))]
    own = {
        "frontal": bool(options.get("frontal")) or all(spec.training.option("frontal") for spec in specs),
        "drop_shared": list(dict.fromkeys([*_listed(options.get("drop_shared")), *dropped])),
    }
    leaks = dict.fromkeys(spec.training.leak for spec in specs if spec.training.leak)
    training = TrainingRecord(
        images=_count(seen, 0), patients=len(seen.trained), selection=_count(seen, 1),
        policy=policy or None, options=options | own, blend=record, leak="; ".join(leaks) or None,
    )  # fmt: skip
    spec = replace(
        specs[0], temperature=(), thresholds={}, metrics={}, reliability=(),
        data=tuple(dict.fromkeys(one for each in specs for one in each.data)), training=training,
        versions=dataset_folder.versions(),
    )  # fmt: skip
    if record.mean == "weights" or len(specs) == 1:
        return spec
    several = tuple(member_spec(specs[0], one) for one in specs)
    name = ensemble_name([one.name for one in several])
    return replace(spec, name=name, members=several, pool="", rgb_normalisation=())


def _count(seen: Provenance, role: int) -> int | None:
    """The number of training (0) or validation images (1); None where images without a hash may occur twice."""
    return None if (seen.pixels == 0).any() else int((seen.role == role).sum())


def _listed(value: object) -> list[str]:
    """The names in an option that takes several; [] for anything else."""
    return [str(one) for one in value] if isinstance(value, list | tuple) else []
