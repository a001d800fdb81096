"""Ribcage: one tool for the whole life of a chest-radiograph model. Research use only.

Made from the commands by tests/test_stub.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ribcage.data.dataset_folder import open as open
from ribcage.data.findings import Policy as Policy
from ribcage.data.index import Index as Index
from ribcage.data.loader import Loader as Loader
from ribcage.imaging.augment import View as View
from ribcage.imaging.augment import gentle_view as gentle_view

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
) -> dict[str, Any]:
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
) -> Any:
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
    """Run the whole process on made-up radiographs in minutes, from import to a served model.

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
    export_as: Literal['', 'byol', 'chexnet', 'dtforcxr8', 'huggingface', 'mae', 'moco', 'paddle', 'supcontrast', 'swav', 'torchvision'] = '',
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
) -> Any:
    """Train a small model to answer as others do: models it learns from, beside the labels that are known.

    Teachers are bundles, which see the very image that the student sees, at their own size; or tables of predictions.
    They teach images without labels, too. The rest is as in 'ribcage finetune': validation chooses the best, the test
    part is not touched, --resume goes on.

    Args:
        data: Dataset folders.
        out: The run folder to make.
        teacher: Bundles, run folders or tables of predictions (parquet, csv).
        model: The student: any model of timm's, or one of Ribcage's own.
        init: Where weights come from: imagenet, a bundle or run folder, a file; random when empty.
        findings: What to learn (default: all findings of the data).
        labels: Share of the training patients whose labels are shown; teachers teach all of them.
        frontal: Only PA and AP views.
        drop_copies: Leave out training images that are, to the bit, also in another split.
        drop_shared: Splits that give way: what they have of patients, or as copies of images, of other splits is
            left out.
        policy: What uncertain labels become: ones, zeros, ignore, competition, … with FINDING=… and blank=zeros.
        size: Height and width that the model sees, or one number for both.
        channels: 3 repeats the gray one: only for weights that cannot be folded.
        pool: How features are pooled, in timm's words: avg, token … (default: as the model does).
        view: Changes to what an image may be subjected to, as NAME=VALUE or NAME=LOW,HIGH: flip=0.5 crop=0.8,1.0.
        epochs: Times through the training images (default: 10).
        batch: Images in a step, over all processes.
        micro_batch: Most images that a process computes at once; more are computed in parts, which saves memory.
            0: all at once.
        lr: Peak learning rate (default: 0.0003).
        min_lr: Where the cosine ends (default: 0).
        schedule: How the learning rate falls, step by step.
        decay_at: For --schedule step: shares of the run after which it falls to a tenth.
        warmup: Epochs in which the learning rate rises, half of the run at most (default: 1).
        optimizer: Optimizer; another than the usual one comes with its own rate and decay (default: adamw).
        betas: Of AdamW (default: 0.9 0.999).
        weight_decay: Of matrices and filters; biases and norms have none (default: 0.05).
        layer_decay: Factor of the learning rate per layer, from head and last norm (1) down to the stem, as in
            BEiT and MAE.
        drop_path: Share of residual branches dropped.
        clip: Largest norm of the gradient; 0 does not clip (default: 0).
        precision: bf16 where the hardware is fast at it.
        compile: Let torch compile the model first.
        save_minutes: Longest time between two checkpoints.
        threads: For loading; 0 takes one for each core.
        export_as: Also write the weights in this published layout.
        devices: Processes on this machine, one for each GPU (or several on the CPU).
        seed: Everything drawn depends on it.
        resume: Go on from the run folder's checkpoint.
        train: The split to learn from.
        val: The split that chooses the best model, its temperature and its thresholds.
        augment: What a training image may be subjected to.
        dropout: Of the features before the head.
        loss: Per finding; cross-entropy when findings exclude each other.
        prior: Begin with each finding as likely as among the training labels; heat-maps of short trainings are
            else empty.
        balanced: Weight positives and negatives of a finding by their effective numbers.
        smoothing: How far labels are drawn towards one half.
        mixup: Alpha of the Beta distribution that mixes images in pairs.
        freeze: What stays as it is.
        ema: Decay of averaged weights, which are then the result; 0 averages none.
        keep: The result: the best epoch by validation, or the last, where validation cannot tell them apart.
        patience: Validations without a better one before the run ends; 0 never ends it.
        validate_every: Epochs between two validations, each of which looks at the whole --val split: more where
            epochs are short.
        log_format: paddle: a line every ten steps with the AUROC of each finding so far.
        hard: Share of the labels in the loss; the rest is the teachers'.
        temperature: How far answers are softened.
        match: How the student's answers are laid beside the teachers': as softened probabilities, or as logits.
        features: Weight of the likeness between the student's features and a teacher's.
        relations: Weight of the likeness between places of an image, as the student and as a teacher sees them.
        weigh: Several teachers: all alike, or by how far above chance each was in validation, finding by finding.
        teach: live: teachers see every augmented image; stored: each plain image once; auto: live if anything
            varies.
        allow_leak: Go on although a teacher has learnt from the images that choose the best student.
    """

