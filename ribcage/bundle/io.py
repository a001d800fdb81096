"""Bundles are written and opened here: a finished model in a folder.

`model.safetensors` holds the weights under timm's names; `model.json` the `ModelSpec`; `provenance.npz` fingerprints of
all training and validation images and hashes of their patients; `ood.npz`, where there were enough images, the
out-of-distribution check; `SHA256SUMS` the digests of these files; `README.md` is the model card.
"""

import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ribcage.bundle import card, ood
from ribcage.bundle.formats import error_text
from ribcage.bundle.formats.reading.published_folder import model_files, weights_in
from ribcage.bundle.formats.reading.safetensors_header import read_header
from ribcage.bundle.spec import CAM_HEAD, EXCLUSIVE, WEIGHTS_FILE, MemberSpec, ModelSpec
from ribcage.bundle.weights import (
    check_state,
    convolutional_head,
    detector_state,
    load_plain_state,
    load_state,
    member_state,
    plain_shapes,
    plain_state,
)
from ribcage.data.provenance import Provenance
from ribcage.methods import Method
from ribcage.methods.detect import Detect
from ribcage.methods.supervised import Supervised
from ribcage.models.adapters import merged_state
from ribcage.models.backbone import Backbone
from ribcage.models.detectors.cam import CamBoxes
from ribcage.models.ensemble import Ensemble
from ribcage.models.opaque.network import OpaqueNetwork
from ribcage.models.opaque.network_file import MOST_BYTES
from ribcage.runtime import digest, distributed, files
from ribcage.runtime.remote import addresses, cache, hub, objects
from ribcage.runtime.remote.addresses import address_text

ADVICE = f"Copy the model again from its source. If you changed the file yourself, remove {digest.SUMS}."


@dataclass(frozen=True)
class Bundle:
    """A finished model, opened: a classifier, a detector, or a pretrained backbone."""

    folder: Path
    spec: ModelSpec
    method: Method | OpaqueNetwork
    provenance: Provenance

    def network(self, use: str) -> Method:
        """Its backbone with all that is trained; ValueError for an opaque network. use: what needs one, such as "be
        exported"."""
        if isinstance(self.method, OpaqueNetwork):
            raise ValueError(
                f"{self.folder} is an opaque network ({self.spec.training.file}), of which only the predictions are "
                f"available: it cannot {use}."
            )
        return self.method

    @functools.cached_property
    def ood(self) -> ood.OODCheck | None:
        """The out-of-distribution check; None where the bundle has none."""
        return ood.load_check(self.folder)


@dataclass(frozen=True)
class Classifier(Bundle):
    """A model that predicts findings; with no findings, a pretrained backbone."""

    method: Supervised | OpaqueNetwork

    def network(self, use: str) -> Supervised:
        """Its backbone and head."""
        found = super().network(use)
        assert isinstance(found, Supervised)
        return found


@dataclass(frozen=True)
class Detector(Bundle):
    """A model that predicts boxes."""

    method: Detect | Supervised
    """Supervised: a classifier whose boxes are drawn around its saliency maps."""

    @property
    def cam(self) -> CamBoxes:
        """How boxes are drawn around saliency maps."""
        assert self.spec.detector
        return CamBoxes(**self.spec.detector.options)  # type: ignore[arg-type]  # CamBoxes checks them


def save_bundle(
    folder: Path,
    method: Method | OpaqueNetwork,
    spec: ModelSpec,
    provenance: Provenance,
    check: ood.OODCheck | None = None,
) -> None:
    """Write a bundle, with its out-of-distribution check if there is one. All files are written under temporary names
    first; model.json is removed first and renamed last, so that half of one bundle never opens with half of another."""
    from safetensors.torch import save as dump

    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(method, OpaqueNetwork):
        content, fits = method.content, False
    else:
        plain, state = plain_shapes(spec), _saved_state(method, spec)
        fits = {name: value.shape for name, value in state.items()} == plain
        weights = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
        content = dump(weights, metadata={"format": "pt"})
    text = card.model_card(spec, plain=fits, unknown=provenance.unknown.tolist())
    with files.explained(folder, "Free some."), contextlib.ExitStack() as ready:  # renamed in reverse order
        parts = {"model.json": ready.enter_context(files.atomic(folder / "model.json"))}
        spec.save(parts["model.json"])
        sums = ready.enter_context(files.atomic(folder / digest.SUMS))
        part = ready.enter_context(files.atomic(folder / "README.md"))
        part.write_text(text, encoding="utf-8")
        parts["provenance.npz"] = ready.enter_context(files.atomic(folder / "provenance.npz"))
        provenance.save(parts["provenance.npz"])
        if check is not None:
            parts[ood.FILE] = ready.enter_context(files.atomic(folder / ood.FILE))
            check.save(parts[ood.FILE])
        name = spec.weights_file
        parts[name] = ready.enter_context(files.atomic(folder / name))
        parts[name].write_bytes(content)
        files.sync(parts[name])
        sums.write_text(digest.digest_lines(parts), encoding="utf-8")
        (folder / "model.json").unlink(missing_ok=True)
        if check is None:
            (folder / ood.FILE).unlink(missing_ok=True)


