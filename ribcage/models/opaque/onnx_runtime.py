"""ONNX Runtime: an ONNX file on the CPU, after its graph was checked."""

import importlib.util
from typing import Any

import numpy as np
import torch

from ribcage.models.opaque import onnx_graph
from ribcage.models.opaque.network_file import Port, one_line

KINDS = {"float": "float32", "float16": "float16", "double": "float64", "uint8": "uint8", "int8": "int8"}
"""ONNX Runtime's names of types → NumPy's."""
NEEDED = ("onnx", "onnxruntime")


class OnnxRuntime:
    """An ONNX file opened by ONNX Runtime."""

    def __init__(self, content: bytes, where: str) -> None:
        if absent := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
            raise ImportError(f"ONNX files need {' and '.join(absent)}: pip install 'ribcage[export]'")
        import onnxruntime

        self.where = where
        graph = onnx_graph.checked_graph(content, where)
        options: Any = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
        options.log_severity_level = 4
        options.enable_cpu_mem_arena = False  # an arena would keep the memory of the largest batch
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"], enable_fallback=False
            )
        except Exception as error:  # the runtime raises its own exception types
            raise ValueError(f"{where} cannot be opened by ONNX Runtime ({one_line(error)}).") from None
        self.inputs = tuple(self._port(one) for one in self._session.get_inputs())
        self.outputs = tuple(self._port(one) for one in self._session.get_outputs())
        self.inputs = tuple(_scaled(one, onnx_graph.input_quantisation(graph, one.name)) for one in self.inputs)
        self.outputs = tuple(_scaled(one, onnx_graph.output_quantisation(graph, one.name)) for one in self.outputs)

    def __call__(self, images: np.ndarray, output: str) -> np.ndarray:
        """The output of this name for a batch in the form of the input."""
        try:
            return np.asarray(self._session.run([output], {self.inputs[0].name: images})[0])
        except Exception as error:
            raise ValueError(f"{self.where} cannot be run by ONNX Runtime ({one_line(error)}).") from None

    def _port(self, one: Any) -> Port:
        kind = one.type.removeprefix("tensor(").removesuffix(")")
        shape = tuple(size if isinstance(size, int) and size > 0 else None for size in one.shape)
        return Port(one.name, KINDS.get(kind, kind), shape)


def _scaled(port: Port, quantisation: Any) -> Port:
    """With the scale of its integers."""
    whole = port.kind in ("uint8", "int8")
    return Port(port.name, port.kind, port.shape, quantisation) if whole else port