def doctor(
    *,
    json: Word | None = None,
) -> dict[str, Any]:
    """Check the installation: packages, devices, decoders, folders and terminal, and say how to fix what is broken.

    Everything is tried: packages are imported, a small DICOM file of every transfer syntax is decoded, files are written.
    The exit code is 1 if something that is needed is broken.

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
) -> dict[str, Any]:
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
) -> dict[str, Any]:
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
    export_as: Literal['', 'byol', 'chexnet', 'dtforcxr8', 'huggingface', 'mae', 'moco', 'paddle', 'supcontrast', 'swav', 'torchvision'] = '',
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
) -> Any:
    """Train a model to name findings; validation chooses the best, the test part is not touched.

    Writes a run folder: options, a log line per step, a checkpoint to go on from, and `bundle/`, the best model so far with
    its temperature and thresholds. Ctrl-C, SIGTERM and SIGUSR1 save first; --resume goes on, in the middle of an epoch too.

    Args:
        data: Dataset folders.
        out: The run folder to make.
        model: Any model of timm's, or one of Ribcage's own.
        init: Where weights come from: imagenet, a bundle or run folder, a file; random when empty.
        findings: What to learn (default: all findings of the data).
        labels: Share of the patients to learn from.
        frontal: Only PA and AP views.
        drop_copies: Leave out training images that are, to the bit, also in another split.
        drop_shared: Splits that give way: what they have of patients, or as copies of images, of other splits is
            left out.
        policy: What uncertain labels become: ones, zeros, ignore, competition, … with FINDING=… and blank=zeros.
        size: Height and width that the model sees, or one number for both.
        channels: 3 repeats the gray one: only for weights that cannot be folded.
        pool: How features are pooled, in timm's words: avg, token … (default: as the model does).
        view: Changes to what an image may be subjected to, as NAME=VALUE or NAME=LOW,HIGH: flip=0.5 crop=0.8,1.0.
        epochs: Times through the training images (default: 10).
        batch: Images in a step, over all processes.
        micro_batch: Most images that a process computes at once; more are computed in parts, which saves memory.
            0: all at once.
        lr: Peak learning rate (default: 0.0003).
        min_lr: Where the cosine ends (default: 0).
        schedule: How the learning rate falls, step by step.
        decay_at: For --schedule step: shares of the run after which it falls to a tenth.
        warmup: Epochs in which the learning rate rises, half of the run at most (default: 1).
        optimizer: Optimizer; another than the usual one comes with its own rate and decay (default: adamw).
        betas: Of AdamW (default: 0.9 0.999).
        weight_decay: Of matrices and filters; biases and norms have none (default: 0.05).
        layer_decay: Factor of the learning rate per layer, from head and last norm (1) down to the stem, as in
            BEiT and MAE.
        drop_path: Share of residual branches dropped.
        clip: Largest norm of the gradient; 0 does not clip (default: 0).
        precision: bf16 where the hardware is fast at it.
        compile: Let torch compile the model first.
        save_minutes: Longest time between two checkpoints.
        threads: For loading; 0 takes one for each core.
        export_as: Also write the weights in this published layout.
        devices: Processes on this machine, one for each GPU (or several on the CPU).
        seed: Everything drawn depends on it.
        resume: Go on from the run folder's checkpoint.
        train: The split to learn from.
        val: The split that chooses the best model, its temperature and its thresholds.
        augment: What a training image may be subjected to.
        dropout: Of the features before the head.
        loss: Per finding; cross-entropy when findings exclude each other.
        prior: Begin with each finding as likely as among the training labels; heat-maps of short trainings are
            else empty.
        balanced: Weight positives and negatives of a finding by their effective numbers.
        smoothing: How far labels are drawn towards one half.
        mixup: Alpha of the Beta distribution that mixes images in pairs.
        freeze: What stays as it is.
        ema: Decay of averaged weights, which are then the result; 0 averages none.
        keep: The result: the best epoch by validation, or the last, where validation cannot tell them apart.
        patience: Validations without a better one before the run ends; 0 never ends it.
        validate_every: Epochs between two validations, each of which looks at the whole --val split: more where
            epochs are short.
        log_format: paddle: a line every ten steps with the AUROC of each finding so far.
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
) -> Any:
    """Import a data set into a dataset folder: one array of images, one table.

    Reads the tables of a public data set or of your own images, decodes every image once, resizes it, and keeps labels
    exactly as the source has them. It can be interrupted at any time; the same command continues where it stopped.

    Args:
        dataset: Data set: chexpert, folder, medmnist, mimic, nih, phantom or rsna (docs/datasets.md).
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
        name: Name of the folder in reports, and name space of its patients (default: the data set's name).
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
) -> dict[str, Any]:
    """Audit data before training: counts, patients across splits, duplicates, and sample images.

    Takes dataset folders, or NAME:ROOT (nih:/data/nih) for the tables of a data set that has not been imported. Prints a
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
    export_as: Literal['', 'byol', 'chexnet', 'dtforcxr8', 'huggingface', 'mae', 'moco', 'paddle', 'supcontrast', 'swav', 'torchvision'] = '',
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
) -> Any:
    """Train a detector: a backbone, frozen or not, under a head that finds boxes; validation chooses the best by mAP.

    Learns from images of which it is known where a finding is, or that it is nowhere: those without boxes teach, too. The
    rest is as in 'ribcage finetune': the test part is not touched, --resume goes on, in the middle of an epoch too.

    Args:
        data: Dataset folders.
        out: The run folder to make.
        model: Any model of timm's, or one of Ribcage's own (default: that of the bundle --init names, else
            resnet50).
        init: Where weights come from: imagenet, a bundle or run folder, a file; random when empty.
        findings: What to find (default: all of which there are boxes to learn from).
        labels: Share of the patients to learn from.
        frontal: Only PA and AP views.
        drop_copies: Leave out training images that are, to the bit, also in another split.
        drop_shared: Splits that give way: what they have of patients, or as copies of images, of other splits is
            left out.
        policy: What uncertain labels become: ones, zeros, ignore, competition, … with FINDING=… and blank=zeros.
        size: Height and width that the model sees, or one number for both.
        channels: 3 repeats the gray one: only for weights that cannot be folded.
        pool: How features are pooled, in timm's words: avg, token … (default: as the model does).
        view: Changes to what an image may be subjected to, as NAME=VALUE or NAME=LOW,HIGH: flip=0.5 crop=0.8,1.0.
        epochs: Times through the training images (default: 30).
        batch: Images in a step, over all processes.
        micro_batch: Most images that a process computes at once; more are computed in parts, which saves memory.
            0: all at once.
        lr: Peak learning rate (default: 0.001).
        min_lr: Where the cosine ends (default: 0).
        schedule: How the learning rate falls, step by step.
        decay_at: For --schedule step: shares of the run after which it falls to a tenth.
        warmup: Epochs in which the learning rate rises, half of the run at most (default: 1).
        optimizer: Optimizer; another than the usual one comes with its own rate and decay (default: adamw).
        betas: Of AdamW (default: 0.9 0.999).
        weight_decay: Of matrices and filters; biases and norms have none (default: 0.0001).
        layer_decay: Factor of the learning rate per layer, from head and last norm (1) down to the stem, as in
            BEiT and MAE.
        drop_path: Share of residual branches dropped.
        clip: Largest norm of the gradient; 0 does not clip (default: 0).
        precision: bf16 where the hardware is fast at it.
        compile: Let torch compile the model first.
        save_minutes: Longest time between two checkpoints.
        threads: For loading; 0 takes one for each core.
        export_as: Also write the weights in this published layout.
        devices: Processes on this machine, one for each GPU (or several on the CPU).
        seed: Everything drawn depends on it.
        resume: Go on from the run folder's checkpoint.
        head: fcos: without anchors; yolo: YOLOv3's, as published for frozen backbones; cam: where a classifier
            looks.
        width: Channels of fcos, from 4 on.
        depth: Convolutions of fcos before each of its answers.
        quality: What fcos weighs a box by: how near to the middle of the box a cell lies, or how well the box
            fits.
        anchors: Of yolo: those of the protocol, or fitted to the boxes that are learnt from.
        overlap: IoU above which the less sure of two found boxes is dropped.
        share: Of the greatest heat of cam, from which on a place belongs to a box.
        boxes: Found in an image at most, however unsure.
        freeze: What stays as it is.
        cache: Under a frozen backbone, where no image varies but by flips, make its maps once and keep them while
            it runs.
        cache_gb: The most that the maps of training, and those of validation, may take, in half precision.
        train: The split to learn from.
        val: The split that chooses the best detector and the score from which its boxes are shown.
        augment: What a training image may be subjected to.
        keep: The result: the best epoch by validation, or the last.
        patience: Validations without a better one before the run ends; 0 never ends it.
        validate_every: Epochs between two validations, each of which looks at the whole --val split: more where
            epochs are short.
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
) -> Any:
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
    export_as: Literal['', 'byol', 'chexnet', 'dtforcxr8', 'huggingface', 'mae', 'moco', 'paddle', 'supcontrast', 'swav', 'torchvision'] = '',
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
) -> Any:
    """Pretrain a backbone, mostly without labels; finetune, probe or timm then start from its weights.

    'ribcage pretrain METHOD --help' shows the options of a method. The run folder holds the options, a log line per step, a
    checkpoint, the backbone as `bundle/` and a page of example images. Ctrl-C, SIGTERM and SIGUSR1 save a checkpoint before
    the program ends; --resume continues from it, also in the middle of an epoch.

    Args:
        method: Pretraining method.
        data: Dataset folders.
        out: The run folder to make.
        model: Any model of timm's, or one of Ribcage's own.
        init: Where weights come from: imagenet, a bundle or run folder, a file; random when empty.
        findings: For methods that learn from labels: which (default: all findings of the data).
        labels: Share of the patients to learn from.
        frontal: Only PA and AP views.
        drop_copies: Leave out training images that are, to the bit, also in another split.
        drop_shared: Splits that give way: what they have of patients, or as copies of images, of other splits is
            left out.
        policy: What uncertain labels become: ones, zeros, ignore, competition, … with FINDING=… and blank=zeros.
        size: Height and width that the model sees, or one number for both.
        channels: 3 repeats the gray one: only for weights that cannot be folded.
        pool: How features are pooled, in timm's words: avg, token … (default: avg after mae, else as the model
            does).
        view: Changes to what an image may be subjected to, as NAME=VALUE or NAME=LOW,HIGH: flip=0.5 crop=0.8,1.0.
        epochs: Training epochs (default: byol 1000; mae 800; mae_unet 800; moco 200; simclr 100; supcon 1000;
            supervised 100; swav 400).
        batch: Images in a step, over all processes.
        micro_batch: Most images that a process computes at once; more are computed in parts, which saves memory.
            0: all at once.
        lr: Peak learning rate (default: byol 0.2 × batch / 256; mae 0.00015 × batch / 256; mae_unet 0.00015 ×
            batch / 256; moco 0.03 × batch / 256; simclr 0.3 × batch / 256; supcon 0.05 × batch / 256; supervised
            0.001 × batch / 256; swav 0.6 × batch / 256).
        min_lr: Where the cosine ends (default: byol 0; mae 0; mae_unet 0; moco 0; simclr 0; supcon 0.001 × lr;
            supervised 0; swav 0.001 × lr).
        schedule: How the learning rate falls, step by step.
        decay_at: For --schedule step: shares of the run after which it falls to a tenth.
        warmup: Epochs in which the learning rate rises, half of the run at most (default: byol 10, at most 10% of
            the run; mae 40, at most 10% of the run; mae_unet 40, at most 10% of the run; moco 0; simclr 10, at
            most 10% of the run; supcon 10, at most 10% of the run; supervised 1; swav 0).
        optimizer: Optimizer; another than the usual one comes with its own rate and decay (default: byol lars;
            mae adamw; mae_unet adamw; moco sgd; simclr lars; supcon sgd; supervised adamw; swav lars).
        betas: Of AdamW (default: mae 0.9 0.95; mae_unet 0.9 0.95; supervised 0.9 0.999).
        weight_decay: Of matrices and filters; biases and norms have none (default: byol 1.5e-06; mae 0.05;
            mae_unet 0.05; moco 0.0001; simclr 1e-06; supcon 0.0001; supervised 0.05; swav 1e-06).
        layer_decay: Factor of the learning rate per layer, from head and last norm (1) down to the stem, as in
            BEiT and MAE.
        drop_path: Share of residual branches dropped.
        clip: Largest norm of the gradient; 0 does not clip (default: byol 0; mae 0; mae_unet 0; moco 0; simclr 0;
            supcon 0; supervised 0; swav 0).
        precision: bf16 where the hardware is fast at it.
        compile: Let torch compile the model first.
        save_minutes: Longest time between two checkpoints.
        threads: For loading; 0 takes one for each core.
        export_as: Also write the weights in this published layout.
        devices: Processes on this machine, one for each GPU (or several on the CPU).
        seed: Everything drawn depends on it.
        resume: Go on from the run folder's checkpoint.
        train: The splits to learn from.
        share: Each data set's share of a batch (default: by its size).
        augment: What suits radiographs, or what the paper did to photographs.
        probe: Labelled dataset folders to try the features on while they are learnt.
        watch_every: Epochs between two looks at the features, each with a new bundle.
        log_format: moco: a line every ten steps with time, loss and accuracies, as MoCo prints it.
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
) -> dict[str, Any]:
    """Ask what frozen features know: logistic regression and nearest neighbours, at several shares of the labels.

    Takes a finished model, or the name of any backbone with --init. Features are computed once, every image as it is;
    validation chooses strength and number of neighbours, the tested split nothing. Shares of a seed are nested, by patient.

    Args:
        model: A run, the folder of a finished model, or the name of a model.
        data: Dataset folders.
        init: For a name: where weights come from: imagenet, a bundle or run folder, a file; random when empty.
        labels: Shares of the training patients to learn from.
        seeds: How often a share is drawn.
        findings: What to ask for (default: all findings of the data).
        train: The split to learn from.
        val: The split that chooses strength and number of neighbours.
        split: The split to test on.
        frontal: Only PA and AP views.
        drop_copies: Leave out training images that are, to the bit, also in another split.
        drop_shared: Splits that give way: what they have of patients, or as copies of images, of other splits is
            left out; of the tested split also what the model has seen.
        policy: What uncertain and blank labels count as: ignore, ones, zeros, blank=zeros …
        size: Height and width that the model sees, or one number for both (default: the finished model's; else
            224).
        channels: For a name: 3 repeats the gray one.
        pool: For a name: how features are pooled, in timm's words: avg, token … (default: as the model does).
        batch: Images at a time.
        threads: For loading; 0 takes one for each core.
        allow_leak: Test on what the model has seen, and say so.
        out: A folder to write probe.json to, all numbers of every draw.
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
) -> dict[str, Any]:
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
) -> Any:
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
) -> Any:
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
) -> list[dict[str, Any]]:
    """List runs: what was trained on what, how it stands, how far it is, and its main number.

    A run is running, finished, stopped (asked to, or killed) or failed. The number is the mean AUROC, or mAP of boxes, of
    the latest honest test with its interval; before any test, of the validation that chose the model.

    Args:
        folder: The folder below which runs are looked for.
        json: Write all of it to this file.
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
