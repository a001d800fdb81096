"""ONNX graph: what is checked in an ONNX file from anybody before a runtime opens it.

A file may refer to other files, contain operators of unknown libraries, loops without end, and operators that make
gigabytes from nothing. None of this is needed by a network that classifies images.
"""

import math
from collections.abc import Iterator
from typing import Any

from ribcage.models.opaque.network_file import Quantisation, one_line

DOMAINS = ("", "ai.onnx", "com.microsoft", "com.ms.internal.nhwc")
"""Operator sets of ONNX itself, and ONNX Runtime's for quantised networks."""
REFUSED = frozenset(
    (
        *("Loop", "Scan", "SequenceMap", "EPContext", "BeamSearch", "GreedySearch", "Sampling", "WhisperBeamSearch"),
        *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"),
    )
)
"""Operators that may run without end, read files, or draw random numbers."""
MOST_NODES, MOST_DEPTH = 100_000, 8
"""Maximum number of operators, and maximum nesting of conditional branches."""
MOST_VALUES = 1 << 28
"""Maximum size of a tensor: 1 GiB in float32."""


def has_external_data(message: Any) -> bool:
    """Whether an ONNX message refers to external files; their paths are untrusted."""
    import onnx

    if isinstance(message, onnx.TensorProto):
        return bool(message.external_data) or message.data_location == onnx.TensorProto.EXTERNAL
    parts = (value for field, value in message.ListFields() if field.message_type is not None)
    return any(
        has_external_data(one) for part in parts for one in (part if not hasattr(part, "ListFields") else (part,))
    )


def checked_graph(content: bytes, where: str) -> Any:
    """The graph of an ONNX file; one ValueError for a file that is damaged or not a plain classifier of images."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_from_string(content)
        external = has_external_data(model)
    except (DecodeError, RecursionError) as error:
        raise ValueError(f"{where} is not a valid ONNX file ({one_line(error)}).") from None
    if external:
        raise ValueError(f"{where} refers to weights in other files, which are not opened. Save it as one file.")
    if not model.graph.node:
        raise ValueError(f"{where} is not a valid ONNX file: it has no operators.")
    for count, node in enumerate(_nodes([model.graph, *model.functions], where)):
        if count >= MOST_NODES:
            raise ValueError(f"{where} has more than {MOST_NODES:,} operators.")
        if node.domain not in DOMAINS and not _is_function(node, model):
            raise ValueError(f"{where} needs the operator {node.op_type[:60]!r} of {node.domain[:60]!r}, which is no "
                             f"part of ONNX.")  # fmt: skip
        if node.op_type in REFUSED:
            raise ValueError(f"{where} has the operator {node.op_type}, which no classifier of images needs.")
    _check_sizes(model, where)
    return model.graph


def _check_sizes(model: Any, where: str) -> None:
    """Raise ValueError for a tensor, given or computed, that is too large, as far as its shape follows from the file.
    Sizes that the file leaves open, such as that of the batch, count as 1."""
    import onnx

    try:
        known = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # the library raises its own exception types
        raise ValueError(f"{where} is not a valid ONNX file ({one_line(error)}).") from None
    shapes = [(one.name, one.dims) for one in known.graph.initializer]
    values = (*known.graph.value_info, *known.graph.input, *known.graph.output)
    shapes += [(one.name, [size.dim_value for size in one.type.tensor_type.shape.dim]) for one in values]
    for name, sizes in shapes:
        if math.prod(max(1, size) for size in sizes) > MOST_VALUES:
            listed = " × ".join(map(str, sizes))
            raise ValueError(f"{where} has the tensor {name[:60]!r} of {listed} values, which is too large.")


def _is_function(node: Any, model: Any) -> bool:
    """Whether an operator is a function that the file defines."""
    return any((node.domain, node.op_type) == (one.domain, one.name) for one in model.functions)


def _nodes(graphs: list[Any], where: str, depth: int = 0) -> Iterator[Any]:
    """The operators of graphs and of the branches inside them."""
    if depth > MOST_DEPTH:
        raise ValueError(f"{where} has branches that are nested more than {MOST_DEPTH} deep.")
    for graph in graphs:
        for node in graph.node:
            yield node
            for one in node.attribute:
                inner = [*([one.g] if one.HasField("g") else []), *one.graphs]
                yield from _nodes(inner, where, depth + 1) if inner else ()


def input_quantisation(graph: Any, name: str) -> Quantisation | None:
    """Scale and zero point of an integer input, from the operator that converts it to real numbers."""
    nodes = [one for one in graph.node if one.op_type == "DequantizeLinear" and one.input[0] == name]
    return _quantisation(graph, nodes)


def output_quantisation(graph: Any, name: str) -> Quantisation | None:
    """Scale and zero point of an integer output, from the operator that made it of real numbers."""
    return _quantisation(graph, [one for one in graph.node if one.op_type == "QuantizeLinear" and name in one.output])


def _quantisation(graph: Any, nodes: list[Any]) -> Quantisation | None:
    """Those of the first of these operators, if they are constants of one number."""
    if not nodes or len(nodes[0].input) < 2:
        return None
    scale = _constant(graph, nodes[0].input[1])
    zero = _constant(graph, nodes[0].input[2]) if len(nodes[0].input) > 2 and nodes[0].input[2] else 0.0
    return None if scale is None or zero is None or not scale > 0 else Quantisation(scale, int(zero))


def _constant(graph: Any, name: str) -> float | None:
    """A constant of the graph that is one number."""
    from onnx import numpy_helper

    found = [one for one in graph.initializer if one.name == name]
    for node in graph.node:
        if node.op_type == "Constant" and name in node.output:
            found += [one.t for one in node.attribute if one.name == "value"]
    if not found:
        return None
    values = numpy_helper.to_array(found[0])
    return float(values.reshape(-1)[0]) if values.size == 1 else None
