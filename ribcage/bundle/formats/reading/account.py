"""Account of a conversion: for every tensor in the file, whether it is used in the model, and if not, why."""

from collections.abc import Sequence
from dataclasses import dataclass

from ribcage.bundle.formats.reading.published_weights import Published
from ribcage.models.pretrained import Coverage

NOT_MODEL = "not part of the model"
UNUSED_HEAD, SECOND_HEAD = "unused last layer", "second last layer"
"""Reasons for which a tensor is left out, in addition to those of `pretrained.Coverage`."""


@dataclass(frozen=True)
class TensorRecord:
    """A tensor in the file, and whether it is used in the model."""

    name: str
    shape: tuple[int, ...] | None
    """None if the tensor is not part of the model."""
    reason: str
    """Why the tensor is left out; "" if it is used."""


def account(found: Published, coverage: Coverage, ends: Sequence[str], head_used: bool) -> tuple[TensorRecord, ...]:
    """One entry per tensor in the file.

    ends: timm's names of the last layers; head_used: whether the first of them is used.
    """
    timm_names = {in_file: name for name, sources in found.file_names.items() for in_file in sources}
    heads = {f"{end}.{part}": number for number, end in enumerate(ends) for part in ("weight", "bias")}

    def reason(name: str) -> str:
        if name in found.unused:
            return found.unused_because
        if timm_names[name] in heads:
            return UNUSED_HEAD if not head_used else SECOND_HEAD if heads[timm_names[name]] else ""
        return coverage.reason_unused(timm_names[name])

    own = [TensorRecord(name, shape, reason(name)) for name, shape in found.file_shapes.items()]
    return (*own, *(TensorRecord(name, None, NOT_MODEL) for name in found.other_tensors))


def account_summary(tensors: Sequence[TensorRecord], coverage: Coverage) -> str:
    """Numbers of tensors that are used and, by reason, left out."""
    counts = [f"{sum(not one.reason for one in tensors):,} used"]
    for reason in dict.fromkeys(one.reason for one in tensors if one.reason):
        names = [one.name for one in tensors if one.reason == reason]
        counts.append(f"{len(names):,} left out: {reason} ({names[0]}{' …' if len(names) > 1 else ''})")
    if coverage.norm_after_pooling:
        counts.append("the last norm is applied after average pooling (norm → fc_norm)")
    return f"{len(tensors):,} tensors in the file: {'; '.join(counts)}"
