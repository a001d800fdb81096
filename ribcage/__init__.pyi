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
    """Compare models on the same images: differences with intervals, paired tests, p-values adjusted for their number.

    Takes runs that were evaluated, folders of evaluations, or tables of predictions; each is compared with the first. Where
    the model itself is known, what it costs stands there, too: parameters, multiply-adds, size on disk, time if asked for.

    Args:
        runs: Two or more runs, folders of evaluations, or tables of predictions.
        on: Which evaluation of the runs, such as nih-test, or the first digits of a test's key (default: the only
            test that all have in common).
        thresholds: Of tables of predictions that know none: a probability for all findings, or
            FINDING=PROBABILITY …
        html: Write a page to this file.
        json: Write all numbers to this file.
        resamples: Of the patients, for the intervals.
        seed: Of the resamples.
        latency: Measure the time of one image, by turns, as it runs here and exported to ONNX Runtime.
        threads: With --latency: to measure it by; 0 takes one for each core.
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
    yes_as: Word = '',
    partial: bool = False,
    formats: bool = False,
) -> Any:
    """Convert weights: anybody's published file into a finished model, a finished model into anybody's layout.

        ribcage convert model.pth.tar --out models/chexnet --yes-as chexnet
        ribcage convert models/chexnet --to torchvision --out chexnet.pth

        ribcage convert models/chexnet --data data/ours --out models/calibrated

    A file is recognised by the names of its weights; what is read and what is assumed is printed, and where shapes alone
    speak for a layout, --yes-as must confirm it. Every tensor is accounted for: below full coverage of the backbone nothing
    is written unless --partial says so. Nothing in a file is executed. --formats lists what is known. With --data
    temperature and thresholds are fitted to images of your own, of a file or of a model that was converted before.

    Args:
        file: A file of weights; with --to or --data also a run, or the folder of a finished model.
        out: The folder of the finished model; with --to the file, or a folder for it.
        to: Write the finished model in this published layout.
        model: The architecture, by timm's name (default: as the weights tell).
        findings: What the rows of the last layer answer, in their order; - for a row to be left out (default: as
            published).
        channels: 1 folds a first layer made for three: faster, and exact where it sees no padding.
        size: Height and width of the images, or one number for both (default: as published).
        mean: Of each channel, subtracted from pixels in 0 … 1 (default: as published).
        std: By what they are then divided.
        data: Dataset folders whose --val split chooses temperature and thresholds (default: none are chosen).
        val: That split: its images then serve no test.
        yes_as: The layout that the file is of: for files whose names and shapes alone do not tell (--formats
            lists them).
        partial: Take a file that lacks weights, or has unknown ones; what is lacking stays random.
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
    seen: int = 64,
    epochs: int = 10,
    pretrain_epochs: int = 8,
    distil_epochs: int = 3,
    localise_epochs: int = 5,
    serve: bool = True,
    port: int = 8000,
) -> Path:
    """From nothing to a served model on made-up radiographs: the whole journey in minutes, without data of one's own.

    Needs no network and no data. What it does is shown as commands, which can be typed one by one, and in the end on one
    page, index.html. Interrupted, it goes on where it was.

    Args:
        out: The folder for everything the demo makes.
        quick: Fewer images, shorter training: every step is seen, and no number means much.
        images: How many radiographs to make up.
        size: Their side in pixels.
        seed: Another seed, other patients.
        model: What to train.
        seen: Side of what the model sees.
        epochs: Times through the training images.
        pretrain_epochs: Times through them without looking at their labels.
        distil_epochs: Times that a small model is taught them by the first one.
        localise_epochs: Times that a detector on the frozen first model sees them.
        serve: In a terminal, serve the models in the end until Ctrl-C (--no-serve: only try it).
        port: Where to serve them.
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
    """Look whether all that is needed is here: packages, devices, decoders, folders, terminal; and say what mends it.

    Everything is really tried: packages are imported, a small image of every DICOM syntax is decoded, files are written.
    Ends with exit code 1 where something that is needed is broken.

    Args:
        json: Write all of it to this file.
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
    """Test a finished model: every number with its interval, a table of predictions, a page with plots.

    Refuses to test on patients or images the model has seen. Thresholds and temperature come from validation, as the
    model carries them. Writes predictions.parquet, metrics.json and index.html. Of a detector it tests the boxes, and
    writes detections.parquet.

    Args:
        run: A run, or the folder of a finished model.
        data: Dataset folders.
        split: Which of their images: train, val, test, a split of another name, or all.
        frontal: Only PA and AP views.
        out: Where to write (default: RUN/evaluation/<sets>-<split>, then what was asked for beyond the defaults,
            then, where that holds a test of other data, six digits of the test's key).
        ten_crop: Ten views of each image, the mean of their probabilities, as CheXNet's reproductions test.
        protocol: peers: thresholds chosen on the tested images, and images the model was selected on are allowed.
        table: What to print; chexnet is one line per finding, 'The AUROC of Mass is 0.86'.
        policy: What uncertain and blank labels count as: ignore, ones, zeros, blank=zeros … (default: as in the
            model's own validation; ignore where that is not known)
        rule: The thresholds of the rates: youden, midpoint, f1, sensitivity_95, specificity_95 or half.
        drop_shared: The tested split gives way: patients and images that the model has seen, and copies of them,
            are left out of it (default: as the training was told).
        allow_leak: Test on what the model has seen, and say so on the report.
        resamples: Of the patients, for the intervals.
        seed: Of the resamples.
        batch: Images at a time.
        worst: Images on the page on which the model errs most.
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
    """Write a finished model as one file for another runtime: gray bytes in, calibrated probabilities out.

        ribcage export runs/small --to onnx --out small.onnx
        ribcage export runs/small --to openvino --int8 --data data/nih --out small-int8.xml

    The file is asked about the same images as the model; where their answers differ by more than --tolerance there is no
    file. int8 is made by the ranges that --train images of --data show, and what it costs in AUROC is tested on --val.

    Args:
        model: A run, or the folder of a finished model.
        to: For which runtime.
        out: The file (default: model.onnx, model.ts or model.xml beside the model; model-int8.… with --int8).
        int8: Products of whole numbers: faster, smaller, and not quite the same.
        data: Dataset folders to check it on, and for --int8 to take ranges from (default: patterns, which int8
            cannot use).
        train: The split that int8 takes its ranges from.
        val: The split on which the two are compared.
        ranges: Images that int8 takes its ranges from.
        tolerance: The largest difference of a probability that is allowed, but for --int8, whose difference is
            only told.
        latency: Measure the time beside the model's own (--no-latency: do not).
        runs: Of each, for a batch of 1 and of 16; the median is given.
        threads: To compute by; 0 takes one for each core.
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
    """Turn a data set's files into a dataset folder: one array of images, one table.

    Reads the tables of a public data set (or your own images), decodes every image once, brings it to one size and
    keeps labels exactly as the source says. Can be interrupted at any moment: the same command goes on where it stopped.

    Args:
        dataset: The kind of data: chexpert, folder, medmnist, mimic, nih, phantom or rsna (docs/datasets.md).
        root: Its folder or file, as downloaded.
        out: The dataset folder to make (needed).
        size: Side of a stored image in pixels (default: 256, or less where tables tell that all images are
            smaller); smaller images are enlarged to it, and the summary says how many.
        fit: How an image becomes square: black borders, centre crop, or squashed.
        depth: Bits of a stored pixel.
        workers: Threads; 0 takes one for each core.
        window: What DICOM files are shown by: the explanation of a window such as LUNG, or CENTRE,WIDTH (default:
            the file's own choice, docs/datasets.md).
        allow_rejected: How many images may be rejected before the exit code is 3: a number, a share such as 5%,
            or all.
        limit: Only the first so many images; 0 takes all.
        redo: Begin anew, though the folder is complete or begun: images that were rejected may be there now.
        link: Store no images, only the table; images are then read from their files every time.
        split_list: Bare lists of images that make the split: train=FILE test=FILE, one name a line.
        drop_shared: Splits that give way: images whose patients or copies are in another split are set aside,
            such as test.
        name: What the folder is called in reports, and the name space of its patients (default: the data set's
            name).
        options: its own, as `ribcage … --help` lists them.
    """

