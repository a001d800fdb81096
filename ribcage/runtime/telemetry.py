"""Telemetry: switches off the telemetry of other packages unless the environment asks for it."""

import os
import sys

OFF = {"ORT_DISABLE_TELEMETRY": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false"}
"""Variables of the environment that switch telemetry off."""


def off() -> None:
    """Call before one of these packages is first imported. ONNX Runtime (since 1.31) sends usage data and a machine
    identifier to Microsoft, OpenVINO checks for consent, MLflow sends usage data and W&B error reports to their makers.
    `ORT_DISABLE_TELEMETRY=0`, for example, turns the first on again."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
