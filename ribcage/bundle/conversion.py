"""Conversion: a file of published weights → a bundle, with an account of every tensor in the file."""

import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ribcage.bundle.formats import Published
from ribcage.bundle.formats.reading import sharded
from ribcage.bundle.formats.reading.account import TensorRecord, account
from ribcage.bundle.formats.reading.published_weights import twin_architectures
from ribcage.bundle.spec import ModelSpec
from ribcage.bundle.training_record import CONVERTED, TrainingRecord
from ribcage.data import dataset_folder
from ribcage.methods.supervised import Supervised
from ribcage.metrics.evaluation_context import TrainingData
from ribcage.models.backbone import Backbone
from ribcage.models.catalogue import known_model, pretrained_config
from ribcage.models.pretrained import Coverage, laid_over
from ribcage.models.stem import GRAY, fold_stem
from ribcage.runtime.remote import hub
from ribcage.runtime.spelling import count_phrase


@dataclass(frozen=True)
class Claim:
    """One property of a file (architecture, preprocessing or findings), and what it is based on."""

    what: str
    value: str
    basis: Literal["read", "given", "assumed"]
    because: str

    def __str__(self) -> str:
        basis = "ASSUMED" if self.basis == "assumed" else self.basis
        return f"{self.what}: {self.value} – {basis}: {self.because}"


@dataclass(frozen=True)
class Converted:
    """A published file as a model."""

    method: Supervised
    model: ModelSpec
    coverage: Coverage
    strange: tuple[str, ...]
    """Tensors in the file that neither the model nor its layout knows."""
    unused: tuple[str, ...]
    """Tensors in the file that belong to its layout but are not needed by the model."""
    rows: int
    """Rows of the last layer; 0 if the file has none."""
    tensors: tuple[TensorRecord, ...]
    """For each tensor in the file, whether it is used, and if not, why."""
    claims: tuple[Claim, ...]


def converted_model(
    file: Path,
    found: Published,
    *,
    findings: Sequence[str] = (),
    channels: Literal[1, 3] = 3,
    size: tuple[int, int] | None = None,
    partial: bool = False,
    given: Collection[str] = (),
    agreed: bool = False,
) -> Converted:
    """Load the weights into the architecture `found.name`, with its last layer.

    findings: what the rows of the last layer predict, in order; (): as defined by the layout.
    channels: 3 keeps the weights unchanged; 1 folds the first layer for gray images, which is exact except at the
    padding.
    partial: accept missing weights, which are initialised at random.
    given: which of architecture, preprocessing and findings the user stated; `found` has the stated values.
    agreed: the user confirmed the layout of the file.
    """
    if found.candidates and not found.name:
        raise ValueError(
            f"{file} fits several architectures ({', '.join(found.candidates)}), which compute different outputs. "
            f"Specify the architecture with --model."
        )
    config, names = pretrained_config(known_model(found.name)), tuple(findings) or found.findings
    body, head = split(found.state, config.classifier)
    stem = found.channels(config.first_conv)
    usual = (config.mean, config.std) if stem == 3 else ((GRAY[0],), (GRAY[1],))
    mean, std = found.mean or usual[0], found.std or usual[1]
    if len(mean) == 1 and stem == 3:
        mean, std = tuple(mean) * 3, tuple(std) * 3
    if len(mean) != stem or len(std) != stem:
        raise ValueError(
            f"--mean and --std must have one value for each input channel of {file} ({stem}), but have {len(mean)} and "
            f"{len(std)} values."
        )
    own, rgb_normalisation = (GRAY, (mean, std)) if stem == 3 else ((mean[0], std[0]), ())
    size = size or found.size
    if found.fit == "squash" and size[0] != size[1]:  # a view of another shape is cut out of the square
        raise ValueError(
            f"{file} expects images that are stretched to {size[0]} × {size[1]} pixels, but images can only be "
            f"stretched to a square. Pass one number with --size."
        )
    outputs = tuple(name for name in names if name)
    claims = claimed(found, outputs, mean, std, size, given)
    torch.manual_seed(0)
    backbone = Backbone(
        found.name,
        channels=stem,
        size=size,
        pool=found.pool,
        mean=own[0],
        std=own[1],
        rgb_normalisation=rgb_normalisation,
    )
    coverage = laid_over(backbone.model, found.name, body, str(file), antialias=found.antialias)
    strange = tuple(name for name in coverage.unexpected if name not in found.unused)
    rows = len(head.get("weight", ()))
    refuse_incomplete(file, found, coverage, strange, partial)
    sound(file, backbone.model.state_dict(), head)
    if names and not rows:
        raise ValueError(f"{file} has no classification layer for {', '.join(names)}. Omit --findings.")
    if names and rows != len(names):
        raise ValueError(
            f"The classification layer in {file} has {count_phrase(rows, 'output')}, but the number of findings is "
            f"{len(names)}."
        )
    if names and "bias" not in head and not partial:
        raise ValueError(f"The classification layer in {file} has no bias. Pass --partial to set the bias to zero.")
    if names and several(found.state, config.classifier):
        raise ValueError(
            f"{file} has several classification layers on different tokens ({', '.join(config.classifier)}), which "
            f"cannot be "
            f"merged into one layer. Omit --findings and fine-tune the model."
        )
    if not agreed:
        ask(file, found, claims)
    if stem == 3 and channels == 1:
        fold_stem(backbone.model, replace(config, mean=mean, std=std), *GRAY)
        backbone.channels, backbone.rgb_normalisation = 1, ()
    method = Supervised(backbone, outputs)
    if outputs:
        places = [place for place, name in enumerate(names) if name]
        fill(method, head, places, str(file))
    counted = bool(outputs and not findings and found.findings_inferred)
    model = ModelSpec(
        name=found.name,
        findings=outputs,
        size=backbone.size,
        stored=found.stored,
        fit=found.fit,
        mean=own[0],
        std=own[1],
        channels=backbone.channels,
        pool=found.pool,
        rgb_normalisation=rgb_normalisation if backbone.channels == 3 else (),
        temperature=found.temperature if names == found.findings else (),
        thresholds={"published": found.thresholds} if found.thresholds and names == found.findings else {},
        data=(origin(file, found),),
        training=conversion_record(file, found, coverage, claims, agreed, counted),
        versions=dataset_folder.versions(),
    )  # fmt: skip
    ends = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier or ())
    tensors = account(found, coverage, ends, bool(outputs))
    return Converted(method.eval(), model, coverage, strange, found.unused, rows, tensors, claims)


