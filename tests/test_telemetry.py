"""Runtimes of other projects send no telemetry."""

import importlib
import os
import sys

import pytest

import ribcage


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
