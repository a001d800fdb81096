"""LiteRT: a TFLite file on the CPU (extra `tflite`)."""

import importlib.util
import threading
from typing import Any

import numpy as np
import torch

from ribcage.models.opaque.network_file import Port, Quantisation, one_line

PACKAGE = "ai_edge_litert"


class TfliteRuntime:
    """A TFLite file opened by LiteRT. The interpreter has one batch size at a time, and is used by one thread at a
    time."""

    def __init__(self, content: bytes, where: str) -> None:
        if importlib.util.find_spec(PACKAGE) is None:
            raise ImportError("TFLite files need ai-edge-litert: pip install 'ribcage[tflite]'")
        if content[4:8] != b"TFL3":
            raise ValueError(f"{where} is not a TFLite file.")
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        self.where, self._lock = where, threading.Lock()
        try:
            self._interpreter: Any = Interpreter(
                model_content=content,
                num_threads=torch.get_num_threads(),
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            self._interpreter.allocate_tensors()
            self.inputs = tuple(map(_port, self._interpreter.get_input_details()))
            self.outputs = tuple(map(_port, self._interpreter.get_output_details()))
        except Exception as error:  # the interpreter raises RuntimeError and ValueError for whatever a file has
            raise ValueError(f"{where} cannot be opened by LiteRT ({one_line(error)}).") from None

    def __call__(self, images: np.ndarray, output: str) -> np.ndarray:
        """The output of this name for a batch in the form of the input."""
        interpreter = self._interpreter
        with self._lock:
            try:
                own = interpreter.get_input_details()[0]
                if tuple(own["shape"]) != images.shape:
                    interpreter.resize_tensor_input(own["index"], images.shape)
                    interpreter.allocate_tensors()
                interpreter.set_tensor(own["index"], images)
                interpreter.invoke()
                place = next(one["index"] for one in interpreter.get_output_details() if one["name"] == output)
                return np.array(interpreter.get_tensor(place))
            except Exception as error:
                raise ValueError(f"{self.where} cannot be run by LiteRT ({one_line(error)}).") from None


def _port(detail: Any) -> Port:
    """An input or output as LiteRT describes it; its first dimension is the batch, which may be changed."""
    scale, zero = detail["quantization"]
    shape = (None, *(int(one) if one > 0 else None for one in detail["shape_signature"][1:]))
    quantised = Quantisation(float(scale), int(zero)) if scale > 0 else None
    return Port(detail["name"], np.dtype(detail["dtype"]).name, shape, quantised)
