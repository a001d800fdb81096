"""Training options: what all commands that train share, their defaults, and the run that is built from them."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from ribcage.models.hyperparameters import USUAL, Hyperparameters, Optimizer

if TYPE_CHECKING:
    from ribcage.data.collection import Datasets

# Heavy modules are imported where they are used: a command's help needs none of them.


@dataclass(frozen=True, kw_only=True)
class Course:
    """Options of all commands that train."""

    usual: ClassVar[Hyperparameters]
    """Hyperparameters of options that are left open."""
    data: tuple[str, ...]
    """Dataset folders."""
    out: Path
    """Run folder to write."""
    model: str
    """Architecture: a timm model or one of Ribcage's own."""
    init: str = ""
    """Initial weights: imagenet, a bundle or run folder, or a checkpoint file (default: random)."""
    findings: tuple[str, ...] = ()
    """Findings to train on (default: all findings of the data)."""
    labels: float = 1.0
    """Fraction of the training patients to use."""
    frontal: bool = False
    """Only PA and AP views."""
    drop_copies: bool = True
    """Leave out training images of which another split has an identical copy."""
    drop_shared: tuple[str, ...] = ()
    """Splits to drop shared images from: images whose patients, or copies of which, are in another split."""
    policy: str = "ignore"
    """Policy for uncertain and blank labels: ignore, ones, zeros, competition …, or FINDING=ones, blank=zeros."""
    size: tuple[int, ...] = (224,)
    """Input height and width in pixels, or one number for both."""
    channels: Literal[1, 3] = 1
    """Input channels; 3 repeats the gray image, for weights that cannot be folded into one channel."""
    pool: str = ""
    """Pooling of features, by timm's names: avg, token … (default: the model's own)."""
    view: tuple[str, ...] = ()
    """Changes to the augmentation preset, as NAME=VALUE or NAME=LOW,HIGH: flip=0.5 crop=0.8,1.0."""
    epochs: int
    """Training epochs."""
    batch: int
    """Batch size: images per optimizer step, over all processes."""
    micro_batch: int = 0
    """Images per forward pass of a process at most; gradients of larger batches are accumulated. 0: no limit."""
    lr: float | None = None
    """Peak learning rate."""
    min_lr: float | None = None
    """Final learning rate of the cosine schedule."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """Learning rate schedule, updated every step."""
    decay_at: tuple[float, ...] = (0.6, 0.8)
    """Fractions of the run after which --schedule step divides the learning rate by 10."""
    warmup: float | None = None
    """Warm-up epochs of the learning rate, at most half of the run."""
    optimizer: Optimizer | None = None
    """Optimizer. One that is not the default comes with its own learning rate and weight decay."""
    betas: tuple[float, ...] = ()
    """Betas of AdamW."""
    weight_decay: float | None = None
    """Weight decay of matrices and filters; biases and norms have none."""
    layer_decay: float = 1.0
    """Layer-wise learning rate decay: factor per layer, from the head (1) down to the stem, as in BEiT and MAE."""
    drop_path: float = 0.0
    """Stochastic depth: probability of dropping a residual branch."""
    clip: float | None = None
    """Maximum norm of the gradient; 0 does not clip."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Precision of the forward pass; auto is bf16 where the hardware supports it natively."""
    compile: bool = False
    """Compile the model with torch.compile."""
    save_minutes: float = 10.0
    """Longest time between two checkpoints, in minutes."""
    threads: int = 0
    """Threads that load images; 0: one per core."""
    export_as: Literal[
        "", "byol", "chexnet", "dtforcxr8", "huggingface", "mae", "moco", "paddle", "supcontrast", "swav", "torchvision"
    ] = ""
    """Also export the weights in this published layout."""
    devices: int = 1
    """Processes on this machine: one per GPU, or several on the CPU."""
    seed: int = 0
    """Random seed."""
    resume: bool = False
    """Continue from the last checkpoint of the run folder."""


Settled = TypeVar("Settled", bound=Course)
ASKED = ("optimizer", "lr", "min_lr", "warmup", "betas", "weight_decay", "clip")
"""What depends on the method, the optimizer, the batch and the length of a run where the options do not say; and what a
run that goes on keeps unless it is told otherwise."""