def claimed(
    found: Published,
    findings: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    size: tuple[int, int],
    given: Collection[str],
) -> tuple[Claim, ...]:
    """Architecture, preprocessing and findings of a file, and what each is based on."""
    layout_default = f"as in {found.layout}" if found.layout else f"as in timm for {found.name}"
    scale = f"mean {' '.join(f'{one:g}' for one in mean)}, std {' '.join(f'{one:g}' for one in std)}"
    square = f"{found.fit} to {found.stored}, {size[0]} × {size[1]}, "
    twins = twin_architectures(found.name)
    claims: list[Claim] = []

    def claim(what: str, value: str, assumed: str, read: str = "in the file's description") -> None:
        basis = "given" if what in given else "read" if what in found.stated else "assumed"
        because = {"given": "by an option", "read": read, "assumed": assumed}[basis]
        claims.append(Claim(what, value, basis, because))  # type: ignore[arg-type]

    if twins or {"architecture"} & {*given, *found.stated}:
        claim("architecture", found.name, f"{', '.join(twins)} have the same weights")
    else:
        claims.append(Claim("architecture", found.name, "read", "from the names and shapes of all weights"))
    claim("preprocessing", square + scale, layout_default)
    if findings:
        order = "from the number of outputs, in the order of the layout"
        claim(
            "findings",
            ", ".join(findings),
            order if found.findings_inferred else f"{layout_default}, in the same order",
        )
    return tuple(claims)


_LONGEST = 2000
"""Characters of the findings in an error: enough for those of every layout, whose order the user is to check."""


def ask(file: Path, found: Published, claims: Sequence[Claim]) -> None:
    """Raise ValueError if preprocessing or findings are guessed from shapes alone: the user must confirm them."""
    weak = {"preprocessing"} if found.evidence.kind == "shapes" else set()
    weak |= {"findings"} if found.findings_inferred or found.evidence.kind == "shapes" else set()
    guessed = [one for one in claims if one.basis == "assumed" and one.what in weak]
    if not guessed:
        return
    layout = found.layout or "timm_names"
    others = f" The layout could also be {' or '.join(found.other_layouts)}." if found.other_layouts else ""
    named = {"preprocessing": "--mean and --std", "findings": "--findings"}
    instead = " and ".join(named[one.what] for one in guessed)
    raise ValueError(
        f"{file} seems to have the {layout} layout (recognised by {found.evidence}), but does not specify the "
        f"{' or '.join(one.what for one in guessed)}. If the layout is correct, pass --layout {layout}, which assumes "
        f"{textwrap.shorten('; '.join(one.value for one in guessed), _LONGEST, placeholder=' …')}; otherwise, pass "
        f"{instead}.{others}"
    )