def _saved_state(method: Method, spec: ModelSpec) -> dict[str, Tensor]:
    """The weights of a bundle, by name."""
    if isinstance(method, Detect):
        return detector_state(method)
    if isinstance(method, Supervised) and spec.findings:
        return convolutional_head(plain_state(method), plain_shapes(spec))
    return {} if spec.members else merged_state(method.backbone.model)


# ---- opening


def output_errors(out: Path) -> list[str]:
    """What is wrong with a folder that a bundle is to be written to: it has other files, or it cannot be written."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        return [f"--out {out} is not a folder: pass a new folder"]
    if out.is_dir() and any(out.iterdir()):
        return [f"--out {out} is not empty: pass a new folder"]
    home = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not (home.is_dir() and os.access(home, os.W_OK)):
        return [f"--out {out} cannot be created, because {home} is not a writable folder: pass another folder"]
    return []


def find_bundle(folder: Path) -> Path:
    """The bundle of this folder: the folder itself, or the `bundle` of a run. Of a remote folder, a local copy."""
    if addresses.is_remote(folder):
        return cache.local_folder(remote_bundle(folder))
    for place in (folder, folder / "bundle"):
        if (place / "model.json").is_file():
            return place
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist.")
    if (folder / "checkpoint.pt").is_file() or (folder / "checkpoint").is_dir():
        raise FileNotFoundError(
            f"{folder} is the folder of a run that has not saved a model yet: its first validation has not finished."
        )
    raise FileNotFoundError(f"{folder} has no model: it contains neither model.json nor bundle/model.json.")


def local_model(place: Path) -> Path:
    """A local file or folder itself; of a remote one, a local copy of the file, of the bundle, or of the files directly
    in the folder. The folder of a published model stands for its file of weights."""
    if hub.is_model(place):
        return hub.local_model(addresses.address(place), model_files)
    found = _local_model(place)
    return weights_in(found) or found


def _local_model(place: Path) -> Path:
    if addresses.is_remote(place) and not objects.exists(place):
        with contextlib.suppress(FileNotFoundError):
            return find_bundle(place)
    return cache.local_place(place)


def remote_bundle(folder: Path) -> str:
    """The address of the bundle of a remote folder: the folder itself, or the `bundle` of a run."""
    here = addresses.address(folder)
    for place in (here, addresses.child(here, "bundle")):
        if objects.exists(addresses.child(place, "model.json")):
            return place
    raise FileNotFoundError(f"{here} has no model: it contains neither model.json nor bundle/model.json.")


def upload_changed(run: Path, folder: Path, name: str) -> None:
    """Write a changed file of the local copy of a remote bundle back to it; a local bundle has no copy."""
    if addresses.is_remote(run):
        objects.upload(folder / name, addresses.child(remote_bundle(run), name))


def load_bundle(folder: Path | str) -> Bundle:
    """Open a bundle of any kind, or that of a run. Every weight must be in the file; none is left random."""
    from safetensors.torch import load_file

    folder = find_bundle(addresses.parse_place(str(folder)))
    spec = ModelSpec.load(folder / "model.json")
    if not spec.opaque:
        _check_shapes(spec, folder)
    seen = Provenance.load(folder / "provenance.npz")
    _check_digests(folder, spec.weights_file)
    if spec.opaque:
        return Classifier(folder, spec, _opened_network(spec, folder), seen)
    try:
        weights = load_file(folder / WEIGHTS_FILE)
    except Exception as error:  # the library has an exception of its own
        raise ValueError(f"{folder / WEIGHTS_FILE} is damaged ({type(error).__name__}: {error_text(error)}).") from None
    if bad := [name for name, value in weights.items() if not value.isfinite().all()]:
        raise ValueError(f"{folder / WEIGHTS_FILE} is damaged: the weight {bad[0]} contains NaN or infinity.")
    method = _built(spec, str(folder))
    if isinstance(method, Detect):
        load_state(detector_state(method), weights, str(folder))
        return Detector(folder, spec, method.eval(), seen)
    load_plain_state(method, weights, str(folder))
    if not spec.detector:
        return Classifier(folder, spec, method.eval(), seen)
    opened = Detector(folder, spec, method.eval(), seen)
    with _wrong_options_of(str(folder)):
        _ = opened.cam
    return opened


def load_classifier(folder: Path | str) -> Classifier:
    """Open the bundle of a classifier, or that of a run."""
    opened = load_bundle(folder)
    if not opened.spec.findings:
        raise ValueError(
            f"{opened.folder} is a pretrained backbone, but a classifier is required. Train one with 'ribcage "
            f"finetune --init' or 'ribcage probe'."
        )
    if not isinstance(opened, Classifier):
        raise ValueError(f"{opened.folder} is a detector, which predicts boxes, but a classifier is required.")
    return opened


def load_detector(folder: Path | str) -> Detector:
    """Open the bundle of a detector, or that of a run."""
    opened = load_bundle(folder)
    if not isinstance(opened, Detector):
        raise ValueError(
            f"{opened.folder} predicts no boxes, but a detector is required. Train one with 'ribcage localise --init'."
        )
    return opened


def build_opaque(spec: ModelSpec, content: bytes, where: str) -> OpaqueNetwork:
    """The network in a file, as its spec describes it."""
    assert spec.opaque
    network = OpaqueNetwork(
        content, spec.opaque, spec.findings, size=spec.size, channels=spec.channels, scale=(spec.mean, spec.std),
        rgb_normalisation=spec.rgb_normalisation, exclusive=spec.loss == EXCLUSIVE, where=where,
    )  # fmt: skip
    return network.eval()


def _opened_network(spec: ModelSpec, folder: Path) -> OpaqueNetwork:
    """The opaque network of a bundle; its file must be the one that model.json describes."""
    assert spec.opaque
    file = folder / spec.opaque.file
    if not file.is_file():
        raise FileNotFoundError(f"{folder} has no {spec.opaque.file}.")
    if files.regular(file).stat().st_size > MOST_BYTES:
        raise ValueError(f"{file} is larger than {MOST_BYTES:,} bytes.")
    digest.check_digest(file, spec.opaque.sha256, ADVICE)
    return build_opaque(spec, file.read_bytes(), address_text(file))


def build_detector(spec: ModelSpec, backbone: Backbone, where: str, *, freeze: bool = True) -> Detect:
    """The detector that `spec.detector` describes, with random weights."""
    own = spec.detector
    assert own
    with _wrong_options_of(where):
        return Detect(backbone, spec.findings, freeze=freeze, head=own.head, **own.options)  # type: ignore[arg-type]  # Detect checks them


def _built(spec: ModelSpec, where: str) -> Detect | Supervised:
    """The method that a spec describes, with random weights."""
    backbone = build_backbone(spec)
    if spec.detector and spec.detector.head != CAM_HEAD:
        return build_detector(spec, backbone, where)
    return Supervised(backbone, spec.findings, loss=spec.loss)  # type: ignore[arg-type]


def build_backbone(spec: ModelSpec) -> Backbone:
    """The backbone that a spec describes, with random weights."""
    if spec.members:
        return Ensemble([build_member(spec, one) for one in spec.members])
    return Backbone(
        spec.name, channels=spec.channels, size=spec.size, pool=spec.pool, mean=spec.mean, std=spec.std,
        rgb_normalisation=spec.rgb_normalisation,
    )  # fmt: skip


def build_member(spec: ModelSpec, member: MemberSpec) -> Backbone:
    """A member of an ensemble, with random weights."""
    return Backbone(
        member.name, channels=spec.channels, size=spec.size, pool=member.pool, mean=spec.mean, std=spec.std,
        rgb_normalisation=member.normalisation,
    )  # fmt: skip


@contextlib.contextmanager
def _wrong_options_of(where: str) -> Iterator[None]:
    """Errors of options that no detector has name the file that holds them."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} describes a detector that cannot be built: {error}") from None


