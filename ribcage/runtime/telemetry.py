"""Telemetry: runtimes that would report their use to those who made them do not, unless the environment asks for it."""

import os
import sys


def off() -> None:
    """Before ONNX Runtime or OpenVINO is first imported: since 1.31 the one sends its use and an identifier of the
    machine to Microsoft (`ORT_DISABLE_TELEMETRY=0` turns that on again), the other looks whether it may."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it was not installed
