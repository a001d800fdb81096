"""Opaque conversion: an ONNX or TFLite file of others → a bundle that runs the file unchanged.

Nothing about the preprocessing or the findings is in such a file: the user states them. Size, channels and the order of
the dimensions are read from the file where it has them. The network is run on test images before anything is written.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from ribcage.bundle import deployment
from ribcage.bundle.io import build_opaque
from ribcage.bundle.spec import EXCLUSIVE, ModelSpec, wrong_normalisation
from ribcage.bundle.training_record import CONVERTED, TrainingRecord
from ribcage.data import dataset_folder
from ribcage.data.dataset_facts import Fit
from ribcage.imaging import augment
from ribcage.metrics.evaluation_context import TrainingData
from ribcage.models.opaque import network
from ribcage.models.opaque.network import OpaqueNetwork
from ribcage.models.opaque.network_file import FORMATS, MOST_BYTES, Layout, NetworkFile, OutputKind, Port
from ribcage.models.stem import GRAY
from ribcage.runtime import files

RGB = 3
SUM_ERROR = 1e-3
"""Probabilities whose sum differs less from 1 are those of mutually exclusive findings."""


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What the user states about a network; empty or None: to be read from the file."""

    findings: tuple[str, ...]
    """Of each output; "" drops an output."""
    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_range: tuple[float, ...] = ()
    """(lowest, highest) value of a pixel, instead of mean and std."""
    size: tuple[int, int] | None = None
    channels: Literal[1, 3] = 3
    """Where the file leaves them open."""
    fit: Fit = "squash"
    layout: Layout | Literal[""] = ""
    output: str = ""
    kind: OutputKind | Literal[""] = ""
    exclusive: bool = False

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Means and standard deviations for pixels from 0 to 1."""
        if not self.value_range:
            return self.mean, self.std
        low, high = self.value_range
        return (-low / (high - low),), (1 / (high - low),)

    def errors(self) -> list[str]:
        """What is missing, or contradicts itself."""
        found = [] if self.findings else ["--findings is missing: an ONNX or TFLite file does not name its outputs"]
        if not any(self.findings) and self.findings:
            found.append("--findings drops all outputs")
        if not self.value_range and not self.mean:
            found.append("--mean and --std are missing, or --value-range: the file does not state its preprocessing")
        if self.value_range and (self.mean or self.std):
            found.append("--value-range and --mean cannot be combined")
        listed = " ".join(f"{one:g}" for one in self.value_range)
        if self.value_range and (len(self.value_range) != 2 or not self.value_range[0] < self.value_range[1]):
            found.append(f"--value-range {listed} must be two rising numbers")
        elif self.value_range and wrong_normalisation(*self.normalisation):
            found.append(f"--value-range {listed} is too wide or too narrow")
        if self.exclusive and "" in self.findings:
            found.append("--exclusive needs a name for every output: a hyphen drops one of the mutually exclusive ones")
        return found


def is_network_file(file: Path) -> bool:
    """Whether a file is converted into an opaque network, by its suffix."""
    return file.suffix.lower() in FORMATS


def opaque_model(file: Path, stated: Stated) -> tuple[OpaqueNetwork, ModelSpec]:
    """The network in a file, with its spec; one ValueError for a file that cannot be used as stated."""
    content = file_content(file)
    where, suffix = str(file), file.suffix.lower()
    runtime = network.opened_runtime(content, f"network{suffix}", where)
    first, output = runtime.inputs[0], network.output_port(runtime, stated.output, where)
    layout = stated.layout or found_layout(first, suffix)
    size, channels = input_shape(first, layout, stated, where)
    count = outputs_per_image(output, len(stated.findings))
    if count != len(stated.findings):
        raise ValueError(
            f"{where} has {count} outputs per image, but the number of findings is {len(stated.findings)}. Name all "
            "outputs in order; a hyphen (-) drops an output."
        )
    findings = tuple(name for name in stated.findings if name)
    mean, std = per_channel(stated, channels, where)
    rgb_normalisation = (mean, std) if channels == RGB else ()
    columns = tuple(place for place, name in enumerate(stated.findings) if name)
    sha256 = hashlib.sha256(content).hexdigest()
    described = NetworkFile(
        f"network{suffix}", sha256, layout, output.name, stated.kind or "logits", columns, count  # type: ignore[arg-type]
    )  # fmt: skip
    model = ModelSpec(
        name=file.name, findings=findings, size=size, stored=max(size), fit=stated.fit,
        mean=GRAY[0] if rgb_normalisation else mean[0], std=GRAY[1] if rgb_normalisation else std[0],
        channels=channels, rgb_normalisation=rgb_normalisation, loss=EXCLUSIVE if stated.exclusive else "bce",
        opaque=described, data=(TrainingData("unknown", "unknown", "unknown"),),
        training=TrainingRecord(
            method=CONVERTED, layout=FORMATS[suffix], file=file.name, sha256=sha256,
            claims=claims(stated, described, channels, size, first),
        ),
        versions=dataset_folder.versions(),
    )  # fmt: skip
    opened = build_opaque(model, content, where)
    check_outputs(opened, model, stated)
    return opened, model


def file_content(file: Path) -> bytes:
    """The bytes of a file that is not too large."""
    if files.regular(file).stat().st_size > MOST_BYTES:
        raise ValueError(f"{file} is larger than {MOST_BYTES:,} bytes, the maximum size of an opaque network.")
    return file.read_bytes()


def found_layout(first: Port, suffix: str) -> Layout:
    """The order of the dimensions: where one of them is 1 or 3, the channels; else the usual one of the format."""
    front, back = (first.shape[place] in (1, RGB) for place in (1, 3))
    if front != back:
        return "NCHW" if front else "NHWC"
    return "NCHW" if suffix == ".onnx" else "NHWC"


def input_shape(first: Port, layout: Layout, stated: Stated, where: str) -> tuple[tuple[int, int], Literal[1, 3]]:
    """Height and width, and the number of channels, of the input."""
    sides, channels = (first.shape[2:], first.shape[1]) if layout == "NCHW" else (first.shape[1:3], first.shape[3])
    if channels not in (None, 1, RGB):
        raise ValueError(f"{where} takes images with {channels} channels ({layout}, input {first}), not 1 or 3.")
    size = stated.size or (tuple(sides) if None not in sides else None)
    if size is None:
        raise ValueError(f"{where} does not state the size of its input {first}: pass --size.")
    return (size[0], size[1]), 1 if (channels or stated.channels) == 1 else 3  # type: ignore[return-value]


def outputs_per_image(output: Port, otherwise: int) -> int:
    """The number of outputs per image, as far as the file states it."""
    sizes = output.shape[1:]
    return otherwise if None in sizes else math.prod(one for one in sizes if one is not None)


def per_channel(stated: Stated, channels: int, where: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel; one number stands for all of them."""
    mean, std = stated.normalisation
    if len(mean) not in (1, channels):
        raise ValueError(
            f"{where} takes images with {channels} channel{'s' * (channels != 1)}, but --mean has {len(mean)} numbers."
        )
    several = channels // len(mean)
    return mean * several, std * several


