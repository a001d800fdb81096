"""Ribcage: one tool for the whole life of a chest-radiograph model. Research use only.

Made from the commands by tests/test_stub.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from ribcage.bundle.cost import Profile
from ribcage.bundle.spec import ModelSpec
from ribcage.commands.export import Exported
from ribcage.data.dataset_folder import DatasetFolder
from ribcage.data.dataset_folder import open as open
from ribcage.data.findings import Policy as Policy
from ribcage.data.index import Index as Index
from ribcage.data.loader import Loader as Loader
from ribcage.imaging.augment import View as View
from ribcage.imaging.augment import gentle_view as gentle_view
from ribcage.reports.html import ResultWithPage
from ribcage.runtime.recipe import Recipe
from ribcage.training.checkup import Report
from ribcage.training.probe import ProbeResult
from ribcage.training.runs import RunFacts

Word = str | Path
Words = str | Path | Sequence[str | Path]

__version__: str

def compare(
    runs: Words,
    *,
    on: Word = '',
    thresholds: Words = (),
    html: Word | None = None,
    json: Word | None = None,
    resamples: int = 1000,
    seed: int = 0,
    latency: bool = False,
    threads: int = 0,
) -> ResultWithPage:
    """Compare models on the same images: differences with intervals, paired tests, and p-values adjusted for their number.

    Takes runs that have been evaluated, folders of evaluations, or tables of predictions; each is compared with the
    first. For models of Ribcage the cost is shown as well: parameters, multiply-adds, size on disk, and time with
    --latency.

    Args:
        runs: Two or more runs, folders of evaluations, or tables of predictions.
        on: Which evaluation of the runs to compare: its name, such as nih-test, or the first digits of its key
            (default: the only one that all have in common).
        thresholds: For tables of predictions without thresholds: one probability for all findings, or
            FINDING=PROBABILITY …
        html: Write a report to this file.
        json: Write all numbers to this file.
        resamples: Bootstrap resamples of patients.
        seed: Seed of the bootstrap.
        latency: Measure the time per image, in PyTorch and exported to ONNX Runtime, by turns.
        threads: CPU threads for --latency; 0: one per core.
    """

def convert(
    file: Word | None = None,
    *,
    out: Word | None = None,
    to: Word = '',
    model: Word = '',
    findings: Words = (),
    channels: Literal[1, 3] = 3,
    size: int | Sequence[int] = (),
    mean: float | Sequence[float] = (),
    std: float | Sequence[float] = (),
    data: Words = (),
    val: Word = 'val',
    layout: Word = '',
    partial: bool = False,
    formats: bool = False,
) -> ModelSpec | Path | None:
    """Convert a published checkpoint into a Ribcage model, calibrate a model, or write it in a published layout.

        ribcage convert model.pth.tar --out models/chexnet --layout chexnet
        ribcage convert models/chexnet --to torchvision --out chexnet.pth

        ribcage convert models/chexnet --data data/ours --out models/calibrated

    A checkpoint is recognised by the names of its weights; what was read and what was assumed is printed. Every tensor is
    accounted for: a file that does not cover the whole backbone is refused unless --partial is given. Nothing in a file is
    executed. With --data, temperature and thresholds are fitted to images of your own.

    Args:
        file: A checkpoint; with --to or --data also a run or model folder.
        out: The model folder to write; with --to the file, or a folder for it.
        to: Write the model in this published layout.
        model: Architecture, by its name in timm (default: recognised from the weights).
        findings: Findings of the last layer's outputs, in order; - drops an output (default: as published).
        channels: Input channels; 1 folds an RGB stem: faster, and exact but for zero padding at the borders.
        size: Height and width of the input, or one number for both (default: as published).
        mean: Mean of each channel for pixels in 0 … 1 (default: as published).
        std: Standard deviation of each channel (default: as published).
        data: Dataset folders whose --val split is used to fit temperature and thresholds (default: neither is
            fitted).
        val: The split for this; its images cannot be used for an honest test afterwards.
        layout: Layout of the checkpoint, needed where names and shapes alone do not tell (--formats lists them).
        partial: Accept a checkpoint with missing or unknown weights; missing ones stay random.
        formats: List the layouts that can be read and written, as a Markdown table.
    """

def demo(
    *,
    out: Word = 'demo',
    quick: bool = False,
    images: int = 1800,
    size: int = 256,
    seed: int = 0,
    model: Word = 'test_resnet',
    input_size: int = 64,
    epochs: int = 10,
    pretrain_epochs: int = 8,
    distil_epochs: int = 3,
    localise_epochs: int = 5,
    serve: bool = True,
    port: int = 8000,
) -> Path:
    """Run every step on synthetic radiographs in minutes, from import to a served model.

    Needs no network and no data. Each step is shown as the command that does it, and a report, index.html, shows the
    results. An interrupted demo continues where it stopped.

    Args:
        out: Folder for everything the demo writes.
        quick: Fewer images and shorter training, to see every step; the numbers mean little.
        images: Number of radiographs.
        size: Side of a stored image in pixels.
        seed: Seed of the radiographs and of training.
        model: Backbone, by its name in timm.
        input_size: Side of the model's input in pixels.
        epochs: Epochs of fine-tuning.
        pretrain_epochs: Epochs of pretraining.
        distil_epochs: Epochs of distillation.
        localise_epochs: Epochs of training the detector.
        serve: In a terminal, serve the models at the end until Ctrl-C (--no-serve: only check that the server
            works).
        port: Port of the server.
    """

def distil(
    *,
    data: Words,
    out: Word,
    teacher: Words,
    model: Word = 'eeea_net_c2',
    init: Word = '',
    findings: Words = (),
    labels: float = 1.0,
    frontal: bool = False,
    drop_copies: bool = True,
    drop_shared: Words = (),
    policy: Word = 'ignore',
    size: int | Sequence[int] = (224,),
    channels: Literal[1, 3] = 1,
    pool: Word = '',
    view: Words = (),
    epochs: int | None = None,
    batch: int = 64,
    micro_batch: int = 0,
    lr: float | None = None,
    min_lr: float | None = None,
    schedule: Literal['cosine', 'step', 'constant'] = 'cosine',
    decay_at: float | Sequence[float] = (0.6, 0.8),
    warmup: float | None = None,
    optimizer: Literal['adamw', 'sgd', 'lars'] | None = None,
    betas: float | Sequence[float] = (),
    weight_decay: float | None = None,
    layer_decay: float = 1.0,
    drop_path: float = 0.0,
    clip: float | None = None,
    precision: Literal['auto', 'float32', 'bf16'] = 'auto',
    compile: bool = False,
    save_minutes: float = 10.0,
    threads: int = 0,
    export_as: Word = '',
    devices: int = 1,
    seed: int = 0,
    resume: bool = False,
    train: Word = 'train',
    val: Word = 'val',
    augment: Literal['gentle', 'strong', 'plain'] = 'gentle',
    dropout: float = 0.0,
    loss: Literal['bce', 'focal', 'asymmetric', 'cross-entropy'] = 'bce',
    prior: bool = False,
    balanced: bool = False,
    smoothing: float = 0.0,
    mixup: float = 0.0,
    freeze: Literal['', 'backbone'] = '',
    ema: float = 0.0,
    keep: Literal['best', 'last'] = 'best',
    patience: int = 0,
    validate_every: int = 1,
    log_format: Literal['bar', 'paddle'] = 'bar',
    hard: float = 0.5,
    temperature: float = 2.0,
    match: Literal['kl', 'mse'] = 'kl',
    features: float = 0.0,
    relations: float = 0.0,
    weigh: Literal['mean', 'auroc'] = 'mean',
    teach: Literal['auto', 'live', 'stored'] = 'auto',
    allow_leak: bool = False,
) -> Path | int:
    """Distil one or several teachers into a small student, with the known labels beside the teachers' predictions.

    A teacher is a bundle, which predicts on the augmented image of the student at its own input size, or a table of
    predictions. Unlabelled images are used as well. As in 'ribcage finetune', the validation split selects the best epoch,
    the test split is not used, and --resume continues a run.

    Args:
        data: Dataset folders.
        out: Run folder to write.
        teacher: Teachers: bundles, run folders or tables of predictions (parquet, csv).
        model: Architecture of the student: a timm model or one of Ribcage's own.
        init: Initial weights: imagenet, a bundle or run folder, or a checkpoint file (default: random).
        findings: Findings to train on (default: all findings of the data).
        labels: Fraction of the training patients whose labels are used; the teachers are used for all patients.
        frontal: Only PA and AP views.
        drop_copies: Leave out training images of which another split has an identical copy.
        drop_shared: Splits to drop shared images from: images whose patients, or copies of which, are in another
            split.
        policy: Policy for uncertain and blank labels: ignore, ones, zeros, competition …, or FINDING=ones,
            blank=zeros.
        size: Input height and width in pixels, or one number for both.
        channels: Input channels; 3 repeats the gray image, for weights that cannot be folded into one channel.
        pool: Pooling of features, by timm's names: avg, token … (default: the model's own).
        view: Changes to the augmentation preset, as NAME=VALUE or NAME=LOW,HIGH: flip=0.5 crop=0.8,1.0.
        epochs: Training epochs (default: 10).
        batch: Batch size: images per optimizer step, over all processes.
        micro_batch: Images per forward pass of a process at most; gradients of larger batches are accumulated. 0:
            no limit.
        lr: Peak learning rate (default: 0.0003).
        min_lr: Final learning rate of the cosine schedule (default: 0).
        schedule: Learning rate schedule, updated every step.
        decay_at: Fractions of the run after which --schedule step divides the learning rate by 10.
        warmup: Warm-up epochs of the learning rate, at most half of the run (default: 1).
        optimizer: Optimizer. One that is not the default comes with its own learning rate and weight decay
            (default: adamw).
        betas: Betas of AdamW (default: 0.9 0.999).
        weight_decay: Weight decay of matrices and filters; biases and norms have none (default: 0.05).
        layer_decay: Layer-wise learning rate decay: factor per layer, from the head (1) down to the stem, as in
            BEiT and MAE.
        drop_path: Stochastic depth: probability of dropping a residual branch.
        clip: Maximum norm of the gradient; 0 does not clip (default: 0).
        precision: Precision of the forward pass; auto is bf16 where the hardware supports it natively.
        compile: Compile the model with torch.compile.
        save_minutes: Longest time between two checkpoints, in minutes.
        threads: Threads that load images; 0: one per core.
        export_as: Also export the weights in this published layout: moco, torchvision … (docs/weights.md).
        devices: Processes on this machine: one per GPU, or several on the CPU.
        seed: Random seed.
        resume: Continue from the last checkpoint of the run folder.
        train: Split to train on.
        val: Split that selects the best epoch, the temperature and the thresholds.
        augment: Augmentation preset.
        dropout: Dropout probability of the features before the head.
        loss: Loss, per finding; cross-entropy for mutually exclusive findings.
        prior: Initialise the bias of the head to the prevalence of each finding; without it, heat-maps after a
            short training may be empty.
        balanced: Weight the positives and negatives of each finding by the effective number of samples (Cui et
            al. 2019).
        smoothing: Label smoothing, towards 0.5.
        mixup: Mixup: alpha of the Beta distribution; 0: no mixup.
        freeze: Part of the model that is not trained.
        ema: Decay of the exponential moving average of the weights, which is then the result; 0: no average.
        keep: Epoch to keep: the best on validation, or the last.
        patience: Early stopping: validations without improvement after which the run ends; 0: no early stopping.
        validate_every: Epochs between two validations on the --val split.
        log_format: Format of the log: a progress bar, or paddle: a line every ten steps with the training AUROC
            of each finding.
        hard: Weight of the label loss; the distillation loss has the rest (1 - hard).
        temperature: Temperature of the distillation loss.
        match: Distillation loss: Kullback-Leibler divergence of softened probabilities, or mean squared error of
            logits.
        features: Weight of the feature loss: 1 - cosine similarity of the student's (projected) and a teacher's
            features.
        relations: Weight of the relation loss: squared difference of the similarities between locations of the
            feature maps.
        weigh: Weights of several teachers: equal, or per finding by how far its validation AUROC is above 0.5.
        teach: When teachers predict: live, on each augmented image; stored, once on each image as it is; auto,
            live if images are augmented.
        allow_leak: Continue although a teacher was trained on images of the --val split; the card says so.
    """

def doctor(
    *,
    json: Word | None = None,
) -> Report:
    """Check the installation: packages, devices, decoders, folders and terminal, and how to fix what fails.

    Packages are imported, a small DICOM file of every transfer syntax is decoded, files are written. The exit code is 1 if
    a required check fails.

    Args:
        json: Write the results to this file.
    """

def evaluate(
    run: Word,
    *,
    data: Words,
    split: Word = 'test',
    frontal: bool = False,
    out: Word | None = None,
    ten_crop: bool = False,
    protocol: Literal['honest', 'peers'] = 'honest',
    table: Literal['full', 'chexnet'] = 'full',
    policy: Word = '',
    rule: Word = 'youden',
    drop_shared: Words = (),
    allow_leak: bool = False,
    resamples: int = 1000,
    seed: int = 0,
    batch: int = 64,
    worst: int = 24,
) -> ResultWithPage:
    """Evaluate a model: metrics with intervals, a table of predictions, and a report with plots.

    Refuses to test on patients or images that the model was trained on. Temperature and thresholds are the model's own,
    from validation. Writes predictions.parquet (detections.parquet for a detector), metrics.json and index.html.

    Args:
        run: A run or model folder.
        data: Dataset folders.
        split: Split to evaluate on: train, val, test, another name, or all.
        frontal: Only PA and AP views.
        out: Output folder (default: RUN/evaluation/<datasets>-<split>, followed by options that differ from their
            defaults, and by six digits of the test's key where that folder holds a test of other data).
        ten_crop: Average the probabilities of ten crops of each image, as reproductions of CheXNet do.
        protocol: honest, or peers: thresholds are chosen on the tested images and images used for model selection
            are allowed, as in much published work.
        table: Format of the printed table; chexnet prints one line per finding, 'The AUROC of Mass is 0.86'.
        policy: What uncertain and blank labels become: ignore, ones, zeros, blank=zeros … (default: as in the
            model's validation, or ignore).
        rule: Rule of the thresholds: youden, midpoint, f1, sensitivity_95, specificity_95, or half.
        drop_shared: Leave out of the tested split what the model was trained on: its patients, images, and copies
            of them (default: as in training).
        allow_leak: Evaluate although the model was trained on these patients or images; the report says so.
        resamples: Bootstrap resamples of patients.
        seed: Seed of the bootstrap.
        batch: Images per batch.
        worst: Number of worst errors shown in the report.
    """

def export(
    model: Word,
    *,
    to: Literal['onnx', 'torchscript', 'openvino'] = 'onnx',
    out: Word | None = None,
    int8: bool = False,
    data: Words = (),
    train: Word = 'train',
    val: Word = 'val',
    ranges: int = 128,
    tolerance: float = 0.0001,
    latency: bool = True,
    runs: int = 20,
    threads: int = 0,
) -> Exported:
    """Export a model as one file for another runtime: 8-bit gray pixels in, calibrated probabilities out.

        ribcage export runs/small --to onnx --out small.onnx
        ribcage export runs/small --to openvino --int8 --data data/nih --out small-int8.xml

    The exported model is compared with the original on the same images; where probabilities differ by more than
    --tolerance, no file is written. int8 ranges are taken from --train images of --data, and the change in AUROC is
    measured on --val.

    Args:
        model: A run or model folder.
        to: Target runtime.
        out: Output file (default: model.onnx, model.ts or model.xml beside the model; model-int8.… with --int8).
        int8: Quantise to 8 bits: faster and smaller, with a small change of the probabilities.
        data: Dataset folders for the comparison, and for the ranges of --int8 (default: generated patterns, which
            --int8 cannot use).
        train: Split for the int8 ranges.
        val: Split for the comparison.
        ranges: Number of images for the int8 ranges.
        tolerance: Largest difference of a probability that is accepted; with --int8 it is only reported.
        latency: Measure the time beside the original model's (--no-latency skips this).
        runs: Timed runs for a batch of 1 and of 16; the median is reported.
        threads: CPU threads; 0: one per core.
    """

def finetune(
    *,
    data: Words,
    out: Word,
    model: Word = 'densenet121',
    init: Word = '',
    findings: Words = (),
    labels: float = 1.0,
    frontal: bool = False,
    drop_copies: bool = True,
    drop_shared: Words = (),
    policy: Word = 'ignore',
    size: int | Sequence[int] = (224,),
    channels: Literal[1, 3] = 1,
    pool: Word = '',
    view: Words = (),
    epochs: int | None = None,
    batch: int = 64,
    micro_batch: int = 0,
    lr: float | None = None,
    min_lr: float | None = None,
    schedule: Literal['cosine', 'step', 'constant'] = 'cosine',
    decay_at: float | Sequence[float] = (0.6, 0.8),
    warmup: float | None = None,
    optimizer: Literal['adamw', 'sgd', 'lars'] | None = None,
    betas: float | Sequence[float] = (),
    weight_decay: float | None = None,
    layer_decay: float = 1.0,
    drop_path: float = 0.0,
    clip: float | None = None,
    precision: Literal['auto', 'float32', 'bf16'] = 'auto',
    compile: bool = False,
    save_minutes: float = 10.0,
    threads: int = 0,
    export_as: Word = '',
    devices: int = 1,
    seed: int = 0,
    resume: bool = False,
    train: Word = 'train',
    val: Word = 'val',
    augment: Literal['gentle', 'strong', 'plain'] = 'gentle',
    dropout: float = 0.0,
    loss: Literal['bce', 'focal', 'asymmetric', 'cross-entropy'] = 'bce',
    prior: bool = False,
    balanced: bool = False,
    smoothing: float = 0.0,
    mixup: float = 0.0,
    freeze: Literal['', 'backbone'] = '',
    ema: float = 0.0,
    keep: Literal['best', 'last'] = 'best',
    patience: int = 0,
    validate_every: int = 1,
    log_format: Literal['bar', 'paddle'] = 'bar',
) -> Path | int:
    """Train a classifier of findings; the validation split selects the best epoch, the test split is not used.

    The run folder holds the options, a log line per step, a checkpoint, and `bundle/`: the best model so far with its
    temperature and thresholds. Ctrl-C, SIGTERM and SIGUSR1 save a checkpoint before the program ends; --resume continues
    from it, also in the middle of an epoch.

    Args:
        data: Dataset folders.
        out: Run folder to write.
        model: Architecture: a timm model or one of Ribcage's own.
        init: Initial weights: imagenet, a bundle or run folder, or a checkpoint file (default: random).
        findings: Findings to train on (default: all findings of the data).
        labels: Fraction of the training patients to use.
        frontal: Only PA and AP views.
        drop_copies: Leave out training images of which another split has an identical copy.
        drop_shared: Splits to drop shared images from: images whose patients, or copies of which, are in another
            split.
        policy: Policy for uncertain and blank labels: ignore, ones, zeros, competition …, or FINDING=ones,
            blank=zeros.
        size: Input height and width in pixels, or one number for both.
        channels: Input channels; 3 repeats the gray image, for weights that cannot be folded into one channel.
        pool: Pooling of features, by timm's names: avg, token … (default: the model's own).
        view: Changes to the augmentation preset, as NAME=VALUE or NAME=LOW,HIGH: flip=0.5 crop=0.8,1.0.
        epochs: Training epochs (default: 10).
        batch: Batch size: images per optimizer step, over all processes.
        micro_batch: Images per forward pass of a process at most; gradients of larger batches are accumulated. 0:
            no limit.
        lr: Peak learning rate (default: 0.0003).
        min_lr: Final learning rate of the cosine schedule (default: 0).
        schedule: Learning rate schedule, updated every step.
        decay_at: Fractions of the run after which --schedule step divides the learning rate by 10.
        warmup: Warm-up epochs of the learning rate, at most half of the run (default: 1).
        optimizer: Optimizer. One that is not the default comes with its own learning rate and weight decay
            (default: adamw).
        betas: Betas of AdamW (default: 0.9 0.999).
        weight_decay: Weight decay of matrices and filters; biases and norms have none (default: 0.05).
        layer_decay: Layer-wise learning rate decay: factor per layer, from the head (1) down to the stem, as in
            BEiT and MAE.
        drop_path: Stochastic depth: probability of dropping a residual branch.
        clip: Maximum norm of the gradient; 0 does not clip (default: 0).
        precision: Precision of the forward pass; auto is bf16 where the hardware supports it natively.
        compile: Compile the model with torch.compile.
        save_minutes: Longest time between two checkpoints, in minutes.
        threads: Threads that load images; 0: one per core.
        export_as: Also export the weights in this published layout: moco, torchvision … (docs/weights.md).
        devices: Processes on this machine: one per GPU, or several on the CPU.
        seed: Random seed.
        resume: Continue from the last checkpoint of the run folder.
        train: Split to train on.
        val: Split that selects the best epoch, the temperature and the thresholds.
        augment: Augmentation preset.
        dropout: Dropout probability of the features before the head.
        loss: Loss, per finding; cross-entropy for mutually exclusive findings.
        prior: Initialise the bias of the head to the prevalence of each finding; without it, heat-maps after a
            short training may be empty.
        balanced: Weight the positives and negatives of each finding by the effective number of samples (Cui et
            al. 2019).
        smoothing: Label smoothing, towards 0.5.
        mixup: Mixup: alpha of the Beta distribution; 0: no mixup.
        freeze: Part of the model that is not trained.
        ema: Decay of the exponential moving average of the weights, which is then the result; 0: no average.
        keep: Epoch to keep: the best on validation, or the last.
        patience: Early stopping: validations without improvement after which the run ends; 0: no early stopping.
        validate_every: Epochs between two validations on the --val split.
        log_format: Format of the log: a progress bar, or paddle: a line every ten steps with the training AUROC
            of each finding.
    """

def import_(
    dataset: Word,
    root: Word | None = None,
    *,
    out: Word | None = None,
    size: int | None = None,
    fit: Literal['pad', 'crop', 'squash'] = 'pad',
    depth: Literal[8, 16] = 8,
    workers: int = 0,
    window: Word = '',
    allow_rejected: Word = '50%',
    limit: int = 0,
    redo: bool = False,
    link: bool = False,
    split_list: Words = (),
    drop_shared: Words = (),
    name: Word = '',
    **options: Any,
) -> DatasetFolder:
    """Import a dataset into a dataset folder: one array of images, one table.

    Reads the tables of a public dataset or of your own images, decodes every image once, resizes it, and keeps labels
    exactly as the source has them. It can be interrupted at any time; the same command continues where it stopped.

    Args:
        dataset: Name of the dataset (docs/datasets.md), or `folder` for your own files.
        root: Its folder or file, as downloaded.
        out: Dataset folder to write (needed).
        size: Side of a stored image in pixels (default: 256, or less if all images are smaller); smaller images
            are enlarged, and the summary says how many.
        fit: How images become square: padded with black, cropped at the centre, or squashed.
        depth: Bits of a stored pixel.
        workers: Threads; 0: one per core.
        window: DICOM window: the explanation of a window, such as LUNG, or CENTRE,WIDTH (default: the file's own,
            docs/datasets.md).
        allow_rejected: How many images may be rejected before the exit code is 3: a number, a share such as 5%,
            or all.
        limit: Import only the first N images; 0: all.
        redo: Start again even if the folder is complete or begun, for example because rejected images are now
            there.
        link: Store only the table; images are then read from their files every time.
        split_list: Lists of image names that define the split: train=FILE test=FILE, one name per line.
        drop_shared: Splits, such as test, from which images are removed whose patients or copies are in another
            split.
        name: Name of the folder in reports, and name space of its patients (default: the dataset's name).
        options: its own, as `ribcage … --help` lists them.
    """

def inspect(
    folders: Words = (),
    *,
    html: Word | None = None,
    json: Word | None = None,
    near: bool = True,
    samples: int = 24,
    split_list: Words = (),
    **options: Any,
) -> ResultWithPage:
    """Audit data before training: counts, patients across splits, duplicates, and sample images.

    Takes dataset folders, or NAME:ROOT (nih:/data/nih) for the tables of a dataset that has not been imported. Prints a
    table; --html writes a self-contained report, --json the numbers.

    Args:
        folders: Dataset folders, or NAME:ROOT (none: --split-list compares lists by their names alone).
        html: Write a report with tables and sample images to this file.
        json: Write all numbers to this file.
        near: Look for near-duplicates as well (--no-near: only for identical images).
        samples: Sample images of each folder in the report.
        split_list: Lists of image names to compare with each other: NAME=FILE NAME=FILE, such as train=a.txt
            test=b.txt.
        options: its own, as `ribcage … --help` lists them.
    """

def localise(
    *,
    data: Words,
    out: Word,
    model: Word = '',
    init: Word = '',
    findings: Words = (),
    labels: float = 1.0,
    frontal: bool = False,
    drop_copies: bool = True,
    drop_shared: Words = (),
    policy: Word = 'ignore',
    size: int | Sequence[int] = (224,),
    channels: Literal[1, 3] = 1,
    pool: Word = '',
    view: Words = (),
    epochs: int | None = None,
    batch: int = 64,
    micro_batch: int = 0,
    lr: float | None = None,
    min_lr: float | None = None,
    schedule: Literal['cosine', 'step', 'constant'] = 'cosine',
    decay_at: float | Sequence[float] = (0.6, 0.8),
    warmup: float | None = None,
    optimizer: Literal['adamw', 'sgd', 'lars'] | None = None,
    betas: float | Sequence[float] = (),
    weight_decay: float | None = None,
    layer_decay: float = 1.0,
    drop_path: float = 0.0,
    clip: float | None = None,
    precision: Literal['auto', 'float32', 'bf16'] = 'auto',
    compile: bool = False,
    save_minutes: float = 10.0,
    threads: int = 0,
    export_as: Word = '',
    devices: int = 1,
    seed: int = 0,
    resume: bool = False,
    head: Literal['fcos', 'yolo', 'cam'] = 'fcos',
    width: int = 256,
    depth: int = 4,
    quality: Literal['centreness', 'iou'] = 'centreness',
    anchors: Literal['published', 'fitted'] = 'published',
    overlap: float = 0.4,
    share: float = 0.5,
    boxes: int = 100,
    freeze: Literal['', 'backbone'] = '',
    cache: bool = True,
    cache_gb: float = 16.0,
    train: Word = 'train',
    val: Word = 'val',
    augment: Literal['gentle', 'strong', 'plain'] = 'gentle',
    keep: Literal['best', 'last'] = 'best',
    patience: int = 0,
    validate_every: int = 1,
) -> Path | int:
    """Train a detector: a detection head on a backbone, frozen or not; the validation split selects the best epoch by mAP.

    Training uses images with boxes, and images labelled negative, which need none. As in 'ribcage finetune', the test split
    is not used, and --resume continues a run, also in the middle of an epoch.

    Args:
        data: Dataset folders.
        out: Run folder to write.
        model: Architecture: a timm model or one of Ribcage's own (default: that of the bundle of --init, else
            resnet50).
        init: Initial weights: imagenet, a bundle or run folder, or a checkpoint file (default: random).
        findings: Findings to detect (default: all with boxes in the training split).
        labels: Fraction of the training patients to use.
        frontal: Only PA and AP views.
        drop_copies: Leave out training images of which another split has an identical copy.
        drop_shared: Splits to drop shared images from: images whose patients, or copies of which, are in another
            split.
        policy: Policy for uncertain and blank labels: ignore, ones, zeros, competition …, or FINDING=ones,
            blank=zeros.
        size: Input height and width in pixels, or one number for both.
        channels: Input channels; 3 repeats the gray image, for weights that cannot be folded into one channel.
        pool: Pooling of features, by timm's names: avg, token … (default: the model's own).
        view: Changes to the augmentation preset, as NAME=VALUE or NAME=LOW,HIGH: flip=0.5 crop=0.8,1.0.
        epochs: Training epochs (default: 30).
        batch: Batch size: images per optimizer step, over all processes.
        micro_batch: Images per forward pass of a process at most; gradients of larger batches are accumulated. 0:
            no limit.
        lr: Peak learning rate (default: 0.001).
        min_lr: Final learning rate of the cosine schedule (default: 0).
        schedule: Learning rate schedule, updated every step.
        decay_at: Fractions of the run after which --schedule step divides the learning rate by 10.
        warmup: Warm-up epochs of the learning rate, at most half of the run (default: 1).
        optimizer: Optimizer. One that is not the default comes with its own learning rate and weight decay
            (default: adamw).
        betas: Betas of AdamW (default: 0.9 0.999).
        weight_decay: Weight decay of matrices and filters; biases and norms have none (default: 0.0001).
        layer_decay: Layer-wise learning rate decay: factor per layer, from the head (1) down to the stem, as in
            BEiT and MAE.
        drop_path: Stochastic depth: probability of dropping a residual branch.
        clip: Maximum norm of the gradient; 0 does not clip (default: 0).
        precision: Precision of the forward pass; auto is bf16 where the hardware supports it natively.
        compile: Compile the model with torch.compile.
        save_minutes: Longest time between two checkpoints, in minutes.
        threads: Threads that load images; 0: one per core.
        export_as: Also export the weights in this published layout: moco, torchvision … (docs/weights.md).
        devices: Processes on this machine: one per GPU, or several on the CPU.
        seed: Random seed.
        resume: Continue from the last checkpoint of the run folder.
        head: Detection head: fcos, anchor-free; yolo, YOLOv3's as in LoVT's protocol for frozen backbones; cam,
            boxes from the class activation maps of a trained classifier, without training.
        width: Channels of the fcos head, at least 4.
        depth: Convolutions of each fcos branch.
        quality: Quality by which fcos weights the score of a box: centreness of its location, or predicted IoU.
        anchors: Anchors of yolo: the published ones, or clustered from the training boxes.
        overlap: Non-maximum suppression: IoU above which the box with the lower score is dropped.
        share: Threshold of cam boxes, as a fraction of the maximum of the activation map.
        boxes: Largest number of detections per image.
        freeze: Part of the model that is not trained.
        cache: Cache the feature maps of a frozen backbone during the run, if the augmentation only flips.
        cache_gb: Largest size in GB of the cache, for training and validation each.
        train: Split to train on.
        val: Split that selects the best epoch and the score threshold.
        augment: Augmentation preset.
        keep: Epoch to keep: the best on validation, or the last.
        patience: Early stopping: validations without improvement after which the run ends; 0: no early stopping.
        validate_every: Epochs between two validations on the --val split.
    """

def predict(
    model: Word,
    paths: Words,
    *,
    out: Word | None = None,
    threshold: Word = '',
    ten_crop: bool = False,
    maps: Word | None = None,
    map_findings: Words = (),
    map_method: Literal['gradcam', 'layercam', 'occlusion'] = 'gradcam',
    map_layer: int = 0,
    sheet: Word | None = None,
    check_maps: bool = False,
    notes: bool = False,
    min_score: float | None = None,
    window: Word = '',
    allow_unread: Word = '0',
    batch: int = 16,
) -> pd.DataFrame:
    """Predict findings in image files: PNG, JPEG, TIFF, BMP or DICOM; files, folders, or patterns.

    A classifier gives a calibrated probability for every finding and marks those that reach their threshold; a detector
    gives boxes in the pixels of the file. Warnings about unusual images are shown beside the predictions. Files that
    cannot be read are listed, and the others are predicted.

    Args:
        model: A run or model folder.
        paths: Files, folders, or patterns such as 'inbox/**/*.dcm'.
        out: Write the predictions to this table (.csv or .parquet).
        threshold: Rule of the classifier's thresholds: youden, midpoint, f1, sensitivity_95, specificity_95, or
            half (default: youden, if the model has it).
        ten_crop: Average the probabilities of ten crops of each image; classifiers only.
        maps: Write saliency maps, or the images with a detector's boxes, to this folder, in the pixels of the
            file.
        map_findings: Findings to map (default: those that reach their threshold, else the most probable).
        map_method: Method of the saliency maps; layercam suits earlier layers, occlusion covers one square at a
            time and is slow.
        map_layer: Layer of the maps, counted back from the last: 0 is the last, 1 the last one with a finer grid
            …
        sheet: Write a sheet with the maps of all findings: one .svg file, or a folder for several files.
        check_maps: Sanity check: compare the maps with those of the same network with random weights; similar
            maps are not explanations.
        notes: Print how each file was read.
        min_score: Detectors: lowest score of a box (default: each finding's score threshold from validation).
        window: DICOM window: the explanation of a window, such as LUNG, or CENTRE,WIDTH (default: the file's own,
            docs/datasets.md).
        allow_unread: How many files may be unreadable before the exit code is 3: a number, a share such as 5%, or
            all.
        batch: Files per batch.
    """

def pretrain(
    method: Word,
    *,
    data: Words,
    out: Word,
    model: Word = 'resnet50',
    init: Word = '',
    findings: Words = (),
    labels: float = 1.0,
    frontal: bool = False,
    drop_copies: bool = True,
    drop_shared: Words = (),
    policy: Word = 'ignore',
    size: int | Sequence[int] = (224,),
    channels: Literal[1, 3] = 1,
    pool: Word = '',
    view: Words = (),
    epochs: int | None = None,
    batch: int = 256,
    micro_batch: int = 0,
    lr: float | None = None,
    min_lr: float | None = None,
    schedule: Literal['cosine', 'step', 'constant'] = 'cosine',
    decay_at: float | Sequence[float] = (0.6, 0.8),
    warmup: float | None = None,
    optimizer: Literal['adamw', 'sgd', 'lars'] | None = None,
    betas: float | Sequence[float] = (),
    weight_decay: float | None = None,
    layer_decay: float = 1.0,
    drop_path: float = 0.0,
    clip: float | None = None,
    precision: Literal['auto', 'float32', 'bf16'] = 'auto',
    compile: bool = False,
    save_minutes: float = 10.0,
    threads: int = 0,
    export_as: Word = '',
    devices: int = 1,
    seed: int = 0,
    resume: bool = False,
    train: Words = ('train',),
    share: float | Sequence[float] = (),
    augment: Literal['radiograph', 'paper'] = 'radiograph',
    probe: Words = (),
    watch_every: int = 10,
    log_format: Literal['bar', 'moco'] = 'bar',
    **options: Any,
) -> Path | int:
    """Pretrain a backbone, mostly without labels; finetune, probe or timm then start from its weights.

    'ribcage pretrain METHOD --help' shows the options of a method. The run folder holds the options, a log line per step, a
    checkpoint, the backbone as `bundle/` and a page of example images. Ctrl-C, SIGTERM and SIGUSR1 save a checkpoint before
    the program ends; --resume continues from it, also in the middle of an epoch.

    Args:
        method: Pretraining method.
        data: Dataset folders.
        out: Run folder to write.
        model: Architecture: a timm model or one of Ribcage's own.
        init: Initial weights: imagenet, a bundle or run folder, or a checkpoint file (default: random).
        findings: Findings to train on, for methods that use labels (default: all findings of the data).
        labels: Fraction of the training patients to use.
        frontal: Only PA and AP views.
        drop_copies: Leave out training images of which another split has an identical copy.
        drop_shared: Splits to drop shared images from: images whose patients, or copies of which, are in another
            split.
        policy: Policy for uncertain and blank labels: ignore, ones, zeros, competition …, or FINDING=ones,
            blank=zeros.
        size: Input height and width in pixels, or one number for both.
        channels: Input channels; 3 repeats the gray image, for weights that cannot be folded into one channel.
        pool: Pooling of features, by timm's names: avg, token … (default: avg after mae, else the model's own).
        view: Changes to the augmentation preset, as NAME=VALUE or NAME=LOW,HIGH: flip=0.5 crop=0.8,1.0.
        epochs: Training epochs (default: byol 1000; mae 800; mae_unet 800; moco 200; simclr 100; supcon 1000;
            supervised 100; swav 400).
        batch: Batch size: images per optimizer step, over all processes.
        micro_batch: Images per forward pass of a process at most; gradients of larger batches are accumulated. 0:
            no limit.
        lr: Peak learning rate (default: byol 0.2 × batch / 256; mae 0.00015 × batch / 256; mae_unet 0.00015 ×
            batch / 256; moco 0.03 × batch / 256; simclr 0.3 × batch / 256; supcon 0.05 × batch / 256; supervised
            0.001 × batch / 256; swav 0.6 × batch / 256).
        min_lr: Final learning rate of the cosine schedule (default: byol 0; mae 0; mae_unet 0; moco 0; simclr 0;
            supcon 0.001 × lr; supervised 0; swav 0.001 × lr).
        schedule: Learning rate schedule, updated every step.
        decay_at: Fractions of the run after which --schedule step divides the learning rate by 10.
        warmup: Warm-up epochs of the learning rate, at most half of the run (default: byol 10, at most 10% of the
            run; mae 40, at most 10% of the run; mae_unet 40, at most 10% of the run; moco 0; simclr 10, at most
            10% of the run; supcon 10, at most 10% of the run; supervised 1; swav 0).
        optimizer: Optimizer. One that is not the default comes with its own learning rate and weight decay
            (default: byol lars; mae adamw; mae_unet adamw; moco sgd; simclr lars; supcon sgd; supervised adamw;
            swav lars).
        betas: Betas of AdamW (default: mae 0.9 0.95; mae_unet 0.9 0.95; supervised 0.9 0.999).
        weight_decay: Weight decay of matrices and filters; biases and norms have none (default: byol 1.5e-06; mae
            0.05; mae_unet 0.05; moco 0.0001; simclr 1e-06; supcon 0.0001; supervised 0.05; swav 1e-06).
        layer_decay: Layer-wise learning rate decay: factor per layer, from the head (1) down to the stem, as in
            BEiT and MAE.
        drop_path: Stochastic depth: probability of dropping a residual branch.
        clip: Maximum norm of the gradient; 0 does not clip (default: byol 0; mae 0; mae_unet 0; moco 0; simclr 0;
            supcon 0; supervised 0; swav 0).
        precision: Precision of the forward pass; auto is bf16 where the hardware supports it natively.
        compile: Compile the model with torch.compile.
        save_minutes: Longest time between two checkpoints, in minutes.
        threads: Threads that load images; 0: one per core.
        export_as: Also export the weights in this published layout: moco, torchvision … (docs/weights.md).
        devices: Processes on this machine: one per GPU, or several on the CPU.
        seed: Random seed.
        resume: Continue from the last checkpoint of the run folder.
        train: Splits to train on.
        share: Fraction of a batch from each dataset (default: in proportion to its size).
        augment: Augmentation preset: one for radiographs, or the paper's for photographs, without colour.
        probe: Labelled dataset folders for a linear probe and kNN during training.
        watch_every: Epochs between two evaluations of the features, each of which also saves the bundle.
        log_format: Format of the log: a progress bar, or moco: a line every ten steps as the authors' code prints
            it.
        options: its own, as `ribcage … --help` lists them.
    """

def probe(
    model: Word,
    *,
    data: Words,
    init: Word = '',
    labels: float | Sequence[float] = (0.01, 0.1, 1.0),
    seeds: int = 3,
    findings: Words = (),
    train: Word = 'train',
    val: Word = 'val',
    split: Word = 'test',
    frontal: bool = False,
    drop_copies: bool = True,
    drop_shared: Words = (),
    policy: Word = 'ignore',
    size: int | Sequence[int] = (),
    channels: Literal[1, 3] = 1,
    pool: Word = '',
    batch: int = 64,
    threads: int = 0,
    allow_leak: bool = False,
    out: Word | None = None,
) -> ProbeResult:
    """Evaluate frozen features: logistic regression and k nearest neighbours, at several fractions of the labels.

    The model is a bundle or run folder, or an architecture with --init. Features are computed once, without augmentation;
    the validation split selects the regularisation and k. The fractions of one seed are nested, by patient.

    Args:
        model: Run folder, bundle, or name of an architecture.
        data: Dataset folders.
        init: Initial weights of a named architecture: imagenet, a bundle or run folder, or a file (default:
            random).
        labels: Fractions of the training patients to fit on.
        seeds: Number of random draws of each fraction.
        findings: Findings to probe (default: all findings of the data).
        train: Split to fit on.
        val: Split that selects the regularisation and k.
        split: Split to evaluate on.
        frontal: Only PA and AP views.
        drop_copies: Leave out training images of which another split has an identical copy.
        drop_shared: Splits to drop shared images from: images whose patients, or copies of which, are in another
            split; of the evaluated split also those the model was trained on.
        policy: Policy for uncertain and blank labels: ignore, ones, zeros, blank=zeros …
        size: Input height and width in pixels, or one number for both (default: the bundle's, else 224).
        channels: Input channels of a named architecture; 3 repeats the gray image.
        pool: Pooling of a named architecture, by timm's names: avg, token … (default: its own).
        batch: Images per batch.
        threads: Threads that load images; 0: one per core.
        allow_leak: Evaluate although the model was trained on these patients or images; the result says so.
        out: Folder for probe.json, with the numbers of every draw.
    """

def profile(
    models: Words = (),
    *,
    all: bool = False,
    classes: int | None = None,
    channels: Literal[1, 3] | None = None,
    size: int | Sequence[int] = (),
    latency: bool = True,
    threads: int = 0,
    runs: int = 10,
    json: Word | None = None,
) -> Profile:
    """Measure what models cost: parameters, multiply-adds, activation memory, and time on this processor.

    Takes names of architectures, runs, or model folders. Multiply-adds are counted twice: as 'thop' does, for comparison
    with papers, and in full, with the products of attention. --all adds five well-known models.

    Args:
        models: Names of architectures, runs, or model folders.
        all: Add five well-known models, with three channels as published, and with one.
        classes: Number of findings, for names (default: 14).
        channels: Input channels, for names (default: 3, as in papers; other commands use 1).
        size: Height and width of the input, or one number for both; for names and --all (default: 224).
        latency: Measure the time in PyTorch and exported to ONNX Runtime (--no-latency: only count).
        threads: CPU threads; 0: one per core.
        runs: Timed runs for each network and batch; the median is reported.
        json: Write all numbers to this file.
    """

def recipes(
    do: Literal['list', 'show'] = 'list',
    name: Word = '',
    *,
    json: Word | None = None,
) -> list[Recipe] | str:
    """List the published trainings that come with Ribcage – source, data, expected result, cost – or show one.

    `ribcage recipes` lists them, `ribcage recipes show NAME` prints the file, `ribcage run NAME` runs all of its steps, and
    `--recipe NAME` passes its options to the training command.

    Args:
        do: list, or show NAME.
        name: Recipe to show.
        json: Write the list to this file.
    """

def run(
    name: Word,
    *,
    data: Words = (),
    download: Words = (),
    out: Word | None = None,
    dry_run: bool = False,
    **options: Any,
) -> Path | int:
    """Run a recipe step by step: import, train, evaluate. `ribcage recipes` lists them.

    Imported data is given by --data, downloads by --download, which are imported first. Options of the training step can be
    changed: --epochs 1, --model resnet18. Each step is shown as a command. An interrupted recipe continues when the same
    command is run again.

    Args:
        name: A recipe's name, or a file like one.
        data: Dataset folders, in the recipe's order (default: those the recipe names).
        download: Downloaded folders or files to import first, in the same order.
        out: Run folder (default: the one the recipe names).
        dry_run: Only show the commands.
        options: its own, as `ribcage … --help` lists them.
    """

def runs(
    folder: Word = 'runs',
    *,
    json: Word | None = None,
) -> list[RunFacts]:
    """List the runs below a folder: command, model, data, state, progress and main result.

    A run is running, finished, stopped (by a signal, or killed) or failed. The result is the mean AUROC, or the mAP of a
    detector, of the latest test by the honest protocol, with its interval; before any test, that of validation.

    Args:
        folder: Folder to search for runs.
        json: Also write the list to this file, as JSON.
    """

def serve(
    models: Words,
    *,
    port: int = 8000,
    host: Word = '127.0.0.1',
    token_file: Word | None = None,
    log_predictions: Word | None = None,
    batch: int = 8,
    wait: float = 2.0,
    threads: int = 0,
    readers: int = 0,
    window: Word = '',
    max_requests: int = 64,
    max_files: int = 32,
    max_megabytes: float = 128.0,
    max_megapixels: float = 50.0,
    max_seconds: float = 60.0,
) -> None:
    """Serve models over HTTP: a viewer in the browser and an API for programs.

        ribcage serve runs/chexnet
        ribcage serve runs/chexnet runs/boxes --port 8080

    Uploaded images are not stored and nothing is sent elsewhere. Access from other machines needs a token: --host 0.0.0.0
    --token-file FILE, or the environment variable RIBCAGE_TOKEN. Research use only.

    Args:
        models: Runs or model folders.
        port: Port; 0: any free one.
        host: Address to listen on; one that other machines can reach needs a token.
        token_file: File with the access token (default: the environment variable RIBCAGE_TOKEN, if set).
        log_predictions: Append the predictions, without images, to a file in this folder, one line of JSON each
            (default: nothing is stored).
        batch: Largest batch of a model.
        wait: Milliseconds to wait for more images before a batch is computed.
        threads: CPU threads of a model; 0: one per core.
        readers: Processes that decode images; 0: one per core.
        window: DICOM window: the explanation of a window, such as LUNG, or CENTRE,WIDTH (default: the file's own,
            docs/datasets.md).
        max_requests: Concurrent requests with images; more get status 503.
        max_files: Files per request.
        max_megabytes: Size of a request.
        max_megapixels: Size of an image.
        max_seconds: Time limit of a request.
    """
