"""Hugging Face folder of a timm model: model.safetensors, config.json and the model card README.md.

    model = timm.create_model("local-dir:FOLDER", pretrained=True)

answers as the bundle does; once it is there, `hf-hub:NAME/MODEL` does, too. Weights are under timm's names; what
images must be is in config.json, and what timm has no word for beside it, under `ribcage`. Logits are as they are:
temperature and thresholds are told, not applied.
"""

import contextlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from ribcage.bundle import card
from ribcage.bundle.formats.reading.published_weights import Evidence, Published
from ribcage.bundle.formats.writing import base
from ribcage.bundle.spec import MAX_SIDE, ModelSpec, wrong_normalisation
from ribcage.bundle.weights import convolutional_head, plain_shapes, plain_state, timm_options
from ribcage.data import findings
from ribcage.methods import Method
from ribcage.methods.detect import Detect
from ribcage.methods.supervised import Supervised
from ribcage.models.catalogue import is_known
from ribcage.runtime import files, limits

SOURCE = "https://huggingface.co/timm"
LICENCE = "as each model's card says"
LAST = -2
"""What a file beside the weights says is more than their names do."""
BESIDE = "config.json"

CROPS = {"pad": "border", "crop": "center", "squash": "squash"}
"""How an image is made square, in our words and timm's."""
LICENCES = ("apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc0-1.0", "mit")
"""Those that the site knows by these names and that data here have."""
TAGS = ("image-classification", "timm", "medical", "radiology", "chest-x-ray", "ribcage")


def published(weights: dict[str, Tensor], config: Path) -> Published | None:
    """What config.json says of the weights beside it; None when it is not timm's."""
    said = _said(config)
    if "architecture" not in said:
        return None
    strange = set(said.get("model_args") or {}) - {"global_pool", "img_size", "in_chans", "num_classes"}
    if strange:
        raise ValueError(
            f"{config} asks for model_args that are not understood here: {', '.join(sorted(map(str, strange)))}."
        )
    try:
        name, facts, own = str(said["architecture"]), said.get("pretrained_cfg", said), said.get("ribcage", {})
        if not is_known(name):
            raise ValueError(f"timm knows no {_line(name)}")
        size = tuple(map(_side, facts.get("input_size", (3, 224, 224))[1:]))
        fits = {theirs: ours for ours, theirs in CROPS.items()}
        if wrong := wrong_normalisation(facts.get("mean", ()), facts.get("std", ())):
            raise ValueError(wrong)
        labels, scaled = _answers(said, own), all(facts.get(word) for word in ("input_size", "mean", "std"))
        read = ("architecture", *["preprocessing"] * scaled, *["findings"] * bool(labels))
        pool = said.get("model_args", {}).get("global_pool") or said.get("global_pool") or ""
        return Published(
            weights,
            tuple(map(float, facts.get("mean", ()))),
            tuple(map(float, facts.get("std", ()))),
            name=name,
            findings=labels,
            size=(size[0], size[1]),
            stored=_side(own.get("stored", max(size))),
            fit=own.get("fit") or fits[facts.get("crop_mode", "center")],  # type: ignore[arg-type]
            pool="" if pool == usual_pool(name) else str(pool),
            temperature=tuple(map(float, own.get("temperature", ()))),
            thresholds=tuple(None if one is None else float(one) for one in own.get("thresholds", ())),
            evidence=Evidence("metadata", config.name),
            read=read,
            source=_line(own.get("source") or facts.get("origin_url") or SOURCE),
            licence=_line(own.get("licence") or facts.get("license") or ""),
        )
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{config} does not describe a timm model: {error}.") from None


def _said(config: Path) -> dict[str, Any]:
    """What is in the file; nothing when it is no JSON: then it is not for these weights."""
    try:
        said = files.read_json(config, parse_int=limits.json_integer)
    except (ValueError, OSError):
        return {}
    return said if isinstance(said, dict) else {}


def _line(value: Any) -> str:
    """A few printable words: they come from anybody, and stand on a card."""
    return "".join(one for one in " ".join(str(value).split()) if one.isprintable())[:200].replace("<", "‹")


def _side(value: Any) -> int:
    """A number that can be the side of an image."""
    if not isinstance(value, int) or not 1 <= value <= MAX_SIDE:
        raise ValueError(f"a side is {value!r}")
    return value