def settled(course: Settled, usual: Hyperparameters | None = None) -> Settled:
    """The course with all that it leaves open: as the run to go on with was begun, else as is usual."""
    names = ("epochs", *ASKED)
    known = begun(course, names) | {name: value for name in names if (value := getattr(course, name)) not in (None, ())}
    of_optimizer = (usual or course.usual).by(known.get("optimizer", (usual or course.usual).optimizer))
    lr = known.get("lr", of_optimizer.rate(course.batch))
    filled = {
        "optimizer": of_optimizer.optimizer,
        "lr": lr,
        "min_lr": lr * of_optimizer.end if course.schedule == "cosine" else 0.0,
        "epochs": of_optimizer.epochs,
        "warmup": of_optimizer.rise(known.get("epochs", of_optimizer.epochs)),
        "betas": of_optimizer.betas if of_optimizer.optimizer == "adamw" else (),
        "weight_decay": of_optimizer.weight_decay,
        "clip": 0.0,
    }
    return dataclasses.replace(course, **{**filled, **known})


def begun(course: Course, names: Sequence[str]) -> dict[str, Any]:
    """What a run that is to go on was begun with, of that which options may leave open."""
    from ribcage.training import run_folder

    found = run_folder.begun(course.out) if course.resume else {}
    plain = {name: found[name] for name in names if _is_option(name, found.get(name))}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}


def _is_option(name: str, value: Any) -> bool:
    """Whether a file says of this option what it can be: an optimizer, numbers, or a number."""
    if name == "optimizer":
        return isinstance(value, str) and value in USUAL
    values = value if name == "betas" and isinstance(value, list) else [value]
    return all(isinstance(one, int | float) for one in values)


def moves(course: Course) -> str:
    """How weights will be moved, in words."""
    rises = (
        f"rising for {course.warmup:g} of {course.epochs:,} epochs" if course.warmup else f"epochs {course.epochs:,}"
    )
    return f"By {course.optimizer}, learning rate {course.lr:.3g}, {rises}, weight decay {course.weight_decay:g}."


def run(command: str, module: ModuleType, course: Course, train: Callable[[Any, Any], Path]) -> Any:
    """Train in this process or, where several are asked for, start them; the run folder, or an exit code."""
    from ribcage.runtime import distributed, flags

    if course.devices > 1 and not distributed.launched():
        once = dataclasses.replace(course, devices=1)
        return distributed.launch(course.devices, [command, *flags.words(module, once)])
    with distributed.started() as device:
        return train(course, device)


def loader(course: Course, data: "Datasets", shown: Any, rows: Any, model: Any, device: Any, **more: Any) -> Any:
    """Batches of these rows in these views, as the course and the model to be want them; more: of the loader's own."""
    from ribcage.data.loader import Loader
    from ribcage.runtime import distributed

    asked = {"findings": model.findings, "drop_last": len(rows) >= course.batch, "normalise": (model.mean, model.std)}
    return Loader(
        data,
        shown,
        batch=course.batch,
        seed=course.seed,
        rows=rows,
        threads=course.threads or None,
        rank=distributed.rank(),
        world=distributed.world(),
        channels=model.channels,
        device=device,
        **(asked | more),
    )


def begin(course: Course, method: Any, loader: Any, device: Any, *, ema: float = 0.0) -> Any:
    """The run of a method over what a loader shows: optimizer and learning rates of the course."""
    import torch

    from ribcage.training import optim, run_folder, trainer

    method.to(device).to(memory_format=torch.channels_last)
    assert course.optimizer and course.lr is not None and course.min_lr is not None and course.weight_decay is not None
    steps, images = len(loader), min(course.batch, len(loader.rows))
    check_norms(course, method, images)
    run_folder.say(f"{divided(course, images)} {moves(course)}")
    if getattr(course, "validate_every", 1) > course.epochs:
        run_folder.say("WARNING: --validate-every is longer than the run: only its last epoch is validated.")
    rates = optim.Rates(
        course.lr,
        course.epochs * steps,
        rise(course, steps),
        course.schedule,
        course.min_lr,
        course.decay_at,
    )
    optimizer = optim.optimizer(
        method,
        course.optimizer,
        weight_decay=course.weight_decay,
        layer_decay=course.layer_decay,
        betas=course.betas,
    )
    return trainer.Run(
        method,
        loader,
        optimizer,
        rates,
        epochs=course.epochs,
        device=device,
        seed=course.seed,
        precision=course.precision,
        accumulate=parts(course, images),
        clip=course.clip or 0.0,
        ema=ema,
        compile=course.compile,
    )


