"""Initial weights: of a new model, from a bundle, a run, a file of weights, or timm's ImageNet weights.

`init` is the value of --init everywhere in this module; "" means random weights.
"""

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ribcage.bundle.formats import Published, published
from ribcage.bundle.formats.reading.account import account, account_summary
from ribcage.bundle.formats.reading.published_folder import weights_in
from ribcage.bundle.formats.reading.published_weights import twin_architectures
from ribcage.bundle.io import find_bundle, load_bundle, local_model
from ribcage.bundle.spec import WEIGHTS_FILE, ModelSpec
from ribcage.bundle.weights import load_backbone
from ribcage.data.collection import Datasets
from ribcage.data.provenance import Provenance
from ribcage.metrics.evaluation_context import TrainingData
from ribcage.models.backbone import Backbone
from ribcage.models.catalogue import pretrained_config
from ribcage.models.pretrained import Weights
from ribcage.runtime import distributed
from ribcage.runtime.remote import addresses, cache, hub, objects
from ribcage.runtime.remote.addresses import address_text


def initial_bundle(init: str) -> Path | None:
    """The folder of the bundle that initial weights come from, also when its weights file is named; None for others."""
    place = _downloaded(init)
    if place.name == WEIGHTS_FILE and objects.is_there(place.parent / "model.json"):
        return find_bundle(place.parent)
    if addresses.is_remote(place):
        return None if objects.exists(place) else find_bundle(place)
    return find_bundle(place) if init and place.is_dir() and not weights_in(place) else None


def weights_file(init: str) -> Path | None:
    """The file of weights that `init` names, also by its folder, of a remote one a local copy; None for all else."""
    place = _downloaded(init)
    if addresses.is_remote(place):
        return cache.local_copy(place) if objects.exists(place) else None
    if init and place.is_dir():
        return weights_in(place)
    return place if place.is_file() else None


def _downloaded(init: str) -> Path:
    """The place that `init` names; of a model in the Hugging Face Hub, a local copy."""
    return local_model(Path(init)) if hub.is_model(init) else Path(init)


def initial_spec(init: str) -> ModelSpec | None:
    """The spec of the bundle that initial weights come from; None when `init` is not a bundle."""
    folder = initial_bundle(init)
    return ModelSpec.load(folder / "model.json") if folder else None


def initial_normalisation(init: str) -> tuple[float, float] | None:
    """(mean, std) that the weights of a bundle expect; None when `init` is not a bundle."""
    spec = initial_spec(init)
    return (spec.mean, spec.std) if spec else None


def initial_pool(init: str) -> str:
    """The pooling of the features of a bundle; "" when `init` is not a bundle."""
    spec = initial_spec(init)
    return spec.pool if spec else ""


def initial_provenance(init: str) -> Provenance:
    """The training data of initial weights, which is also training data of the new model. A file of weights may have a
    provenance.npz beside it; without one, its training data is unknown."""
    if folder := initial_bundle(init):
        return Provenance.load(folder / "provenance.npz")
    weights = weights_file(init)
    if not weights:
        return Provenance.nothing()
    beside = Path(init).parent if addresses.is_remote(_downloaded(init)) else weights.parent
    for part in ("", "bundle"):
        with contextlib.suppress(FileNotFoundError):
            file = cache.local_file(beside / part, "provenance.npz")
            if file.is_file():
                return Provenance.load(file)
    return Provenance.nothing(hub.origin(weights) or Path(init).name)


def data_sources(data: Datasets, init: str) -> tuple[TrainingData, ...]:
    """The datasets of a training, after those of its initial weights."""
    known = initial_spec(init)
    before = [replace(one, before=True) for one in known.data] if known else file_source(init)
    own = [
        TrainingData(one.facts.name, one.facts.source, one.facts.licence, folder=address_text(one.folder))
        for one in data
    ]
    return (*before, *own)


def file_source(init: str) -> list[TrainingData]:
    """The training data of a published file, described as a dataset; nothing where there is no file."""
    file = weights_file(init)
    if file is None:
        return []
    found = published(file)
    name, source, licence = found.data or Path(init).name, found.source, found.licence
    if found.evidence.kind == "shapes":  # shapes alone do not tell the source
        name, source, licence = Path(init).name, "", ""
    source = hub.origin(file) or source
    evidence = recognised_as(found) if found.layout else None
    return [TrainingData(name, source or "unknown", licence or "unknown", before=True, evidence=evidence)]


