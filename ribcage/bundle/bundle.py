"""Bundle: a finished model in a folder – weights, facts, what it has seen, and a card for people.

`model.safetensors` holds the weights under timm's own names; `model.json` what is needed to use them: architecture,
findings, how an image is prepared, temperature and thresholds fitted on validation, metrics; `provenance.npz` the
fingerprints of every image and patient seen in training and in selection; `ood.npz`, where there are images
enough, the check that notices images unlike those of training; `README.md` is the model card.

A detector's backbone has timm's names, too; the rest of it is under `detector.`.
"""

import contextlib
import functools
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ribcage import __version__
from ribcage.bundle import card, ood
from ribcage.bundle.formats import Published, one_line, published
from ribcage.bundle.formats.account import account, summary
from ribcage.bundle.formats.container import Stored, header
from ribcage.bundle.formats.foreign import wrong_scale
from ribcage.data import dataset_folder, index
from ribcage.data.provenance import Provenance
from ribcage.methods import Method
from ribcage.methods.detect import Detect
from ribcage.methods.supervised import Supervised
from ribcage.metrics import reliability_bins
from ribcage.models import losses
from ribcage.models.backbone import POOLS, Backbone, Weights, pretrained_config
from ribcage.models.detectors.cam import CamBoxes
from ribcage.runtime import digest, distributed, files, format_1, limits, terminal

FORMAT = 2
WEIGHTS = "model.safetensors"
RULE = "youden"
"""The rule that a threshold is chosen by unless another one is asked for."""
HALF = "half"
"""The threshold 0.5, which nobody has to choose."""
EXCLUSIVE = "cross-entropy"
"""The loss of findings of which each image has exactly one."""
CAM = "cam"
"""The head of a detector that is a classifier with boxes around what it looks at."""
CUT = "f1"
"""The thresholds of a detector: the least score of a box that is shown."""
LARGEST = 4096
"""No side of an image and no option of a detector is larger: a file from anybody shall not ask for all the memory."""
MOST_FINDINGS, MOST_BYTES = 1000, 1 << 24
"""Of a model, and of its model.json."""
ADVICE = f"Copy the model anew from where it came; after a change of your own, remove {digest.SUMS}."


def _is(kind: Any, count: int | None = None) -> Callable[[Any], bool]:
    """Whether a value of JSON is a list of such, of this length."""
    return lambda value: (
        isinstance(value, list) and all(isinstance(one, kind) for one in value) and count in (None, len(value))
    )


def _named(value: Any) -> bool:
    """Whether a value of JSON is a name to be shown: a line of text that acts on no terminal and no page."""
    return isinstance(value, str) and 0 < len(value) <= index.LONGEST and terminal.is_plain(value)


def _finite(value: Any) -> bool:
    """Whether a value of JSON is a number that can be calculated with."""
    return type(value) in (int, float) and math.isfinite(value)


def _chosen(value: Any) -> bool:
    """Whether these can be thresholds: a probability each, or None where none could be chosen."""
    return isinstance(value, list) and all(one is None or (_finite(one) and 0 <= one <= 1) for one in value)


def _scores(value: Any) -> bool:
    """Whether these can be what a model scored: kind → name → number."""
    return isinstance(value, dict) and all(
        isinstance(found, dict) and all(type(one) in (int, float) for one in found.values()) for found in value.values()
    )


def _sources(value: Any) -> bool:
    """Whether these can be data sets: each with its name, source and licence, to be shown."""
    shown = ("name", "source", "licence")
    return _is(dict)(value) and all(isinstance(one.get(name), str) for one in value for name in shown)


def _option(value: Any) -> bool:
    """Whether this can be an option of a detector: a word, a number, or lists of such."""
    if isinstance(value, list):
        return len(value) <= 64 and all(map(_option, value))
    return isinstance(value, bool | str) or (_finite(value) and abs(value) <= LARGEST)


def _side(value: Any) -> bool:
    """Whether a number can be the side of an image."""
    return type(value) is int and 1 <= value <= LARGEST


