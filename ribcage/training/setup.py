"""Setup: from training options to processes, a loader, a trainer, and the exported layout."""

import dataclasses
import functools
import math
import operator
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import numpy as np
import torch

from ribcage.bundle import formats, ood
from ribcage.bundle.init import initial_provenance
from ribcage.bundle.io import save_bundle
from ribcage.bundle.spec import ModelSpec
from ribcage.data import sampling
from ribcage.data.block_shuffle import BlockShuffle
from ribcage.data.collection import Datasets
from ribcage.data.label_policy import Policy
from ribcage.data.loader import Loader
from ribcage.data.mapped_index import LARGE
from ribcage.data.pixel_check import PixelCheck
from ribcage.data.provenance import Provenance
from ribcage.imaging.augment import View
from ribcage.methods import Method
from ribcage.methods.base import ContrastiveMethod, LabelCounts
from ribcage.models.adapters import trained_summary
from ribcage.models.backbone import Backbone
from ribcage.models.recomputation import recompute_blocks
from ribcage.runtime import devices, distributed, files, flags, launch_variables, launcher, limits, schedules
from ribcage.runtime.remote import cache
from ribcage.runtime.spelling import count_phrase
from ribcage.training import micro_batches, optim, run_folder, sharding
from ribcage.training.options import TrainingOptions
from ribcage.training.run_folder import say, warn, with_history
from ribcage.training.trackers import check_trackers
from ribcage.training.trainer import Trainer

Given = TypeVar("Given", bound=TrainingOptions)
M = TypeVar("M", bound=Method)
STRIDE = 32
"""Pixels of an input per cell of the last feature map, in most architectures."""
SMALL = 64
"""Largest images, in pixels, for which `resnet18_small` is made."""


def run_processes(
    command: str,
    module: ModuleType,
    options: Given,
    train: Callable[[Given, torch.device], Path],
    wrong: Sequence[str] = (),
) -> Path | int:
    """Train in this process or, with --devices, in several; the run folder, or the exit code of those processes.

    The options, the run folder and the trackers are checked before anything is loaded, and an error is printed once.

    wrong: errors in the options, besides those of their limits.
    """

    def check() -> None:
        limits.check_options(options, wrong)
        check_trackers(options.track)
        run_folder.check_free(options)

    if options.devices > 1 and not launch_variables.launched():
        check()
        once = dataclasses.replace(options, devices=1)
        own = flags.option_line(module, once, str)  # the local folder of a remote --out
        return launcher.launch(options.devices, [command, *own])
    with launcher.started() as device, devices.settings_restored(device):
        distributed.run_on_first(check)
        if distributed.broadcast_from_first(options.resume) != options.resume:
            raise ValueError(
                f"Rank {distributed.rank()} and rank 0 found different files in {options.out}. Start the run again."
            )
        return train(options, device)


def loader_faults(options: TrainingOptions) -> list[str]:
    """Errors in --shuffle, and in a batch that cannot be divided equally among the processes."""
    wrong = []
    try:
        BlockShuffle.parse(options.shuffle)
    except ValueError as error:
        wrong.append(str(error))
    world = launch_variables.number_of_processes(options.devices)
    if options.batch < 1 or world < 1 or options.batch % world == 0:
        return wrong
    lower = options.batch // world * world
    use = " or ".join(f"--batch {size}" for size in (lower, lower + world) if size)
    return [
        *wrong,
        f"--batch {options.batch} must be a multiple of the number of processes, which is {world}: use {use}",
    ]


def findings_of(options: TrainingOptions, data: Datasets) -> tuple[str, ...]:
    """The findings of --findings, or all findings of the data."""
    return options.findings or data.findings


# ---- loader and trainer


