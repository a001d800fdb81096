"""Convert a published checkpoint into a Ribcage model, calibrate a model, or write it in a published layout.

    ribcage convert model.pth.tar --out models/chexnet --layout chexnet
    ribcage convert models/chexnet --to torchvision --out chexnet.pth

    ribcage convert models/chexnet --data data/ours --out models/calibrated

A checkpoint is recognised by the names of its weights; what was read and what was assumed is printed. Every tensor is
accounted for: a file that does not cover the whole backbone is refused unless --partial is given. Nothing in a file is
executed. With --data, temperature and thresholds are fitted to images of your own.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

POSITIONAL = ("file",)
EXAMPLES = (
    "convert model.pth.tar --out models/chexnet",
    "convert model.pth.tar --out models/chexnet --data data/nih --val val",
)
ACCOUNT = "account.csv"
"""What became of every tensor of the file."""


@dataclass(frozen=True)
class Options:
    """What to convert into what."""

    file: Path | None = None
    """A checkpoint; with --to or --data also a run or model folder."""
    out: Path | None = None
    """The model folder to write; with --to the file, or a folder for it."""
    to: str = ""
    """Write the model in this published layout."""
    model: str = ""
    """Architecture, by its name in timm (default: recognised from the weights)."""
    findings: tuple[str, ...] = ()
    """Findings of the last layer's outputs, in order; - drops an output (default: as published)."""
    channels: Literal[1, 3] = 3
    """Input channels; 1 folds an RGB stem: faster, and exact but for zero padding at the borders."""
    size: tuple[int, ...] = ()
    """Height and width of the input, or one number for both (default: as published)."""
    mean: tuple[float, ...] = ()
    """Mean of each channel for pixels in 0 … 1 (default: as published)."""
    std: tuple[float, ...] = ()
    """Standard deviation of each channel (default: as published)."""
    data: tuple[str, ...] = ()
    """Dataset folders whose --val split is used to fit temperature and thresholds (default: neither is fitted)."""
    val: str = "val"
    """The split for this; its images cannot be used for an honest test afterwards."""
    layout: str = ""
    """Layout of the checkpoint, needed where names and shapes alone do not tell (--formats lists them)."""
    partial: bool = False
    """Accept a checkpoint with missing or unknown weights; missing ones stay random."""
    formats: bool = False
    """List the layouts that can be read and written, as a Markdown table."""


def run(options: Options) -> Any:
    """Read, account, write."""
    from ribcage.runtime import limits

    if options.formats:
        return print(table())
    options = named(options)
    limits.check_options(options, wrong(options))
    if options.to:
        return outwards(options)
    return again(options) if options.file and options.file.is_dir() else inwards(options)


def named(options: Options) -> Options:
    """The same; a folder as Hugging Face keeps one stands for its file of weights."""
    from dataclasses import replace

    folder = options.file
    if not folder or not (folder / "config.json").is_file() or (folder / "model.json").exists():
        return options
    return replace(options, file=folder / "model.safetensors")


def wrong(options: Options) -> list[str]:
    """What cannot be done."""
    from ribcage.bundle.spec import MAX_SIDE, wrong_normalisation

    said = [] if options.file else ["name a file of weights, or a finished model and --to"]
    said += [] if options.out else ["--out says where to"]
    folder = bool(options.file and options.file.is_dir())
    if options.to or folder:
        own = ("model", "findings", "size", "mean", "std", "partial", "layout")
        said += [
            f"--{name.replace('_', '-')} goes with a file of weights, not with a model"
            for name in own
            if getattr(options, name)
        ]
        said += ["--channels goes with a file of weights, not with a model"] * (options.channels != Options.channels)
    if options.to and options.out and options.out.is_file():
        said.append(f"{options.out} is there already: choose another --out")
    if options.to and options.out and options.file and options.file.resolve() in options.out.resolve().parents:
        said.append(f"{options.out} is inside the model: choose an --out beside it")
    if options.val != Options.val and not options.data:
        said.append(f"--val {options.val} goes with --data")
    if wrong_normalisation(options.mean, options.std):
        said.append(f"--mean and --std are of pixels in 0 … 1: {wrong_normalisation(options.mean, options.std)}")
    if any(not 1 <= side <= MAX_SIDE for side in options.size):
        said.append(f"--size {' '.join(map(str, options.size))} is no size of an image")
    if options.to and options.data:
        said.append("--data fits a model before it is written: convert it with --data first, then with --to")
    if options.file and options.file.name == "model.safetensors" and (options.file.parent / "model.json").is_file():
        said.append(f"{options.file} is of a finished model already: name its folder, {options.file.parent}")
    if folder and not options.to and not options.data:
        said.append(f"{options.file} is no file: of a finished model, --to writes a layout and --data fits thresholds")
    means, stds = len(options.mean), len(options.std)
    if means != stds or means not in (0, 1, 3):
        said.append(f"--mean and --std take one number for each channel, not {means} and {stds}")
    if options.out and not options.to and (options.out / "model.json").exists():
        said.append(f"{options.out} holds a model already: choose another --out")
    return said


def inwards(options: Options) -> Any:
    """A file into a bundle."""
    from ribcage.bundle import conversion, formats
    from ribcage.bundle.io import save_bundle
    from ribcage.data.provenance import Provenance

    assert options.file and options.out
    found = described(formats.published(options.file, layout(options)), options)
    size = (options.size[0], options.size[-1]) if options.size else None
    names = tuple("" if name == "-" else name for name in options.findings)
    said = {"architecture": options.model, "preprocessing": options.mean, "findings": names}
    made = conversion.convert(
        options.file, found, findings=names, channels=options.channels, size=size, partial=options.partial,
        given=[name for name, value in said.items() if value], agreed=bool(options.layout),
    )  # fmt: skip
    report(options.file, found, made)
    model, seen, check = fitted(options, made.method, made.model, Provenance.nothing(options.file.name))
    save_bundle(options.out, made.method, model, seen, check)
    write_account(options.out / ACCOUNT, made.fates)
    print(f"Wrote {options.out}; {ACCOUNT} there lists every tensor of the file.")
    print("Its training data are unknown: a test on the same images would be too optimistic.")
    return model


