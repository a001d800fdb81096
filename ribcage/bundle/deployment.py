"""Deployment: a model as one file for another runtime, from 8-bit greyscale images to calibrated probabilities.

    images (N, S, S) uint8, with the size S at which the model's images are stored  →  probabilities (N, F)

Preprocessing, temperature scaling and sigmoid are part of the file, so that users need not reimplement them. Findings,
thresholds and the way to make an image square are in its metadata.
"""

import contextlib
import importlib.util
import io
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 – the usual name

from ribcage.bundle import attestation, onnx_export
from ribcage.bundle.formats import error_text
from ribcage.bundle.io import Classifier
from ribcage.bundle.spec import ModelSpec
from ribcage.imaging import augment
from ribcage.metrics import multiclass, sigmoid
from ribcage.models.opaque.onnx_graph import has_external_data
from ribcage.runtime import digest, files

Predictor = Callable[[np.ndarray], np.ndarray]
"""Function from images (N, S, S) uint8 to probabilities (N, F) float32."""
FILES = {"onnx": "model.onnx", "torchscript": "model.ts", "openvino": "model.xml"}
"""Name of the exported file for each format."""
NEEDED = {"onnx": onnx_export.NEEDED, "torchscript": (), "openvino": (*onnx_export.NEEDED, "openvino")}