def rise(course: Course, steps: int) -> int:
    """Steps in which the learning rate rises: half of the run at most, so that it is reached."""
    from ribcage.training import run_folder

    half, asked = course.epochs * steps // 2, round((course.warmup or 0) * steps)
    if asked > half:
        run_folder.say(
            f"WARNING: --warmup {course.warmup:g} is more than half of a run of {course.epochs} epochs: the learning "
            f"rate rises for {half:,} of {course.epochs * steps:,} steps."
        )
    return min(asked, half)


def parts(course: Course, images: int) -> int:
    """In how many parts each process computes its share of so many images: none is larger than --micro-batch."""
    import math

    from ribcage.runtime import distributed

    share = math.ceil(images / distributed.world())
    return math.ceil(share / (course.micro_batch or share))


def divided(course: Course, images: int) -> str:
    """How the images of a step are computed, in words."""
    from ribcage.runtime import distributed

    world, count = distributed.world(), parts(course, images)
    ways = [f"by {world} processes"] * (world > 1) + [f"in {count} parts each"] * (count > 1 and world > 1)
    ways += [f"in {count} parts"] * (count > 1 and world == 1)
    return f"A step sees {images:,} images" + (f", {' '.join(ways)}." if ways else ".")


def check_norms(course: Course, method: Any, images: int) -> None:
    """Raise where batch norms that learn would see single images: their statistics would be of one."""
    from torch import nn

    least = images // parts(course, images)
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    if least < 2 and any(isinstance(one, norms) and one.training for one in method.train().modules()):
        what = f"--micro-batch {course.micro_batch}" if parts(course, images) > 1 else f"--batch {course.batch}"
        raise ValueError(
            f"{what} leaves {least} image at a time of a batch of {images:,}, but {course.model} or the head on it has "
            "batch norms, which need two at least."
        )


def check_layout(course: Course, method: Any, model: Any) -> None:
    """Whether the published layout holds such a method and model: better said before the run than after it."""
    import tempfile

    from ribcage.bundle import formats
    from ribcage.runtime import distributed

    if course.export_as and distributed.rank() == 0:
        with tempfile.TemporaryDirectory() as folder:
            formats.load(course.export_as).export(method, model, Path(folder))


def export(course: Course, method: Any, model: Any) -> None:
    """Write the published layout into the run folder."""
    from ribcage.bundle import formats

    print(f"Wrote {formats.load(course.export_as).export(method, model, course.out)}.")


def rows(course: Course, data: "Datasets", *splits: str) -> tuple[Any, str]:
    """The rows of the splits to learn from, with a share of the patients; and a sentence about them."""
    from ribcage.data import selection

    every = data.rows_of(*splits, frontal=course.frontal)
    chosen = selection.without_copies(data, every, *splits) if course.drop_copies else every
    copies, before = len(every) - len(chosen), len(chosen)
    chosen = own_rows(course, data, chosen)
    shared = before - len(chosen)
    chosen = selection.share_of_patients(data, chosen, course.labels, course.seed)
    less = [f"{course.labels:g} of the patients"] if course.labels < 1 else []
    less += [f"{copies:,} copies of images in other splits left out"] if copies else []
    less += [f"{shared:,} left out that share patients or images with other splits"] if shared else []
    return chosen, f"Training on {len(chosen):,} of {len(every):,} images" + (f" ({'; '.join(less)})" if less else "")


def own_rows(course: Course, data: "Datasets", rows: Any) -> Any:
    """These rows without those that give way; each image is still the one that was imported."""
    from ribcage.data import selection

    kept = rows[~selection.given_way(data, course.drop_shared)[rows]] if course.drop_shared else rows
    if not len(kept):
        gone = " ".join(course.drop_shared)
        raise ValueError(f"--drop-shared {gone} leaves no image in a split that is needed: name another split.")
    data.require_intact(kept)
    return kept


def findings(course: Course, data: "Datasets") -> tuple[str, ...]:
    """Those asked for, or all that the data has."""
    return course.findings or tuple(dict.fromkeys(name for one in data for name in one.index.findings))


def written(course: Course) -> dict[str, Any]:
    """All options, as JSON has them."""
    import json

    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(course), default=str))
    return plain
