"""Export a model to ONNX, TorchScript or OpenVINO, with 8-bit greyscale input and calibrated probabilities as output.

The exported model is compared with the original on the same images; if probabilities differ by more than --tolerance,
no file is written. For --int8, activation ranges are calibrated on the --train split of --data, and the change in AUROC
is measured on the --val split.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

from ribcage.runtime.remote.addresses import address_text
from ribcage.runtime.remote.places import Place

if TYPE_CHECKING:
    import numpy as np

    from ribcage.bundle.io import Classifier
    from ribcage.bundle.spec import ModelSpec
    from ribcage.data.collection import Datasets

POSITIONAL = ("model",)
PLACES = {"model": Place.MODEL, "data": Place.DATASET, "out": Place.FILE_OUT}
EXAMPLES = (
    "export runs/chexnet --out chexnet.onnx",
    "export runs/chexnet --to openvino --int8 --data data/nih --out chexnet-int8.xml",
)
GROUPS = {"to": "Output", "int8": "Output", "int8_images": "Output", "tolerance": "Output"}


@dataclass(frozen=True)
class Options:
    """What to write, and how thoroughly to check it."""

    model: Path
    """Run folder or bundle."""
    to: Literal["onnx", "torchscript", "openvino"] = "onnx"
    """Target runtime."""
    out: Path | None = None
    """Output file (default: model.onnx, model.ts or model.xml in the bundle; --int8 appends -int8 to the name)."""
    int8: bool = False
    """Quantise the model to int8 (onnx and openvino). The model becomes faster and smaller, and its probabilities
    change slightly; needs --data."""
    data: tuple[str, ...] = ()
    """Dataset folders with images for --int8 and for comparing the exported with the original model (default: the
    models are compared on generated patterns)."""
    train: str = "train"
    """Split from which the calibration images for --int8 are taken."""
    val: str = "val"
    """Split on which the predictions of the exported and the original model are compared."""
    int8_images: int = 128
    """Number of calibration images for --int8."""
    tolerance: float = 1e-4
    """Maximum accepted difference between the probabilities of the exported and the original model; with --int8 the
    difference is only reported."""
    latency: bool = True
    """Measure the inference time of the exported and the original model."""
    runs: int = 20
    """Number of timed runs for batches of 1 and 16 images; the median is reported."""
    threads: int = 0
    """Number of CPU threads; 0 means one per core."""


class Exported(TypedDict, total=False):
    """What was written, and how far it is from the original on the same images."""

    file: str
    away: float
    """Largest difference of a probability."""
    images: int
    auroc: float
    """Mean AUROC of the original, where the images have labels."""
    exported: float
    change: list[float]
    """Exported minus original: value, low, high."""
    latency: dict[str, dict[str, float]]
    """Milliseconds by the size of a batch."""


def run(options: Options) -> Exported:
    """Write, compare, time; return the numbers."""
    import contextlib
    import tempfile

    from ribcage.bundle import attestation, deployment
    from ribcage.bundle.io import load_classifier
    from ribcage.runtime import files, limits, progress

    limits.check_options(options, wrong(options))
    opened = load_classifier(options.model)
    opened.network("be exported")
    if absent := deployment.missing_packages(options.to):
        raise ImportError(f"--to {options.to} needs {', '.join(absent)}: pip install 'ribcage[export]'")
    if options.data:  # what is wrong with them is reported now, and not after the export
        matching_datasets(options, opened.spec)
    file = options.out or opened.folder / usual(options)
    with contextlib.ExitStack() as stack:
        stack.enter_context(files.explained(file.parent, "Free some space, or choose another --out."))
        file.parent.mkdir(parents=True, exist_ok=True)
        work = stack.enter_context(tempfile.TemporaryDirectory(dir=file.parent, prefix=".export"))
        with progress.working(f"writing {file.name}"):
            made = written(options, opened, Path(work))
        with progress.working("comparing the predictions of the exported and the original model"):
            result = compared(options, opened, made)
            result["file"] = str(file)
        if options.latency:
            with progress.working("measuring the inference time (--no-latency skips this)"):
                result["latency"] = timed(options, opened, made)
        for stale in (deployment.digest_file(file), attestation.file_beside(file)):
            stale.unlink(missing_ok=True)
        for one in beside(made):
            one.replace(file.with_suffix(one.suffix))
        deployment.write_digests(beside(file))
        if file == opened.folder / deployment.FILES["onnx"] and not options.int8:
            try:
                attestation.attest(file, opened.folder)
            except (OSError, ValueError) as error:
                print(f"! `ribcage serve` will not use {file}, but will export the model again: {error}")
    if opened.spec.warning:
        print(f"! {opened.spec.warning}")
    print(f"Wrote {address_text(file)}, {sum(one.stat().st_size for one in beside(file)) / 1e6:,.1f} MB:")
    for tensor in deployment.file_tensors(options.to, file, opened.spec):
        print(f"  {tensor}")
    print(f"Columns of the output: {', '.join(opened.spec.findings)}.")
    return result


def wrong(options: Options) -> list[str]:
    """What is wrong with the options."""
    from ribcage.bundle.deployment import FILES
    from ribcage.runtime import limits

    found, ending = limits.missing_out_errors(options.model, options.out), Path(FILES[options.to]).suffix
    if options.int8 and not options.data:
        found.append("--int8 needs calibration images: pass --data")
    if options.int8 and options.to == "torchscript":
        found.append("--int8 does not apply to --to torchscript, only to onnx and openvino")
    if options.out and options.out.suffix != ending:
        found.append(f"--out {options.out} must end in {ending}")
    if not options.tolerance >= 0:
        found.append(f"--tolerance {options.tolerance:g} must be 0 or more")
    counts = {"runs": options.runs, "int8-images": options.int8_images}
    return found + [f"--{name} {value} must be at least 1" for name, value in counts.items() if value < 1]


def usual(options: Options) -> str:
    """The default name of the file."""
    from ribcage.bundle.deployment import FILES

    name = Path(FILES[options.to])
    return f"{name.stem}-int8{name.suffix}" if options.int8 else name.name


def beside(file: Path) -> list[Path]:
    """The files of an export: OpenVINO has its weights in a second one."""
    return [one for one in (file, file.with_suffix(".bin")) if one.is_file() and (one == file or file.suffix == ".xml")]


def written(options: Options, opened: "Classifier", work: Path) -> Path:
    """The file, in a folder of its own."""
    from ribcage.bundle import deployment

    if options.to == "torchscript":
        deployment.write_torchscript(opened, made := work / "model.ts")
        return made
    deployment.write_onnx(opened, made := work / "model.onnx")
    if options.int8:
        chosen = chosen_images(options, opened.spec, options.train, options.int8_images)
        deployment.write_int8(made, chosen.images, work / "int8.onnx")
        made = work / "int8.onnx"
    if options.to == "openvino":
        deployment.write_openvino(made, opened.spec, made.with_suffix(".xml"))
        made = made.with_suffix(".xml")
    return made


@dataclass(frozen=True)
class LabelledImages:
    """Stored images with labels."""

    images: "np.ndarray"
    """(N, S, S)"""
    labels: "np.ndarray"
    """(N, F)"""
    patients: "np.ndarray"


def matching_datasets(options: Options, model: "ModelSpec") -> "Datasets":
    """The datasets of --data; ValueError if their images differ from those of the model in size, fit or depth."""
    import numpy as np

    from ribcage.data.collection import Datasets

    data = Datasets.open(options.data)
    other = [one for one in data if one.size != model.stored or one.facts.fit != model.fit or one.dtype != np.uint8]
    if other:
        raise ValueError(
            f"{other[0].folder} has images of {other[0].size} px ({other[0].facts.fit}, "
            f"{8 * other[0].dtype.itemsize} bit), but the model was trained on images of {model.stored} px "
            f"({model.fit}, 8 bit). Import the images with the settings of the model."
        )
    return data


def chosen_images(options: Options, model: "ModelSpec", split: str, most: int = 0) -> LabelledImages:
    """The images of a split; evenly spaced ones where `most` is less."""
    import numpy as np

    data = matching_datasets(options, model)
    rows = data.rows_of(split)
    if most and len(rows) > most:
        rows = rows[np.linspace(0, len(rows) - 1, most).astype(int)]
    images = np.stack([data.image(row) for row in rows.tolist()])
    patients = data.table["patient"].to_numpy()[rows]
    return LabelledImages(images, data.known_labels(rows, model.findings), patients)


def compared(options: Options, opened: "Classifier", made: Path) -> Exported:
    """How far its probabilities are from the model's and, where images have labels, the change in AUROC."""
    import numpy as np

    from ribcage.bundle import deployment

    answer = deployment.OPENED[options.to](made, options.threads)
    chosen = chosen_images(options, opened.spec, options.val) if options.data else None
    images = chosen.images if chosen else deployment.patterns(opened.spec.stored)
    wanted = deployment.expected(opened, images)
    if not np.isfinite(wanted).all():
        raise ValueError(
            f"The predictions of {opened.folder} contain NaN or infinity, so the model cannot be exported."
        )
    away = deployment.max_difference(answer, images, wanted)
    kind = "images" if options.data else "patterns"
    print(f"largest difference between probabilities on {len(images):,} {kind}: {away:.2g}")
    if away > options.tolerance and (not options.int8 or away == float("inf")):
        raise ValueError(
            f"The outputs of the exported model and of the original differ by {away:.2g}, which is more than "
            f"the tolerance of {options.tolerance:g}; no file was written."
        )
    result: Exported = {"away": away, "images": len(images)}
    if chosen:
        result |= change_in_auroc(wanted, answer(images), chosen)
    return result


