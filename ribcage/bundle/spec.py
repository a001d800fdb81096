"""Spec: what model.json says, as one dataclass with one reader and one writer.

The file may come from anybody, so each value is checked when it is read, and also before it is written.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ribcage import __version__
from ribcage.bundle.training_record import CONVERTED, TrainingRecord, read_training_record
from ribcage.data import dataset_facts, phantom
from ribcage.metrics.evaluation_context import TrainingData
from ribcage.metrics.reliability import FindingReliability, is_reliability
from ribcage.models import losses
from ribcage.models.backbone import POOLS
from ribcage.models.opaque.network_file import MOST_OUTPUTS, NetworkFile
from ribcage.models.pretrained import LEAST_STD, MOST_MEAN, MOST_STD
from ribcage.models.query_head import POOL
from ribcage.runtime import files, format_1, limits, terminal, typed_json
from ribcage.runtime.typed_json import INLINE

MODEL_FORMAT = 2
WEIGHTS_FILE = "model.safetensors"
DEFAULT_RULE = "youden"
"""The rule that thresholds are chosen by unless another one is asked for."""
HALF = "half"
"""The rule that always gives the threshold 0.5."""
DETECTION_RULE = "f1"
"""The rule that the score thresholds of a detector are chosen by."""
EXCLUSIVE = "cross-entropy"
"""The loss of findings of which each image has exactly one."""
CAM_HEAD = "cam"
"""The head of a detector that is a classifier with boxes around its saliency maps."""
MAX_SIDE = 4096
"""Largest side of an image in pixels, and largest option of a detector: a hostile file must not exhaust the memory."""
MOST_MEMBERS = 64
"""Maximum number of models in a blend."""
MOST_FINDINGS, MOST_BYTES = 1000, 1 << 24
"""Largest number of findings of a model, and largest size of model.json."""


@dataclass(frozen=True)
class DetectorSpec:
    """The head of a detector and the options of the head."""

    head: str
    options: dict[str, object] = field(default_factory=dict, metadata=INLINE)
    """Words, numbers, or lists of these."""


@dataclass(frozen=True)
class MemberSpec:
    """A backbone of an ensemble."""

    name: str
    """The architecture, by timm's name."""
    pool: str
    normalisation: tuple[tuple[float, ...], ...] = ()
    """(means, standard deviations) of the channels, if they differ from those of the ensemble."""


