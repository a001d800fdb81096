"""Hugging Face: the folder of a timm model with model.safetensors, config.json and README.md.

    model = timm.create_model("local-dir:FOLDER", pretrained=True)

gives the same logits as the bundle; after an upload, so does `hf-hub:NAME/MODEL`. The weights have timm's names.
config.json describes the preprocessing; what timm has no field for is under its key `ribcage`. Temperature and
thresholds are stated there, but not applied to the logits.
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
from ribcage.bundle.formats.reading.config_file import image_side, json_object, one_line
from ribcage.bundle.formats.reading.published_weights import Evidence, Published
from ribcage.bundle.formats.writing import base
from ribcage.bundle.spec import ModelSpec, wrong_normalisation
from ribcage.bundle.weights import convolutional_head, plain_shapes, plain_state, timm_options
from ribcage.data import findings
from ribcage.methods import Method
from ribcage.methods.detect import Detect
from ribcage.methods.supervised import Supervised
from ribcage.models.catalogue import is_known
from ribcage.runtime import files

SOURCE = "https://huggingface.co/timm"
LICENCE = "as stated on the model card"
LAST = -2
"""This layout is tried first: config.json is stronger evidence than weight names."""
BESIDE = "config.json"

CROPS = {"pad": "border", "crop": "center", "squash": "squash"}
"""How an image is made square: our name and timm's crop mode."""
LICENCES = ("apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc0-1.0", "mit")
"""Licence identifiers of Hugging Face that occur among the supported datasets."""
TAGS = ("image-classification", "timm", "medical", "radiology", "chest-x-ray", "ribcage")


def published(weights: dict[str, Tensor], config: Path) -> Published | None:
    """The weights as described by config.json; None if that is not a timm config."""
    content = json_object(config)
    if "architecture" not in content:
        return None
    strange = set(content.get("model_args") or {}) - {"global_pool", "img_size", "in_chans", "num_classes"}
    if strange:
        raise ValueError(f"{config} has unsupported model_args: {', '.join(sorted(map(str, strange)))}.")
    try:
        name, facts = str(content["architecture"]), content.get("pretrained_cfg", content)
        own = content.get("ribcage", {})
        if not is_known(name):
            raise ValueError(f"timm has no model named {one_line(name)}")
        size = tuple(map(image_side, facts.get("input_size", (3, 224, 224))[1:]))
        fits = {crop_mode: fit for fit, crop_mode in CROPS.items()}
        if wrong := wrong_normalisation(facts.get("mean", ()), facts.get("std", ())):
            raise ValueError(wrong)
        labels, scaled = _output_names(content, own), all(facts.get(key) for key in ("input_size", "mean", "std"))
        stated = ("architecture", *["preprocessing"] * scaled, *["findings"] * bool(labels))
        pool = content.get("model_args", {}).get("global_pool") or content.get("global_pool") or ""
        return Published(
            weights,
            tuple(map(float, facts.get("mean", ()))),
            tuple(map(float, facts.get("std", ()))),
            name=name,
            findings=labels,
            size=(size[0], size[1]),
            stored=image_side(own.get("stored", max(size))),
            fit=own.get("fit") or fits[facts.get("crop_mode", "center")],  # type: ignore[arg-type]
            pool="" if pool == usual_pool(name) else str(pool),
            temperature=tuple(map(float, own.get("temperature", ()))),
            thresholds=tuple(None if one is None else float(one) for one in own.get("thresholds", ())),
            evidence=Evidence("metadata", config.name),
            stated=stated,
            source=one_line(own.get("source") or facts.get("origin_url") or SOURCE),
            licence=one_line(own.get("licence") or facts.get("license") or ""),
        )
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{config} does not describe a timm model: {error}.") from None


def _output_names(content: Mapping[str, Any], own: Mapping[str, Any]) -> tuple[str, ...]:
    """The findings named in `label_names`, if Ribcage wrote the file or knows all of them."""
    labels = content.get("label_names") or ()
    if isinstance(labels, dict):  # {row: name}
        labels = [name for _, name in sorted((int(row), name) for row, name in labels.items())]
    names = tuple(map(one_line, labels))
    if not own:
        names = tuple(map(findings.canonical, names)) if all(map(findings.is_known_finding, names)) else ()
    return names if len(set(names)) == len(names) else ()


