"""Tiny ONNX and TFLite files: a convolution, the mean over the image, and what follows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 – the usual name

FINDINGS = ("Mass", "Edema", "Nodule")
KINDS = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
}


@dataclass(frozen=True)
class Tiny:
    """A network and its file. Its logits for (N, C, H, W) images, in the values that the file takes, are `logits`."""

    channels: int = 1
    size: tuple[int | str, int | str] = (32, 32)
    batch: int | str = "N"
    layout: str = "NCHW"
    kind: str = "float32"
    end: str = ""
    """Operator after the logits: Sigmoid, Softmax, or QuantizeLinear."""
    outputs: int = 3

    @property
    def weight(self) -> Tensor:
        torch.manual_seed(3)
        return torch.randn(self.outputs, self.channels, 5, 5)

    def logits(self, values: Tensor) -> Tensor:
        return F.conv2d(values, self.weight).relu().mean((2, 3)) * 2 - 1.5

    def graph(self) -> Any:
        """The operators between the input `scan` and the output `scores`."""
        nodes, name = [], "scan"

        def then(kind: str, *more: str, **options: Any) -> None:
            nonlocal name
            nodes.append(helper.make_node(kind, [name, *more], [name := f"{kind}_{len(nodes)}"], **options))

        if self.kind == "int8":
            then("DequantizeLinear", "scale", "zero")
        elif self.kind != "float32":
            then("Cast", to=TensorProto.FLOAT)
        if self.layout == "NHWC":
            then("Transpose", perm=[0, 3, 1, 2])
        then("Conv", "weight")
        then("Relu")
        then("GlobalAveragePool")
        then("Flatten")
        then("Mul", "two")
        then("Add", "shift")
        if self.end == "QuantizeLinear":
            then(self.end, "scale", "zero")
        elif self.end:
            then(self.end)
        nodes[-1].output[0] = "scores"
        shape = [self.channels, *self.size] if self.layout == "NCHW" else [*self.size, self.channels]
        kept = {"weight": self.weight.numpy(), "two": np.float32(2), "shift": np.float32(-1.5)}
        kept |= {"scale": np.float32(0.02), "zero": np.int8(-5)}
        out = TensorProto.INT8 if self.end == "QuantizeLinear" else TensorProto.FLOAT
        return helper.make_graph(
            nodes, "tiny",
            [helper.make_tensor_value_info("scan", KINDS[self.kind], [self.batch, *shape])],
            [helper.make_tensor_value_info("scores", out, [self.batch, self.outputs])],
            initializer=[onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in kept.items()],
        )  # fmt: skip

    def save(self, file: Path) -> Path:
        return saved(self.graph(), file)


def saved(graph: Any, file: Path, **more: Any) -> Path:
    """A graph as a file."""
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)], **more)
    file.write_bytes(model.SerializeToString())
    return file


def converted(file: Path, out: Path, *options: str, findings: Sequence[str] = FINDINGS) -> list[str]:
    """The words of `ribcage convert`."""
    given = () if "--value-range" in options or "--mean" in options else ("--mean", "0.5", "--std", "0.25")
    return ["convert", str(file), "--findings", *findings, *given, *options, "--out", str(out)]