def _colours(value: Any) -> bool:
    """Whether these can be means and spreads of three channels."""
    if not _is(list, 2)(value) or any(len(one) != 3 for one in value):
        return False
    return not wrong_scale(*value)


TEXTS = ("method", "layout", "file", "sha256", "evidence", "leak", "policy")
COUNTS = ("images", "patients", "selection", "boxes", "shared_patients", "fitted")
LISTS = ("random", "claims", "fitted_to")
"""What may stand under `training`, by its kind."""
CONVERTED = {"layout", "file", "sha256"}
"""What stands there of a converted model."""


def _training(value: Any) -> bool:
    """Whether this can be how a model came to be: what is shown of it is of its kind."""
    if not isinstance(value, dict) or (value.get("method") == "converted" and not value.keys() >= CONVERTED):
        return False
    taught = value.get("teachers", [])
    return (
        all(isinstance(value.get(name, ""), str) for name in TEXTS)
        and all(type(value.get(name, 0)) is int and value.get(name, 0) >= 0 for name in COUNTS)
        and all(_is(str)(value.get(name, [])) for name in LISTS)
        and isinstance(value.get("options", {}), dict)
        and _is(dict)(taught)
        and all(isinstance(one.get("name"), str) and _is(str)(one.get("findings")) and "table" in one for one in taught)
    )


CHECKS: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str),
    "findings": lambda value: (
        _is(str)(value) and len(value) <= MOST_FINDINGS and all(map(_named, value)) and len(value) == len(set(value))
    ),
    "size": lambda value: _is(int, 2)(value) and all(map(_side, value)),
    "stored": _side,
    "fit": lambda value: value in ("pad", "crop", "squash"),
    "mean": lambda value: _finite(value) and not wrong_scale([value], []),
    "std": lambda value: _finite(value) and not wrong_scale([], [value]),
    "channels": lambda value: type(value) is int and value in (1, 3),
    "pool": lambda value: isinstance(value, str) and value in POOLS,
    "colours": lambda value: value == [] or _colours(value),
    "loss": lambda value: isinstance(value, str) and value in losses.LOSSES,
    "detector": lambda value: isinstance(value, dict) and all(map(_option, value.values())),
    "temperature": lambda value: isinstance(value, list) and all(_finite(one) and 1e-6 < one < 1e6 for one in value),
    "thresholds": lambda value: isinstance(value, dict) and all(map(_chosen, value.values())),
    "metrics": _scores,
    "observed": reliability_bins.fits,
    "data": _sources,
    "training": _training,
    "versions": lambda value: isinstance(value, dict),
}
"""What each value of model.json must be: the file may come from anybody."""


def _uneven(values: dict[str, Any]) -> list[str]:
    """What has not one number for each finding."""
    count = len(values["findings"])
    if values["colours"] and values["channels"] != 3:
        return ["colours"]
    uneven = [name for name in ("temperature", "observed") if len(values[name]) not in (0, count)]
    return uneven + (["thresholds"] if any(len(one) != count for one in values["thresholds"].values()) else [])


