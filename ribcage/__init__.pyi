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
from ribcage.data.index import Index as Index
from ribcage.data.label_policy import Policy as Policy
from ribcage.data.loader import Loader as Loader
from ribcage.imaging.augment import View as View
from ribcage.imaging.augment import gentle_view as gentle_view
from ribcage.reports.html import ResultWithPage
from ribcage.runtime.recipe import Recipe
from ribcage.training.checkup import Report
from ribcage.training.label_efficiency import LabelCurves
from ribcage.training.probe import ProbeResult
from ribcage.training.runs import RunFacts
from ribcage.training.search.result import SearchResult

Word = str | Path
Words = str | Path | Sequence[str | Path]

__version__: str

def blend(
    models: Words,
    *,
    out: Word,
    mean: Literal['weights', 'predictions'] = 'weights',
    data: Words = (),
    greedy: bool = False,
    train: Word = 'train',
    val: Word = 'val',
    frontal: bool = False,
    drop_shared: Words = (),
    policy: Word = '',
    allow_leak: bool = False,
    batch: int = 64,
    threads: int = 0,
) -> ModelSpec:
    """Blend several classifiers into one by averaging their weights or their predictions.

    --mean weights requires models with the same architecture, findings and preprocessing, which should have been fine-tuned
    from the same initial weights. --mean predictions requires the same findings and input size; the blend contains all
    models and is as slow as all of them together. With --data, temperature and thresholds are fitted on the validation
    split. The test split is not used. 'ribcage evaluate' refuses test images that any of the models was trained on.

    Args:
        models: Run folders or bundles of classifiers.
        out: Bundle to write.
        mean: What to average: weights (model soup), or predictions (ensemble; the mean of the calibrated logits).
        data: Dataset folders (default: none; the blend then has no temperature and no thresholds).
        greedy: Add models one by one, from the best to the worst, and keep a model only if the mean AUROC of the
            blend on the validation split does not fall.
        train: Split on which the batch norm statistics are recomputed and the OOD check is fitted.
        val: Split on which the temperature and the thresholds are fitted and --greedy selects models; the blend
            cannot be tested on images of this split afterwards.
        frontal: Use only frontal images (PA and AP views).
        drop_shared: Splits from which an image is dropped if its patient, or a copy of the image, is also in
            another split.
        policy: Label policy for uncertain labels (ignore, ones, zeros …). Comma-separated additions set the
            policy for single findings (Edema=zeros), blank labels (blank=zeros), single datasets (chexpert:zeros,
            chexpert:Edema=ones) and disagreement between readers (readers=any) (default: the policy used when the
            models were validated, if it is the same for all models, otherwise ignore).
        allow_leak: Continue even if a model was trained on images of the --val split; the leakage is stated in
            the model card.
        batch: Batch size: images per forward pass.
        threads: Number of threads that load images; 0 means one per core.
    """

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
    """Compare models on the same images: differences with 95 % intervals, paired tests, adjusted p-values.

    Evaluated runs, evaluation folders, or tables of predictions are each compared with the first one. The cost of
    Ribcage models is shown as well: parameters, multiply-adds, size on disk and, with --latency, time per image.

    Args:
        runs: Two or more run folders, evaluation folders, or tables of predictions (.parquet or .csv).
        on: Evaluation to compare: the name of its folder, such as nih-test, or the first digits of its test key,
            which is listed in the model card (default: the only evaluation that all runs have in common).
        thresholds: Thresholds for tables of predictions: one probability for all findings, or FINDING=PROBABILITY
            for each finding.
        html: Write an HTML report to this file.
        json: Write all numbers to this JSON file.
        resamples: Number of bootstrap resamples of patients.
        seed: Random seed for the bootstrap.
        latency: Measure the inference time per image in PyTorch and in ONNX Runtime.
        threads: Number of CPU threads for --latency; 0 means one per core.
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
    fit: Literal['squash', 'crop', 'pad'] = 'squash',
    value_range: float | Sequence[float] = (),
    input_layout: Literal['', 'NCHW', 'NHWC'] = '',
    output_name: Word = '',
    output_kind: Literal['', 'logits', 'probabilities'] = '',
    exclusive: bool = False,
    partial: bool = False,
    formats: bool = False,
) -> ModelSpec | Path | None:
    """Convert a published checkpoint into a bundle, calibrate a model, or write it in a published layout.

    A checkpoint is recognised by its parameter names; all inferred and assumed settings are printed. Every tensor is
    accounted for: a checkpoint that does not cover the whole backbone is refused unless --partial is given. No code in a
    checkpoint is executed. With --data, temperature and thresholds are fitted on your own images.

    An ONNX or TFLite file becomes an opaque model: the file is run as it is, and only its predictions are available.

    Args:
        file: Checkpoint, folder of a published model, or hf:OWNER/NAME in the Hugging Face Hub; with --to or
            --data, a run folder or bundle.
        out: Bundle to write; with --to, the output file or its folder (required).
        to: Published layout in which the model is written (--formats lists the layouts).
        model: Architecture: a timm model, such as resnet18, or one of Ribcage's own; 'ribcage profile --list'
            lists them all (default: recognised from the weights).
        findings: Finding of each output, in order; a hyphen (-) drops an output (default: as published).
        channels: Number of input channels; 1 converts the first layer of an RGB model to one channel, which is
            faster and exact except at zero-padded borders.
        size: Input height and width in pixels, or one number for both (default: as published).
        mean: Mean of each channel, for pixel values scaled to 0–1 (default: as published).
        std: Standard deviation of each channel, for pixel values scaled to 0–1 (default: as published).
        data: Dataset folders for calibration; the temperature and the thresholds are fitted on their --val split
            (default: no calibration).
        val: Split on which the temperature and the thresholds are fitted; the model cannot be tested on images of
            this split afterwards.
        layout: Layout of the checkpoint (default: recognised from parameter names and shapes; --formats lists the
            layouts).
        fit: Conversion to a square for an ONNX or TFLite file: squash (stretch), crop (centre square) or pad
            (with black).
        value_range: Range of the pixel values that an ONNX or TFLite file takes, such as 0 255 or -1024 1024,
            instead of --mean and --std.
        input_layout: Order of the dimensions of the input (default: from the shape in the file, otherwise NCHW
            for ONNX and NHWC for TFLite).
        output_name: Output with one score per finding; needed if a file has several outputs.
        output_kind: What the outputs are (default: logits; refused if all outputs for test images are between 0
            and 1).
        exclusive: The findings are mutually exclusive: the outputs are those of a softmax.
        partial: Accept a checkpoint with missing or unknown weights; missing weights are initialised at random.
        formats: List the layouts that can be read and written, then exit.
    """

def curate(
    data: Word,
    *,
    features: Word,
    out: Word | None = None,
    share: float = 0.25,
    balance: float = 0.5,
    prototypes: int = 0,
    train: Word = 'train',
    near_duplicates: bool = True,
    seed: int = 0,
    batch: int = 64,
    threads: int = 0,
) -> DatasetFolder:
    """Select training images with balanced labels and diverse features, and without near-duplicates.

    The features are computed by a pretrained model. The result is a dataset folder with the same images and tables, in
    which the training images that were not selected are in no split. The column `curation` states for every training image
    whether it was selected, is a near-duplicate of another image, or was left out; 'ribcage inspect' prints the counts. If
    the command is interrupted, run it again; it then starts from the beginning.

    Args:
        data: Dataset folder.
        features: Run folder or bundle of the model that computes the features, for example a self-supervised
            model.
        out: Dataset folder to write (required).
        share: Fraction of the training images to select.
        balance: Fraction of the selection (0 to 1) that is divided equally among the positive images of all
            findings.
        prototypes: Number of clusters; 0 means a tenth of the number of selected images, but at least 10 and at
            most 1,000.
        train: Split from which images are selected.
        near_duplicates: Select at most one of several near-duplicates (re-encoded, resized, cropped, mirrored or
            rotated images).
        seed: Random seed for the clusters.
        batch: Batch size: images per forward pass.
        threads: Number of threads that load images; 0 means one per core.
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

    The demo needs neither a network connection nor data. Each step is printed as a command, and a report, index.html, shows
    the results. An interrupted demo continues where it stopped.

    Args:
        out: Output folder.
        quick: Use fewer images and epochs, to try every step quickly; the results are not meaningful.
        images: Number of synthetic radiographs.
        size: Side length of the stored images in pixels.
        seed: Random seed of the radiographs and of training.
        model: Architecture of the backbone (a timm name).
        input_size: Input height and width in pixels.
        epochs: Epochs of fine-tuning.
        pretrain_epochs: Epochs of pretraining.
        distil_epochs: Epochs of distillation.
        localise_epochs: Epochs of detector training.
        serve: Serve the models after the last step until Ctrl-C is pressed, if the demo runs in a terminal.
        port: Port of the server; 0 means any free port.
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
    size: int | Sequence[int] | Words = (224,),
    channels: Literal[1, 3] = 1,
    pool: Word = '',
    augment_options: Words = (),
    epochs: int | None = None,
    batch: int = 64,
    shuffle: Word = 'rows',
    micro_batch: int = 0,
    lr: float | None = None,
    min_lr: float | None = None,
    schedule: Literal['cosine', 'step', 'constant'] = 'cosine',
    decay_at: float | Sequence[float] = (0.6, 0.8),
    warmup: float | None = None,
    optimizer: Literal['adamw', 'sgd', 'lars'] | None = None,
    betas: float | Sequence[float] = (),
    weight_decay: float | Word | None = None,
    layer_decay: float = 1.0,
    drop_path: float = 0.0,
    clip: float | None = None,
    ema: float = 0.0,
    precision: Literal['auto', 'float32', 'bf16', 'fp16'] = 'auto',
    shard: bool = False,
    checkpoint_activations: bool = False,
    compile: bool = False,
    save_minutes: float = 10.0,
    threads: int = 0,
    export_as: Word = '',
    devices: int = 1,
    seed: int = 0,
    track: Words = (),
    track_images: Literal['local', 'all', 'none'] = 'local',
    resume: bool | Literal['auto'] = False,
    train: Word = 'train',
    val: Word = 'val',
    sampling: Literal['images', 'classes'] = 'images',
    augment: Literal['gentle', 'strong', 'plain'] = 'gentle',
    dropout: float = 0.0,
    loss: Literal['bce', 'focal', 'asymmetric', 'cross-entropy'] = 'bce',
    prior: bool = False,
    balanced: bool = False,
    smoothing: float = 0.0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    adapt: Literal['full', 'head', 'bitfit', 'lora'] = 'full',
    lora_rank: int = 8,
    lora_alpha: float = 16.0,
    lora_layers: Literal['attention', 'mlp', 'all'] = 'attention',
    keep: Literal['best', 'last'] = 'best',
    patience: int = 0,
    validate_every: int = 1,
    log_format: Literal['bar', 'paddle'] = 'bar',
    label_weight: float = 0.5,
    temperature: float | Word = 2.0,
    distil_loss: Literal['kl', 'mse'] = 'kl',
    feature_weight: float = 0.0,
    relation_weight: float = 0.0,
    teacher_weights: Literal['mean', 'auroc'] = 'mean',
    teacher_mode: Literal['auto', 'live', 'stored'] = 'auto',
    allow_leak: bool = False,
) -> Path | int:
    """Train a small student on the predictions of one or several teachers and on the known labels.

    A teacher is a model or a table of predictions. A teacher model receives the same augmented image as the student,
    resized to the input size of the teacher. Unlabelled images are used as well. The best epoch is selected on the
    validation split; the test split is not used. Ctrl-C, SIGTERM and SIGUSR1 save a checkpoint before the program ends;
    --resume continues from it.

    Args:
        data: Dataset folders.
        out: Run folder to write; it may be at a remote address (docs/remote.md).
        teacher: Teachers: run folders, bundles, or tables of predictions (.parquet or .csv).
        model: Architecture of the student: a timm model, such as resnet18, or one of Ribcage's own, such as
            eeea_net_c2. 'ribcage profile --list' lists them all.
        init: Initial weights: imagenet, a run folder or bundle, a checkpoint file, the folder of a published
            model, or hf:OWNER/NAME in the Hugging Face Hub (default: random).
        findings: Findings to train on (default: all findings in the data).
        labels: Fraction of the training patients whose labels are used; teachers predict on the images of all
            patients.
        frontal: Use only frontal images (PA and AP views).
        drop_copies: Drop training images that are identical to an image in another split.
        drop_shared: Splits from which an image is dropped if its patient, or a copy of the image, is also in
            another split.
        policy: Label policy for uncertain labels (ignore, ones, zeros …). Comma-separated additions set the
            policy for single findings (Edema=zeros), blank labels (blank=zeros), single datasets (chexpert:zeros,
            chexpert:Edema=ones) and disagreement between readers (readers=any); see docs/datasets.md.
        size: Input height and width in pixels, or one number for both. With 128:0.6,224, the model is trained on
            images of 128 pixels for 60 % of the epochs and then on images of 224 pixels (docs/training.md).
        channels: Number of input channels; 3 repeats the greyscale image.
        pool: Pooling: a timm pool type, such as avg or token, or query for attention pooling with one learnt
            query per finding (default: that of the architecture).
        augment_options: Changes to the augmentation preset, such as flip=0.5 or crop=0.8,1.0.
        epochs: Training epochs (default: 10).
        batch: Batch size: images per optimizer step, summed over all processes.
        shuffle: Order of the training images: rows (all images are shuffled) or blocks (blocks of consecutive
            images are shuffled, and images are shuffled within a few blocks at a time; for data that fit neither
            into memory nor on the local disk). blocks:512:4 sets the number of images per block and the number of
            blocks within which images are shuffled (docs/datasets.md).
        micro_batch: Maximum number of images per forward pass in each process; 0 means no limit. The gradients of
            larger batches are accumulated or, if the loss compares the images of a batch with each other,
            computed by gradient caching.
        lr: Peak learning rate (default: 0.0003).
        min_lr: Final learning rate of the cosine schedule (default: 0).
        schedule: Learning rate schedule; the rate is updated every step.
        decay_at: Fractions of the run after which --schedule step divides the learning rate by 10.
        warmup: Epochs of linear learning rate warm-up (default: 1).
        optimizer: Optimizer; each has its own default learning rate and weight decay (default: adamw).
        betas: Beta 1 and beta 2 of AdamW (default: 0.9 0.999).
        weight_decay: Weight decay, which is not applied to biases and normalisation layers. With 0.04:0.4, the
            weight decay follows a cosine from 0.04 to 0.4, as in DINO (default: 0.05).
        layer_decay: Layer-wise learning rate decay: factor per layer from the head down to the stem, as in BEiT;
            1 means no decay.
        drop_path: Stochastic depth rate (timm's drop_path_rate).
        clip: Maximum norm of the gradient; 0 means no clipping (default: 0).
        ema: Decay of the exponential moving average (EMA) of the weights, such as 0.999; the averaged weights are
            validated and saved in the bundle. 0 means no EMA.
        precision: Precision of the forward pass; auto: bf16 if the hardware supports it natively, fp16 on older
            GPUs with tensor cores, else float32. fp16 scales the loss; float32 switches TF32 off.
        shard: Divide weights, gradients and optimizer states among the processes (FSDP2), for transformers that
            do not fit on a GPU (docs/cluster.md).
        checkpoint_activations: Recompute the activations inside the backbone's blocks in the backward pass
            instead of storing them. This takes less memory and more time; the results are the same.
        compile: Compile the model with torch.compile.
        save_minutes: Maximum time between two checkpoints, in minutes.
        threads: Number of threads that load images; 0 means one per core.
        export_as: Also write the weights in the layout of a published checkpoint, such as moco or torchvision
            (docs/weights.md).
        devices: Number of GPUs to use on this machine, or of processes if the model is trained on the CPU.
        seed: Random seed.
        track: Experiment trackers to which the run is also logged, such as tensorboard, mlflow or wandb
            (docs/tracking.md).
        track_images: Trackers that also receive example images: local (those that write to this machine), all, or
            none.
        resume: Continue from the last checkpoint in the run folder; auto: continue if there is a run, otherwise
            start one.
        train: Split to train on.
        val: Split used to select the best epoch, the temperature and the thresholds.
        sampling: Sampling of training images: images (each image is used once per epoch), or classes (for each
            draw, a class is selected with equal probability, and then an image of this class; images without
            findings form a class).
        augment: Augmentation preset: gentle, strong (with flips), or plain (no augmentation).
        dropout: Dropout probability before the classification head.
        loss: Loss function: cross-entropy for mutually exclusive findings, otherwise one of the others.
        prior: Initialise the bias of the head from the prevalence of each finding. Without this option, saliency
            maps may be empty if the model was trained for only a few epochs.
        balanced: Weight the positives and negatives of each finding by the effective number of samples (Cui et
            al. 2019).
        smoothing: Label smoothing factor (towards 0.5); 0 means no smoothing.
        mixup: Mixup: alpha of the beta distribution; 0 means no mixup.
        cutmix: CutMix: alpha of the beta distribution; 0 means no CutMix. With --mixup, one of the two is chosen
            for each batch.
        adapt: Weights of the backbone that are trained besides the head: all (full), none (head), the biases
            (bitfit), or low-rank adapters (lora), which are merged into the weights of the saved model
            (docs/training.md).
        lora_rank: Rank of the adapters of --adapt lora.
        lora_alpha: Alpha of the adapters, which are multiplied by alpha / rank.
        lora_layers: Layers with adapters: attention, mlp, or all linear layers and convolutions, which CNNs need.
        keep: Epoch whose model is saved: the one with the best validation result, or the last.
        patience: Early stopping after this many validations without improvement; 0 means no early stopping.
        validate_every: Validate every N epochs.
        log_format: Progress format on the terminal: bar, or paddle (a line every ten steps with the training
            AUROC of each finding).
        label_weight: Weight of the label loss, from 0 to 1; the distillation loss has weight 1 - X.
        temperature: Temperature of the kl distillation loss. With START:END, it follows a cosine from START to
            END.
        distil_loss: Distillation loss: Kullback-Leibler divergence of the softened probabilities, or mean squared
            error of the logits.
        feature_weight: Weight of the feature loss: 1 - cosine similarity between the projected features of the
            student and the features of a teacher.
        relation_weight: Weight of the relation loss: squared difference between the pairwise similarities of
            feature-map locations in the student and in a teacher.
        teacher_weights: How several teachers are weighted: equally (mean), or for each finding in proportion to
            validation AUROC - 0.5 (auroc).
        teacher_mode: How the teachers predict: live (on each augmented image during training), stored (once on
            each unaugmented image before training), or auto (live if images are augmented or the feature or
            relation loss is used, otherwise stored).
        allow_leak: Continue even if a teacher was trained on images of the --val split; the leakage is stated in
            the model card.
    """