def usual_pool(name: str) -> str:
    """The default pooling of a timm model."""
    with torch.device("meta"):
        pool = getattr(timm.create_model(name, num_classes=0), "global_pool", "")
    return str(getattr(pool, "pool_type", pool))


def export(method: Method, model: ModelSpec, target: Path) -> Path:
    """Write the folder. If the target exists, write a subfolder named resnet50_xray."""
    from timm.models import save_for_hf

    plain = as_timm(method, model)
    if target.is_file():
        raise ValueError(
            f"{target} is a file, but the huggingface layout is a folder of three files. Use another path."
        )
    folder = target / f"{base.plain_name(model.name)}_xray" if target.is_dir() else target
    folder.mkdir(parents=True, exist_ok=True)
    with files.explained(folder, "Free some."), tempfile.TemporaryDirectory(dir=folder, prefix=".part") as part:
        save_for_hf(plain, part, config(model), model_args=options(model), safe_serialization=True)
        (Path(part) / "README.md").write_text(head(model) + card_text(model), encoding="utf-8")
        with contextlib.suppress(FileNotFoundError):
            (folder / BESIDE).unlink()  # first, so that an interrupted export does not combine old and new files
        for name in ("model.safetensors", "README.md", BESIDE):
            files.sync(Path(part) / name)
            (Path(part) / name).replace(folder / name)
    return folder


def as_timm(method: Method, model: ModelSpec) -> Any:
    """The model as an instance of timm, with its preprocessing in `pretrained_cfg`."""
    if isinstance(method, Detect):
        raise ValueError("The huggingface layout does not support detectors: export a classifier.")
    state = dict(method.backbone.model.state_dict())
    shapes = plain_shapes(model)
    if isinstance(method, Supervised) and model.findings:
        state = convolutional_head(plain_state(method), shapes)
    differing = sorted(
        name for name in {**shapes, **state} if getattr(state.get(name), "shape", None) != shapes.get(name)
    )
    if differing:
        raise ValueError(
            f"timm's own {model.name} has a different structure: {len(differing)} weights differ ({differing[0]} …)."
        )
    arguments = {"in_chans": model.channels, "num_classes": len(model.findings)} | options(model)
    with torch.random.fork_rng(devices=()):
        plain: Any = timm.create_model(model.name, **arguments)
    plain.load_state_dict({name: base.copied(value) for name, value in state.items()})
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
    """Further arguments of timm.create_model."""
    return timm_options(model.name, model.size, model.pool)


def config(model: ModelSpec) -> dict[str, object]:
    """Additional content of config.json: label names and, under `ribcage`, what timm has no field for."""
    thresholds = next(iter(model.thresholds.values()), ())
    own: dict[str, object] = {
        "stored": model.stored,
        "fit": model.fit,
        "thresholds": thresholds,
        "temperature": model.temperature,
    }
    if len(model.data) == 1:
        (data,) = model.data
        own |= {name: value for name, value in (("source", data.source), ("licence", data.licence)) if value}
    return {"label_names": list(model.findings), "ribcage": own} if model.findings else {"ribcage": own}


def licence(model: ModelSpec) -> str:
    """Hugging Face's identifier of the licence, if all training data have the same known one; else `other`."""
    found = {one.licence.lower() for one in model.data}
    return found.pop() if len(found) == 1 and found <= set(LICENCES) else "other"


def head(model: ModelSpec) -> str:
    """YAML front matter of the model card for Hugging Face."""
    lines = [f"license: {licence(model)}", "library_name: timm", "pipeline_tag: image-classification", "tags:"]
    return "\n".join(["---", *lines, *(f"- {tag}" for tag in TAGS), "---", "", ""])


def card_text(model: ModelSpec) -> str:
    """The model card; for published weights, it states that the training data are unknown."""
    return card.model_card(model, plain=True, unknown=[model.training.file or ""] if model.converted else [])
