"""Account: what became of every tensor of a file of weights, by its name there."""

from collections.abc import Sequence
from dataclasses import dataclass

from ribcage.bundle.formats.reading.published_weights import Published
from ribcage.models.pretrained import Coverage

NEEDLESS, BESIDE = "only its training needs it", "beside the model in the file"
LAST, SECOND = "a last layer that is not used", "a second last layer"
"""What can become of a weight that no part of the model is, besides what `backbone.Coverage` says."""


@dataclass(frozen=True)
class Fate:
    """What became of one tensor of the file."""

    name: str
    shape: tuple[int, ...] | None
    """None of what lies beside the model."""
    reason: str
    """Why it is left out; "" when the model has it."""


def account(found: Published, coverage: Coverage, ends: Sequence[str], answers: bool) -> tuple[Fate, ...]:
    """Every tensor of the file, once.

    ends: timm's names of the last layers, the first of them first; answers: whether that one is used.
    """
    ours = {theirs: name for name, theirs in found.original.items()}
    heads = {f"{end}.{part}": number for number, end in enumerate(ends) for part in ("weight", "bias")}

    def reason(name: str) -> str:
        if name in found.left:
            return NEEDLESS
        if ours[name] in heads:
            return LAST if not answers else SECOND if heads[ours[name]] else ""
        return coverage.fate(ours[name])

    own = [Fate(name, shape, reason(name)) for name, shape in found.file_shapes.items()]
    return (*own, *(Fate(name, None, BESIDE) for name in found.beside))


def account_summary(fates: Sequence[Fate]) -> str:
    """How many tensors were used, and how many were left out for which reason."""
    said = [f"{sum(not one.reason for one in fates):,} used"]
    for reason in dict.fromkeys(one.reason for one in fates if one.reason):
        names = [one.name for one in fates if one.reason == reason]
        said.append(f"{len(names):,} left out, {reason} ({names[0]}{' …' if len(names) > 1 else ''})")
    return f"{len(fates):,} tensors in the file: {'; '.join(said)}"