def doctor(
    *,
    json: Word | None = None,
) -> Report:
    """Check the installation (packages, devices, decoders, folders, terminal) and suggest fixes for problems.

    The checks import the packages, decode a small DICOM file in every transfer syntax, and write files. The exit code is 1
    if a required check fails.

    Args:
        json: Write the results to this JSON file.
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
    engine: Literal['local', 'ray'] = 'local',
    worst: int = 24,
) -> ResultWithPage:
    """Evaluate a model: metrics with 95 % intervals, a table of predictions, and a report with plots.

    The evaluation is refused if the model was trained on any of the tested patients or images. The temperature and the
    thresholds were fitted on the validation split. The results are written to predictions.parquet (detections.parquet for a
    detector), metrics.json and index.html.

    Args:
        run: Run folder or bundle.
        data: Dataset folders.
        split: Split to evaluate on: train, val, test, the name of another split, or all.
        frontal: Use only frontal images (PA and AP views).
        out: Output folder (default: RUN/evaluation/DATASETS-SPLIT, followed by the options that differ from their
            defaults).
        ten_crop: Average the probabilities of ten crops of each image; classifiers only.
        protocol: honest: thresholds are chosen on validation images, and images used to select the model are
            refused; peers: as in much published work, thresholds are chosen on the test images, and images used
            to select the model are allowed.
        table: Format of the printed table: full, or chexnet (one line per finding, such as 'The AUROC of Mass is
            0.86').
        policy: Label policy for uncertain labels (ignore, ones, zeros …). Comma-separated additions set the
            policy for single findings (Edema=zeros), blank labels (blank=zeros), single datasets (chexpert:zeros,
            chexpert:Edema=ones) and disagreement between readers (readers=any) (default: the policy used when the
            model was validated, otherwise ignore).
        rule: Threshold rule: youden, midpoint, f1, sensitivity_95, specificity_95, or half (0.5).
        drop_shared: Split from which to drop images of patients that the model was trained on, and copies of its
            training images. It must be the split given by --split (default: the value of --drop-shared in
            training).
        allow_leak: Evaluate even if the model was trained on these patients or images; the leakage is stated in
            the report.
        resamples: Number of bootstrap resamples of patients.
        seed: Random seed for the bootstrap.
        batch: Batch size: images per forward pass.
        engine: Where predictions are computed: local (in this process, or in the processes of torchrun or srun)
            or ray (on all machines of a Ray cluster).
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
    int8_images: int = 128,
    tolerance: float = 0.0001,
    latency: bool = True,
    runs: int = 20,
    threads: int = 0,
) -> Exported:
    """Export a model to ONNX, TorchScript or OpenVINO, with 8-bit greyscale input and calibrated probabilities as output.

    The exported model is compared with the original on the same images; if probabilities differ by more than --tolerance,
    no file is written. For --int8, activation ranges are calibrated on the --train split of --data, and the change in AUROC
    is measured on the --val split.

    Args:
        model: Run folder or bundle.
        to: Target runtime.
        out: Output file (default: model.onnx, model.ts or model.xml in the bundle; --int8 appends -int8 to the
            name).
        int8: Quantise the model to int8 (onnx and openvino). The model becomes faster and smaller, and its
            probabilities change slightly; needs --data.
        data: Dataset folders with images for --int8 and for comparing the exported with the original model
            (default: the models are compared on generated patterns).
        train: Split from which the calibration images for --int8 are taken.
        val: Split on which the predictions of the exported and the original model are compared.
        int8_images: Number of calibration images for --int8.
        tolerance: Maximum accepted difference between the probabilities of the exported and the original model;
            with --int8 the difference is only reported.
        latency: Measure the inference time of the exported and the original model.
        runs: Number of timed runs for batches of 1 and 16 images; the median is reported.
        threads: Number of CPU threads; 0 means one per core.
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
    size: int | Sequence[int] | Words = (224,),
    channels: Literal[1, 3] = 1,
    pool: Word = '',
    augment_options: Words = (),
    epochs: int | None = None,
    batch: int = 64,
    shuffle: Word = 'rows',
    micro_batch: int = 0,
    lr: float | None = None,
    min_lr: float | None = None,
    schedule: Literal['cosine', 'step', 'constant'] = 'cosine',
    decay_at: float | Sequence[float] = (0.6, 0.8),
    warmup: float | None = None,
    optimizer: Literal['adamw', 'sgd', 'lars'] | None = None,
    betas: float | Sequence[float] = (),
    weight_decay: float | Word | None = None,
    layer_decay: float = 1.0,
    drop_path: float = 0.0,
    clip: float | None = None,
    ema: float = 0.0,
    precision: Literal['auto', 'float32', 'bf16', 'fp16'] = 'auto',
    shard: bool = False,
    checkpoint_activations: bool = False,
    compile: bool = False,
    save_minutes: float = 10.0,
    threads: int = 0,
    export_as: Word = '',
    devices: int = 1,
    seed: int = 0,
    track: Words = (),
    track_images: Literal['local', 'all', 'none'] = 'local',
    resume: bool | Literal['auto'] = False,
    train: Word = 'train',
    val: Word = 'val',
    sampling: Literal['images', 'classes'] = 'images',
    augment: Literal['gentle', 'strong', 'plain'] = 'gentle',
    dropout: float = 0.0,
    loss: Literal['bce', 'focal', 'asymmetric', 'cross-entropy'] = 'bce',
    prior: bool = False,
    balanced: bool = False,
    smoothing: float = 0.0,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    adapt: Literal['full', 'head', 'bitfit', 'lora'] = 'full',
    lora_rank: int = 8,
    lora_alpha: float = 16.0,
    lora_layers: Literal['attention', 'mlp', 'all'] = 'attention',
    keep: Literal['best', 'last'] = 'best',
    patience: int = 0,
    validate_every: int = 1,
    log_format: Literal['bar', 'paddle'] = 'bar',
) -> Path | int:
    """Train a classifier of findings, from random or pretrained weights.

    The best epoch, the temperature and the thresholds are selected on the validation split; the test split is not used. The
    run folder holds the options, a log line per step, a checkpoint, and `bundle/`, the best model so far. Ctrl-C, SIGTERM
    and SIGUSR1 save a checkpoint before the program ends; --resume continues from it, also in the middle of an epoch.

    Args:
        data: Dataset folders.
        out: Run folder to write; it may be at a remote address (docs/remote.md).
        model: Architecture: a timm model, such as resnet18 or densenet121, or one of Ribcage's own, such as
            eeea_net_c2 or, for images of up to 64 px, resnet18_small. 'ribcage profile --list' lists them all.
        init: Initial weights: imagenet, a run folder or bundle, a checkpoint file, the folder of a published
            model, or hf:OWNER/NAME in the Hugging Face Hub (default: random).
        findings: Findings to train on (default: all findings in the data).
        labels: Fraction of the training patients to use; all training images of these patients are used.
        frontal: Use only frontal images (PA and AP views).
        drop_copies: Drop training images that are identical to an image in another split.
        drop_shared: Splits from which an image is dropped if its patient, or a copy of the image, is also in
            another split.
        policy: Label policy for uncertain labels (ignore, ones, zeros …). Comma-separated additions set the
            policy for single findings (Edema=zeros), blank labels (blank=zeros), single datasets (chexpert:zeros,
            chexpert:Edema=ones) and disagreement between readers (readers=any); see docs/datasets.md.
        size: Input height and width in pixels, or one number for both. With 128:0.6,224, the model is trained on
            images of 128 pixels for 60 % of the epochs and then on images of 224 pixels (docs/training.md).
        channels: Number of input channels; 3 repeats the greyscale image.
        pool: Pooling: a timm pool type, such as avg or token, or query for attention pooling with one learnt
            query per finding (default: that of the architecture).
        augment_options: Changes to the augmentation preset, such as flip=0.5 or crop=0.8,1.0.
        epochs: Training epochs (default: 10).
        batch: Batch size: images per optimizer step, summed over all processes.
        shuffle: Order of the training images: rows (all images are shuffled) or blocks (blocks of consecutive
            images are shuffled, and images are shuffled within a few blocks at a time; for data that fit neither
            into memory nor on the local disk). blocks:512:4 sets the number of images per block and the number of
            blocks within which images are shuffled (docs/datasets.md).
        micro_batch: Maximum number of images per forward pass in each process; 0 means no limit. The gradients of
            larger batches are accumulated or, if the loss compares the images of a batch with each other,
            computed by gradient caching.
        lr: Peak learning rate (default: 0.0003).
        min_lr: Final learning rate of the cosine schedule (default: 0).
        schedule: Learning rate schedule; the rate is updated every step.
        decay_at: Fractions of the run after which --schedule step divides the learning rate by 10.
        warmup: Epochs of linear learning rate warm-up (default: 1).
        optimizer: Optimizer; each has its own default learning rate and weight decay (default: adamw).
        betas: Beta 1 and beta 2 of AdamW (default: 0.9 0.999).
        weight_decay: Weight decay, which is not applied to biases and normalisation layers. With 0.04:0.4, the
            weight decay follows a cosine from 0.04 to 0.4, as in DINO (default: 0.05).
        layer_decay: Layer-wise learning rate decay: factor per layer from the head down to the stem, as in BEiT;
            1 means no decay.
        drop_path: Stochastic depth rate (timm's drop_path_rate).
        clip: Maximum norm of the gradient; 0 means no clipping (default: 0).
        ema: Decay of the exponential moving average (EMA) of the weights, such as 0.999; the averaged weights are
            validated and saved in the bundle. 0 means no EMA.
        precision: Precision of the forward pass; auto: bf16 if the hardware supports it natively, fp16 on older
            GPUs with tensor cores, else float32. fp16 scales the loss; float32 switches TF32 off.
        shard: Divide weights, gradients and optimizer states among the processes (FSDP2), for transformers that
            do not fit on a GPU (docs/cluster.md).
        checkpoint_activations: Recompute the activations inside the backbone's blocks in the backward pass
            instead of storing them. This takes less memory and more time; the results are the same.
        compile: Compile the model with torch.compile.
        save_minutes: Maximum time between two checkpoints, in minutes.
        threads: Number of threads that load images; 0 means one per core.
        export_as: Also write the weights in the layout of a published checkpoint, such as moco or torchvision
            (docs/weights.md).
        devices: Number of GPUs to use on this machine, or of processes if the model is trained on the CPU.
        seed: Random seed.
        track: Experiment trackers to which the run is also logged, such as tensorboard, mlflow or wandb
            (docs/tracking.md).
        track_images: Trackers that also receive example images: local (those that write to this machine), all, or
            none.
        resume: Continue from the last checkpoint in the run folder; auto: continue if there is a run, otherwise
            start one.
        train: Split to train on.
        val: Split used to select the best epoch, the temperature and the thresholds.
        sampling: Sampling of training images: images (each image is used once per epoch), or classes (for each
            draw, a class is selected with equal probability, and then an image of this class; images without
            findings form a class).
        augment: Augmentation preset: gentle, strong (with flips), or plain (no augmentation).
        dropout: Dropout probability before the classification head.
        loss: Loss function: cross-entropy for mutually exclusive findings, otherwise one of the others.
        prior: Initialise the bias of the head from the prevalence of each finding. Without this option, saliency
            maps may be empty if the model was trained for only a few epochs.
        balanced: Weight the positives and negatives of each finding by the effective number of samples (Cui et
            al. 2019).
        smoothing: Label smoothing factor (towards 0.5); 0 means no smoothing.
        mixup: Mixup: alpha of the beta distribution; 0 means no mixup.
        cutmix: CutMix: alpha of the beta distribution; 0 means no CutMix. With --mixup, one of the two is chosen
            for each batch.
        adapt: Weights of the backbone that are trained besides the head: all (full), none (head), the biases
            (bitfit), or low-rank adapters (lora), which are merged into the weights of the saved model
            (docs/training.md).
        lora_rank: Rank of the adapters of --adapt lora.
        lora_alpha: Alpha of the adapters, which are multiplied by alpha / rank.
        lora_layers: Layers with adapters: attention, mlp, or all linear layers and convolutions, which CNNs need.
        keep: Epoch whose model is saved: the one with the best validation result, or the last.
        patience: Early stopping after this many validations without improvement; 0 means no early stopping.
        validate_every: Validate every N epochs.
        log_format: Progress format on the terminal: bar, or paddle (a line every ten steps with the training
            AUROC of each finding).
    """

def import_(
    dataset: Word,
    root: Word | None = None,
    *,
    out: Word | None = None,
    size: int | None = None,
    fit: Literal['pad', 'crop', 'squash'] = 'pad',
    depth: Literal[8, 16] = 8,
    threads: int = 0,
    engine: Literal['local', 'ray'] = 'local',
    window: Word = '',
    allow_rejected: Word = '50%',
    limit: int = 0,
    redo: bool = False,
    part: Word = '',
    images_per_shard: int = 0,
    link: bool = False,
    split_list: Words = (),
    drop_shared: Words = (),
    masks: Words = (),
    name: Word = '',
    **options: Any,
) -> DatasetFolder | None:
    """Import a dataset into a dataset folder, which holds one array of images and one table.

    The import reads the tables of a public dataset or of your own images, decodes and resizes every image once, and keeps
    the labels as they are in the source. 'ribcage import DATASET --help' shows the options of a dataset. An interrupted
    import continues when the same command is run again.

    Args:
        dataset: Name of the dataset; `folder` for your own files.
        root: Folder or file to which the dataset was downloaded, or its remote address, such as s3://bucket/nih
            (not needed for phantom).
        out: Dataset folder to write (required); it may be at a remote address (docs/remote.md).
        size: Side length of the stored images in pixels; smaller images are enlarged (default: 256, or less if
            all images are smaller).
        fit: Method of making images square: pad with black, crop at the centre, or squash (the aspect ratio
            changes).
        depth: Bit depth of the stored images.
        threads: Number of threads that decode images; 0 means one per core.
        engine: Where images are decoded: local (in threads of this process) or ray (on all machines of a Ray
            cluster).
        window: DICOM window: the name of a window in the file, such as LUNG, or CENTRE,WIDTH (default: the window
            of the file; see docs/datasets.md).
        allow_rejected: Maximum number of rejected images: a number, a percentage such as 5%, or all. If more
            images are rejected, the exit code is 3.
        limit: Import only the first N images; 0 means all images.
        redo: Import again from the start, even if the folder contains a complete or unfinished import.
        part: Import only part K of N, written as K/N, such as 3/16; 'ribcage merge OUT' joins all parts. Each
            part can be imported on a different machine, provided that all machines share the folder --out
            (default: import everything).
        images_per_shard: Number of images per file (shard); 0 means that all images are in one file. Shards are
            recommended for large datasets and for datasets in object stores (docs/datasets.md).
        link: Store only the table, not the images; the images are decoded from the original files whenever they
            are used.
        split_list: Files with image names, one per line, that define the splits: train=FILE test=FILE.
        drop_shared: Splits from which an image is dropped if its patient, or a copy of the image, is also in
            another split.
        masks: Files with masks of the images: CSV files of CheXmask, or JSON files in COCO format.
        name: Name of the dataset in reports; identical patient identifiers count as the same patient only in
            datasets of the same name (default: the published name).
        options: its own, as `ribcage … --help` lists them.
    """

def inspect(
    folders: Words = (),
    *,
    html: Word | None = None,
    json: Word | None = None,
    near_duplicates: bool = True,
    samples: int = 24,
    split_list: Words = (),
    **options: Any,
) -> ResultWithPage:
    """Audit datasets before training: counts, patients in several splits, duplicates, and sample images.

    The arguments are dataset folders, or DATASET:ROOT (nih:/data/nih) for the tables of a dataset that has not been
    imported. The results are printed as tables; --html writes a self-contained report, and --json writes the numbers.

    Args:
        folders: Dataset folders, or DATASET:ROOT; without them, the lists of --split-list are compared by image
            names alone.
        html: Write an HTML report with tables and sample images to this file.
        json: Write all numbers to this JSON file.
        near_duplicates: Find near-duplicates (re-encoded, resized, cropped, mirrored or rotated images) as well
            as identical images.
        samples: Number of sample images per folder in the report.
        split_list: Files with image names, one per line, which are compared with each other: train=FILE
            test=FILE.
        options: its own, as `ribcage … --help` lists them.
    """

def labels(
    model: Word,
    *,
    data: Words,
    init: Word = '',
    labels: float | Sequence[float] = (),
    seeds: int = 5,
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
    layers: int = 1,
    batch: int = 64,
    threads: int = 0,
    allow_leak: bool = False,
    out: Word | None = None,
    counts: int | Sequence[int] = (),
    forecast: float | Sequence[float] = (2.0, 5.0, 10.0),
) -> LabelCurves:
    """Measure the AUROC of a probe on frozen features for several numbers of labelled images, and forecast it for more.

    MODEL is a run folder or bundle, or an architecture with --init. The features are computed once. Each number of images
    is drawn several times, by patient; a power law is fitted to the mean AUROCs, and the AUROC is forecast with prediction
    intervals. There is no forecast from fewer than 4 numbers of images, or if the AUROC does not increase significantly.

    Args:
        model: Run folder, bundle, or name of an architecture.
        data: Dataset folders.
        init: Initial weights, if MODEL is an architecture: imagenet, a run folder or bundle, or a checkpoint file
            (default: random).
        labels: Fractions of the training patients whose labels are used.
        seeds: Number of random subsets of patients per number of images.
        findings: Findings to classify (default: all findings in the data).
        train: Split on which the classifiers are fitted.
        val: Split used to select the regularisation strength and the number of nearest neighbours.
        split: Split to evaluate on.
        frontal: Use only frontal images (PA and AP views).
        drop_copies: Drop training images that are identical to an image in another split.
        drop_shared: Splits from which an image is dropped if its patient, or a copy of the image, is also in
            another split. From the evaluated split, images are also dropped if the patient or a copy is in the
            training data of the model.
        policy: Label policy for uncertain labels (ignore, ones, zeros …). Comma-separated additions set the
            policy for single findings (Edema=zeros), blank labels (blank=zeros), single datasets (chexpert:zeros,
            chexpert:Edema=ones) and disagreement between readers (readers=any); see docs/datasets.md.
        size: Input height and width in pixels, or one number for both (default: the input size of the bundle,
            else 224).
        channels: Number of input channels, if MODEL is an architecture; 3 repeats the greyscale image.
        pool: Pooling: a timm pool type, such as avg or token, or query, which adds a classifier with attention
            over patches or cells (default: that of the model).
        layers: Number of last blocks whose features are concatenated; DINOv2's linear evaluation uses 4.
        batch: Batch size: images per forward pass.
        threads: Number of threads that load images; 0 means one per core.
        allow_leak: Evaluate even if the model was trained on these patients or images; the leakage is stated in
            the result.
        out: Output folder for labels.json and labels.html.
        counts: Numbers of training images whose labels are used, in addition to --labels (default without both:
            all images, and half as many up to six times, but at least 50).
        forecast: Multiples of the largest number of images for which the AUROC is forecast, at most 10.
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
    size: int | Sequence[int] | Words = (224,),
    channels: Literal[1, 3] = 1,
    pool: Word = '',
    augment_options: Words = (),
    epochs: int | None = None,
    batch: int = 64,
    shuffle: Word = 'rows',
    micro_batch: int = 0,
    lr: float | None = None,
    min_lr: float | None = None,
    schedule: Literal['cosine', 'step', 'constant'] = 'cosine',
    decay_at: float | Sequence[float] = (0.6, 0.8),
    warmup: float | None = None,
    optimizer: Literal['adamw', 'sgd', 'lars'] | None = None,
    betas: float | Sequence[float] = (),
    weight_decay: float | Word | None = None,
    layer_decay: float = 1.0,
    drop_path: float = 0.0,
    clip: float | None = None,
    ema: float = 0.0,
    precision: Literal['auto', 'float32', 'bf16', 'fp16'] = 'auto',
    shard: bool = False,
    checkpoint_activations: bool = False,
    compile: bool = False,
    save_minutes: float = 10.0,
    threads: int = 0,
    devices: int = 1,
    seed: int = 0,
    track: Words = (),
    track_images: Literal['local', 'all', 'none'] = 'local',
    resume: bool | Literal['auto'] = False,
    head: Literal['fcos', 'yolo', 'cam'] = 'fcos',
    head_width: int = 256,
    head_depth: int = 4,
    quality: Literal['centreness', 'iou'] = 'centreness',
    anchors: Literal['published', 'fitted'] = 'published',
    nms_iou: float = 0.4,
    cam_threshold: float = 0.5,
    max_detections: int = 100,
    adapt: Literal['full', 'head'] = 'full',
    cache: bool = True,
    cache_gb: float = 16.0,
    train: Word = 'train',
    val: Word = 'val',
    augment: Literal['gentle', 'strong', 'plain'] = 'gentle',
    keep: Literal['best', 'last'] = 'best',
    patience: int = 0,
    validate_every: int = 1,
) -> Path | int:
    """Train a detector: a detection head on a frozen or fine-tuned backbone.

    Training uses images with boxes and images labelled negative. The best epoch (by mAP) and the score threshold are
    selected on the validation split; the test split is not used. Ctrl-C, SIGTERM and SIGUSR1 save a checkpoint before the
    program ends; a run continues from it with --resume, also in the middle of an epoch.

    Args:
        data: Dataset folders.
        out: Run folder to write; it may be at a remote address (docs/remote.md).
        model: Architecture: a timm model, such as resnet50, or one of Ribcage's own; 'ribcage profile --list'
            lists them all (default: that of --init, else resnet50).
        init: Initial weights: imagenet, a run folder or bundle, a checkpoint file, the folder of a published
            model, or hf:OWNER/NAME in the Hugging Face Hub (default: random).
        findings: Findings to detect (default: all that have boxes in the training split).
        labels: Fraction of the training patients to use; all training images of these patients are used.
        frontal: Use only frontal images (PA and AP views).
        drop_copies: Drop training images that are identical to an image in another split.
        drop_shared: Splits from which an image is dropped if its patient, or a copy of the image, is also in
            another split.
        policy: Label policy for uncertain labels (ignore, ones, zeros …). Comma-separated additions set the
            policy for single findings (Edema=zeros), blank labels (blank=zeros), single datasets (chexpert:zeros,
            chexpert:Edema=ones) and disagreement between readers (readers=any); see docs/datasets.md.
        size: Input height and width in pixels, or one number for both. With 128:0.6,224, the model is trained on
            images of 128 pixels for 60 % of the epochs and then on images of 224 pixels (docs/training.md).
        channels: Number of input channels; 3 repeats the greyscale image.
        pool: Pooling: a timm pool type, such as avg or token, or query for attention pooling with one learnt
            query per finding (default: that of the architecture).
        augment_options: Changes to the augmentation preset, such as flip=0.5 or crop=0.8,1.0.
        epochs: Training epochs (default: 30).
        batch: Batch size: images per optimizer step, summed over all processes.
        shuffle: Order of the training images: rows (all images are shuffled) or blocks (blocks of consecutive
            images are shuffled, and images are shuffled within a few blocks at a time; for data that fit neither
            into memory nor on the local disk). blocks:512:4 sets the number of images per block and the number of
            blocks within which images are shuffled (docs/datasets.md).
        micro_batch: Maximum number of images per forward pass in each process; 0 means no limit. The gradients of
            larger batches are accumulated or, if the loss compares the images of a batch with each other,
            computed by gradient caching.
        lr: Peak learning rate (default: 0.001).
        min_lr: Final learning rate of the cosine schedule (default: 0).
        schedule: Learning rate schedule; the rate is updated every step.
        decay_at: Fractions of the run after which --schedule step divides the learning rate by 10.
        warmup: Epochs of linear learning rate warm-up (default: 1).
        optimizer: Optimizer; each has its own default learning rate and weight decay (default: adamw).
        betas: Beta 1 and beta 2 of AdamW (default: 0.9 0.999).
        weight_decay: Weight decay, which is not applied to biases and normalisation layers. With 0.04:0.4, the
            weight decay follows a cosine from 0.04 to 0.4, as in DINO (default: 0.0001).
        layer_decay: Layer-wise learning rate decay: factor per layer from the head down to the stem, as in BEiT;
            1 means no decay.
        drop_path: Stochastic depth rate (timm's drop_path_rate).
        clip: Maximum norm of the gradient; 0 means no clipping (default: 0).
        ema: Decay of the exponential moving average (EMA) of the weights, such as 0.999; the averaged weights are
            validated and saved in the bundle. 0 means no EMA.
        precision: Precision of the forward pass; auto: bf16 if the hardware supports it natively, fp16 on older
            GPUs with tensor cores, else float32. fp16 scales the loss; float32 switches TF32 off.
        shard: Divide weights, gradients and optimizer states among the processes (FSDP2), for transformers that
            do not fit on a GPU (docs/cluster.md).
        checkpoint_activations: Recompute the activations inside the backbone's blocks in the backward pass
            instead of storing them. This takes less memory and more time; the results are the same.
        compile: Compile the model with torch.compile.
        save_minutes: Maximum time between two checkpoints, in minutes.
        threads: Number of threads that load images; 0 means one per core.
        devices: Number of GPUs to use on this machine, or of processes if the model is trained on the CPU.
        seed: Random seed.
        track: Experiment trackers to which the run is also logged, such as tensorboard, mlflow or wandb
            (docs/tracking.md).
        track_images: Trackers that also receive example images: local (those that write to this machine), all, or
            none.
        resume: Continue from the last checkpoint in the run folder; auto: continue if there is a run, otherwise
            start one.
        head: Detection head: fcos (anchor-free), yolo (YOLOv3, as in LoVT's protocol for frozen backbones), or
            cam (boxes from the class activation maps of a classifier; nothing is trained).
        head_width: Number of channels of the fcos head, from 4 to 1024.
        head_depth: Number of convolutional layers in each branch of the fcos head.
        quality: Predicted box quality that weights the scores of the fcos head: centreness or IoU.
        anchors: Anchors of the YOLO head: published anchors, or k-means centres of the training boxes.
        nms_iou: IoU threshold of non-maximum suppression.
        cam_threshold: Threshold of the boxes of --head cam, as a fraction of the maximum of the activation map.
        max_detections: Maximum number of detections per image.
        adapt: Weights of the backbone that are trained besides the head: all (full), or none (head), which needs
            --init.
        cache: Cache the feature maps of a frozen backbone on disk during the run, if flips are the only
            augmentation.
        cache_gb: Maximum size of the cache in GB, separately for training and validation.
        train: Split to train on.
        val: Split used to select the best epoch and the score threshold.
        augment: Augmentation preset: gentle, strong (with flips), or plain (no augmentation).
        keep: Epoch whose model is saved: the one with the best validation result, or the last.
        patience: Early stopping after this many validations without improvement; 0 means no early stopping.
        validate_every: Validate every N epochs.
    """