@dataclass(frozen=True)
class Model:
    """What model.json holds."""

    name: str
    """The architecture, by timm's name."""
    findings: tuple[str, ...]
    """What it answers; a backbone that was only pretrained answers nothing."""
    size: tuple[int, int]
    """(height, width) of what goes into the model."""
    stored: int
    """Side of the square that an image is brought to before."""
    fit: dataset_folder.Fit
    mean: float
    std: float
    channels: int = 1
    pool: str = ""
    """How features are pooled, if not as the architecture does by itself."""
    colours: tuple[tuple[float, ...], ...] = ()
    """(means, spreads) of three channels, for weights that are kept as somebody published them: the gray image in
    each channel is normalised by these, not by `mean` and `std`."""
    loss: str = "bce"
    """bce: every finding for itself; cross-entropy: one of them."""
    detector: dict[str, Any] = field(default_factory=dict)
    """How what finds boxes is built: its head and the head's options; empty where nothing does."""
    temperature: tuple[float, ...] = ()
    """Logits are divided by it; one per finding, fitted on validation."""
    thresholds: dict[str, tuple[float | None, ...]] = field(default_factory=dict)
    """How chosen → one probability per finding, chosen on validation; None where none could be."""
    metrics: dict[str, Any] = field(default_factory=dict)
    observed: tuple[dict[str, Any], ...] = ()
    """For each finding how it fared on validation (`ribcage.metrics.reliability_bins`)."""
    data: tuple[dict[str, Any], ...] = ()
    """The data sets: name, source, licence, split, images, patients."""
    training: dict[str, Any] = field(default_factory=dict)
    """The options it was trained with."""
    versions: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def warning(self) -> str:
        """What has to be said with each of its predictions; "" for most models."""
        return card.made_up(self.data)

    def save(self, part: Path) -> None:
        """Write as JSON, into the part of a file to be, if it is such that it can be read again."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"
        values = json.loads(text)
        strange = [name for name, check in CHECKS.items() if not check(values[name])] or _uneven(values)
        if strange:
            raise ValueError(f"No model can be kept whose {strange[0]} is {str(values[strange[0]])[:60]!r}.")
        part.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> "Model":
        """Read what `save` wrote, or say why not."""
        try:
            if file.stat().st_size > MOST_BYTES:
                raise ValueError("it is too large")
            values = files.read_json(file, parse_int=limits.json_integer)
        except ValueError as error:
            raise ValueError(f"{file} is not valid JSON ({error}).") from None
        values = format_1.current(values, "model.json", FORMAT)
        known = {item.name for item in fields(cls)}
        if not isinstance(values, dict) or values.get("format") != FORMAT or known != set(values):
            raise ValueError(f"{file} was written by another version of Ribcage (this is {__version__}).")
        strange = [name for name, check in CHECKS.items() if not check(values[name])] or _uneven(values)
        if strange:
            raise ValueError(f"{file} is damaged: {strange[0]} is {str(values[strange[0]])[:60]!r}.")
        for name in ("findings", "size", "temperature", "data", "observed"):
            values[name] = tuple(values[name])
        values["colours"] = tuple(map(tuple, values["colours"]))
        values["thresholds"] = {name: tuple(chosen) for name, chosen in values["thresholds"].items()}
        return cls(**values)


@dataclass(frozen=True)
class Opened:
    """A finished model of any kind, opened."""

    folder: Path
    model: Model
    method: Method
    provenance: Provenance

    @functools.cached_property
    def ood(self) -> ood.Check | None:
        """What notices images unlike its training images; None where the bundle has no such check."""
        return ood.load(self.folder)


@dataclass(frozen=True)
class Bundle(Opened):
    """One that names findings, or a backbone that knows none."""

    method: Supervised


@dataclass(frozen=True)
class Detector(Opened):
    """One that finds them in the image."""

    method: Detect | Supervised
    """A classifier where boxes are drawn around what it looks at."""

    @property
    def cam(self) -> CamBoxes:
        """How boxes are drawn around what a classifier looks at."""
        return CamBoxes(**{name: value for name, value in self.model.detector.items() if name != "head"})


def save(folder: Path, method: Method, model: Model, provenance: Provenance, check: ood.Check | None = None) -> None:
    """Write a bundle, with its out-of-distribution check where there is one. All its files are ready before the
    first takes its place, and model.json takes it last: an older one goes before, so that the half of one bundle never
    opens with the half of another."""
    from safetensors.torch import save as dump

    folder.mkdir(parents=True, exist_ok=True)
    state, plain = dict(method.backbone.model.state_dict()), plain_shapes(model)
    if isinstance(method, Supervised) and model.findings:
        state = shaped(plain_state(method), plain)
    if isinstance(method, Detect):
        state = detector_state(method)
    fits, unknown = {name: value.shape for name, value in state.items()} == plain, provenance.unknown.tolist()
    text = card.write(asdict(model), plain=fits, unknown=unknown)
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    with files.explained(folder, "Free some."), contextlib.ExitStack() as ready:  # they take their places in reverse
        parts = {"model.json": ready.enter_context(files.atomic(folder / "model.json"))}
        model.save(parts["model.json"])
        sums = ready.enter_context(files.atomic(folder / digest.SUMS))
        part = ready.enter_context(files.atomic(folder / "README.md"))
        part.write_text(text, encoding="utf-8")
        parts["provenance.npz"] = ready.enter_context(files.atomic(folder / "provenance.npz"))
        provenance.save(parts["provenance.npz"])
        if check is not None:
            parts[ood.FILE] = ready.enter_context(files.atomic(folder / ood.FILE))
            check.save(parts[ood.FILE])
        parts[WEIGHTS] = ready.enter_context(files.atomic(folder / WEIGHTS))
        parts[WEIGHTS].write_bytes(dump(weights, metadata={"format": "pt"}))
        files.sync(parts[WEIGHTS])
        sums.write_text(digest.sums(parts), encoding="utf-8")
        (folder / "model.json").unlink(missing_ok=True)
        if check is None:
            (folder / ood.FILE).unlink(missing_ok=True)


def load(folder: Path | str) -> Bundle:
    """Open a bundle, or a run that has one, to ask it for findings."""
    opened = load_any(folder)
    if not opened.model.findings:
        raise ValueError(f"{opened.folder} is a pretrained backbone that knows no findings: finetune it or probe it.")
    if not isinstance(opened, Bundle):
        raise ValueError(f"{opened.folder} is a detector, which finds boxes: what is needed here names findings.")
    return opened


def load_detector(folder: Path | str) -> Detector:
    """Open the bundle of a detector, or a run that has one."""
    opened = load_any(folder)
    if not isinstance(opened, Detector):
        raise ValueError(f"{opened.folder} finds no boxes: make a detector of it with 'ribcage localise --init'.")
    return opened


def load_any(folder: Path | str) -> Opened:
    """Open a bundle, a detector or a backbone. Every weight must be there: never random ones in silence."""
    from safetensors.torch import load_file

    folder = find(Path(folder))
    model = Model.load(folder / "model.json")
    _check_shapes(model, folder)
    seen = Provenance.load(folder / "provenance.npz")
    _check_bytes(folder)
    try:
        weights = load_file(folder / WEIGHTS)
    except Exception as error:  # the library has its own kind
        raise ValueError(f"{folder / WEIGHTS} is damaged ({type(error).__name__}: {one_line(error)}).") from None
    if strange := [name for name, value in weights.items() if not value.isfinite().all()]:
        raise ValueError(f"{folder / WEIGHTS}: {strange[0]} holds numbers that are not finite: no image has an answer.")
    method = _method(model, str(folder))
    if isinstance(method, Detect):
        load_state(detector_state(method), weights, str(folder))
        return Detector(folder, model, method.eval(), seen)
    load_plain_state(method, weights, str(folder))
    if not model.detector:
        return Bundle(folder, model, method.eval(), seen)
    looking = Detector(folder, model, method.eval(), seen)
    with _described(str(folder)):
        _ = looking.cam  # its options are those of such boxes
    return looking


def _method(model: Model, where: str) -> Detect | Supervised:
    """What `model` describes, with random weights."""
    built = Backbone(
        model.name, channels=model.channels, size=model.size, pool=model.pool, mean=model.mean, std=model.std,
        colours=model.colours,
    )  # fmt: skip
    if model.detector and model.detector.get("head") != CAM:
        return detector_of(model, built, where)
    return Supervised(built, model.findings, loss=model.loss)  # type: ignore[arg-type]


def _check_shapes(model: Model, folder: Path) -> None:
    """Raise where the weights are not those of the model, by the names and shapes in the file's header: before
    anything is allocated that model.json asks for."""
    try:
        there = header(folder / WEIGHTS)
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}.") from None
    except Exception as error:
        raise ValueError(f"{folder / WEIGHTS} is damaged ({type(error).__name__}: {one_line(error)}).") from None
    with torch.device("meta"):
        method = _method(model, str(folder))
    own = detector_state(method) if isinstance(method, Detect) else plain_state(method)
    check_state(own, there, str(folder))


def _check_bytes(folder: Path) -> None:
    """Raise where a file is not the one that was written. An older bundle, or one made by hand, cannot tell."""
    known = digest.known(folder)
    if known and (unknown := [name for name in ("model.json", "provenance.npz", WEIGHTS) if name not in known]):
        raise ValueError(f"{folder / digest.SUMS} does not name {unknown[0]}. {ADVICE}")
    if known:
        digest.check_folder(folder, ADVICE)
    elif not distributed.rank():
        print(f"{folder} has no {digest.SUMS}: nobody can tell whether its bytes are as written.", file=sys.stderr)


def detector_of(model: Model, built: Backbone, where: str, *, freeze: bool = True) -> Detect:
    """The detector that `model.detector` describes, with random weights."""
    with _described(where):
        return Detect(built, model.findings, freeze=freeze, **model.detector)


@contextlib.contextmanager
def _described(where: str) -> Iterator[None]:
    """Options that no detector has are the fault of who wrote them."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} describes no detector that can be built: {error}") from None