def split(state: dict[str, Tensor], classifier: str | Sequence[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights without the last layer, and the last layer's weight and bias."""
    if not classifier:
        return dict(state), {}
    last = classifier if isinstance(classifier, str) else classifier[0]
    ends = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    head = {name: state[f"{last}.{name}"] for name in ("weight", "bias") if f"{last}.{name}" in state}
    known = {f"{end}.{name}" for end in ends for name in ("weight", "bias")}
    rest = {name: value for name, value in state.items() if name not in known}  # layers of a deeper head are not used
    return rest, head if head.get("weight", torch.empty(0)).ndim in (2, 4) else {}


def several(state: dict[str, Tensor], classifier: str | Sequence[str]) -> bool:
    """Whether there are several last layers with different weights. Files exported by Ribcage have the same in all."""
    if isinstance(classifier, str):
        return False
    heads = [state[f"{name}.weight"] for name in classifier or () if f"{name}.weight" in state]
    return any(bool(head.any()) and not torch.equal(head, heads[0]) for head in heads[1:])


def refuse_incomplete(file: Path, found: Published, coverage: Coverage, strange: Sequence[str], partial: bool) -> None:
    """Raise ValueError if weights would stay random or be dropped, unless --partial allows it."""
    if partial or not (coverage.lost or strange):
        return
    count = len(coverage.matched) + len(coverage.lost)
    lost = f" ({coverage})" if coverage.lost else ""
    more = f", and {len(strange)} that the model does not have ({strange[0]} …)" if strange else ""
    raise ValueError(
        f"{file} contains {len(coverage.matched)} of the {count} weights of {found.name}{lost}{more}. Pass another "
        "--model, or --partial to initialise missing weights at random and to leave out unknown weights."
    )


def sound(file: Path, body: dict[str, Tensor], head: dict[str, Tensor]) -> None:
    """Raise ValueError for values that no trained weight has, such as NaN or a negative variance."""
    numbers = {name: value for name, value in body.items() if value.is_floating_point()}  # the others are counters
    if empty := next((name for name, value in head.items() if not value.numel()), ""):
        raise ValueError(f"{file} is damaged: the {empty} of the classification layer is empty.")
    for name, value in {**numbers, **{f"the last layer's {name}": value for name, value in head.items()}}.items():
        negative = name.endswith("running_var") and bool((value < 0).any())
        if not value.is_floating_point() or not value.isfinite().all() or negative:
            raise ValueError(f"{file} is damaged: {name} has invalid values (NaN, infinity or a negative variance).")


def fill(method: Supervised, head: dict[str, Tensor], places: Sequence[int], where: str) -> None:
    """Copy these rows of the file's last layer into the model."""
    weight = head["weight"].flatten(1)[list(places)]
    if weight.shape != method.head.weight.shape:
        raise ValueError(
            f"The classification layer in {where} has {weight.shape[1]} input features, but the backbone outputs "
            f"{method.backbone.dim}."
        )
    if "bias" in head and len(head["bias"]) != len(head["weight"]):
        raise ValueError(
            f"The classification layer in {where} has a bias whose length differs from that of its weight."
        )
    with torch.no_grad():
        method.head.weight.copy_(weight)
        method.head.bias.copy_(head["bias"][list(places)] if "bias" in head else torch.zeros(len(places)))


def origin(file: Path, found: Published) -> TrainingData:
    """The source of the weights, described as a dataset; of a model in the Hugging Face Hub, with its commit."""
    source = hub.origin(file) or found.source
    return TrainingData(found.data or "unknown", source or "unknown", found.licence or "unknown")


def conversion_record(
    file: Path, found: Published, coverage: Coverage, claims: Sequence[Claim], agreed: bool, counted: bool
) -> TrainingRecord:
    """The record of a converted model."""
    digest, evidence = sharded.sha256_of(file), str(found.evidence)
    return TrainingRecord(
        method=CONVERTED, layout=found.layout, file=file.name, sha256=digest, evidence=evidence,
        claims=tuple(map(str, claims)), agreed=agreed, random=tuple(coverage.lost) or None, counted=counted or None,
    )  # fmt: skip
