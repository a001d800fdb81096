"""Runtimes of other projects send no telemetry."""

import importlib
import os
import sys

import pytest

import ribcage
from ribcage.runtime import telemetry


def test_telemetry_of_runtimes_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    importlib.reload(ribcage)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    with pytest.raises(ImportError):
        importlib.import_module("openvino_telemetry")
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    importlib.reload(ribcage)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"


@pytest.mark.parametrize(
    ("name", "off", "on"), [("MLFLOW_DISABLE_TELEMETRY", "true", "false"), ("WANDB_ERROR_REPORTING", "false", "true")]
)
def test_telemetry_of_trackers_is_off(monkeypatch: pytest.MonkeyPatch, name: str, off: str, on: str) -> None:
    monkeypatch.delenv(name, raising=False)
    telemetry.off()
    assert os.environ[name] == off
    monkeypatch.setenv(name, on)
    telemetry.off()
    assert os.environ[name] == on
