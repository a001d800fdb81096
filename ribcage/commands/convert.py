"""Convert a published checkpoint into a bundle, calibrate a model, or write it in a published layout.

A checkpoint is recognised by its parameter names; all inferred and assumed settings are printed. Every tensor is
accounted for: a checkpoint that does not cover the whole backbone is refused unless --partial is given. No code in a
checkpoint is executed. With --data, temperature and thresholds are fitted on your own images.

An ONNX or TFLite file becomes an opaque model: the file is run as it is, and only its predictions are available.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ribcage.runtime.remote.addresses import address_text
from ribcage.runtime.remote.places import Place

if TYPE_CHECKING:
    from ribcage.bundle.conversion import Converted
    from ribcage.bundle.formats.reading.account import TensorRecord
    from ribcage.bundle.formats.reading.published_weights import Published
    from ribcage.bundle.ood import OODCheck
    from ribcage.bundle.opaque_conversion import Stated
    from ribcage.bundle.spec import ModelSpec
    from ribcage.data.provenance import Provenance
    from ribcage.methods.supervised import Supervised
    from ribcage.models.opaque.network import OpaqueNetwork

POSITIONAL = ("file",)
PLACES = {"file": Place.WEIGHTS, "data": Place.DATASET, "out": Place.OUT}
EXAMPLES = (
    "convert model.pth.tar --out models/chexnet --layout chexnet",
    "convert hf:microsoft/rad-dino --out models/rad-dino",
    "convert models/chexnet --data data/ours --out models/calibrated",
    "convert models/chexnet --to torchvision --out chexnet.pth",
    "convert network.onnx --findings Mass Edema --mean 0.5 --std 0.25 --out models/network",
)
GROUPS = {"findings": "Model", "size": "Model", "fit": "Model", "to": "Output"}
UNKNOWN_DATA = (
    "The training data of the checkpoint are unknown: test results are too optimistic if they include the test images."
)
ACCOUNT = "account.csv"
"""File with the use of every tensor of the checkpoint."""


@dataclass(frozen=True)
class Model:
    """A model to save."""

    method: "Supervised | OpaqueNetwork"
    spec: "ModelSpec"
    seen: "Provenance"
    """What it was trained and validated on."""
    ood: "OODCheck | None" = None
    """Its out-of-distribution check."""


@dataclass(frozen=True)
class Options:
    """What to convert into what."""

    file: Path | None = None
    """Checkpoint, folder of a published model, or hf:OWNER/NAME in the Hugging Face Hub; with --to or --data, a run
    folder or bundle."""
    out: Path | None = None
    """Bundle to write; with --to, the output file or its folder (required)."""
    to: str = ""
    """Published layout in which the model is written (--formats lists the layouts)."""
    model: str = ""
    """Architecture: a timm model, such as resnet18, or one of Ribcage's own; 'ribcage profile --list' lists them all
    (default: recognised from the weights)."""
    findings: tuple[str, ...] = ()
    """Finding of each output, in order; a hyphen (-) drops an output (default: as published)."""
    channels: Literal[1, 3] = 3
    """Number of input channels; 1 converts the first layer of an RGB model to one channel, which is faster and exact
    except at zero-padded borders."""
    size: tuple[int, ...] = ()
    """Input height and width in pixels, or one number for both (default: as published)."""
    mean: tuple[float, ...] = ()
    """Mean of each channel, for pixel values scaled to 0–1 (default: as published)."""
    std: tuple[float, ...] = ()
    """Standard deviation of each channel, for pixel values scaled to 0–1 (default: as published)."""
    data: tuple[str, ...] = ()
    """Dataset folders for calibration; the temperature and the thresholds are fitted on their --val split (default: no
    calibration)."""
    val: str = "val"
    """Split on which the temperature and the thresholds are fitted; the model cannot be tested on images of this
    split afterwards."""
    layout: str = ""
    """Layout of the checkpoint (default: recognised from parameter names and shapes; --formats lists the layouts)."""
    fit: Literal["squash", "crop", "pad"] = "squash"
    """Conversion to a square for an ONNX or TFLite file: squash (stretch), crop (centre square) or pad (with black)."""
    value_range: tuple[float, ...] = ()
    """Range of the pixel values that an ONNX or TFLite file takes, such as 0 255 or -1024 1024, instead of --mean and
    --std."""
    input_layout: Literal["", "NCHW", "NHWC"] = ""
    """Order of the dimensions of the input (default: from the shape in the file, otherwise NCHW for ONNX and NHWC for
    TFLite)."""
    output_name: str = ""
    """Output with one score per finding; needed if a file has several outputs."""
    output_kind: Literal["", "logits", "probabilities"] = ""
    """What the outputs are (default: logits; refused if all outputs for test images are between 0 and 1)."""
    exclusive: bool = False
    """The findings are mutually exclusive: the outputs are those of a softmax."""
    partial: bool = False
    """Accept a checkpoint with missing or unknown weights; missing weights are initialised at random."""
    formats: bool = False
    """List the layouts that can be read and written, then exit."""


def run(options: Options) -> "ModelSpec | Path | None":
    """Convert, calibrate or write; return the spec of the model, or the file in a published layout."""
    from ribcage.bundle.opaque_conversion import is_network_file
    from ribcage.runtime import limits

    if options.formats:
        print(table())
        return None
    options = weights_file(options)
    limits.check_options(options, wrong(options))
    if options.to:
        return published_file(options)
    if options.file and options.file.is_dir():
        return calibrated(options)
    return opaque(options) if options.file and is_network_file(options.file) else converted(options)


def weights_file(options: Options) -> Options:
    """The same, with a local copy of a remote file; the folder of a published model stands for its file of weights."""
    from dataclasses import replace

    from ribcage.bundle.io import local_model

    return replace(options, file=local_model(options.file) if options.file else None)


def wrong(options: Options) -> list[str]:
    """What is wrong with the options."""
    from ribcage.bundle.io import output_errors
    from ribcage.bundle.spec import MAX_SIDE, wrong_normalisation

    said = [] if options.file else ["FILE is missing: pass a checkpoint, or a model folder with --to or --data"]
    said += [] if options.out else ["--out is missing"]
    folder = bool(options.file and options.file.is_dir())
    if options.to or folder:
        own = ("model", "findings", "size", "mean", "std", "partial", "layout")
        said += [
            f"--{name.replace('_', '-')} applies to checkpoints, not to model folders"
            for name in own
            if getattr(options, name)
        ]
        said += ["--channels applies to checkpoints, not to model folders"] * (options.channels != Options.channels)
    said += wrong_for_networks(options)
    if options.to and options.out and options.out.is_file():
        said.append(f"--out {options.out} exists already: pass another one")
    if options.to and options.out and options.file and options.file.resolve() in options.out.resolve().parents:
        said.append(f"--out {options.out} is inside the model folder: pass one outside")
    if options.val != Options.val and not options.data:
        said.append(f"--val {options.val} needs --data")
    if wrong_normalisation(options.mean, options.std):
        said.append(
            f"--mean and --std apply to pixel values from 0 to 1: {wrong_normalisation(options.mean, options.std)}"
        )
    if any(not 1 <= side <= MAX_SIDE for side in options.size):
        said.append(f"--size {' '.join(map(str, options.size))} must be from 1 to {MAX_SIDE} pixels")
    if options.to and options.data:
        said.append("--data and --to cannot be combined: convert with --data first, then with --to")
    if options.file and options.file.name == "model.safetensors" and (options.file.parent / "model.json").is_file():
        said.append(f"{options.file} belongs to a model folder: pass {options.file.parent}")
    if folder and not options.to and not options.data:
        said.append(f"{options.file} is a model folder: pass --to (a published layout) or --data (calibration)")
    means, stds = len(options.mean), len(options.std)
    if means != stds or means not in (0, 1, 3):
        said.append(f"--mean and --std must have one number per channel, not {means} and {stds}")
    if options.out and not options.to:
        said += output_errors(options.out)
    return said


def wrong_for_networks(options: Options) -> list[str]:
    """What is wrong with the options for an ONNX or TFLite file, or which apply only to one."""
    from ribcage.bundle.opaque_conversion import is_network_file

    names = ("fit", "value_range", "input_layout", "output_name", "output_kind", "exclusive")
    own = [name for name in names if getattr(options, name) != getattr(Options, name)]
    if not options.file or options.file.is_dir() or not is_network_file(options.file):
        return [f"--{name.replace('_', '-')} applies to ONNX and TFLite files" for name in own]
    others = [name for name in ("to", "model", "layout", "partial") if getattr(options, name)]
    said = [f"--{name} does not apply to ONNX and TFLite files, which are run as they are" for name in others]
    return said + stated(options).errors()


def opaque(options: Options) -> "ModelSpec":
    """An ONNX or TFLite file as a bundle that runs it."""
    from ribcage.bundle.io import save_bundle
    from ribcage.bundle.opaque_conversion import opaque_model
    from ribcage.data.provenance import Provenance

    assert options.file and options.out
    method, spec = opaque_model(options.file, stated(options))
    assert spec.opaque
    print(f"{address_text(options.file)}: {spec.opaque.format} network, output {spec.opaque.output!r}")
    for claim in spec.training.claims or ():
        print(f"  {claim}")
    model = fitted(options, Model(method, spec, Provenance.nothing(options.file.name)))
    save_bundle(options.out, model.method, model.spec, model.seen, model.ood)
    print(
        f"Wrote {options.out}, an opaque model: it predicts, teaches and is served, but cannot be trained, blended or "
        f"exported. {UNKNOWN_DATA}"
    )
    return model.spec


def stated(options: Options) -> "Stated":
    """What the options state about an ONNX or TFLite file."""
    from ribcage.bundle.opaque_conversion import Stated

    return Stated(
        findings=tuple("" if name == "-" else name for name in options.findings), mean=options.mean, std=options.std,
        value_range=options.value_range, size=(options.size[0], options.size[-1]) if options.size else None,
        channels=options.channels, fit=options.fit, layout=options.input_layout, output=options.output_name,
        kind=options.output_kind, exclusive=options.exclusive,
    )  # fmt: skip


def converted(options: Options) -> "ModelSpec":
    """A checkpoint as a bundle."""
    from ribcage.bundle import conversion, formats
    from ribcage.bundle.io import save_bundle
    from ribcage.data.provenance import Provenance
    from ribcage.runtime.remote import hub

    assert options.file and options.out
    found = described(formats.published(options.file, layout(options)), options)
    size = (options.size[0], options.size[-1]) if options.size else None
    names = tuple("" if name == "-" else name for name in options.findings)
    said = {"architecture": options.model, "preprocessing": options.mean, "findings": names}
    made = conversion.converted_model(
        options.file, found, findings=names, channels=options.channels, size=size, partial=options.partial,
        given=[name for name, value in said.items() if value], agreed=bool(options.layout),
    )  # fmt: skip
    report(options.file, found, made)
    unknown = hub.origin(options.file) or options.file.name
    model = fitted(options, Model(made.method, made.model, Provenance.nothing(unknown)))
    save_bundle(options.out, model.method, model.spec, model.seen, model.ood)
    write_account(options.out / ACCOUNT, made.tensors)
    print(f"Wrote {options.out}; {ACCOUNT} in this folder lists every tensor of the checkpoint.")
    print(UNKNOWN_DATA)
    return model.spec


def calibrated(options: Options) -> "ModelSpec":
    """A model with temperature and thresholds fitted to --data; its tests so far still count."""
    from ribcage.bundle import history, ood
    from ribcage.bundle.io import find_bundle, load_classifier, save_bundle

    assert options.file and options.out
    opened = load_classifier(options.file)
    model = fitted(options, Model(opened.method, opened.spec, opened.provenance))
    save_bundle(options.out, model.method, model.spec, model.seen, ood.preferred_check(opened.ood, model.ood))
    history.carry(find_bundle(options.file), options.out)
    print(f"Wrote {options.out}.")
    return model.spec


def fitted(options: Options, model: Model) -> Model:
    """The model with temperature, thresholds and OOD check fitted to --data, whose images count as seen."""
    from dataclasses import replace

    import numpy as np
    import torch

    from ribcage.bundle import ood
    from ribcage.data import selection
    from ribcage.data.collection import Datasets
    from ribcage.data.provenance import Provenance
    from ribcage.evaluation import leakage
    from ribcage.evaluation.classifier_validation import ClassifierValidation
    from ribcage.training import run_folder

    if not options.data:
        return model
    if not model.spec.findings:
        raise ValueError(
            f"--data is for the calibration of probabilities, but {options.file} is a backbone, which predicts none."
            f" Leave the option out."
        )
    data = Datasets.open(options.data)
    selection.distinct(data)
    rows = data.rows_of(options.val)
    if warning := leakage.initial_weights_warning(model.seen, data, rows, options.val):
        run_folder.warn(warning)
    validation = ClassifierValidation(
        lambda: model.method, data, rows, model.spec, device=torch.device("cpu"), batch=64
    )
    if not validation.judged:
        names = ", ".join(model.spec.findings)
        raise ValueError(f"--val {options.val}: none of {names} has both positive and negative labels in this split.")
    print(f"split {options.val!r}: {len(rows):,} images, mean AUROC {validation()['auroc']:.4f}")
    note = replace(model.spec.training, fitted=len(rows), fitted_to=tuple(one.index.name for one in data))
    chosen = replace(validation.chosen_spec(), training=note)
    seen = model.seen | Provenance.of(data, np.empty(0, np.int64), rows)
    return Model(model.method, chosen, seen, ood.halved(data, rows))


def layout(options: Options) -> str:
    """The layout to read the file in; "" for the recognised one."""
    from ribcage.bundle import formats

    assert options.file
    if options.layout != "timm_names" or not options.model:
        return options.layout
    return "timm_names" if formats.fits(options.file, "timm_names") else ""  # any architecture of timm's, by its name


def described(found: "Published", options: Options) -> "Published":
    """With the options filled in. A timm name with a tag decides the normalisation where the layout does not."""
    from dataclasses import replace

    tagged = "." in options.model and found.evidence.kind == "shapes"
    if tagged:
        found = replace(found, mean=(), std=(), stated=(*found.stated, "preprocessing"))
    found = replace(found, name=options.model or found.name)
    if not found.name and not found.candidates:
        raise ValueError(
            f"The architecture in {options.file} was not recognised ({len(found.state)} tensors, "
            f"the first is {next(iter(found.state))}). Specify the architecture with --model."
        )
    return replace(found, mean=options.mean or found.mean, std=options.std or found.std)


def report(file: Path, found: "Published", made: "Converted") -> None:
    """Print what was recognised, by what, what is assumed, and how many tensors are used."""
    from ribcage.bundle.formats.reading.account import account_summary

    coverage, model = made.coverage, made.model
    whose = f"{found.layout} ({found.source}; licence: {found.licence})" if found.layout else "unknown layout"
    print(f"{address_text(file)}: {whose}; {model.name}")
    print(f"recognised by {found.evidence}" + (", and by --layout" if model.training.agreed else ""))
    for claim in made.claims:
        print(f"  {claim}")
    count = len(coverage.matched) + len(coverage.lost)
    print(f"backbone: {len(coverage.matched)} of {count} weights" + (f", {coverage}" if coverage.lost else ""))
    print(account_summary(made.tensors, coverage))
    if made.rows and not model.findings:
        print(
            f"classification layer: {made.rows:,} outputs, omitted because they have no names; name them with "
            f"--findings."
        )
    elif not made.rows:
        print("no classification layer: a backbone for 'ribcage finetune' or 'ribcage probe'.")


def write_account(file: Path, tensors: "Sequence[TensorRecord]") -> None:
    """A table of all tensors of the file: name, shape, whether it is used, and if not, why."""
    from ribcage.runtime import files, spreadsheet

    rows = [
        (one.name, " × ".join(map(str, one.shape or ())), "no" if one.reason else "yes", one.reason) for one in tensors
    ]
    with files.explained(file, "Free some."), files.atomic(file) as part:
        spreadsheet.write_csv_rows(("tensor", "shape", "used", "reason"), rows, part)


def published_file(options: Options) -> Path:
    """A model in a published layout."""
    from ribcage.bundle import formats
    from ribcage.bundle.io import load_bundle

    assert options.file and options.out
    layout, opened = formats.load_layout(options.to), load_bundle(options.file)
    if opened.spec.members:
        raise ValueError(
            f"{options.file} is an ensemble, which cannot be written in a published layout. Convert its members."
        )
    file: Path = layout.export(opened.network("be written in a published layout"), opened.spec, options.out)
    print(f"Wrote {address_text(file)}.")
    return file


def table() -> str:
    """The layouts as a table."""
    from ribcage.bundle import formats

    rows = ["| layout | content | in | out | source | licence |", "|---|---|---|---|---|---|"]
    for name, layout in formats.layouts().items():
        what = (layout.__doc__ or "").split("\n")[0].rstrip(".")
        ways = ["yes" if hasattr(layout, way) else "–" for way in ("published", "export")]
        rows.append(f"| `{name}` | {what} | {' | '.join(ways)} | {layout.SOURCE} | {layout.LICENCE} |")
    return "\n".join(rows)
