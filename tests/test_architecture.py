"""Imports point down: a module uses only modules of its own floor or of a lower one."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ribcage

PACKAGE = Path(ribcage.__file__).parent
FLOORS = (
    {"spelling", "recipe", "files", "digest", "state", "progress", "findings", "image", "dicom", "dicom_elements", "dicom_gray", "dicom_pixels", "dicom_place", "site_key", "fingerprint", "views", "layers", "metrics", "maps", "draws", "hyperparameters", "limits", "observed", "marks", "losses", "distributed", "flags", "phantom", "raster", "tables", "columns", "box_list", "jpeg", "page", "tiles", "plots", "card", "appearance", "terminal", "threads", "spreadsheet", "history"},
    {"index", "split", "datasets", "store", "intake", "writer", "loader", "cohort", "backbone", "backbones"},
    {"detectors", "methods"},
    {"loop", "feature_cache", "course", "ledger", "log_lines", "checkup", "samples", "teachers", "training", "running", "validation", "optim", "checkpoint", "provenance", "probing", "monitor", "sheet", "bundle", "weights", "conversion", "inference", "detections", "box_validation", "prediction", "audit", "datasheet", "guard", "evaluation", "box_evaluation", "box_report", "comparison", "own_predictions", "gradcam", "explanation", "likeness", "report", "exporting", "journey", "showcase", "deployment", "profiling", "ood", "counterexamples"},
    {"server"},
    {"commands"},
    {"cli", "verbs", "__main__", "__init__"},
)  # fmt: skip
FILES = sorted(PACKAGE.rglob("*.py"))


def floor(module: str) -> int:
    """The floor of 'image', 'datasets.nih', …"""
    top = module.split(".")[0]
    found = [number for number, members in enumerate(FLOORS) if top in members]
    assert found, f"{module} stands on no floor: add it to FLOORS in {Path(__file__).name}"
    return found[0]


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def imports(file: Path) -> set[str]:
    """The package's own modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("ribcage.") for alias in node.names if alias.name.startswith("ribcage.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "ribcage":
            found |= {alias.name for alias in node.names if not alias.name.startswith("_")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ribcage."):
            found.add(str(node.module).removeprefix("ribcage."))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name} imports relatively: write 'from ribcage …'"
    return found


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_imports_point_down(file: Path) -> None:
    here = floor(module_name(file))
    upward = {name for name in imports(file) if floor(name) > here}
    assert not upward, f"{module_name(file)} (floor {here}) imports {', '.join(sorted(upward))} from above"


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_a_plain_tool_knows_no_noun(file: Path) -> None:
    assert floor(module_name(file)) > 0 or all(floor(name) == 0 for name in imports(file))


def test_no_module_is_a_drawer_without_a_name() -> None:
    assert not {file.stem for file in FILES} & {"utils", "util", "helpers", "common", "core", "misc"}


def test_floors_below_the_commands_need_only_the_usual_packages() -> None:
    """Floors 0 to 3 import where only torch, torchvision, timm, pandas, pyarrow, OpenCV, safetensors and NumPy are installed."""
    modules = sorted({f"ribcage.{module_name(file)}" for file in FILES if floor(module_name(file)) < 4})
    missing = (
        "rich",
        "numba",
        "onnx",
        "onnxscript",
        "onnxruntime",
        "openvino",
        "pydicom",
        "gdcm",
        "openjpeg",
        "jpeg_ls",
        "sklearn",
        "matplotlib",
        "tyro",
    )
    code = f"import sys, importlib\nfor name in {missing!r}: sys.modules[name] = None\nfor name in {modules!r}: importlib.import_module(name)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_project_names_no_registry_and_no_path_of_a_machine() -> None:
    tracked = [file for file in PACKAGE.parent.rglob("*") if file.suffix in (".py", ".md", ".toml", ".txt", ".yml")]
    own = [file for file in tracked if ".venv" not in file.parts and file.name != Path(__file__).name]
    bad = re.compile(r"index-url|pypi\.org/simple|/root/|/home/\w+/")
    assert not [file for file in own if bad.search(file.read_text(encoding="utf-8"))]
