"""Export of a network as an ONNX file, and ONNX Runtime to run it.

The batch size is free, height and width are fixed. Images are float32 and normalised, as the network expects them.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ribcage.methods.supervised import Supervised

NEEDED = ("onnx", "onnxscript", "onnxruntime")
INSTALL = "pip install 'ribcage[export]'"


class Network(nn.Module):
    """The inference part of a method: images (N, C, H, W) → logits (N, F).

    Attention is computed in separate steps: torch cannot export fused attention with a relative position bias.
    """

    def __init__(self, method: Supervised) -> None:
        super().__init__()
        self.backbone, self.head = method.backbone, method.head
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(N, F)"""
        for part in self.backbone.modules():
            if hasattr(part, "fused_attn"):
                setattr(part, "fused_attn", False)  # noqa: B010 – an attribute of timm's
        return self.head(self.backbone.head_input(self.backbone.forward_features(images)))


def missing_onnx_packages() -> tuple[str, ...]:
    """The packages that exporting needs and that are not installed."""
    return tuple(name for name in NEEDED if importlib.util.find_spec(name) is None)


def onnx(
    network: nn.Module,
    shape: tuple[int, ...],
    file: Path,
    *,
    kind: torch.dtype = torch.float32,
    output: str = "logits",
) -> None:
    """Write a network for images of this shape (without the batch), in evaluation mode, with its weights inside the
    file."""
    if absent := missing_onnx_packages():
        raise ImportError(f"Exporting needs {', '.join(absent)}: {INSTALL}")
    network = network.eval().to(memory_format=torch.contiguous_format)
    try:
        torch.onnx.export(
            network, (torch.zeros(2, *shape, dtype=kind),), file, dynamo=True, external_data=False, verbose=False,
            input_names=["images"], output_names=[output], dynamic_shapes=({0: torch.export.Dim("batch")},),
        )  # fmt: skip
    except OSError:
        raise
    except Exception as error:  # the exporter raises many types
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"torch cannot export this network: {reason}") from None


def onnx_function(file: Path, threads: int = 0) -> Callable[[Tensor], Tensor]:
    """An ONNX file as a function of images, run by ONNX Runtime on the CPU; threads: 0 for one per core."""
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def network(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"images": images.contiguous().numpy()})[0])

    return network
