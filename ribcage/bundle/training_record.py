"""Training record: what model.json says about the training of a model, or about the file that it was converted from."""

from dataclasses import dataclass, field
from typing import Literal

from ribcage.runtime import typed_json
from ribcage.runtime.typed_json import OPTIONAL

CONVERTED = "converted"
"""The method of a model whose weights others have trained."""


@dataclass(frozen=True)
class TeacherRecord:
    """A teacher that a model was distilled from."""

    name: str
    """The architecture, or the file of a table."""
    table: bool
    """Whether it is a table of predictions and not a model."""
    findings: tuple[str, ...]


@dataclass(frozen=True)
class MemberRecord:
    """A model that was given to a blend."""

    name: str
    """The architecture."""
    folder: str
    """The name of its folder."""
    sha256: str
    """Digest of its weights."""
    used: bool
    """False if the greedy selection left it out."""
    tests: int
    """Number of tests in its history."""
    auroc: float | None = field(default=None, metadata=OPTIONAL)
    """Its mean AUROC on validation."""
    blended: float | None = field(default=None, metadata=OPTIONAL)
    """Mean AUROC on validation of the blend of this model and those used before it; only of a greedy selection."""


@dataclass(frozen=True)
class BlendRecord:
    """How several models were blended into one."""

    mean: Literal["weights", "predictions"]
    """What was averaged."""
    greedy: bool
    """Whether members were selected one after another on validation."""
    members: tuple[MemberRecord, ...]
    """In the order in which they were tried."""
    statistics: int = 0
    """Training images on which the batch norm statistics were recomputed."""
    augment: str = ""
    """The augmentation preset of these images."""
    augment_options: tuple[str, ...] = ()
    """Changes to this preset."""

    @property
    def used(self) -> tuple[MemberRecord, ...]:
        """The members of the blend."""
        return tuple(one for one in self.members if one.used)


@dataclass(frozen=True)
class OptionChange:
    """Options that were changed when a run was resumed."""

    step: int
    """The first step with the new values."""
    was: dict[str, object]
    now: dict[str, object]


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """How a model was trained, or which file it was converted from; None: not known, or of another kind of model."""

    method: str | None = field(default=None, metadata=OPTIONAL)
    """The pretraining method, or "converted"."""
    images: int | None = field(default=None, metadata=OPTIONAL)
    patients: int | None = field(default=None, metadata=OPTIONAL)
    """Known patients of the training images."""
    boxes: int | None = field(default=None, metadata=OPTIONAL)
    selection: int | None = field(default=None, metadata=OPTIONAL)
    """Validation images."""
    shared_patients: int | None = field(default=None, metadata=OPTIONAL)
    """Patients in both training and validation."""
    policy: str | None = field(default=None, metadata=OPTIONAL)
    """The label policy of validation."""
    scales: tuple[tuple[float, ...], ...] | None = field(default=None, metadata=OPTIONAL)
    """(mean, standard deviation) of the pixels of each dataset of a pretraining."""
    learnt: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    """Findings whose labels a pretraining used."""
    options: dict[str, object] | None = field(default=None, metadata=OPTIONAL)
    """The options of the command, as JSON has them."""
    history: tuple[OptionChange, ...] | None = field(default=None, metadata=OPTIONAL)
    """Options that were changed on resuming, in the order of their steps."""
    teachers: tuple[TeacherRecord, ...] | None = field(default=None, metadata=OPTIONAL)
    blend: BlendRecord | None = field(default=None, metadata=OPTIONAL)
    leak: str | None = field(default=None, metadata=OPTIONAL)
    """Leakage between training and validation data."""
    layout: str | None = field(default=None, metadata=OPTIONAL)
    """The layout of the converted file."""
    file: str | None = field(default=None, metadata=OPTIONAL)
    """The name of the converted file."""
    sha256: str | None = field(default=None, metadata=OPTIONAL)
    evidence: str | None = field(default=None, metadata=OPTIONAL)
    """What the layout was recognised by."""
    claims: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    """Architecture, preprocessing and findings of a converted model, each with its evidence."""
    agreed: bool | None = field(default=None, metadata=OPTIONAL)
    """Whether the layout was given by --layout."""
    random: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    """Weights that were not in the converted file."""
    counted: bool | None = field(default=None, metadata=OPTIONAL)
    """Whether the findings were inferred from their number."""
    fitted: int | None = field(default=None, metadata=OPTIONAL)
    """Images that temperature and thresholds of a converted model were fitted on."""
    fitted_to: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    """The datasets of these images."""

    def option(self, name: str, default: object = None) -> object:
        """An option of the training command, as JSON has it."""
        return (self.options or {}).get(name, default)

    @property
    def epochs(self) -> int:
        """Training epochs; 0 where they are not known."""
        found = self.option("epochs")
        return found if isinstance(found, int) else 0


COUNTS = ("images", "patients", "boxes", "selection", "shared_patients", "fitted")


def read_training_record(values: object) -> TrainingRecord:
    """The record from a JSON object, or a ValueError; unknown keys are ignored."""
    record = typed_json.from_json(TrainingRecord, values)
    if negative := [name for name in COUNTS if (getattr(record, name) or 0) < 0]:
        raise ValueError(f"a negative number: {negative[0]}")
    if record.method == CONVERTED and None in (record.layout, record.file, record.sha256):
        raise ValueError("the file that the model was converted from is not recorded")
    return record