def inspect(
    folders: Words,
    *,
    html: Word | None = None,
    json: Word | None = None,
    near: bool = True,
    samples: int = 24,
    split_list: Words = (),
    **options: Any,
) -> dict[str, Any]:
    """Look at data before training on it: counts, patients across splits, duplicates, a sheet of images.

    Takes dataset folders, or NAME:ROOT (nih:/data/nih) for the tables of a data set that has not been imported. Prints a
    table; --html writes one self-contained page, --json the numbers.

    Args:
        folders: Dataset folders, or NAME:ROOT.
        html: Write a page with tables and sample images to this file.
        json: Write all numbers to this file.
        near: Look for near-copies too (--no-near: only for identical images).
        samples: Images on the sheet of each folder.
        split_list: Bare lists of images to compare with each other: NAME=FILE NAME=FILE, such as train=a.txt
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
    of: Words = (),
    map_method: Literal['gradcam', 'layercam', 'occlusion'] = 'gradcam',
    map_layer: int = 0,
    sheet: Word | None = None,
    check_maps: bool = False,
    notes: bool = False,
    least: float | None = None,
    window: Word = '',
    allow_unread: Word = '0',
    batch: int = 16,
) -> Any:
    """Ask a finished model about image files: PNG, JPEG, TIFF, BMP, DICOM; files, folders, patterns.

    A classifier gives a calibrated probability for every finding and says which reach their threshold; a detector gives
    boxes, in pixels of the file. What is unusual about an image is said beside its answers. A file that cannot be read is
    said to be so, and the others are answered.

    Args:
        model: A run, or the folder of a finished model.
        paths: Files, folders of files, and patterns such as 'inbox/**/*.dcm'.
        out: Write the answers to this table (.csv or .parquet).
        threshold: How the thresholds of a classifier were chosen: youden, midpoint, f1, sensitivity_95,
            specificity_95 or half (default: youden, where the model has it).
        ten_crop: Ten views of each image, the mean of their probabilities; of a classifier.
        maps: Write images of where the model looks, or of the boxes it finds, into this folder, in pixels of the
            file.
        of: The findings of the maps (default: those that reach their threshold, else the likeliest).
        map_method: How maps are made; layercam is for earlier layers, occlusion covers squares and looks into no
            layer, slowly.
        map_layer: How much earlier a layer the maps are of: 0 is the last, 1 the last of those with more cells …
        sheet: Write a sheet of each file with maps of all findings: one .svg file, or a folder for several.
        check_maps: Compare the maps with those of the same network with random weights: they must not stay as
            they are.
        notes: Say what was done to read each file.
        least: Of a detector: the least score of a box (default: what the model's validation chose for each
            finding).
        window: What DICOM files are shown by: the explanation of a window such as LUNG, or CENTRE,WIDTH (default:
            the file's own choice, docs/datasets.md).
        allow_unread: How many files may be unreadable before the exit code is 3: a number, a share such as 5%, or
            all.
        batch: Files at a time.
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
    """Learn what radiographs look like, mostly without labels; the result is a backbone to finetune, probe or load in timm.

    Methods: byol, mae, mae_unet, moco, supcon, supervised, swav; 'ribcage pretrain METHOD --help' shows its own options.
    Writes a run folder: options, a log line per step, a checkpoint to go on from, `bundle/` and a page of images. Ctrl-C,
    SIGTERM and SIGUSR1 save first; --resume goes on, in the middle of an epoch too.

    Args:
        method: One file of `methods/`: byol, mae, mae_unet, moco, supcon, supervised or swav.
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
        epochs: Training epochs (default: byol 1000; mae 800; mae_unet 800; moco 200; supcon 1000; supervised 100;
            swav 400).
        batch: Images in a step, over all processes.
        micro_batch: Most images that a process computes at once; more are computed in parts, which saves memory.
            0: all at once.
        lr: Peak learning rate (default: byol 0.2 × batch / 256; mae 0.00015 × batch / 256; mae_unet 0.00015 ×
            batch / 256; moco 0.03 × batch / 256; supcon 0.05 × batch / 256; supervised 0.001 × batch / 256; swav
            0.6 × batch / 256).
        min_lr: Where the cosine ends (default: byol 0; mae 0; mae_unet 0; moco 0; supcon 0.001 × lr; supervised
            0; swav 0.001 × lr).
        schedule: How the learning rate falls, step by step.
        decay_at: For --schedule step: shares of the run after which it falls to a tenth.
        warmup: Epochs in which the learning rate rises, half of the run at most (default: byol 10, at most 10% of
            the run; mae 40, at most 10% of the run; mae_unet 40, at most 10% of the run; moco 0; supcon 10, at
            most 10% of the run; supervised 1; swav 0).
        optimizer: Optimizer; another than the usual one comes with its own rate and decay (default: byol lars;
            mae adamw; mae_unet adamw; moco sgd; supcon sgd; supervised adamw; swav lars).
        betas: Of AdamW (default: mae 0.9 0.95; mae_unet 0.9 0.95; supervised 0.9 0.999).
        weight_decay: Of matrices and filters; biases and norms have none (default: byol 1.5e-06; mae 0.05;
            mae_unet 0.05; moco 0.0001; supcon 0.0001; supervised 0.05; swav 1e-06).
        layer_decay: Factor of the learning rate per layer, from head and last norm (1) down to the stem, as in
            BEiT and MAE.
        drop_path: Share of residual branches dropped.
        clip: Largest norm of the gradient; 0 does not clip (default: byol 0; mae 0; mae_unet 0; moco 0; supcon 0;
            supervised 0; swav 0).
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
    """What models cost: parameters, multiply-adds, memory for activations, time on this machine's processor.

    Takes names of models, runs, or folders of finished models. Two counts of multiply-adds are given: 'thop' as many papers
    print them, and all that run, attention's products included. --all adds five models that are compared with each other.

    Args:
        models: Names of models, runs, or folders of finished models.
        all: Five famous ones too: in three channels as they were published, and in one.
        classes: For names: findings that the head answers (default: 14).
        channels: For names: of the images (default: 3, as in papers; the other commands take 1).
        size: For names and --all: height and width of the images, or one number for both (default: 224).
        latency: Measure the time, as it runs here and exported to ONNX Runtime (--no-latency: only count).
        threads: To compute by; 0 takes one for each core.
        runs: Of each network and batch; the median is given.
        json: Write all numbers to this file.
    """

def recipes(
    do: Literal['list', 'show'] = 'list',
    name: Word = '',
    *,
    json: Word | None = None,
) -> Any:
    """List published trainings that come with Ribcage: source, data, expected number, cost; or show one of them.

    `ribcage recipes` lists them, `ribcage recipes show NAME` prints the file, `ribcage run NAME` does what it says, and
    `--recipe NAME` gives its options to the command that trains.

    Args:
        do: list, or show NAME.
        name: For show: the recipe.
        json: Write what is known of all to this file.
    """

def run(
    name: Word,
    *,
    data: Words = (),
    download: Words = (),
    out: Word | None = None,
    dry: bool = False,
    **options: Any,
) -> Any:
    """Do what a recipe says, step by step: import, train, test. `ribcage recipes` lists them.

    Data that has been imported is given as --data; a download as it came as --download, which is imported first. Options of
    the step that trains can be changed: --epochs 1, --model resnet18. Each step is shown as the command that does the same.
    Interrupted, the same line goes on where it was.

    Args:
        name: A recipe's name, or a file like one.
        data: Dataset folders, in the order in which the recipe names them (default: those that it names).
        download: Folders or files as they were downloaded, to be imported first, in the same order.
        out: The run folder (default: the one that the recipe names).
        dry: Only show the commands.
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
    keep: Word | None = None,
    batch: int = 8,
    wait: float = 2.0,
    threads: int = 0,
    readers: int = 0,
    max_requests: int = 64,
    max_files: int = 32,
    max_megabytes: float = 128.0,
    max_megapixels: float = 50.0,
    max_seconds: float = 60.0,
) -> None:
    """Serve finished models over HTTP on this machine: a page in the browser, answers for programs.

        ribcage serve runs/chexnet
        ribcage serve runs/chexnet runs/boxes --port 8080

    Nothing that is sent is stored, and nothing leaves the machine. Whoever is to reach it from another machine needs a
    token: --host 0.0.0.0 --token-file FILE, or the environment variable RIBCAGE_TOKEN. Research use only.

    Args:
        models: Runs, or folders of finished models.
        port: 0 takes a free one.
        host: The address to listen on; one that other machines reach needs a token.
        token_file: A file that holds the token (default: the environment variable RIBCAGE_TOKEN, if it is set).
        keep: Write the answers, without images, into this folder, a line of JSON for each (default: nothing is
            stored).
        batch: Images that a model answers at once, at most.
        wait: Milliseconds that an image waits for others that are being read.
        threads: Of a model; 0 takes one for each core.
        readers: Processes that read files; 0 takes one for each core.
        max_requests: With images, at once; more are asked to come again.
        max_files: Of a request.
        max_megabytes: Of a request.
        max_megapixels: Of an image.
        max_seconds: For a request.
    """
