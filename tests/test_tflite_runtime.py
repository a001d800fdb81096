"""LiteRT: a TFLite file predicts as NumPy does, in real numbers and in 8-bit integers, for any batch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import FINDINGS, converted
from refusals import has_facts, line

from ribcage import cli
from ribcage.bundle.io import load_classifier

SIDE, STEP, WEIGHT_STEP, OUT_STEP = 8, 0.02, 0.01, 0.05
ZERO, OUT_ZERO = -10, 5
RNG = np.random.default_rng(0)
WEIGHT = RNG.integers(-60, 60, (3, SIDE * SIDE)).astype(np.int8)
"""Of a fully connected layer, in steps of WEIGHT_STEP."""


@pytest.fixture
def written(tmp_path: Path) -> Callable[[bool], Path]:
    """A function: whether of integers → a TFLite file with one fully connected layer."""
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'ribcage[tflite]'")
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def write(whole: bool) -> Path:
        model: Any = schema.ModelT()
        model.version, model.description, model.buffers = 3, "tiny", [schema.BufferT()]
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
        code.version, model.operatorCodes = (4 if whole else 1), [code]
        graph: Any = schema.SubGraphT()
        graph.name, graph.tensors, graph.inputs, graph.outputs = "main", [], [0], [3]

        def tensor(name: str, shape: list[int], kind: str, step: float = 0, zero: int = 0, values: Any = None) -> None:
            one: Any = schema.TensorT()
            one.name, one.shape, one.type, one.buffer = name, shape, getattr(schema.TensorType, kind), 0
            if values is not None:
                buffer = schema.BufferT()
                buffer.data = np.frombuffer(values.tobytes(), np.uint8)
                model.buffers.append(buffer)
                one.buffer = len(model.buffers) - 1
            if step:
                one.quantization = schema.QuantizationParametersT()
                one.quantization.scale, one.quantization.zeroPoint = [step], [zero]
            graph.tensors.append(one)

        kind, bias = ("INT8", np.zeros(3, np.int32)) if whole else ("FLOAT32", np.zeros(3, np.float32))
        weight = WEIGHT if whole else (WEIGHT * WEIGHT_STEP).astype(np.float32)
        tensor("scan", [1, SIDE, SIDE, 1], kind, STEP * whole, ZERO * whole)
        tensor("weight", [3, SIDE * SIDE], kind, WEIGHT_STEP * whole, 0, weight)
        tensor("bias", [3], "INT32" if whole else kind, STEP * WEIGHT_STEP * whole, 0, bias)
        tensor("scores", [1, 3], kind, OUT_STEP * whole, OUT_ZERO * whole)
        layer: Any = schema.OperatorT()
        layer.opcodeIndex, layer.inputs, layer.outputs = 0, [0, 1, 2], [3]
        layer.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
        layer.builtinOptions = schema.FullyConnectedOptionsT()
        graph.operators, model.subgraphs = [layer], [graph]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        file = tmp_path / "tiny.tflite"
        file.write_bytes(bytes(builder.Output()))
        return file

    return write


@pytest.mark.parametrize("whole", [False, True])
def test_a_tflite_file_predicts_as_its_layer_does(whole: bool, written: Callable[[bool], Path], tmp_path: Path) -> None:
    assert cli.main(converted(written(whole), tmp_path / "m", "--output-kind", "logits")) == 0
    opened = load_classifier(tmp_path / "m")
    torch.manual_seed(0)
    images = torch.rand(3, 1, SIDE, SIDE)
    shown = (images - 0.5) / 0.25
    expected = shown.flatten(1).double() @ torch.from_numpy(WEIGHT.T * WEIGHT_STEP)
    if whole:
        stored = (shown.flatten(1).double() / STEP).round()
        expected = (stored * STEP) @ torch.from_numpy(WEIGHT.T * WEIGHT_STEP)
        expected = expected.clamp((-128 - OUT_ZERO) * OUT_STEP, (127 - OUT_ZERO) * OUT_STEP)
    found = opened.method.logits(shown).double()
    torch.testing.assert_close(found, expected, atol=OUT_STEP if whole else 1e-4, rtol=1e-5)
    assert opened.spec.findings == FINDINGS and expected.std() > 0.5
    torch.testing.assert_close(opened.method.logits(shown[:1]).double(), found[:1])  # another batch size


def test_a_damaged_tflite_file_is_one_line(
    written: Callable[[bool], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = written(False).read_bytes()
    for name, damaged in (("cut", content[: len(content) // 2]), ("no", b"nothing of the kind")):
        file = tmp_path / f"{name}.tflite"
        file.write_bytes(damaged)
        assert has_facts(line(converted(file, tmp_path / "m"), capsys), file.name)


def test_a_missing_runtime_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ribcage.models.opaque.tflite_runtime.PACKAGE", "no_such_package")
    (tmp_path / "a.tflite").write_bytes(b"\0\0\0\0TFL3")
    assert cli.main(converted(tmp_path / "a.tflite", tmp_path / "m")) != 0
    assert has_facts(capsys.readouterr().err, "ai-edge-litert", "ribcage[tflite]")