def source(init: str) -> Path | None:
    """The folder of the bundle that weights come from, also when its file of weights is named; None for others."""
    place = Path(init)
    if place.name == WEIGHTS and (place.parent / "model.json").is_file():
        return place.parent
    return find(place) if init and place.is_dir() else None


def facts(init: str) -> Model | None:
    """The facts of the bundle that weights come from; None when `init` is no bundle."""
    folder = source(init)
    return Model.load(folder / "model.json") if folder else None


def scale(init: str) -> tuple[float, float] | None:
    """(mean, std) that the weights of a bundle expect; None when `init` is no bundle."""
    model = facts(init)
    return (model.mean, model.std) if model else None


def pool(init: str) -> str:
    """How the features of a bundle are pooled."""
    model = facts(init)
    return model.pool if model else ""


def sources(stores: Sequence[dataset_folder.Store], init: str) -> tuple[dict[str, Any], ...]:
    """The data sets a model learns from, and before them those that its first weights learnt from."""
    known = facts(init)
    before = [{**one, "before": True} for one in known.data] if known else of_file(init)
    own = [
        {"name": one.facts.name, "source": one.facts.source, "licence": one.facts.licence, "folder": str(one.folder)}
        for one in stores
    ]
    return (*before, *own)


def of_file(init: str) -> list[dict[str, Any]]:
    """What somebody else's file comes from, as a data set is described; nothing where there is no file."""
    if not Path(init).is_file():
        return []
    found = published(Path(init))
    about = {"name": found.data or Path(init).name, "source": found.source, "licence": found.licence}
    if found.evidence.kind == "shapes":  # whose it is would be a guess
        about = {"name": Path(init).name, "source": "", "licence": ""}
    evidence = {"evidence": recognised(found)} if found.layout else {}
    return [{name: value or "unknown" for name, value in about.items()} | {"before": True} | evidence]