class Deployed(nn.Module):
    """A model with its preprocessing and calibration."""

    grid: Tensor
    temperature: Tensor

    def __init__(self, opened: Classifier) -> None:
        super().__init__()
        model = opened.spec
        self.network, self.channels = onnx_export.Network(opened.network("be exported")), model.channels
        self.mean, self.std, self.exclusive = model.mean, model.std, model.loss == "cross-entropy"
        self.factor, grid = augment.fixed_view_grid(augment.plain_view(model.size), model.stored)
        self.same_size = model.size == (model.stored, model.stored)
        self.register_buffer("grid", grid)
        self.register_buffer("temperature", torch.tensor(model.temperature or [1.0] * len(model.findings)))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """(N, S, S) uint8 → (N, F)"""
        resized = augment.shrunk_images(images[:, None].float(), self.factor)
        if self.factor > 1:  # means of blocks are rounded to bytes, as in the importer
            resized = (resized + 0.5).floor() if self.factor == 2 else resized.round()
        resized = resized / 255
        if not self.same_size:
            grid = self.grid.expand(images.shape[0], -1, -1, -1)
            resized = F.grid_sample(resized, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        logits = self.network(((resized - self.mean) / self.std).expand(-1, self.channels, -1, -1)) / self.temperature
        return logits.softmax(1) if self.exclusive else logits.sigmoid()


def expected(opened: Classifier, images: np.ndarray, batch: int = 16) -> np.ndarray:
    """(N, F): the predictions of `ribcage predict` for square images."""
    model, found = opened.spec, []
    temperature = np.array(model.temperature or [1.0] * len(model.findings))
    with torch.inference_mode():
        for part in np.array_split(images, -(-len(images) // batch)):
            view = augment.draw_numbers(
                augment.plain_view(model.size), 0, 0, np.zeros(len(part), np.int64), 0, model.stored
            )
            resized = augment.apply(part, view, model.mean, model.std).expand(-1, model.channels, -1, -1)
            found.append(opened.method.eval().logits(resized).double().numpy() / temperature)
    logits = np.concatenate(found)
    return multiclass.softmax(logits) if model.loss == "cross-entropy" else sigmoid(logits)


def file_probabilities(opened: Classifier, images: np.ndarray) -> np.ndarray:
    """(N, F) float32: the same of an opaque network, which needs no export."""
    return expected(opened, images, max(1, len(images))).astype(np.float32)


def patterns(side: int, count: int = 12) -> np.ndarray:
    """(count, side, side) uint8: synthetic test images: noise at several scales, black, white and a gradient."""
    draw = np.random.default_rng(0)
    found = [np.zeros((side, side)), np.full((side, side), 255.0), np.tile(np.linspace(0, 255, side), (side, 1))]
    while len(found) < count:
        cells = int(draw.choice([4, 8, 16, 32]))
        small = torch.from_numpy(draw.random((1, 1, cells, cells)))
        noise = F.interpolate(small, (side, side), mode="bicubic")[0, 0].numpy()
        found.append(np.clip(noise, 0, 1) * 255)
    return np.stack(found).round().astype(np.uint8)


# ---- files


def missing_packages(to: str) -> tuple[str, ...]:
    """Required packages that are not installed."""
    return tuple(name for name in NEEDED[to] if importlib.util.find_spec(name) is None)


def export_metadata(model: ModelSpec) -> dict[str, str]:
    """Metadata of an exported file; lists as JSON."""
    listed = {
        "findings": model.findings,
        "thresholds": model.thresholds,
        "input": {"side": model.stored, "fit": model.fit, "values": "gray, uint8, white is dense"},
    }
    encoded = {name: json.dumps(value, ensure_ascii=False) for name, value in listed.items()}
    facts = {"use": "research use only", "model": model.name, **({"warning": model.warning} if model.warning else {})}
    return {f"ribcage.{name}": text for name, text in {**facts, **encoded}.items()}


def write_digests(written: Sequence[Path]) -> None:
    """Write the digests of an export beside its first file, in the format of `sha256sum --check`."""
    files.write_text(digest_file(written[0]), digest.digest_lines({one.name: one for one in written}))


def digest_file(file: Path) -> Path:
    """The file of the digests of an export."""
    return file.with_name(file.name + ".sha256")


def write_onnx(opened: Classifier, file: Path) -> None:
    """An ONNX file."""
    import onnx

    side = opened.spec.stored
    onnx_export.onnx(Deployed(opened), (side, side), file, kind=torch.uint8, output="probabilities")
    content = onnx.load(str(file))
    onnx.helper.set_model_props(content, export_metadata(opened.spec))
    onnx.save(content, str(file))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Context manager: suppress torch's deprecation warning of TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write_torchscript(opened: Classifier, file: Path) -> None:
    """A traced TorchScript module, for C++ programs and older servers."""
    side, module = opened.spec.stored, Deployed(opened)
    with quiet(), torch.inference_mode(False), torch.no_grad():
        traced = torch.jit.trace(module, torch.zeros(2, side, side, dtype=torch.uint8), check_trace=False)
        content = io.BytesIO()  # torch's file writer aborts the process if the disk is full
        torch.jit.save(traced, content, _extra_files=export_metadata(opened.spec))
    with files.atomic(file) as part:
        part.write_bytes(content.getbuffer())


def write_openvino(source: Path, model: ModelSpec, file: Path) -> None:
    """An OpenVINO model from an ONNX file: FILE.xml, with its weights in FILE.bin."""
    import openvino

    content = openvino.Core().read_model(str(source))
    for name, text in export_metadata(model).items():
        content.set_rt_info(text, name.split("."))
    with files.disk_errors(file):
        openvino.save_model(content, str(file), compress_to_fp16=False)


def write_int8(source: Path, images: np.ndarray, file: Path) -> None:
    """An int8-quantised ONNX file, with activation ranges calibrated on these images.

    Weights have seven bits: processors without VNNI add pairs of products in 16 bits, which would overflow with eight.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class CalibrationImages(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        def __init__(self) -> None:
            self.rest = iter(np.array_split(images, -(-len(images) // 8)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(({"images": part} for part in self.rest), None)

    quantize_static(
        str(source), str(file), CalibrationImages(), quant_format=QuantFormat.QDQ, per_channel=True, reduce_range=True,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"], activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip


# ---- runtimes


def opened_onnx(file: Path, threads: int = 0) -> Predictor:
    """The model in ONNX Runtime on the CPU; threads: 0 for one per core."""
    if files.regular(file).stat().st_size > attestation.LARGEST:
        raise ValueError(f"{file} exceeds the maximum size of an ONNX file. Export the model again.")
    return loaded_onnx(file.read_bytes(), file, threads)


def loaded_onnx(content: bytes, file: Path, threads: int = 0) -> Predictor:
    """The model in ONNX Runtime from the content of a file; `file` is used in errors."""
    import onnx
    import onnxruntime
    from google.protobuf.message import DecodeError

    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    try:
        external = has_external_data(onnx.load_from_string(content))
    except DecodeError as error:
        raise ValueError(f"{file} is not a valid ONNX file ({error_text(error)}). Export the model again.") from None
    if external:
        raise ValueError(
            f"{file} refers to weights in other files, which Ribcage does not open. Export the model again."
        )

    def predict(images: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(session.run(None, {"images": images})[0])
        except Exception as error:  # the runtime raises its own exception types
            raise ValueError(f"{file} cannot be run ({error_text(error)}). Export the model again.") from None

    try:
        session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"], enable_fallback=False
        )  # the fallback would use the same provider and print a message
    except Exception as error:
        raise ValueError(f"{file} cannot be opened ({error_text(error)}). Export the model again.") from None
    return predict


def opened_torchscript(file: Path, threads: int = 0) -> Predictor:
    """The model in torch's TorchScript runtime."""
    with quiet():
        module = torch.jit.load(str(files.regular(file)))

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(images)).numpy()

    return predict


def opened_openvino(file: Path, threads: int = 0, precision: str = "f32") -> Predictor:
    """The model in OpenVINO on the CPU, at this precision (OpenVINO's default is bf16 on hardware that supports it)."""
    import openvino

    for one in (file, file.with_suffix(".bin")):
        files.regular(one)
    asked: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(
        str(file), "CPU", asked | ({"INFERENCE_NUM_THREADS": threads} if threads else {})
    )
    return lambda images: compiled(images)[0]


OPENED: dict[str, Callable[[Path, int], Predictor]] = {
    "onnx": opened_onnx, "torchscript": opened_torchscript, "openvino": opened_openvino,
}  # fmt: skip


# ---- inputs and outputs


@dataclass(frozen=True)
class FileTensor:
    """An input or an output of an exported file."""

    role: str
    """input, or output"""
    name: str
    kind: str
    """uint8, float32"""
    shape: tuple[str, ...]
    """Sizes; N for the batch."""

    def __str__(self) -> str:
        return f"{self.role} {self.name}: {self.kind} ({', '.join(self.shape)})"


def file_tensors(to: str, file: Path, model: ModelSpec) -> list[FileTensor]:
    """The inputs, then the outputs of an exported file. TorchScript stores neither shapes nor the names of outputs:
    they are those of `Deployed`."""
    if to == "onnx":
        return _onnx_tensors(file)
    if to == "openvino":
        return _openvino_tensors(file)
    side = str(model.stored)
    return [
        FileTensor("input", "images", "uint8", ("N", side, side)),
        FileTensor("output", "probabilities", "float32", ("N", str(len(model.findings)))),
    ]


def _onnx_tensors(file: Path) -> list[FileTensor]:
    import onnx

    graph = onnx.load(str(file), load_external_data=False).graph
    return [
        FileTensor(
            role,
            one.name,
            onnx.helper.tensor_dtype_to_np_dtype(one.type.tensor_type.elem_type).name,
            tuple(str(size.dim_value or "N") for size in one.type.tensor_type.shape.dim),
        )
        for role, every in (("input", graph.input), ("output", graph.output))
        for one in every
    ]


def _openvino_tensors(file: Path) -> list[FileTensor]:
    import openvino

    network = openvino.Core().read_model(str(file))
    return [
        FileTensor(
            role,
            one.any_name,
            one.element_type.to_dtype().name,
            tuple("N" if size.is_dynamic else str(size) for size in one.partial_shape),
        )
        for role, every in (("input", network.inputs), ("output", network.outputs))
        for one in every
    ]


def max_difference(
    predict: Predictor, images: np.ndarray, wanted: np.ndarray, batches: Sequence[int] = (1, 5)
) -> float:
    """Largest absolute difference of a probability, over several batch sizes."""
    worst = 0.0
    for size in batches:
        parts = [predict(images[at : at + size]) for at in range(0, len(images), size)]
        difference = float(np.abs(np.concatenate(parts) - wanted).max())
        worst = max(worst, difference if math.isfinite(difference) else math.inf)
    return worst