def _answers(said: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[str, ...]:
    """The findings that labels name, if all are known here or were written by us."""
    labels = said.get("label_names") or ()
    if isinstance(labels, dict):  # the number of the row stands before each
        labels = [name for _, name in sorted((int(row), name) for row, name in labels.items())]
    words = tuple(map(_line, labels))
    if not own:
        words = tuple(map(findings.canonical, words)) if all(map(findings.is_known_finding, words)) else ()
    return words if len(set(words)) == len(words) else ()


def usual_pool(name: str) -> str:
    """How a model pools when nothing is said."""
    with torch.device("meta"):
        pool = getattr(timm.create_model(name, num_classes=0), "global_pool", "")
    return str(getattr(pool, "pool_type", pool))


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the folder; into one that is there already as resnet50_xray."""
    from timm.models import save_for_hf

    plain = as_timm(method, model)
    if target.is_file():
        raise ValueError(f"{target} is a file: the huggingface layout is a folder of three files.")
    folder = target / f"{base.plain_name(model.name)}_xray" if target.is_dir() else target
    folder.mkdir(parents=True, exist_ok=True)
    with files.explained(folder, "Free some."), tempfile.TemporaryDirectory(dir=folder, prefix=".part") as part:
        save_for_hf(plain, part, config(model), model_args=options(model), safe_serialization=True)
        (Path(part) / "README.md").write_text(head(model) + card_text(model), encoding="utf-8")
        with contextlib.suppress(FileNotFoundError):
            (folder / BESIDE).unlink()  # of an older one half may not be left
        for name in ("model.safetensors", "README.md", BESIDE):
            files.sync(Path(part) / name)
            (Path(part) / name).replace(folder / name)
    return folder


def as_timm(method: Method, model: ModelSpec) -> Any:
    """The same model as timm makes it, its facts those of this one."""
    if isinstance(method, Detect):
        raise ValueError("The huggingface layout does not support detectors: export a classifier.")
    state = dict(method.backbone.model.state_dict())
    shapes = plain_shapes(model)
    if isinstance(method, Supervised) and model.findings:
        state = convolutional_head(plain_state(method), shapes)
    other = sorted(name for name in {**shapes, **state} if getattr(state.get(name), "shape", None) != shapes.get(name))
    if other:
        raise ValueError(
            f"timm's own {model.name} has a different structure: {len(other)} weights differ ({other[0]} …)."
        )
    asked = {"in_chans": model.channels, "num_classes": len(model.findings)} | options(model)
    with torch.random.fork_rng(devices=()):
        plain: Any = timm.create_model(model.name, **asked)
    plain.load_state_dict({name: base.taken(value) for name, value in state.items()})
    means, stds = model.rgb_normalisation or ((model.mean,) * model.channels, (model.std,) * model.channels)
    plain.pretrained_cfg = dict(plain.pretrained_cfg) | {
        "architecture": base.plain_name(model.name),
        "input_size": (model.channels, *model.size),
        "mean": tuple(means),
        "std": tuple(stds),
        "crop_pct": 1.0,
        "crop_mode": CROPS[model.fit],
        "interpolation": "bilinear",
        "num_classes": len(model.findings),
        "license": licence(model),
        "pool_size": None,
        "test_input_size": None,
    }
    return plain.eval()


def options(model: ModelSpec) -> dict[str, Any]:
    """What else timm must be told to make it."""
    return timm_options(model.name, model.size, model.pool)


def config(model: ModelSpec) -> dict[str, object]:
    """What stands in config.json beside timm's own."""
    cuts = next(iter(model.thresholds.values()), ())
    own: dict[str, object] = {
        "stored": model.stored,
        "fit": model.fit,
        "thresholds": cuts,
        "temperature": model.temperature,
    }
    if len(model.data) == 1:
        (data,) = model.data
        own |= {name: value for name, value in (("source", data.source), ("licence", data.licence)) if value}
    return {"label_names": list(model.findings), "ribcage": own} if model.findings else {"ribcage": own}


def licence(model: ModelSpec) -> str:
    """The licence that all data have, in the site's words, or `other`."""
    found = {one.licence.lower() for one in model.data}
    return found.pop() if len(found) == 1 and found <= set(LICENCES) else "other"


def head(model: ModelSpec) -> str:
    """What the site reads above a card."""
    lines = [f"license: {licence(model)}", "library_name: timm", "pipeline_tag: image-classification", "tags:"]
    return "\n".join(["---", *lines, *(f"- {tag}" for tag in TAGS), "---", "", ""])


def card_text(model: ModelSpec) -> str:
    """The card; the training data of published weights is unknown."""
    return card.model_card(model, plain=True, unknown=[model.training.file or ""] if model.converted else [])
