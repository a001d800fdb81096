"""Features of published foundation models: the library that defines them beside the model of `ribcage convert`.

    pip install --target peers --no-deps transformers open_clip_torch ftfy wcwidth tokenizers regex
    pip install --target peers --no-deps monai torchxrayvision imageio scikit-image
    python -m benchmarks.foundation_parity --packages peers
    python -m benchmarks.foundation_parity --packages peers --images data/nih/images

Each library builds its model with random weights, in which every weight matters, and writes its own file or folder;
`ribcage convert` reads it, and both compute the features of the same two images, in float32 on the CPU. The error is
the largest absolute difference, also divided by the mean absolute difference between the features of the two images.
Position embeddings are interpolated by both if the images are not of the size of the model.

--images compares the preprocessing instead: the input that transformers makes of a file for RAD-DINO with the one that
a converted model sees, in gray levels of 0 … 255.
"""

import argparse
import contextlib
import importlib
import io
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import nn

from benchmarks.foundation_models import CASES, RAD_DINO, Case, Side
from ribcage import cli
from ribcage.bundle import formats
from ribcage.bundle.io import load_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.imaging import image_file
from ribcage.inference import explanation

NAMES_ONLY = {
    "ark": "no package", "dino": "no package", "medical_mae": "no package; the blocks are those of timm",
    "medmnist": "its package has no models",
}  # fmt: skip
"""Layout → why there is no library to compare with."""


def main(words: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--packages", type=Path, help="folder with the libraries")
    parser.add_argument("--images", type=Path, nargs="+", help="folders with image files: compare the preprocessing")
    parser.add_argument("--only", default="", help="layouts whose names contain this")
    asked = parser.parse_args(words)
    if asked.packages:
        sys.path.append(str(asked.packages))
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    torch.manual_seed(0)
    print(f"{platform.machine()}, torch {torch.__version__}, timm {timm.__version__}, float32, CPU\n")
    if asked.images:
        for folder in asked.images:
            print_preprocessing(sorted(one for one in folder.iterdir() if one.suffix in (".png", ".jpg"))[:24])
    else:
        print_features([one for one in CASES if asked.only in one.layout])


def print_features(cases: Sequence[Case]) -> None:
    print("| layout | library | model | size | largest difference | relative |\n|---|---|---|---|---:|---:|")
    known = formats.readable_layouts()
    for case in cases:
        if case.layout not in known:
            continue
        try:
            version = importlib.import_module(case.library).__version__
        except ImportError as error:
            print(f"| `{case.layout}` | {case.library}: not installed ({error.name}) | {case.what} | | | |")
            continue
        for size in case.sizes:
            absolute, relative = difference(case, size)
            facts = (f"`{case.layout}`", f"{case.library} {version}", case.what, f"{size[0]} × {size[1]}")
            print("|", " | ".join((*facts, f"{absolute:.1e}", f"{relative:.1e}")), "|", flush=True)
    for layout, why in NAMES_ONLY.items():
        if layout in known:
            print(f"| `{layout}` | {why} | by names and shapes only | | | |")


def difference(case: Case, size: Side) -> tuple[float, float]:
    """The largest difference of the features, absolute and relative to the difference between two images."""
    with tempfile.TemporaryDirectory() as scratch:
        source, out = Path(scratch) / "source", Path(scratch) / "out"
        source.mkdir()
        with torch.random.fork_rng(devices=()):
            written, features = case.build(source, size)
        coarse = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(5))
        images = nn.functional.interpolate(coarse, size, mode="bilinear").expand(-1, 3, -1, -1)
        line = ["convert", str(written), "--out", str(out), "--size", *map(str, size), *case.options]
        if case.options:
            line += ["--layout", case.layout]
        with contextlib.redirect_stdout(io.StringIO()) as said:
            ended = cli.main(line)
        if ended:
            raise SystemExit(f"{' '.join(line)} failed: {said.getvalue()}")
        opened = load_bundle(out)
    mean, std = RAD_DINO["image_mean"][0], RAD_DINO["image_std"][0]
    spec = opened.spec
    with torch.inference_mode():
        theirs = features((images - mean) / std)
        own = ((images - spec.mean) / spec.std)[:, : spec.channels]
        backbone: Any = opened.method.backbone
        ours = backbone(own)
    if theirs.shape != ours.shape:
        raise SystemExit(f"{case.what}: the features have the shapes {tuple(theirs.shape)} and {tuple(ours.shape)}")
    worst = float((ours - theirs).abs().max())
    return worst, worst / float((theirs[0] - theirs[1]).abs().mean())


# ---- preprocessing


def print_preprocessing(files: Sequence[Path]) -> None:
    """Gray levels of the input of RAD-DINO, and of one with an input of 784 × 644 pixels."""
    wide = RAD_DINO | {"size": {"shortest_edge": 784}, "crop_size": {"height": 784, "width": 644}}
    direct = RAD_DINO | {"size": {"height": 784, "width": 644}, "do_center_crop": False}
    print(f"{len(files)} images, e.g. {files[0].name}\n")
    print("| steps | mean abs. difference | 99 % of the pixels | max. |\n|---|---:|---:|---:|")
    for what, steps in (
        ("shortest side to 518, centre 518 × 518", RAD_DINO),
        ("784 × 644, stretched", direct),
        ("shortest side to 784, centre 784 × 644", wide),
    ):
        found = np.concatenate([one.ravel() for one in differing_levels(files, steps)])
        print(f"| {what} | {found.mean():.2f} | {np.quantile(found, 0.99):.1f} | {found.max():.1f} |", flush=True)


def differing_levels(files: Sequence[Path], steps: dict[str, Any]) -> Iterator[np.ndarray]:
    """Absolute differences between the input that transformers makes and ours, in gray levels."""
    from PIL import Image

    from ribcage.bundle.formats.reading.preprocessor_config import preprocessing

    transformers: Any = importlib.import_module("transformers")
    names = ("BitImageProcessorPil", "BitImageProcessor")
    kind = next(getattr(transformers, name) for name in names if hasattr(transformers, name))
    processor = kind(**{name: value for name, value in steps.items() if name != "image_processor_type"})
    found = preprocessing(steps, 518)
    mean, std = found["mean"][0], found["std"][0]
    model = ModelSpec("test_vit", (), found["size"], found["stored"], found.get("fit", "crop"), mean, std, channels=3)
    for file in files:
        theirs = processor(Image.open(file), return_tensors="np")["pixel_values"][0]
        ours = explanation.view_tensor(explanation.stored_square(image_file.read_image(file), model), model)[0].numpy()
        yield np.abs(ours - theirs).astype(np.float64) * std * 255


if __name__ == "__main__":
    main()