@dataclass(frozen=True)
class ModelSpec:
    """The content of model.json."""

    name: str
    """The architecture, by timm's name; of an ensemble, a description of its members."""
    findings: tuple[str, ...]
    """The findings that the model predicts; none for a pretrained backbone."""
    size: tuple[int, int]
    """(height, width) of the input of the model."""
    stored: int
    """Side of the square that an image is resized to first."""
    fit: dataset_facts.Fit
    mean: float
    std: float
    channels: int = 1
    pool: str = ""
    """Pooling of the features; "" for the architecture's own, "query" for attention pooling in the head."""
    rgb_normalisation: tuple[tuple[float, ...], ...] = ()
    """(means, standard deviations) of three channels, for published weights that are kept unchanged: the gray image is
    repeated in three channels and normalised by these instead of `mean` and `std`."""
    loss: str = "bce"
    """bce: independent findings; cross-entropy: mutually exclusive ones."""
    detector: DetectorSpec | None = None
    """Of a detector; {} in the JSON of other models."""
    members: tuple[MemberSpec, ...] = ()
    """The backbones of an ensemble; none for a single model."""
    opaque: NetworkFile | None = None
    """Of an opaque network; {} in the JSON of other models."""
    temperature: tuple[float, ...] = ()
    """Logits are divided by it; one per finding, fitted on validation."""
    thresholds: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    """Rule → one threshold per finding, chosen on validation; None where it is undefined."""
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """Validation metrics (`validation`), or those of a backbone's features (`features`), by name."""
    reliability: tuple[FindingReliability, ...] = ()
    """Of each finding, on validation."""
    data: tuple[TrainingData, ...] = ()
    training: TrainingRecord = field(default_factory=TrainingRecord)
    versions: dict[str, str] = field(default_factory=dict)
    format: int = MODEL_FORMAT

    @property
    def warning(self) -> str:
        """The warning that goes with each prediction of a model trained on synthetic images; "" for others."""
        drawn = [one.source == phantom.SOURCE for one in self.data]
        if not any(drawn):
            return ""
        if all(drawn):
            return (
                "This model was trained on synthetic images only: its predictions for real radiographs are meaningless."
            )
        return "The training data of this model include synthetic images."

    @property
    def weights_file(self) -> str:
        """The name of the file with the weights: for an opaque network, the file of the network."""
        return self.opaque.file if self.opaque else WEIGHTS_FILE

    @property
    def converted(self) -> bool:
        """Whether the weights were trained by others and converted."""
        return self.training.method == CONVERTED

    def save(self, part: Path) -> None:
        """Write as JSON into a temporary file, if it can be read again."""
        content = typed_json.to_json(self)
        content |= {name: {} for name in ("detector", "opaque") if content[name] is None}
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        values = json.loads(text)
        if invalid := _invalid(values):
            raise ValueError(
                f"The model cannot be saved, because {invalid} has the invalid value {str(values[invalid])[:60]!r}."
            )
        part.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> "ModelSpec":
        """Read what `save` wrote, or raise one ValueError."""
        try:
            if file.stat().st_size > MOST_BYTES:
                raise ValueError("the file is too large")
            values = files.read_json(file, parse_int=limits.json_integer)
        except ValueError as error:
            raise ValueError(f"{file} is not valid JSON ({error}).") from None
        values = format_1.current(values, "model.json", MODEL_FORMAT)
        if isinstance(values, dict):
            values = {"members": [], "opaque": {}, **values}  # files from before there were such models
        known = {item.name for item in fields(cls)}
        if not isinstance(values, dict) or values.get("format") != MODEL_FORMAT or known != set(values):
            raise ValueError(f"{file} was written by another version of Ribcage (this is {__version__}).")
        if invalid := _invalid(values):
            raise ValueError(f"{file} is damaged: {invalid} has the invalid value {str(values[invalid])[:60]!r}.")
        for name in ("findings", "size", "temperature"):
            values[name] = tuple(values[name])
        values["detector"] = _read_detector(values["detector"]) if values["detector"] else None
        values["opaque"] = _read_opaque(values["opaque"]) if values["opaque"] else None
        values["members"] = tuple(map(_read_member, values["members"]))
        values["data"] = tuple(map(_read_data, values["data"]))
        values["training"] = read_training_record(values["training"])
        values["reliability"] = tuple(map(FindingReliability.from_json, values["reliability"]))
        values["rgb_normalisation"] = tuple(map(tuple, values["rgb_normalisation"]))
        values["thresholds"] = {name: tuple(chosen) for name, chosen in values["thresholds"].items()}
        return cls(**values)


def wrong_normalisation(mean: Sequence[float], std: Sequence[float]) -> str:
    """Which rule means and standard deviations of pixels in 0 … 1 break; "" for none."""
    try:
        means, stds = [float(one) for one in mean], [float(one) for one in std]
    except (OverflowError, TypeError, ValueError):
        return "means and standard deviations must be numbers"
    if not all(math.isfinite(one) and abs(one) <= MOST_MEAN for one in means):
        return f"a mean must be from -{MOST_MEAN:g} to {MOST_MEAN:g}"
    if not all(LEAST_STD <= one <= MOST_STD for one in stds):
        return f"a standard deviation must be from {LEAST_STD:g} to {MOST_STD:g}"
    return ""


def _read_detector(value: object) -> DetectorSpec:
    return typed_json.from_json(DetectorSpec, value)


def _read_opaque(value: object) -> NetworkFile:
    return typed_json.from_json(NetworkFile, value)


def _read_member(value: object) -> MemberSpec:
    return typed_json.from_json(MemberSpec, value)


def _read_data(value: object) -> TrainingData:
    return typed_json.from_json(TrainingData, value)


# ---- checks of the values


def _invalid(values: dict[str, Any]) -> str:
    """The first key of model.json whose value cannot be used; "" for none."""
    wrong = [name for name, check in SPEC_CHECKS.items() if not check(values[name])] or _wrong_lengths(values)
    return wrong[0] if wrong else ""


def _wrong_lengths(values: dict[str, Any]) -> list[str]:
    """Keys that do not hold one number per finding."""
    count = len(values["findings"])
    if values["rgb_normalisation"] and values["channels"] != 3:
        return ["rgb_normalisation"]
    given = [member["normalisation"] for member in values["members"] if member.get("normalisation")]
    if any(len(one[0]) != values["channels"] for one in given) or (values["members"] and values["detector"]):
        return ["members"]
    if values["opaque"] and (values["members"] or values["detector"] or len(values["opaque"]["columns"]) != count):
        return ["opaque"]
    wrong = [name for name in ("temperature", "reliability") if len(values[name]) not in (0, count)]
    return wrong + (["thresholds"] if any(len(one) != count for one in values["thresholds"].values()) else [])


