"""Training options: the options that all training commands share, and the defaults of those that are left open."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from ribcage.models.hyperparameters import USUAL, Hyperparameters, Optimizer

# Heavy modules are imported where they are used: a command's help needs none of them.


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of all commands that train."""

    usual: ClassVar[Hyperparameters]
    """Hyperparameters for options that are left open."""
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
    export_as: str = ""
    """Also export the weights in this published layout: moco, torchvision … (docs/weights.md)."""
    devices: int = 1
    """Processes on this machine: one per GPU, or several on the CPU."""
    seed: int = 0
    """Random seed."""
    resume: bool = False
    """Continue from the last checkpoint of the run folder."""


AnyOptions = TypeVar("AnyOptions", bound=TrainingOptions)
LEFT_OPEN = ("optimizer", "lr", "min_lr", "warmup", "betas", "weight_decay", "clip")
"""Options whose defaults depend on the method, the optimizer, the batch and the epochs. A resumed run keeps them unless
they are given again."""


def with_defaults(options: AnyOptions, published: Hyperparameters | None = None) -> AnyOptions:
    """Fill in the options that are left open: from the run that is resumed, else from the hyperparameters."""
    names = ("epochs", *LEFT_OPEN)
    given = {name: value for name in names if (value := getattr(options, name)) not in (None, ())}
    known = earlier_values(options, names) | given
    default = published or options.usual
    default = default.by(known.get("optimizer", default.optimizer))
    lr = known.get("lr", default.rate(options.batch))
    filled = {
        "optimizer": default.optimizer,
        "lr": lr,
        "min_lr": lr * default.end if options.schedule == "cosine" else 0.0,
        "epochs": default.epochs,
        "warmup": default.rise(known.get("epochs", default.epochs)),
        "betas": default.betas if default.optimizer == "adamw" else (),
        "weight_decay": default.weight_decay,
        "clip": 0.0,
    }
    return dataclasses.replace(options, **{**filled, **known})


def earlier_values(options: TrainingOptions, names: Sequence[str]) -> dict[str, Any]:
    """Valid values of these options in the run that is resumed."""
    found = written_options(options.out) if options.resume else {}
    plain = {name: found[name] for name in names if _is_valid(name, found.get(name))}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}


def written_options(folder: Path) -> dict[str, Any]:
    """The options of the run in this folder, from its options.json; {} if there is none."""
    from ribcage.runtime import files, format_1

    file = folder / "options.json"
    try:
        values = files.read_json(file)
    except FileNotFoundError:
        return {}
    except ValueError:
        values = None
    history = values.get("history", []) if isinstance(values, dict) else None
    if (
        not isinstance(values, dict)
        or not isinstance(history, list)
        or not all(isinstance(one, dict) for one in history)
    ):
        raise ValueError(f"{file} is damaged: it does not have the options of a run. Choose another --out.")
    return format_1.renamed(values, format_1.OPTIONS)


def _is_valid(name: str, value: object) -> bool:
    """Whether a value from a file is possible for an option: the name of an optimizer, or one or more numbers."""
    if name == "optimizer":
        return isinstance(value, str) and value in USUAL
    values = value if name == "betas" and isinstance(value, list) else [value]
    return all(isinstance(one, int | float) for one in values)


def as_json(options: TrainingOptions) -> dict[str, Any]:
    """All options as plain JSON values."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    return plain