def recognised(found: Published) -> str:
    """As what a file of initial weights is read, by what evidence, and what is assumed of it."""
    scale = "" if "preprocessing" in found.read else f"; that it expects the preprocessing of {found.layout} is ASSUMED"
    return f"read as {found.layout} by {found.evidence}{scale}"


def initial(file: Path) -> Published:
    """What a file of initial weights holds. Where shapes alone do not tell which of two preprocessings it expects, a
    person must say it: the first layer is fitted to that."""
    found = published(file)
    for other in found.others if found.evidence.kind == "shapes" else ():
        also = published(file, other)
        if (also.mean, also.std) != (found.mean, found.std):
            raise ValueError(
                f"{file} could be of {found.layout} or of {other}, which expect other preprocessing, by "
                f"{found.evidence}. Convert it first with --layout {found.layout} or {other}, and begin with that: "
                "ribcage convert FILE --layout LAYOUT --out FOLDER, then --init FOLDER."
            )
    return found


def _tell(init: str, found: Published, built: Backbone) -> None:
    """Say, once, what initial weights are taken to be and what of their file is left out."""
    if distributed.rank() or built.coverage is None:
        return
    config = pretrained_config(built.name)
    ends = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier or ())
    whose = recognised(found) if found.layout else "of no layout that is known; names as timm has them"
    print(f"{init}: {whose}\n{summary(account(found, built.coverage, ends, False))}", flush=True)