def _check_shapes(spec: ModelSpec, folder: Path) -> None:
    """Raise unless names and shapes in the header of the weights are those of the model, before any memory that
    model.json asks for is allocated."""
    try:
        there = read_header(folder / WEIGHTS_FILE)
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} has no {WEIGHTS_FILE}.") from None
    except Exception as error:
        raise ValueError(f"{folder / WEIGHTS_FILE} is damaged ({type(error).__name__}: {error_text(error)}).") from None
    for place, member in enumerate(spec.members):  # one after another: the file must have each before the next is built
        with torch.device("meta"):
            own = member_state(place, build_member(spec, member))
        check_state(own, {name: there[name] for name in there if name.startswith(f"members.{place}.")}, str(folder))
    with torch.device("meta"):
        method = _built(spec, str(folder))
    own = detector_state(method) if isinstance(method, Detect) else plain_state(method)
    check_state(own, there, str(folder))


def _check_digests(folder: Path, weights: str) -> None:
    """Raise where a file has changed since the bundle was written; older bundles and those made by hand have no
    digests."""
    known = digest.recorded_digests(folder)
    required = ("model.json", "provenance.npz", weights)
    if known and (unknown := [name for name in required if name not in known]):
        raise ValueError(f"{folder / digest.SUMS} does not list {unknown[0]}. {ADVICE}")
    if known:
        digest.check_folder(folder, ADVICE)
    elif not distributed.rank():
        print(f"{address_text(folder)} has no {digest.SUMS}: changes to its files cannot be detected.", file=sys.stderr)