def _list_of(kind: Any, count: int | None = None) -> Callable[[Any], bool]:
    """A check that a JSON value is a list of this type, of this length."""
    return lambda value: (
        isinstance(value, list) and all(isinstance(one, kind) for one in value) and count in (None, len(value))
    )


def _finite(value: Any) -> bool:
    """Whether a JSON value is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)


def _thresholds(value: Any) -> bool:
    """Whether a JSON value is a list of probabilities; None where a threshold is undefined."""
    return isinstance(value, list) and all(one is None or (_finite(one) and 0 <= one <= 1) for one in value)


def _metrics(value: Any) -> bool:
    """Whether a JSON value is a table of numbers: kind → name → number."""
    return isinstance(value, dict) and all(
        isinstance(found, dict) and all(type(one) in (int, float) for one in found.values()) for found in value.values()
    )


def _option(value: Any) -> bool:
    """Whether a JSON value can be an option of a detector: a word, a number, or a list of these."""
    if isinstance(value, list):
        return len(value) <= 64 and all(map(_option, value))
    return isinstance(value, bool | str) or (_finite(value) and abs(value) <= MAX_SIDE)


def _side(value: Any) -> bool:
    """Whether a JSON value can be the side of an image."""
    return type(value) is int and 1 <= value <= MAX_SIDE


def _rgb_normalisation(value: Any) -> bool:
    """Whether a JSON value holds means and standard deviations of three channels."""
    if not _list_of(list, 2)(value) or any(len(one) != 3 for one in value):
        return False
    return not wrong_normalisation(*value)


def _members(value: Any) -> bool:
    """Whether a JSON value holds the backbones of an ensemble."""
    if not _list_of(dict)(value) or len(value) > MOST_MEMBERS or not all(_readable(_read_member, one) for one in value):
        return False
    several = [one.get("normalisation") or [[0.0], [1.0]] for one in value]
    valid = all(len(one) == 2 and len(one[0]) == len(one[1]) and not wrong_normalisation(*one) for one in several)
    return valid and all(one["pool"] in POOLS and one["pool"] != POOL for one in value)


def _opaque(value: Any) -> bool:
    """Whether a JSON value describes the file of an opaque network."""
    if value == {}:
        return True
    if not _readable(_read_opaque, value):
        return False
    columns, count = value["columns"], value["count"]
    whole = all(0 <= one < count for one in columns) and len(columns) == len(set(columns))
    return 1 <= count <= MOST_OUTPUTS and whole and re.fullmatch("[0-9a-f]{64}", value["sha256"]) is not None


def _readable(read: Callable[[object], object], value: Any) -> bool:
    """Whether the reader of a part of model.json takes this JSON value."""
    try:
        read(value)
    except ValueError:
        return False
    return True


SPEC_CHECKS: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    "findings": lambda value: (
        _list_of(str)(value)
        and len(value) <= MOST_FINDINGS
        and all(map(terminal.is_name, value))
        and len(value) == len(set(value))
    ),
    "size": lambda value: _list_of(int, 2)(value) and all(map(_side, value)),
    "stored": _side,
    "fit": lambda value: value in ("pad", "crop", "squash"),
    "mean": lambda value: _finite(value) and not wrong_normalisation([value], []),
    "std": lambda value: _finite(value) and not wrong_normalisation([], [value]),
    "channels": lambda value: type(value) is int and value in (1, 3),
    "pool": lambda value: isinstance(value, str) and value in POOLS,
    "rgb_normalisation": lambda value: value == [] or _rgb_normalisation(value),
    "loss": lambda value: isinstance(value, str) and value in losses.LOSSES,
    "detector": lambda value: value == {} or (_readable(_read_detector, value) and all(map(_option, value.values()))),
    "members": _members,
    "opaque": _opaque,
    "temperature": lambda value: isinstance(value, list) and all(_finite(one) and 1e-6 < one < 1e6 for one in value),
    "thresholds": lambda value: isinstance(value, dict) and all(map(_thresholds, value.values())),
    "metrics": _metrics,
    "reliability": is_reliability,
    "data": lambda value: _list_of(dict)(value) and all(_readable(_read_data, one) for one in value),
    "training": lambda value: _readable(read_training_record, value),
    "versions": lambda value: isinstance(value, dict),
}
"""What each value of model.json must be."""