def check_outputs(opened: OpaqueNetwork, model: ModelSpec, stated: Stated) -> None:
    """Raise unless the outputs for test images are finite and of the stated kind."""
    images = deployment.patterns(model.stored)
    view = augment.draw_numbers(augment.plain_view(model.size), 0, 0, np.zeros(len(images), np.int64), 0, model.stored)
    shown = augment.apply(images, view, model.mean, model.std).expand(-1, model.channels, -1, -1)
    with torch.inference_mode():
        found = opened.outputs(shown)
    where, file = opened.where, opened.file
    if not np.isfinite(found).all():
        raise ValueError(f"{where} returns NaN or infinity for test images, so it cannot be used.")
    if np.array_equal(found.min(0), found.max(0)):
        raise ValueError(f"{where} returns the same output for all test images. Check --mean, --std and --size.")
    inside = bool((found >= 0).all() and (found <= 1).all())
    if not stated.kind and inside:
        raise ValueError(
            f"The outputs of {where} for test images are between {found.min():.3g} and {found.max():.3g}. Pass "
            "--output-kind probabilities, or --output-kind logits if they are logits after all."
        )
    if file.kind == "probabilities" and not inside:
        raise ValueError(
            f"--output-kind probabilities: the outputs of {where} for test images are between {found.min():.3g} and "
            f"{found.max():.3g}, not between 0 and 1."
        )
    one = bool(np.abs(found.sum(1) - 1).max() < SUM_ERROR)
    if file.kind == "probabilities" and file.count > 1 and one != stated.exclusive:
        why = "have a sum of 1, as for mutually exclusive findings: pass --exclusive"
        raise ValueError(f"The outputs of {where} {why if one else 'do not have a sum of 1: leave --exclusive out'}.")


def claims(stated: Stated, file: NetworkFile, channels: int, size: Sequence[int], first: Port) -> tuple[str, ...]:
    """The lines on how the file is used, and what each is based on."""
    mean, std = (" ".join(f"{one:g}" for one in several) for several in stated.normalisation)
    scale = f"mean {mean}, std {std}"
    open_sides = None in first.shape[1:]
    findings = ", ".join(name or "-" for name in stated.findings)
    kind = f"{file.kind}{' of mutually exclusive findings' if stated.exclusive else ''}"
    return (
        f"input: {size[0]} × {size[1]}, {channels} channel{'s' * (channels != 1)}, {file.layout}, {first.kind} – "
        + ("given: by an option, as far as the file leaves it open" if open_sides else "read: from the file"),
        f"preprocessing: {stated.fit}, {scale} – given: by an option",
        f"findings: {findings} – given: by an option",
        f"outputs: {kind} – " + ("given: by an option" if stated.kind else "ASSUMED: some are outside 0 to 1"),
    )