def build_loader(
    options: TrainingOptions,
    data: Datasets,
    views: Callable[[tuple[int, int]], Sequence[View]],
    rows: np.ndarray,
    spec: ModelSpec,
    device: torch.device,
    *,
    policy: Policy,
    findings: Sequence[str] | None = None,
    drop_last: bool | None = None,
    per_dataset: bool = False,
    weights: Sequence[float] | None = None,
    same_patient: bool = False,
    together: bool = False,
    labelled: np.ndarray | None = None,
) -> Loader:
    """Batches of these rows, as the options and the model need them.

    Args:
        views: the views of an image at an input size.
        findings: those of the model where not given.
        drop_last: where not given, an incomplete last batch is dropped unless it is the only one.
        per_dataset: normalise each dataset by its own mean and standard deviation, not by the model's.
        weights, same_patient, together, labelled: as for a Loader.
    """
    if warning := enlargement_warning(spec.size, [one.size for one in data]):
        warn(warning)
    if warning := download_warning(options.shuffle, data):
        warn(warning)
    *early, _ = options.size_stages
    loader = Loader(
        data,
        views(spec.size),
        earlier=[(stage.end, views(stage.size)) for stage in early],
        batch=options.batch,
        seed=options.seed,
        shuffle=BlockShuffle.parse(options.shuffle) or True,
        rows=rows,
        findings=spec.findings if findings is None else findings,
        policy=policy,
        weights=weights,
        together=together,
        labelled=labelled,
        same_patient=same_patient,
        drop_last=len(rows) >= options.batch if drop_last is None else drop_last,
        threads=options.threads or None,
        rank=distributed.rank(),
        world=distributed.world_size(),
        channels=spec.channels,
        normalise=None if per_dataset else (spec.mean, spec.std),
        device=device,
    )
    if len(rows) > LARGE:  # fewer were checked before
        loader.check = PixelCheck(data)
    return loader


def count_labels(method: Method, loader: Loader) -> None:
    """Set what a method derives from the labels of all training images, if anything."""
    if not method.counts_labels:
        return
    blocks = (torch.from_numpy(labels) for labels in loader.label_blocks(loader.rows))
    method.count(LabelCounts.of(blocks, len(loader.findings)))


def sample_by_class(loader: Loader) -> None:
    """Let a loader draw a class first and then an image of it."""
    positive = np.concatenate([labels > 0.5 for labels in loader.label_blocks(loader.rows)])
    loader.sampler = dataclasses.replace(loader.sampler, weights=sampling.class_weights(positive))
    found = int(positive.any(axis=0).sum())
    say(
        f"Class-aware sampling: the classes ({count_phrase(found, 'finding')}, and the images without any finding) are "
        f"drawn with equal probability. "
        f"The probabilities before calibration do not correspond to the prevalence in the training data."
    )


def download_warning(shuffle: str, data: Datasets) -> str:
    """A warning where single images are read at random from remote shards that do not fit into the cache; else ""."""
    remote = [one for one in data if one.images.is_remote]
    size, limit = sum(one.images.nbytes for one in remote), cache.cache_limit() if remote else 0
    if shuffle != "rows" or size <= limit:
        return ""
    return (
        f"The remote images ({files.format_bytes(size)}) do not fit into the cache "
        f"({files.format_bytes(limit)}), so shards are downloaded many times per epoch with --shuffle rows. Use "
        f"--shuffle blocks, or set {cache.SIZE_VARIABLE} to a larger size."
    )


def enlargement_warning(size: tuple[int, int], stored: Sequence[int]) -> str:
    """A warning where images of these stored side lengths are enlarged to twice their size or more; else ""."""
    largest, least = max(stored), min(size)
    if least < 2 * largest:
        return ""
    smaller = STRIDE * math.ceil(largest / STRIDE)
    times = size[0] * size[1] / smaller**2
    texts = [
        f"The images are stored at {largest} px and are enlarged to {size[0]} × {size[1]} px for training, "
        f"which adds no detail."
    ]
    if smaller < least:
        texts.append(
            f"--size {smaller} needs about {times:,.0f} times less computation with the same model, but its saliency "
            f"maps are coarser."
        )
    if smaller < least and largest <= SMALL:
        texts.append(f"--model resnet18_small is made for images of up to {SMALL} px.")
    return " ".join(texts)