def change_in_auroc(own: "np.ndarray", exported: "np.ndarray", chosen: LabelledImages) -> Exported:
    """The mean AUROC of both, and the difference with its interval from the same resamples of patients."""
    from ribcage import metrics

    one, other = (metrics.bootstrap(scores, chosen.labels, chosen.patients)["auroc"] for scores in (exported, own))
    change = metrics.paired_difference(one, other).macro().interval()
    before, after = (float(each.macro().value[0]) for each in (other, one))
    value, low, high = (float(each[0]) for each in (change.value, change.low, change.high))
    print(f"mean AUROC {before:.4f}, exported {after:.4f}: {value:+.4f} (95 % {low:+.4f} to {high:+.4f})")
    return {"auroc": before, "exported": after, "change": [value, low, high]}


def timed(options: Options, opened: "Classifier", made: Path) -> dict[str, dict[str, float]]:
    """Milliseconds for a batch of 1 and of 16, by turns with the model itself."""
    from functools import partial

    import torch

    from ribcage.bundle import cost, deployment

    answer, result = deployment.OPENED[options.to](made, options.threads), {}
    with cost.computing(options.threads):
        for batch in (1, 16):
            images = deployment.patterns(opened.spec.stored, max(batch, 3))[-batch:]
            with torch.inference_mode():
                own = partial(deployment.expected, opened, images)
                before, after = cost.medians([own, partial(answer, images)], options.runs)
            print(f"batch {batch}: model {before:.1f} ms, exported {after:.1f} ms, {before / after:.2f} times as fast")
            result[str(batch)] = {"model": before, "exported": after}
    return result
