"""Training options: the options that all training commands share, and the defaults of those that are left open."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from ribcage.models.hyperparameters import USUAL, Hyperparameters, Optimizer
from ribcage.runtime import limits, schedules
from ribcage.runtime.schedules import SizeStage

# Heavy modules are imported where they are used: a command's help needs none of them.


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of all commands that train."""

    usual: ClassVar[Hyperparameters]
    """Hyperparameters for options that are left open."""
    data: tuple[str, ...]
    """Dataset folders."""
    out: Path
    """Run folder to write; it may be at a remote address (docs/remote.md)."""
    model: str
    """Architecture: a timm model, such as resnet18 or densenet121, or one of Ribcage's own, such as eeea_net_c2 or, for
    images of up to 64 px, resnet18_small. 'ribcage profile --list' lists them all."""
    init: str = ""
    """Initial weights: imagenet, a run folder or bundle, a checkpoint file, the folder of a published model, or
    hf:OWNER/NAME in the Hugging Face Hub (default: random)."""
    findings: tuple[str, ...] = ()
    """Findings to train on (default: all findings in the data)."""
    labels: float = 1.0
    """Fraction of the training patients to use; all training images of these patients are used."""
    frontal: bool = False
    """Use only frontal images (PA and AP views)."""
    drop_copies: bool = True
    """Drop training images that are identical to an image in another split."""
    drop_shared: tuple[str, ...] = ()
    """Splits from which an image is dropped if its patient, or a copy of the image, is also in another split."""
    policy: str = "ignore"
    """Label policy for uncertain labels (ignore, ones, zeros …). Comma-separated additions set the policy for
    single findings (Edema=zeros), blank labels (blank=zeros), single datasets (chexpert:zeros,
    chexpert:Edema=ones) and disagreement between readers (readers=any); see
    docs/datasets.md."""
    size: tuple[int | str, ...] = (224,)
    """Input height and width in pixels, or one number for both. With 128:0.6,224, the model is trained on images of 128
    pixels for 60 % of the epochs and then on images of 224 pixels (docs/training.md)."""
    channels: Literal[1, 3] = 1
    """Number of input channels; 3 repeats the greyscale image."""
    pool: str = ""
    """Pooling: a timm pool type, such as avg or token, or query for attention pooling with one learnt query per finding
    (default: that of the architecture)."""
    augment_options: tuple[str, ...] = ()
    """Changes to the augmentation preset, such as flip=0.5 or crop=0.8,1.0."""
    epochs: int
    """Training epochs."""
    batch: int
    """Batch size: images per optimizer step, summed over all processes."""
    shuffle: str = "rows"
    """Order of the training images: rows (all images are shuffled) or blocks (blocks of consecutive images are
    shuffled, and images are shuffled within a few blocks at a time; for data that fit neither into memory nor on the
    local disk). blocks:512:4 sets the number of images per block and the number of blocks within which images are
    shuffled (docs/datasets.md)."""
    micro_batch: int = 0
    """Maximum number of images per forward pass in each process; 0 means no limit. The gradients of larger batches are
    accumulated or, if the loss compares the images of a batch with each other, computed by gradient caching."""
    lr: float | None = None
    """Peak learning rate."""
    min_lr: float | None = None
    """Final learning rate of the cosine schedule."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """Learning rate schedule; the rate is updated every step."""
    decay_at: tuple[float, ...] = (0.6, 0.8)
    """Fractions of the run after which --schedule step divides the learning rate by 10."""
    warmup: float | None = None
    """Epochs of linear learning rate warm-up."""
    optimizer: Optimizer | None = None
    """Optimizer; each has its own default learning rate and weight decay."""
    betas: tuple[float, ...] = ()
    """Beta 1 and beta 2 of AdamW."""
    weight_decay: float | str | None = None
    """Weight decay, which is not applied to biases and normalisation layers. With 0.04:0.4, the weight decay follows a
    cosine from 0.04 to 0.4, as in DINO."""
    layer_decay: float = 1.0
    """Layer-wise learning rate decay: factor per layer from the head down to the stem, as in BEiT; 1 means no decay."""
    drop_path: float = 0.0
    """Stochastic depth rate (timm's drop_path_rate)."""
    clip: float | None = None
    """Maximum norm of the gradient; 0 means no clipping."""
    ema: float = 0.0
    """Decay of the exponential moving average (EMA) of the weights, such as 0.999; the averaged weights are validated
    and saved in the bundle. 0 means no EMA."""
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """Precision of the forward pass; auto: bf16 if the hardware supports it natively, fp16 on older GPUs with tensor
    cores, else float32. fp16 scales the loss; float32 switches TF32 off."""
    shard: bool = False
    """Divide weights, gradients and optimizer states among the processes (FSDP2), for transformers that do not fit on a
    GPU (docs/cluster.md)."""
    checkpoint_activations: bool = False
    """Recompute the activations inside the backbone's blocks in the backward pass instead of storing them. This takes
    less memory and more time; the results are the same."""
    compile: bool = False
    """Compile the model with torch.compile."""
    save_minutes: float = 10.0
    """Maximum time between two checkpoints, in minutes."""
    threads: int = 0
    """Number of threads that load images; 0 means one per core."""
    export_as: str = ""
    """Also write the weights in the layout of a published checkpoint, such as moco or torchvision (docs/weights.md)."""
    devices: int = 1
    """Number of GPUs to use on this machine, or of processes if the model is trained on the CPU."""
    seed: int = 0
    """Random seed."""
    track: tuple[str, ...] = ()
    """Experiment trackers to which the run is also logged, such as tensorboard, mlflow or wandb (docs/tracking.md)."""
    track_images: Literal["local", "all", "none"] = "local"
    """Trackers that also receive example images: local (those that write to this machine), all, or none."""
    resume: bool | Literal["auto"] = False
    """Continue from the last checkpoint in the run folder; auto: continue if there is a run, otherwise start one."""

    @property
    def size_stages(self) -> tuple[SizeStage, ...]:
        """The image sizes of training, with their epochs."""
        return schedules.size_stages(self.size, self.epochs)

    @property
    def final_size(self) -> tuple[int, int]:
        """(height, width) of the images at the end of training, in validation and in the bundle."""
        return schedules.final_size(self.size)


AnyOptions = TypeVar("AnyOptions", bound=TrainingOptions)
LEFT_OPEN = ("optimizer", "lr", "min_lr", "warmup", "betas", "weight_decay", "clip")
"""Options whose defaults depend on the method, the optimizer, the batch and the epochs. A resumed run keeps them unless
they are given again."""


def with_defaults(options: AnyOptions, published: Hyperparameters | None = None) -> AnyOptions:
    """Fill in the options that are left open: from the run that is resumed, else from the hyperparameters."""
    names = ("epochs", *LEFT_OPEN)
    given = {name: value for name in names if (value := getattr(options, name)) not in (None, ())}
    known: dict[str, Any] = earlier_values(options, names) | given
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
        "clip": default.clip,
    }
    return dataclasses.replace(options, **{**filled, **known})


def earlier_values(options: TrainingOptions, names: Sequence[str]) -> dict[str, object]:
    """Valid values of these options in the run that is resumed."""
    found = written_options(options.out) if options.resume else {}
    plain = {name: found[name] for name in names if _is_valid(name, found.get(name))}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}


def written_options(folder: Path) -> dict[str, object]:
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
        raise ValueError(f"{file} is damaged: it does not contain the options of a run. Choose another --out.")
    return format_1.options(values)


def _is_valid(name: str, value: object) -> bool:
    """Whether a value from a file is possible for an option: the name of an optimizer, or one or more numbers."""
    if name == "optimizer":
        return isinstance(value, str) and value in USUAL
    values = value if name == "betas" and isinstance(value, list) else [value]
    if name in limits.SCHEDULED and isinstance(value, str):
        return not limits.ramp_faults(name, value)
    return all(isinstance(one, int | float) for one in values)


def as_json(options: TrainingOptions) -> dict[str, object]:
    """All options as plain JSON values."""
    plain: dict[str, object] = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    return plain