def build_trainer(options: TrainingOptions, method: M, loader: Loader, device: torch.device) -> Trainer[M]:
    """The trainer of a method on a loader, with the optimizer and the learning rate schedule of the options."""
    accept_sizes(options, method)
    loader.request_structures(method.structures)
    method.to(device).to(memory_format=torch.channels_last)
    if options.checkpoint_activations:
        save_memory(options, method)
    whole = divide(options, method, device) if options.shard else None
    assert options.optimizer and options.lr is not None and options.min_lr is not None
    assert options.weight_decay is not None
    decay = schedules.ramp("--weight-decay", options.weight_decay)
    steps, images = len(loader), min(options.batch, len(loader.rows))
    micro_batches.check_batch_norms(options, method, images)
    micro_batches.check_passes(options, method, images)
    print_summary(options, method, images)
    rising, falling = warmup_steps(options, steps), (options.schedule, options.min_lr, options.decay_at)
    rates = optim.Rates(options.lr, options.epochs * steps, rising, *falling)
    optimizer = optim.optimizer(
        method, options.optimizer, weight_decay=decay.start, layer_decay=options.layer_decay, betas=options.betas
    )
    return Trainer(
        method,
        loader,
        optimizer,
        rates,
        epochs=options.epochs,
        device=device,
        seed=options.seed,
        precision=options.precision,
        accumulate=micro_batches.accumulation_steps(options, images),
        clip=options.clip or 0.0,
        ema=options.ema,
        weight_decay=decay if isinstance(options.weight_decay, str) else None,
        compile=options.compile,
        whole=whole,
    )


def print_summary(options: TrainingOptions, method: Method, images: int) -> None:
    """Print the batch size, the optimizer, the image sizes and the averaged weights of a training."""
    divided = micro_batches.batch_summary(options, images, cached=isinstance(method, ContrastiveMethod))
    say(f"{divided} {optimizer_summary(options)}")
    if sizes := size_summary(options):
        say(sizes)
    if getattr(options, "adapt", "full") != "full":
        say(trained_summary(method))
    if options.ema:
        say(f"A moving average of the weights (decay {options.ema:g}) is validated and saved in the bundle.")
    if getattr(options, "validate_every", 1) > options.epochs:
        warn("--validate-every is longer than the run, so only the last epoch is validated.")


def accept_sizes(options: TrainingOptions, method: Method) -> None:
    """Prepare a method for all image sizes of the training; ValueError if it cannot process them."""
    stages = options.size_stages
    if len(stages) == 1:
        return
    if not method.any_size:
        raise ValueError(
            f"--size {options.size[0]} changes the image size during training, but {type(method).__name__} needs a "
            f"single size. Pass one size."
        )
    if method.backbone.has_one_size:
        raise ValueError(
            f"--size {options.size[0]} changes the image size during training, but {options.model} is built for a "
            f"single image size. Pass one size."
        )
    for part in method.modules():  # the backbone, and its copies in momentum encoders
        if isinstance(part, Backbone):
            part.accept_any_size()
    training, channels = method.backbone.training, method.backbone.channels
    for stage in stages:
        height, width = stage.size
        try:
            with torch.no_grad():
                method.backbone.eval()(next(method.backbone.parameters()).new_zeros(1, channels, height, width))
        except (AssertionError, RuntimeError, ValueError):
            raise ValueError(
                f"--size {options.size[0]}: {options.model} cannot process images of {height} × {width} pixels. Use "
                f"larger sizes."
            ) from None
    method.backbone.train(training)


def size_summary(options: TrainingOptions) -> str:
    """A sentence about the image sizes of the training, if there are several; else ""."""
    parts = [f"{stage.size[0]} px in {stage.epochs_phrase}" for stage in options.size_stages]
    if len(parts) == 1:
        return ""
    text = f"Image size: {', '.join(parts)}; validation and the saved model use the last size."
    return text + " The model is compiled once for each size." * options.compile