def merge(
    out: Word | None = None,
    *,
    allow_rejected: Word = '50%',
) -> DatasetFolder:
    """Join the parts of an import on several machines into one dataset folder.

    Import each part with 'ribcage import … --part K/N' and the same --out, then merge. The result is byte-identical to that
    of a single import. An interrupted merge continues when the same command is run again.

    Args:
        out: Dataset folder with the parts, the --out of their imports (required).
        allow_rejected: Maximum number of rejected images: a number, a percentage such as 5%, or all. If more
            images are rejected, the exit code is 3.
    """

def predict(
    model: Word,
    paths: Words,
    *,
    out: Word | None = None,
    rule: Word = '',
    ten_crop: bool = False,
    maps: Word | None = None,
    map_findings: Words = (),
    map_method: Literal['auto', 'gradcam', 'layercam', 'occlusion'] = 'auto',
    map_layer: int = 0,
    sheet: Word | None = None,
    check_maps: bool = False,
    notes: bool = False,
    min_score: float | None = None,
    window: Word = '',
    allow_unread: Word = '0',
    batch: int = 16,
    engine: Literal['local', 'ray'] = 'local',
) -> pd.DataFrame:
    """Predict findings in image files: PNG, JPEG, TIFF, BMP or DICOM.

    A classifier predicts a calibrated probability for every finding and marks those at or above their threshold; a detector
    predicts boxes, in pixels of the file. A warning is printed for images unlike the training images. Files that cannot be
    read are listed and skipped.

    Args:
        model: Run folder or bundle.
        paths: Image files, folders, or patterns such as 'inbox/**/*.dcm'.
        out: File for the table of predictions (.csv or .parquet).
        rule: Threshold rule: youden, midpoint, f1, sensitivity_95, specificity_95, or half (0.5); classifiers
            only (default: youden, if the model has thresholds).
        ten_crop: Average the probabilities of ten crops of each image; classifiers only.
        maps: Folder for saliency maps, or for images with the boxes of a detector, at the resolution of the image
            file.
        map_findings: Findings for which maps are computed (default: those at or above their threshold, else the
            most probable one).
        map_method: Saliency method: auto (gradcam, or occlusion for an opaque network); layercam suits earlier
            layers; occlusion covers one square at a time and is slow.
        map_layer: Layer at which the maps are computed: 0 for the last layer, 1 for the last layer at the next
            higher resolution, and so on.
        sheet: Figure with the maps for all findings: an .svg file for one image, or a folder for several images.
        check_maps: Sanity check: compare the maps with those of the same network with random weights; maps that
            remain similar do not depend on what was learned (Adebayo et al. 2018).
        notes: Print how each file was decoded.
        min_score: Score threshold for boxes, from 0 to 1; detectors only (default: the validation threshold of
            each finding).
        window: DICOM window: the name of a window in the file, such as LUNG, or CENTRE,WIDTH (default: the window
            of the file; see docs/datasets.md).
        allow_unread: Maximum number of unreadable files: a number, a percentage such as 5%, or all. If more files
            are unreadable, the exit code is 3.
        batch: Batch size: images per forward pass.
        engine: Where predictions are computed: local (in this process) or ray (on all machines of a Ray cluster).
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
    size: int | Sequence[int] | Words = (224,),
    channels: Literal[1, 3] = 1,
    pool: Word = '',
    augment_options: Words = (),
    epochs: int | None = None,
    batch: int = 256,
    shuffle: Word = 'rows',
    micro_batch: int = 0,
    lr: float | None = None,
    min_lr: float | None = None,
    schedule: Literal['cosine', 'step', 'constant'] = 'cosine',
    decay_at: float | Sequence[float] = (0.6, 0.8),
    warmup: float | None = None,
    optimizer: Literal['adamw', 'sgd', 'lars'] | None = None,
    betas: float | Sequence[float] = (),
    weight_decay: float | Word | None = None,
    layer_decay: float = 1.0,
    drop_path: float = 0.0,
    clip: float | None = None,
    ema: float = 0.0,
    precision: Literal['auto', 'float32', 'bf16', 'fp16'] = 'auto',
    shard: bool = False,
    checkpoint_activations: bool = False,
    compile: bool = False,
    save_minutes: float = 10.0,
    threads: int = 0,
    export_as: Word = '',
    devices: int = 1,
    seed: int = 0,
    track: Words = (),
    track_images: Literal['local', 'all', 'none'] = 'local',
    resume: bool | Literal['auto'] = False,
    teacher: Word = '',
    train: Words = ('train',),
    data_weights: float | Sequence[float] = (),
    augment: Literal['radiograph', 'paper'] = 'radiograph',
    probe: Words = (),
    evaluate_every: int = 10,
    log_format: Literal['bar', 'moco'] = 'bar',
    **options: Any,
) -> Path | int:
    """Pretrain a backbone, with or without labels, for `finetune`, `localise`, `probe` or timm.

    'ribcage pretrain METHOD --help' shows the options of a method. The run folder holds the options, a log line per step, a
    checkpoint, the backbone in `bundle/`, and a report with curves and example images. Ctrl-C, SIGTERM and SIGUSR1 save a
    checkpoint before the program ends; --resume continues from it, also in the middle of an epoch.

    Args:
        method: Pretraining method.
        data: Dataset folders.
        out: Run folder to write; it may be at a remote address (docs/remote.md).
        model: Architecture: a timm model, such as resnet18 or densenet121, or one of Ribcage's own, such as
            eeea_net_c2 or, for images of up to 64 px, resnet18_small. 'ribcage profile --list' lists them all.
        init: Initial weights: imagenet, a run folder or bundle, a checkpoint file, the folder of a published
            model, or hf:OWNER/NAME in the Hugging Face Hub (default: random).
        findings: Findings whose labels are used, for methods that use labels (default: all findings in the data).
        labels: Fraction of the training patients to use; all training images of these patients are used.
        frontal: Use only frontal images (PA and AP views).
        drop_copies: Drop training images that are identical to an image in another split.
        drop_shared: Splits from which an image is dropped if its patient, or a copy of the image, is also in
            another split.
        policy: Label policy for uncertain labels (ignore, ones, zeros …). Comma-separated additions set the
            policy for single findings (Edema=zeros), blank labels (blank=zeros), single datasets (chexpert:zeros,
            chexpert:Edema=ones) and disagreement between readers (readers=any); see docs/datasets.md.
        size: Input height and width in pixels, or one number for both. With 128:0.6,224, the model is trained on
            images of 128 pixels for 60 % of the epochs and then on images of 224 pixels (docs/training.md).
        channels: Number of input channels; 3 repeats the greyscale image.
        pool: Global pooling: a timm pool type, such as avg or token (default: avg for eva, ijepa, mae, else the
            model's).
        augment_options: Changes to the augmentation preset, such as flip=0.5 or crop=0.8,1.0.
        epochs: Training epochs (default: byol 1000; dino 100; dinov2 100; eva 240; ijepa 300; mae 800; mae_unet
            800; moco 200; mocov3 300; simclr 100; supcon 1000; supervised 100; swav 400).
        batch: Batch size: images per optimizer step, summed over all processes.
        shuffle: Order of the training images: rows (all images are shuffled) or blocks (blocks of consecutive
            images are shuffled, and images are shuffled within a few blocks at a time; for data that fit neither
            into memory nor on the local disk). blocks:512:4 sets the number of images per block and the number of
            blocks within which images are shuffled (docs/datasets.md).
        micro_batch: Maximum number of images per forward pass in each process; 0 means no limit. The gradients of
            larger batches are accumulated or, if the loss compares the images of a batch with each other,
            computed by gradient caching.
        lr: Peak learning rate (default: byol 0.2 × batch / 256, 0.3 × batch / 256 below 1000 epochs, 0.45 × batch
            / 256 below 300 epochs; dino 0.0005 × batch / 256; dinov2 0.001 × batch / 256; eva 0.000192 × batch /
            256; ijepa 0.000125 × batch / 256; mae 0.00015 × batch / 256; mae_unet 0.00015 × batch / 256; moco
            0.03 × batch / 256; mocov3 0.00015 × batch / 256; simclr 0.3 × batch / 256; supcon 0.05 × batch / 256;
            supervised 0.001 × batch / 256; swav 0.6 × batch / 256).
        min_lr: Final learning rate of the cosine schedule (default: byol 0; dino 0.0005 × lr; dinov2 0.00025 ×
            lr; eva 0; ijepa 0.001 × lr; mae 0; mae_unet 0; moco 0; mocov3 0; simclr 0; supcon 0.001 × lr;
            supervised 0; swav 0.001 × lr).
        schedule: Learning rate schedule; the rate is updated every step.
        decay_at: Fractions of the run after which --schedule step divides the learning rate by 10.
        warmup: Epochs of linear learning rate warm-up (default: byol 10, at most 10% of the run; dino 10, at most
            10% of the run; dinov2 10, at most 10% of the run; eva 1; ijepa 40, at most 15% of the run; mae 40, at
            most 10% of the run; mae_unet 40, at most 10% of the run; moco 0; mocov3 40, at most 15% of the run;
            simclr 10, at most 10% of the run; supcon 10, at most 10% of the run; supervised 1; swav 0).
        optimizer: Optimizer; each has its own default learning rate and weight decay (default: byol lars; dino
            adamw; dinov2 adamw; eva adamw; ijepa adamw; mae adamw; mae_unet adamw; moco sgd; mocov3 adamw; simclr
            lars; supcon sgd; supervised adamw; swav lars).
        betas: Beta 1 and beta 2 of AdamW (default: dino 0.9 0.999; dinov2 0.9 0.999; eva 0.9 0.98; ijepa 0.9
            0.999; mae 0.9 0.95; mae_unet 0.9 0.95; mocov3 0.9 0.999; supervised 0.9 0.999).
        weight_decay: Weight decay, which is not applied to biases and normalisation layers. With 0.04:0.4, the
            weight decay follows a cosine from 0.04 to 0.4, as in DINO (default: byol 1.5e-06, 1e-06 below 1000
            epochs; dino 0.04:0.4; dinov2 0.04:0.4; eva 0.05; ijepa 0.04:0.4; mae 0.05; mae_unet 0.05; moco
            0.0001; mocov3 0.1; simclr 1e-06; supcon 0.0001; supervised 0.05; swav 1e-06).
        layer_decay: Layer-wise learning rate decay: factor per layer from the head down to the stem, as in BEiT;
            1 means no decay.
        drop_path: Stochastic depth rate (timm's drop_path_rate).
        clip: Maximum norm of the gradient; 0 means no clipping (default: byol 0; dino 3; dinov2 3; eva 0; ijepa
            0; mae 0; mae_unet 0; moco 0; mocov3 0; simclr 0; supcon 0; supervised 0; swav 0).
        ema: Decay of the exponential moving average (EMA) of the weights, such as 0.999; the averaged weights are
            validated and saved in the bundle. 0 means no EMA.
        precision: Precision of the forward pass; auto: bf16 if the hardware supports it natively, fp16 on older
            GPUs with tensor cores, else float32. fp16 scales the loss; float32 switches TF32 off.
        shard: Divide weights, gradients and optimizer states among the processes (FSDP2), for transformers that
            do not fit on a GPU (docs/cluster.md).
        checkpoint_activations: Recompute the activations inside the backbone's blocks in the backward pass
            instead of storing them. This takes less memory and more time; the results are the same.
        compile: Compile the model with torch.compile.
        save_minutes: Maximum time between two checkpoints, in minutes.
        threads: Number of threads that load images; 0 means one per core.
        export_as: Also write the weights in the layout of a published checkpoint, such as moco or torchvision
            (docs/weights.md).
        devices: Number of GPUs to use on this machine, or of processes if the model is trained on the CPU.
        seed: Random seed.
        track: Experiment trackers to which the run is also logged, such as tensorboard, mlflow or wandb
            (docs/tracking.md).
        track_images: Trackers that also receive example images: local (those that write to this machine), all, or
            none.
        resume: Continue from the last checkpoint in the run folder; auto: continue if there is a run, otherwise
            start one.
        teacher: Frozen teacher of eva: a run folder or bundle of a vision transformer, such as one made by
            'ribcage convert'.
        train: Splits to train on.
        data_weights: Sampling weight of each dataset (default: in proportion to its size).
        augment: Augmentation preset: radiograph (suited to radiographs), or paper (as in the paper of the method,
            but without colour augmentation).
        probe: Labelled dataset folders for evaluating the features during training (linear probe and k nearest
            neighbours).
        evaluate_every: Evaluate the features every N epochs; each evaluation also saves the bundle.
        log_format: Progress format on the terminal: bar, or moco (a line every ten steps, as in MoCo's published
            code).
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
    layers: int = 1,
    batch: int = 64,
    threads: int = 0,
    allow_leak: bool = False,
    out: Word | None = None,
) -> ProbeResult:
    """Evaluate frozen features with logistic regression and k nearest neighbours, at several fractions of the labels.

    MODEL is a run folder or bundle, or an architecture with --init. Features are computed once, without augmentation; the
    regularisation and k are selected on the validation split. The patients of a smaller fraction are a subset of those of a
    larger one.

    Args:
        model: Run folder, bundle, or name of an architecture.
        data: Dataset folders.
        init: Initial weights, if MODEL is an architecture: imagenet, a run folder or bundle, or a checkpoint file
            (default: random).
        labels: Fractions of the training patients on which the classifiers are fitted.
        seeds: Number of random subsets of patients per fraction.
        findings: Findings to classify (default: all findings in the data).
        train: Split on which the classifiers are fitted.
        val: Split used to select the regularisation strength and the number of nearest neighbours.
        split: Split to evaluate on.
        frontal: Use only frontal images (PA and AP views).
        drop_copies: Drop training images that are identical to an image in another split.
        drop_shared: Splits from which an image is dropped if its patient, or a copy of the image, is also in
            another split. From the evaluated split, images are also dropped if the patient or a copy is in the
            training data of the model.
        policy: Label policy for uncertain labels (ignore, ones, zeros …). Comma-separated additions set the
            policy for single findings (Edema=zeros), blank labels (blank=zeros), single datasets (chexpert:zeros,
            chexpert:Edema=ones) and disagreement between readers (readers=any); see docs/datasets.md.
        size: Input height and width in pixels, or one number for both (default: the input size of the bundle,
            else 224).
        channels: Number of input channels, if MODEL is an architecture; 3 repeats the greyscale image.
        pool: Pooling: a timm pool type, such as avg or token, or query, which adds a classifier with attention
            over patches or cells (default: that of the model).
        layers: Number of last blocks whose features are concatenated; DINOv2's linear evaluation uses 4.
        batch: Batch size: images per forward pass.
        threads: Number of threads that load images; 0 means one per core.
        allow_leak: Evaluate even if the model was trained on these patients or images; the leakage is stated in
            the result.
        out: Output folder for probe.json, which holds the results for every subset.
    """

def profile(
    models: Words = (),
    *,
    list: bool = False,
    baselines: bool = False,
    classes: int | None = None,
    channels: Literal[1, 3] | None = None,
    size: int | Sequence[int] = (),
    latency: bool = True,
    threads: int = 0,
    runs: int = 10,
    json: Word | None = None,
) -> Profile:
    """Measure the cost of models: parameters, multiply-adds, activation memory, and time on this CPU.

    The arguments are names of architectures, run folders, or bundles. Multiply-adds are given both as counted by thop, for
    comparison with papers, and in full, including the matrix products of attention.

    Args:
        models: Names of architectures, run folders, or bundles.
        list: List the names of all architectures, or of those whose names contain one of MODELS, instead of
            profiling them.
        baselines: Also profile five published models, each with three input channels and with one input channel.
        classes: Number of findings predicted by an architecture (default: 14).
        channels: Number of input channels of an architecture (default: 3, as in papers; other commands use 1).
        size: Input height and width in pixels, or one number for both, for architectures and --baselines
            (default: 224).
        latency: Measure the inference time in PyTorch and in ONNX Runtime.
        threads: Number of CPU threads; 0 means one per core.
        runs: Number of timed runs per model and batch size; the median is reported.
        json: Write all numbers to this JSON file.
    """

def recipes(
    action: Literal['list', 'show'] = 'list',
    name: Word = '',
    *,
    json: Word | None = None,
) -> list[Recipe] | str:
    """List the recipes for published training runs (source, data, expected result, cost), or show one.

    'ribcage recipes' lists all recipes, 'ribcage recipes show NAME' prints one recipe, 'ribcage run NAME' runs all steps of
    a recipe, and --recipe NAME passes the options of a recipe to a training command.

    Args:
        action: Either list (all recipes) or show (the file of recipe NAME).
        name: Recipe to show.
        json: Write the list to this JSON file.
    """

def reshard(
    data: Word | None = None,
    *,
    out: Word | None = None,
    images_per_shard: int = 512,
) -> DatasetFolder:
    """Copy a dataset folder and divide its images into a different number of files, without a new import.

    The copy is byte-identical to the result of an import with the same --images-per-shard. If copying is
    interrupted, run the same command again; it then starts from the beginning.

    Args:
        data: Dataset folder to copy (required).
        out: Dataset folder to write (required).
        images_per_shard: Number of images per file; 0 means one file (docs/datasets.md).
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
    """Run the steps of a recipe: import, train, evaluate.

    'ribcage recipes' lists the recipes. --data takes imported datasets, and --download takes downloaded datasets, which are
    imported first. Options of the training command, such as --epochs 1, can be added. Each step is printed as a command. An
    interrupted recipe continues when the same command is run again.

    Args:
        name: Name of a recipe, or a TOML file.
        data: Dataset folders, in the order of the recipe (default: those in the recipe).
        download: Downloaded folders or files to import first, in the order in which the recipe imports them.
        out: Run folder to write (default: the run folder in the recipe).
        dry_run: Print the commands without running them.
        options: its own, as `ribcage … --help` lists them.
    """

def runs(
    folder: Word = 'runs',
    *,
    json: Word | None = None,
) -> list[RunFacts]:
    """List the runs below a folder: command, model, data, state, progress and main result.

    The state is running, finished, stopped (by a signal, or killed) or failed. The main result is the mean AUROC (for a
    detector, the mAP) of the latest test with --protocol honest, with its 95 % interval; before the first test, it is the
    validation result.

    Args:
        folder: Folder to search for runs.
        json: Write the list to this JSON file.
    """

def serve(
    models: Words,
    *,
    port: int = 8000,
    host: Word = '127.0.0.1',
    token_file: Word | None = None,
    log_predictions: Word | None = None,
    batch: int = 8,
    batch_delay: float = 2.0,
    threads: int = 0,
    workers: int = 0,
    window: Word = '',
    max_requests: int = 64,
    max_files: int = 32,
    max_megabytes: float = 128.0,
    max_megapixels: float = 50.0,
    max_seconds: float = 60.0,
) -> None:
    """Serve models over HTTP: a viewer in the browser and a JSON API, whose reference page is at /docs.

    Uploaded images are not stored, and no data is sent elsewhere. Access from other machines requires --host 0.0.0.0 and a
    token, given by --token-file or the environment variable RIBCAGE_TOKEN. Research use only.

    Args:
        models: Run folders or bundles.
        port: Port to listen on; 0 means any free port.
        host: Address to listen on; an address that other machines can reach requires a token.
        token_file: File with the access token (default: the value of RIBCAGE_TOKEN, if set).
        log_predictions: Folder in which predictions are logged as JSON lines, without images (default: nothing is
            stored).
        batch: Maximum batch size per model.
        batch_delay: Maximum time in milliseconds that an image waits for other images to form a batch.
        threads: Number of CPU threads per model; 0 means one per core.
        workers: Number of processes that decode images; 0 means one per core.
        window: DICOM window: the name of a window in the file, such as LUNG, or CENTRE,WIDTH (default: the window
            of the file; see docs/datasets.md).
        max_requests: Maximum number of concurrent requests with images; further requests receive status 503.
        max_files: Maximum number of files per request.
        max_megabytes: Maximum size of a request in MB.
        max_megapixels: Maximum size of an image in megapixels.
        max_seconds: Time limit per request, in seconds.
    """

def tune(
    command: Word,
    *,
    data: Words,
    space: Words,
    out: Word,
    trials: int = 20,
    prune: bool = True,
    seed: int = 0,
    **options: Any,
) -> SearchResult:
    """Search for hyperparameters: train with different options, and select them on the validation split.

    COMMAND is finetune, localise or distil, whose options are passed on. --space names the options to vary; values are
    drawn with Optuna (TPE), and trials that are worse than the median of the others end early. Each trial is a run folder
    in --out. Results are trials.csv, trials.html and the recipe best.toml; the test split is not used. The same command
    continues a search that was stopped; several processes and machines that run it on the same folder share the trials.

    Args:
        command: Training command.
        data: Dataset folders.
        space: Options to vary, as NAME=LOW..HIGH (with :log for a logarithmic scale, :int for whole numbers) or
            NAME=A,B,C.
        out: Folder to write the search to, with a run folder for each trial.
        trials: Number of trials in all, including those of earlier and parallel runs of this search.
        prune: End a trial early if its best validation score so far is below the median of the other trials after
            the same epoch.
        seed: Random seed of the search and of every trial.
        options: its own, as `ribcage … --help` lists them.
    """