def again(options: Options) -> Any:
    """A finished model with another temperature and other thresholds."""
    from ribcage.bundle import ood
    from ribcage.bundle.io import load_classifier, save_bundle

    assert options.file and options.out
    opened = load_classifier(options.file)
    model, seen, check = fitted(options, opened.method, opened.spec, opened.provenance)
    save_bundle(options.out, opened.method, model, seen, ood.kept(opened.ood, check))
    print(f"Wrote {options.out}.")
    return model


def fitted(options: Options, method: Any, model: Any, seen: Any) -> tuple[Any, Any, Any]:
    """The facts with temperature and thresholds that --data chooses; what the model has seen, those included; and what
    these images look like, for a model that does not know what it has learnt from."""
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
        return model, seen, None
    if not model.findings:
        raise ValueError("--data fits temperature and thresholds of findings, and this model has none.")
    data = Datasets.open(options.data)
    selection.distinct(data)
    rows = data.rows_of(options.val)
    if warning := leakage.first_weights(seen, data, rows, options.val):
        run_folder.say(warning)
    validation = ClassifierValidation(lambda: method, data, rows, model, device=torch.device("cpu"), batch=64)
    if not validation.judged:
        names = ", ".join(model.findings)
        raise ValueError(f"No finding of {names} is both present and absent in split {options.val!r}.")
    print(f"split {options.val!r}: {len(rows):,} images, mean AUROC {validation()['auroc']:.4f}")
    note = {"fitted": len(rows), "fitted_to": [one.index.name for one in data]}
    chosen = replace(validation.chosen_spec(), training={**model.training, **note})
    check = ood.halved(data, rows)
    return chosen, seen | Provenance.of(data, np.empty(0, np.int64), rows), check


def layout(options: Options) -> str:
    """The layout to read the file by; "" for the one that it is recognised as."""
    from ribcage.bundle import formats

    assert options.file
    if options.layout != "timm_names" or not options.model:
        return options.layout
    return "timm_names" if formats.fits(options.file, "timm_names") else ""  # any architecture of timm's, by its name


def described(found: Any, options: Options) -> Any:
    """With what the options say of it. The weights of timm's that a model with a tag names tell how they were
    normalised, where the layout is anybody's."""
    from dataclasses import replace

    tagged = "." in options.model and found.evidence.kind == "shapes"
    scale = {"mean": (), "std": (), "read": (*found.read, "preprocessing")} if tagged else {}
    found = replace(found, name=options.model or found.name, **scale)
    if not found.name and not found.could:
        raise ValueError(
            f"{options.file} does not specify its architecture ({len(found.state)} weights, "
            f"{next(iter(found.state))} …): "
            "name it with --model."
        )
    return replace(found, mean=options.mean or found.mean, std=options.std or found.std)


def report(file: Path, found: Any, made: Any) -> None:
    """What was recognised, by what, what is assumed, and what became of every tensor."""
    from ribcage.bundle.formats.reading.account import summary

    coverage, model = made.coverage, made.model
    whose = f"{found.layout} ({found.source}; licence: {found.licence})" if found.layout else "no layout that is known"
    print(f"{file}: {whose}; {model.name}")
    print(f"recognised by {found.evidence}" + (", and by --layout" if model.training["agreed"] else ""))
    for claim in made.claims:
        print(f"  {claim}")
    count = len(coverage.matched) + len(coverage.lost)
    print(f"backbone: {len(coverage.matched)} of {count} weights" + (f", {coverage}" if coverage.lost else ""))
    print(summary(made.fates))
    if made.rows and not model.findings:
        print(f"last layer: {made.rows:,} rows without names of findings; left out. --findings names them.")
    elif not made.rows:
        print("no last layer: a backbone, to be fine-tuned or probed.")


def write_account(file: Path, fates: Any) -> None:
    """Every tensor of the file in a row: its name and shape, and why it is left out, if it is."""
    from ribcage.runtime import files, spreadsheet

    rows = [
        (one.name, " × ".join(map(str, one.shape or ())), "no" if one.reason else "yes", one.reason) for one in fates
    ]
    with files.explained(file, "Free some."), files.atomic(file) as part:
        spreadsheet.write_csv_rows(("tensor", "shape", "used", "reason"), rows, part)


def outwards(options: Options) -> Path:
    """A bundle into a file."""
    from ribcage.bundle import formats
    from ribcage.bundle.io import load_bundle

    assert options.file and options.out
    layout, opened = formats.load(options.to), load_bundle(options.file)
    file: Path = layout.export(opened.method, opened.spec, options.out)
    print(f"Wrote {file}.")
    return file


def table() -> str:
    """The layouts, one in a row."""
    from ribcage.bundle import formats

    rows = ["| layout | what | in | out | from | licence |", "|---|---|---|---|---|---|"]
    for name, layout in formats.layouts().items():
        what = (layout.__doc__ or "").split("\n")[0].rstrip(".")
        ways = ["yes" if hasattr(layout, way) else "–" for way in ("published", "export")]
        rows.append(f"| `{name}` | {what} | {' | '.join(ways)} | {layout.SOURCE} | {layout.LICENCE} |")
    return "\n".join(rows)
