"""Telemetry: switches off the telemetry of ONNX Runtime and OpenVINO unless the environment asks for it."""

import os
import sys


def off() -> None:
    """Call before ONNX Runtime or OpenVINO is first imported. ONNX Runtime (since 1.31) sends usage data and a machine
    identifier to Microsoft, OpenVINO checks for consent; `ORT_DISABLE_TELEMETRY=0` turns the former on again."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
