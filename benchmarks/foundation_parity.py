"""Features of published foundation models: the library that defines them beside the model of `ribcage convert`.

    pip install --target peers --no-deps transformers tokenizers regex monai torchxrayvision imageio scikit-image
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
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

from ribcage import cli
from ribcage.bundle import formats
from ribcage.bundle.io import load_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.imaging import image_file
from ribcage.inference import explanation

Side = tuple[int, int]
Features = Callable[[Tensor], Tensor]
"""(N, 3, H, W) normalised images → (N, D) features of the library."""
RAD_DINO: dict[str, Any] = {
    "image_processor_type": "BitImageProcessor", "do_convert_rgb": True, "do_resize": True, "resample": 3,
    "size": {"shortest_edge": 518}, "do_center_crop": True, "crop_size": {"height": 518, "width": 518},
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "image_mean": [0.5307, 0.5307, 0.5307], "image_std": [0.2583, 0.2583, 0.2583],
}  # fmt: skip
"""As in the preprocessor_config.json of RAD-DINO."""
SMALL: dict[str, Any] = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
NAMES_ONLY = {
    "ark": "no package", "dino": "no package", "eva_x": "no package; the blocks are those of timm",
    "medical_mae": "no package; the blocks are those of timm", "medmnist": "its package has no models",
}  # fmt: skip
"""Layout → why there is no library to compare with."""


@dataclass(frozen=True)
class Case:
    """A model of a library."""

    layout: str
    library: str
    what: str
    sizes: tuple[Side, ...]
    build: Callable[[Path, Side], tuple[Path, Features]]
    """(empty folder, size) → what the library wrote there, and its features."""
    options: tuple[str, ...] = ()
    """Further options of `convert`."""


def stirred(model: Any) -> Any:
    """The model in evaluation mode, with random weights of which each matters."""
    drawing = torch.Generator().manual_seed(3)
    for name, value in model.named_parameters():
        vector, embedding = value.ndim < 2, value.ndim > 1 and value.shape[0] == 1
        spread = 0.1 if vector else 0.5 if embedding else value[0].numel() ** -0.5
        plain = vector and bool(re.search("weight|lambda|gamma", name))
        value.data = torch.randn(value.shape, generator=drawing) * spread + plain
    return model.eval()


def settled(model: Any, channels: int) -> Any:
    """A CNN whose batch norms have the statistics of some images, without which its features would hardly vary."""
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(4, channels, 96, 96, generator=torch.Generator().manual_seed(4)))
    return model.eval()


# ---- models


def transformers_folder(folder: Path, model: Any, scale: dict[str, Any] = RAD_DINO) -> Path:
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(scale))
    return folder


def dinov2(folder: Path, registers: bool = False, **options: Any) -> tuple[Path, Features]:
    transformers: Any = importlib.import_module("transformers")
    name = "Dinov2WithRegisters" if registers else "Dinov2"
    config = getattr(transformers, f"{name}Config")(image_size=518, patch_size=14, **options)
    model = stirred(getattr(transformers, f"{name}Model")(config))
    return transformers_folder(folder, model), lambda images: model(images).pooler_output


def dinov3(folder: Path, **options: Any) -> tuple[Path, Features]:
    transformers: Any = importlib.import_module("transformers")
    config = transformers.DINOv3ViTConfig(image_size=224, patch_size=16, num_register_tokens=4, **options)
    model = stirred(transformers.DINOv3ViTModel(config))
    return transformers_folder(folder, model), lambda images: model(images).pooler_output


def monai_densenet(folder: Path, size: Side) -> tuple[Path, Features]:
    nets: Any = importlib.import_module("monai.networks.nets")
    model = settled(stirred(nets.DenseNet121(spatial_dims=2, in_channels=3, out_channels=14)), 3)
    torch.save(model.state_dict(), folder / "model.pt")
    model.class_layers.out = nn.Identity()
    return folder / "model.pt", model


def xrayvision_densenet(folder: Path, size: Side) -> tuple[Path, Features]:
    models: Any = importlib.import_module("torchxrayvision.models")
    model = stirred(models.DenseNet(num_classes=18, in_channels=1, apply_sigmoid=False))
    settled(model, 1)
    torch.save(model.state_dict(), folder / "model.pt")
    return folder / "model.pt", lambda images: model.features2(images[:, :1])


SCALE = ("--mean", "0.5307", "0.5307", "0.5307", "--std", "0.2583", "0.2583", "0.2583")
GRAY_SCALE = ("--mean", "0.5307", "--std", "0.2583")
PATCH14: tuple[Side, ...] = ((224, 224), (280, 224), (518, 518))
PATCH16: tuple[Side, ...] = ((224, 224), (256, 192))
CASES = (
    Case("transformers_dino", "transformers", "DINOv2, ViT-S/14", PATCH14, lambda at, _: dinov2(at, **SMALL)),
    Case("transformers_dino", "transformers", "RAD-DINO: DINOv2, ViT-B/14", ((224, 224), (518, 518)),
         lambda at, _: dinov2(at, hidden_size=768, num_hidden_layers=12, num_attention_heads=12)),
    Case("transformers_dino", "transformers", "DINOv2 with 4 registers, ViT-S/14", PATCH14,
         lambda at, _: dinov2(at, True, num_register_tokens=4, **SMALL)),
    Case("transformers_dino", "transformers", "DINOv3, ViT-S/16", PATCH16,
         lambda at, _: dinov3(at, intermediate_size=1536, **SMALL)),
    Case("monai", "monai", "DenseNet-121", ((128, 128),), monai_densenet, SCALE),
    Case("xrayvision", "torchxrayvision", "DenseNet-121", ((224, 224),), xrayvision_densenet, GRAY_SCALE),
)  # fmt: skip


# ---- comparison


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