def recognised_as(found: Published) -> str:
    """The layout that a file of initial weights is read as, by what evidence, and what is assumed."""
    scale = "" if "preprocessing" in found.stated else f"; the preprocessing is ASSUMED to be that of {found.layout}"
    return f"read as {found.layout} by {found.evidence}{scale}"


def read_initial_weights(file: Path) -> Published:
    """Read a file of initial weights. Raise if it fits several layouts with different preprocessing, to which the first
    layer would have to be adapted."""
    found = published(file)
    for other in found.other_layouts if found.evidence.kind == "shapes" else ():
        also = published(file, other)
        if (also.mean, also.std) != (found.mean, found.std):
            raise ValueError(
                f"{file} could be in the {found.layout} layout or in the {other} layout (recognised by "
                f"{found.evidence}), which expect different preprocessing. Convert it first with 'ribcage convert FILE "
                f"--layout LAYOUT --out FOLDER', where LAYOUT is {found.layout} or {other}; then pass --init FOLDER."
            )
    return found


def check_architecture(init: str, found: Published, name: str) -> None:
    """Raise if the configuration file beside the weights states another architecture."""
    same = (found.name.partition(".")[0], *twin_architectures(found.name))
    if found.name and found.evidence.kind == "metadata" and name.partition(".")[0] not in same:
        raise ValueError(f"{init} has the architecture {found.name}, not {name}: pass --model {found.name}.")


def initial_backbone(spec: ModelSpec, init: str, drop_path: float) -> Backbone:
    """The backbone of a model that is to be trained, with its initial weights."""
    shape: dict[str, Any] = {
        "channels": spec.channels,
        "size": spec.size,
        "drop_path": drop_path,
        "pool": spec.pool,
    }
    folder = initial_bundle(init)
    if folder is None:
        found: list[Published] = []

        def read(file: Path) -> Published:
            found.append(read_initial_weights(file))
            check_architecture(init, found[-1], spec.name)
            return found[-1]

        built = _built(spec, init=str(weights_file(init) or init), mean=spec.mean, std=spec.std, read=read, **shape)
        for one in found:
            _report(init, one, built)
        return built
    trained = load_bundle(folder)
    network = trained.network("be used as initial weights")
    if trained.spec.members:
        raise ValueError(f"{init} is an ensemble, which cannot be used as initial weights. Pass one of its models.")
    if trained.spec.name != spec.name:
        raise ValueError(
            f"{init} has the architecture {trained.spec.name}, not {spec.name}: pass --model {trained.spec.name}."
        )
    if trained.spec.rgb_normalisation:  # a trained model has one normalisation of gray
        mean, std = trained.spec.rgb_normalisation
        expected = Weights(network.backbone.model.state_dict(), mean, std)
        return _built(
            spec, init=str(folder / WEIGHTS_FILE), mean=spec.mean, std=spec.std, read=lambda _: expected, **shape
        )
    built = _built(spec, **shape)
    load_backbone(built, network.backbone, init)
    built.pretrained = True
    return built


def _built(spec: ModelSpec, **options: Any) -> Backbone:
    """A backbone after one forward pass of an empty image: what timm cannot build fails before a run begins."""
    try:
        built = Backbone(spec.name, **options)
        with torch.no_grad():
            built.eval()(torch.zeros(1, spec.channels, *spec.size))
        return built.train()
    except (ValueError, OSError, ImportError, MemoryError):
        raise
    except Exception as error:  # timm and torch raise many types
        asked = f"{spec.size[0]} × {spec.size[1]} pixels" + (f", --pool {spec.pool}" if spec.pool else "")
        asked += f", --drop-path {options['drop_path']:g}" if options["drop_path"] else ""
        reason = " ".join(str(error).split()).rstrip(".")[:200] or type(error).__name__
        raise ValueError(f"timm cannot build {spec.name} for {asked}: {reason}.") from None


def _report(init: str, found: Published, built: Backbone) -> None:
    """Print, once, what a file of initial weights was read as and which of its tensors are not used."""
    if distributed.rank() or built.coverage is None:
        return
    config = pretrained_config(built.name)
    ends = (config.classifier,) if isinstance(config.classifier, str) else tuple(config.classifier or ())
    description = recognised_as(found) if found.layout else "no known layout; the parameter names are those of timm"
    summary = account_summary(account(found, built.coverage, ends, False), built.coverage)
    print(f"{init}: {description}\n{summary}", flush=True)