def seen(init: str) -> Provenance:
    """What weights have seen: whoever goes on with them has seen it too. Of a file it is said beside it."""
    if folder := source(init):
        return Provenance.load(folder / "provenance.npz")
    beside = [Path(init).parent / part / "provenance.npz" for part in (".", "bundle")] if Path(init).is_file() else []
    unknown = Provenance.nothing(Path(init).name) if Path(init).is_file() else Provenance.nothing()
    return next((Provenance.load(file) for file in beside if file.is_file()), unknown)


def backbone(model: Model, init: str, drop_path: float) -> Backbone:
    """The backbone of a model that is to be trained, with its first weights."""
    shape: dict[str, Any] = {
        "channels": model.channels,
        "size": model.size,
        "drop_path": drop_path,
        "pool": model.pool,
    }
    folder = source(init)
    if folder is None:
        found: list[Published] = []

        def read(file: Path) -> Published:
            found.append(initial(file))
            return found[-1]

        built = _built(model, init=init, mean=model.mean, std=model.std, read=read, **shape)
        for one in found:
            _tell(init, one, built)
        return built
    trained = load_any(folder)
    if trained.model.name != model.name:
        raise ValueError(f"{init} is a {trained.model.name}, not a {model.name}: pass --model {trained.model.name}.")
    if trained.model.colours:  # from here on it is trained as all are
        expected = Weights(trained.method.backbone.model.state_dict(), *trained.model.colours)
        return _built(
            model, init=str(folder / WEIGHTS), mean=model.mean, std=model.std, read=lambda _: expected, **shape
        )
    built = _built(model, **shape)
    load_backbone(built, trained.method.backbone, init)
    built.pretrained = True
    return built