def divide(options: TrainingOptions, method: M, device: torch.device) -> M | None:
    """Divide the method among the processes, as --shard asks for; a whole copy of it, None in a single process."""
    sharding.refuse_unsharded(method, options.model, compile=options.compile)
    return sharding.sharded(method, device) if distributed.world_size() > 1 else None


def save_memory(options: TrainingOptions, method: Method) -> None:
    """Let the blocks of the backbone be recomputed, as --checkpoint-activations asks for."""
    if options.compile:
        raise ValueError("--checkpoint-activations and --compile cannot be combined. Leave out one of them.")
    if not recompute_blocks(method.backbone.model):
        raise ValueError(
            f"--checkpoint-activations needs a backbone with repeated blocks, but {options.model} has none. Leave the "
            f"option out."
        )


def warmup_steps(options: TrainingOptions, steps: int) -> int:
    """Warm-up steps of the learning rate, for so many steps per epoch: at most half of the run, so that its peak is
    reached."""
    half, wanted = options.epochs * steps // 2, round((options.warmup or 0) * steps)
    if wanted > half:
        warn(
            f"--warmup {options.warmup:g} is more than half of a run of {options.epochs} epochs: the learning "
            f"rate rises for {half:,} of {options.epochs * steps:,} steps."
        )
    return min(wanted, half)


def optimizer_summary(options: TrainingOptions) -> str:
    """A sentence about the optimizer and the learning rate."""
    epochs = count_phrase(options.epochs, "epoch")
    warmup = f" with a warm-up of {options.warmup:g}" if options.warmup else ""
    decay = options.weight_decay if isinstance(options.weight_decay, str) else f"{options.weight_decay:g}"
    return f"Optimizer {options.optimizer}, learning rate {options.lr:.3g}, weight decay {decay}, {epochs}{warmup}."


# ---- the published layout


def check_layout(options: TrainingOptions, method: Method, spec: ModelSpec) -> None:
    """Raise before the run where the layout of --export-as does not fit the method and model."""
    if options.export_as and distributed.rank() == 0:
        with tempfile.TemporaryDirectory() as folder:
            formats.load_layout(options.export_as).export(method, spec, Path(folder))


def export_layout(options: TrainingOptions, method: Method, spec: ModelSpec) -> None:
    """Write the weights in the layout of --export-as into the run folder."""
    print(f"Wrote {formats.load_layout(options.export_as).export(method, spec, options.out)}.")


def bundle_saver(
    options: TrainingOptions,
    data: Datasets,
    train_rows: np.ndarray,
    val_rows: np.ndarray,
    result: Callable[[], tuple[Method, ModelSpec]],
    teachers: Sequence[Provenance] = (),
) -> Callable[[], None]:
    """A function that saves the bundle of a run: the current model, the provenance of its training and validation rows,
    initial weights and teachers, and an OOD check, which is fitted once."""
    provenance = lazy_provenance(options, data, train_rows, val_rows, teachers)
    check = ood.lazy_check(data, train_rows, val_rows)

    def save() -> None:
        method, spec = result()
        save_bundle(options.out / "bundle", method, with_history(spec, options.out), provenance(), check())

    return save


def lazy_provenance(
    options: TrainingOptions,
    data: Datasets,
    train_rows: np.ndarray,
    val_rows: np.ndarray,
    teachers: Sequence[Provenance] = (),
) -> Callable[[], Provenance]:
    """A function that returns the provenance of a run, and reads the fingerprints on its first call: only the process
    that saves the bundle needs them. Errors of the site key and of the initial weights are raised at once."""
    Provenance.check_key(data)
    before = functools.reduce(operator.or_, teachers, initial_provenance(options.init))
    return functools.cache(lambda: Provenance.of(data, train_rows, val_rows) | before)
