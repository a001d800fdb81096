"""The context of an evaluation: the model, the data, the leakage check, and the test in the history of its model."""

from dataclasses import dataclass, field

from ribcage.runtime.typed_json import OPTIONAL


@dataclass(frozen=True)
class TrainingData:
    """A dataset that a model was trained on, as its model.json describes it."""

    name: str
    source: str
    licence: str
    folder: str | None = field(default=None, metadata=OPTIONAL)
    before: bool | None = field(default=None, metadata=OPTIONAL)
    """Whether only the initial weights, or a teacher, were trained on it."""
    evidence: str | None = field(default=None, metadata=OPTIONAL)
    """What a file of initial weights was recognised by."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedModel:
    """The model, as its spec describes it."""

    name: str = ""
    findings: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    stored: int = 0
    fit: str = ""
    channels: int = 1
    loss: str = ""
    data: tuple[TrainingData, ...] = ()
    temperature: tuple[float, ...] = ()
    leak: str = ""
    """Leakage between its own training and validation data."""
    splits: tuple[str, ...] = ()
    """Its training and validation splits."""


@dataclass(frozen=True, kw_only=True)
class EvaluatedData:
    """One dataset folder."""

    folder: str = ""
    name: str = ""
    source: str = ""
    licence: str = ""
    contents: str = ""
    size: int = 0
    fit: str = ""
    linked: bool = False


@dataclass(frozen=True, kw_only=True)
class LeakageCheck:
    """What of the tested images, and of their patients, the model was trained or validated on."""

    found: bool = False
    text: str = ""
    checked: int = 0
    seen: int = 0
    """Images of its training and validation."""
    tested: int = 0
    patients: int = 0
    """Tested patients that were in training or validation."""
    images: int = 0
    """Tested images of these patients."""
    identical: int = 0
    alike: int = 0
    """Tested images with a near-duplicate in training or validation; identical ones, too."""
    selected_on: int = 0
    """Tested images that were only used for model selection."""
    unseen: int = 0
    """Training images without fingerprints."""
    unknown: tuple[str, ...] = ()
    """Weights and tables it comes from whose training data is unknown."""
    linked: tuple[str, ...] = ()
    """Dataset folders without fingerprints, made for the check."""
    patients_unknown: bool = False
    """Whether some patients could not be compared, because there are no identifiers or another site hashed them."""

    @property
    def complete(self) -> bool:
        """Whether all images and patients that the model was trained on are known and could be compared."""
        return self.seen > 0 and not (self.unseen or self.unknown or self.patients_unknown)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """What was left out of a test (--drop-shared)."""

    images: int = 0
    patients: int = 0
    copies: int = 0


@dataclass(frozen=True, kw_only=True)
class RecordedTest:
    """The test in the history of its model: its number, and earlier tests of the same images."""

    number: int = 0
    use: int = 0
    before: tuple[int, ...] = ()
    key: str = ""
    contents: tuple[str, ...] = ()
    weights: str = ""
    honest: bool = True
    new: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class EvaluationContext:
    """What was tested, on what data, with which options."""

    run: str = ""
    model: EvaluatedModel = EvaluatedModel()
    data: tuple[EvaluatedData, ...] = ()
    split: str = ""
    ten_crop: bool = False
    policy: str = ""
    model_policy: str = ""
    """The label policy of the model's validation."""
    not_tested: tuple[str, ...] = ()
    """Findings of the model without labels in the data."""
    others: int = 0
    """Images that are not known to be frontal, where the model was trained on frontal images only."""
    leak: LeakageCheck = LeakageCheck()
    left: LeftOut = LeftOut()
    test: RecordedTest = RecordedTest()
    maps: str | None = field(default=None, metadata=OPTIONAL)
    """How saliency maps are computed."""
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)