def _built(model: Model, **options: Any) -> Backbone:
    """A backbone that has looked at one empty image: what timm cannot do is said before a run begins."""
    try:
        built = Backbone(model.name, **options)
        with torch.no_grad():
            built.eval()(torch.zeros(1, model.channels, *model.size))
        return built.train()
    except (ValueError, OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # timm and torch refuse in many ways
        asked = f"{model.size[0]} × {model.size[1]} pixels" + (f", --pool {model.pool}" if model.pool else "")
        asked += f", --drop-path {options['drop_path']:g}" if options["drop_path"] else ""
        reason = " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
        raise ValueError(f"timm makes no {model.name} for {asked}: {reason}.") from None


def load_backbone(built: Backbone, trained: Backbone, where: str) -> None:
    """Take all weights of another backbone; position embeddings are made for the new size."""
    state = trained.model.state_dict()
    if hasattr(built.model, "pos_embed") and built.model.pos_embed is not None:
        from timm.layers import resample_abs_pos_embed

        grids = [one.model.patch_embed.grid_size for one in (trained, built)]
        if grids[0] != grids[1]:
            prefix = built.model.num_prefix_tokens
            state["pos_embed"] = resample_abs_pos_embed(
                state["pos_embed"], new_size=grids[1], old_size=grids[0], num_prefix_tokens=prefix
            )
    found = {name: value.shape for name, value in state.items()}
    wanted = {name: value.shape for name, value in built.model.state_dict().items()}
    if found != wanted:
        other = sorted(name for name in set(found) | set(wanted) if found.get(name) != wanted.get(name))
        raise ValueError(f"The weights in {where} do not fit: {len(other)} differ ({other[0]} …).")
    built.model.load_state_dict(state)


def find(folder: Path) -> Path:
    """The bundle in this folder: itself, or the `bundle` of a run."""
    for place in (folder, folder / "bundle"):
        if (place / "model.json").is_file():
            return place
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist.")
    if (folder / "checkpoint.pt").is_file():
        raise FileNotFoundError(f"{folder} is a run that has not finished its first validation: it has no bundle yet.")
    raise FileNotFoundError(f"{folder} holds no model: neither model.json nor bundle/model.json is there.")


# ---- weights under timm's names


def plain_state(method: Supervised) -> dict[str, Tensor]:
    """The weights as a plain timm model with this many classes names them. Of two heads whose answers it averages,
    each gets the same weights: that gives the head of the averaged features. A head that adds to the other's answers
    (VOLO's for each place) gets none."""
    names = method.backbone.model.pretrained_cfg["classifier"]
    state = dict(method.backbone.model.state_dict())
    if not method.findings:
        return state
    for head in (names,) if isinstance(names, str) else names:
        share = 0.0 if head == "aux_head" else 1.0
        own = {"weight": method.head.weight, "bias": method.head.bias}
        state |= {f"{head}.{name}": value if share else torch.zeros_like(value) for name, value in own.items()}
    return state


def shaped(state: dict[str, Tensor], shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """A linear head as the 1 × 1 convolution that some architectures have in its place."""
    return {
        name: value[:, :, None, None] if shapes.get(name) == (*value.shape, 1, 1) else value
        for name, value in state.items()
    }


def plain_shapes(model: Model) -> dict[str, torch.Size]:
    """Names and shapes of the weights of the model that the card's lines make."""
    return _plain_shapes(model.name, model.channels, len(model.findings), model.size, model.pool)


@functools.cache
def _plain_shapes(name: str, channels: int, count: int, size: tuple[int, int], pool: str) -> dict[str, torch.Size]:
    import timm

    options = {"in_chans": channels, "num_classes": count} | card.options(name, size, pool)
    with torch.random.fork_rng(devices=()):
        try:
            with torch.device("meta"):  # shapes without numbers
                plain = timm.create_model(name, **options)
        except (RuntimeError, NotImplementedError):
            plain = timm.create_model(name, **options)
    return {key: value.shape for key, value in plain.state_dict().items()}


def load_plain_state(method: Supervised, state: dict[str, Tensor], where: str) -> None:
    """Put weights under timm's names into a method; all must be there and fit."""
    load_state(plain_state(method), state, where)


def detector_state(method: Detect) -> dict[str, Tensor]:
    """The weights of the backbone under timm's names, all others under `detector.`."""
    inside, own = "backbone.model.", method.state_dict()
    return {key.removeprefix(inside) if key.startswith(inside) else f"detector.{key}": own[key] for key in own}


def check_state(own: dict[str, Tensor], there: Mapping[str, Stored], where: str) -> None:
    """Raise unless a file has just these weights, of these shapes and of the same kind: fractions or whole numbers."""
    missing, strange = sorted(own.keys() - there.keys()), sorted(there.keys() - own.keys())
    other = [name for name, value in own.items() if name in there and not _alike(value, there[name])]
    if missing or strange or other:
        counts = f"{len(missing)} missing, {len(strange)} unexpected, {len(other)} of another shape"
        raise ValueError(f"The weights in {where} do not fit: {counts} ({(missing + strange + other)[0]} …).")


def _alike(value: Tensor, there: Stored) -> bool:
    """Whether a weight can be filled from the file; a 1 × 1 convolution is a linear head."""
    shapes = (tuple(value.shape), (*value.shape, 1, 1))
    return there.shape in shapes and there.fractions == value.is_floating_point()


def load_state(own: dict[str, Tensor], state: dict[str, Tensor], where: str) -> None:
    """Put weights into those of the same names; all must be there and fit."""
    stored = {name: Stored(tuple(value.shape), value.is_floating_point()) for name, value in state.items()}
    check_state(own, stored, where)
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(state[name].reshape(value.shape))
