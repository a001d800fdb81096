"""Opaque network: a file as a model that maps images to logits.

For outputs that are probabilities p, the logit is log(p / (1 - p)), or log p for mutually exclusive findings.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ribcage.models.opaque.network_file import MOST_OUTPUTS, NetworkFile, Port, Runtime
from ribcage.models.opaque.onnx_runtime import OnnxRuntime
from ribcage.models.opaque.tflite_runtime import TfliteRuntime

EPSILON = 1e-7
"""Probabilities are clipped to this distance from 0 and 1, the precision of float32."""
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


class OpaqueNetwork(nn.Module):
    """The network in a file. It has no weights that torch knows, and runs on the CPU.

    channels: of the images, and of the network's input.
    scale: mean and standard deviation by which the images are normalised.
    rgb_normalisation: (means, standard deviations) of three channels that the network expects instead.
    """

    def __init__(
        self,
        content: bytes,
        file: NetworkFile,
        findings: Sequence[str],
        *,
        size: tuple[int, int],
        channels: int,
        scale: tuple[float, float],
        rgb_normalisation: tuple[tuple[float, ...], ...] = (),
        exclusive: bool = False,
        where: str,
    ) -> None:
        super().__init__()
        self.content, self.file, self.findings, self.where = content, file, tuple(findings), where
        self.size, self.channels, self.scale, self.exclusive = size, channels, scale, exclusive
        self.rgb_normalisation = rgb_normalisation
        self._runtime = opened_runtime(content, file.file, where)
        check_input(self._runtime, file.layout, size, channels, where)
        self._output = output_port(self._runtime, file.output, where)

    def logits(self, images: Tensor) -> Tensor:
        """(N, F)"""
        values = torch.from_numpy(self.outputs(images)).to(images.device)
        columns = torch.tensor(self.file.columns, device=images.device)
        if self.file.kind == "logits":
            return values[:, columns]
        probabilities = values[:, columns].double().clamp(EPSILON, 1 - EPSILON)
        return (probabilities.log() if self.exclusive else probabilities.logit()).float()

    def outputs(self, images: Tensor) -> np.ndarray:
        """(N, outputs) float32: what the file returns for normalised images (N, C, H, W)."""
        stored = self._runtime.inputs[0].stored(self._shown(images))
        step = self._runtime.inputs[0].shape[0] or len(stored)
        parts = [self._of_batch(stored[at : at + step], step) for at in range(0, len(stored), max(1, step))]
        return np.concatenate(parts) if parts else np.empty((0, self.file.count), np.float32)

    def _shown(self, images: Tensor) -> np.ndarray:
        """The images as the network expects them."""
        wide = images.detach().to("cpu", torch.float32)
        if self.rgb_normalisation:
            mean, std = (torch.tensor(one, dtype=torch.float64)[:, None, None] for one in self.rgb_normalisation)
            wide = ((wide.double() * self.scale[1] + self.scale[0] - mean) / std).float()
        ordered = wide.permute(0, 2, 3, 1) if self.file.layout == "NHWC" else wide
        return ordered.contiguous().numpy()

    def _of_batch(self, images: np.ndarray, size: int) -> np.ndarray:
        """(n, outputs) of up to `size` images, for a network with a fixed batch size; the rest is zero."""
        count = len(images)
        if self._runtime.inputs[0].shape[0] and count < size:
            images = np.concatenate([images, np.zeros((size - count, *images.shape[1:]), images.dtype)])
        found = self._runtime(images, self.file.output)
        if found.ndim < 2 or len(found) != len(images) or found.size != len(images) * self.file.count:
            shape = " × ".join(map(str, found.shape))
            raise ValueError(
                f"{self.where} returns an output of shape {shape} for {len(images)} images, not "
                f"{len(images)} × {self.file.count}."
            )
        return self._output.real(found)[:count]

    def __getstate__(self) -> dict[str, object]:
        """Without the runtime, which cannot be sent to another process."""
        return {name: value for name, value in self.__dict__.items() if name != "_runtime"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._runtime = opened_runtime(self.content, self.file.file, self.where)


def opened_runtime(content: bytes, name: str, where: str) -> Runtime:
    """The file in the runtime of its format; ValueError for inputs that are not one batch of images."""
    onnx = Path(name).suffix == ".onnx"
    runtime: Runtime = OnnxRuntime(content, where) if onnx else TfliteRuntime(content, where)
    if len(runtime.inputs) != 1:
        listed = ", ".join(map(str, runtime.inputs)) or "none"
        raise ValueError(f"{where} must have one input, the images, but has {len(runtime.inputs)}: {listed[:300]}.")
    first = runtime.inputs[0]
    if first.kind not in ("float32", "float16", "float64", "uint8", "int8"):
        raise ValueError(f"{where} has an input of unsupported type: {first}.")
    if len(first.shape) != 4:
        raise ValueError(f"{where} must have an input with four dimensions (N, C, H, W or N, H, W, C), not {first}.")
    if (first.shape[0] or 1) > 1024:
        raise ValueError(f"{where} has a fixed batch size above 1024: {first}.")
    return runtime


def check_input(runtime: Runtime, layout: str, size: tuple[int, int], channels: int, where: str) -> None:
    """Raise ValueError unless the input takes images of this size and number of channels in this layout."""
    wanted = (channels, *size) if layout == "NCHW" else (*size, channels)
    first = runtime.inputs[0]
    if any(own not in (None, one) for own, one in zip(first.shape[1:], wanted, strict=True)):
        raise ValueError(
            f"{where} has the input {first}, which does not take images of {size[0]} × {size[1]} pixels with "
            f"{channels} channel{'s' * (channels != 1)} ({layout})."
        )


def output_port(runtime: Runtime, name: str, where: str) -> Port:
    """The output of this name, or the only one; ValueError where it cannot hold the scores of findings."""
    listed = ", ".join(map(str, runtime.outputs))
    found = [one for one in runtime.outputs if one.name == name or (not name and len(runtime.outputs) == 1)]
    if not found:
        what = f"no output {name[:60]!r}" if name else f"{len(runtime.outputs)} outputs: choose one with --output-name"
        raise ValueError(f"{where} has {what} (outputs: {listed[:300]}).")
    own = found[0]
    if own.kind in ("uint8", "int8") and own.quantisation is None:
        raise ValueError(f"{where} has an output of integers without a scale: {own}.")
    if own.kind not in ("float32", "float16", "float64", "uint8", "int8"):
        raise ValueError(f"{where} has an output of unsupported type: {own}.")
    sizes = [one for one in own.shape[1:] if one is not None]
    if len(own.shape) < 2 or int(np.prod(sizes, dtype=object)) > MOST_OUTPUTS:
        raise ValueError(f"{where} has an output that is not one score per finding: {own}.")
    return own
