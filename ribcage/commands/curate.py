"""Select training images with balanced labels and diverse features, and without near-duplicates.

The features are computed by a pretrained model. The result is a dataset folder with the same images and tables, in
which the training images that were not selected are in no split. The column `curation` states for every training image
whether it was selected, is a near-duplicate of another image, or was left out; 'ribcage inspect' prints the counts. If
the command is interrupted, run it again; it then starts from the beginning.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ribcage.runtime.remote.places import Place

if TYPE_CHECKING:
    import numpy as np

    from ribcage.data.collection import Datasets
    from ribcage.data.dataset_folder import DatasetFolder
    from ribcage.data.provenance import Provenance

POSITIONAL = ("data",)
PLACES = {"data": Place.DATASET, "features": Place.MODEL, "out": Place.FOLDER_OUT}
EXAMPLES = ("curate data/nih --features runs/moco --share 0.25 --out data/nih-quarter",)


@dataclass(frozen=True)
class Options:
    """What is selected, and how."""

    data: Path
    """Dataset folder."""
    features: Path
    """Run folder or bundle of the model that computes the features, for example a self-supervised model."""
    out: Path | None = None
    """Dataset folder to write (required)."""
    share: float = 0.25
    """Fraction of the training images to select."""
    balance: float = 0.5
    """Fraction of the selection (0 to 1) that is divided equally among the positive images of all findings."""
    prototypes: int = 0
    """Number of clusters; 0 means a tenth of the number of selected images, but at least 10 and at most
    1,000."""
    train: str = "train"
    """Split from which images are selected."""
    near_duplicates: bool = True
    """Select at most one of several near-duplicates (re-encoded, resized, cropped, mirrored or rotated images)."""
    seed: int = 0
    """Random seed for the clusters."""
    batch: int = 64
    """Batch size: images per forward pass."""
    threads: int = 0
    """Number of threads that load images; 0 means one per core."""


def run(options: Options) -> "DatasetFolder":
    """Compute features, select, write, print; return the new dataset folder."""
    import numpy as np

    from ribcage.bundle.init import initial_provenance
    from ribcage.data import curation, dataset_folder
    from ribcage.data.collection import Datasets
    from ribcage.runtime.messages import Message
    from ribcage.runtime.spelling import count_phrase

    check(options)
    assert options.out is not None
    opened = dataset_folder.open(options.data)
    data = Datasets.of([opened])
    rows = data.rows_of(options.train)
    data.require_intact(rows)
    for split in splits_seen(initial_provenance(str(options.features)), data, options.train):
        text = (
            f"The model of --features was trained on images or patients of split {split!r}, so the selection depends "
            f"on them."
        )
        print(Message(text, warning=True))
    count = max(1, round(options.share * len(rows)))
    clusters = curation.cluster(
        features(options, data, rows),
        options.prototypes or min(curation.MOST, max(curation.LEAST, count // 10)),
        options.seed,
    )
    single = curation.representatives(duplicate_groups(opened, rows)) if options.near_duplicates else rows >= 0
    chosen = curation.selected(clusters, opened.index.labels[rows], count, candidates=single, balance=options.balance)
    reasons = np.where(chosen, curation.SELECTED, np.where(single, curation.LEFT_OUT, curation.DUPLICATE))
    write(options, opened, rows, reasons)
    print(
        f"{options.out}: {chosen.sum():,} of {count_phrase(len(rows), f'{options.train} image')} selected; "
        f"{count_phrase(int((~single).sum()), 'near-duplicate')}; {count_phrase(clusters.count, 'cluster')}."
    )
    return dataset_folder.open(options.out)


def check(options: Options) -> None:
    """Raise one ValueError with everything that is wrong with the options."""
    from ribcage.runtime import limits

    wrong = ["--out is missing: pass the dataset folder to write"] * (options.out is None)
    wrong += unusable(options.out) if options.out is not None and options.out.exists() else []
    wrong += [f"--share {options.share:g} must be more than 0 and at most 1"] * (not 0 < options.share <= 1)
    wrong += [f"--balance {options.balance:g} must be from 0 to 1"] * (not 0 <= options.balance <= 1)
    wrong += [f"--prototypes {options.prototypes} must be 0 or more"] * (options.prototypes < 0)
    wrong += [f"--seed {options.seed} must be 0 or more"] * (options.seed < 0)
    limits.check_options(options, wrong)


def unusable(out: Path) -> list[str]:
    """Why an existing folder cannot be --out. An interrupted command leaves a folder without dataset.json, which can
    be."""
    from ribcage.data.importer import writer

    if not out.is_dir() or (out / "dataset.json").exists():
        return [f"--out {out} exists: pass a new folder"]
    try:
        writer.refuse_strangers(out, writer.OURS)
    except ValueError as error:
        return [str(error).removesuffix(".")]
    return []


def splits_seen(seen: "Provenance", data: "Datasets", train: str) -> list[str]:
    """The splits other than `train` on whose images or patients a model was trained."""
    from ribcage.evaluation import leakage

    found = []
    for split in sorted(set(data.splits) - {"", train}):
        try:
            leakage.check_leakage(seen, data, data.rows_of(split), selected=True)
        except leakage.LeakError:
            found.append(split)
    return found


def features(options: Options, data: "Datasets", rows: "np.ndarray") -> "np.ndarray":
    """(N, D) features of these rows."""
    import torch

    from ribcage.bundle.init import initial_backbone
    from ribcage.bundle.io import load_bundle
    from ribcage.training import probe

    model = load_bundle(options.features).spec
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loader = probe.plain_loader(
        data, rows, model.size, (), batch=options.batch, threads=options.threads or None, channels=model.channels,
        normalise=(model.mean, model.std), device=device,
    )  # fmt: skip
    return probe.extract(initial_backbone(model, str(options.features), 0.0), loader, device, "features").features


def duplicate_groups(opened: "DatasetFolder", rows: "np.ndarray") -> "np.ndarray":
    """(N,) a number for each of these rows, equal for near-duplicates."""
    from ribcage.data.audit import copies
    from ribcage.imaging import duplicates

    if opened.facts.linked:
        raise ValueError(
            f"{opened.folder} is linked and has no fingerprints. Import it without --link, or pass "
            "--no-near-duplicates."
        )
    found = duplicates.duplicates_within(
        opened.fingerprints.prints[rows], images=lambda place: opened.image(int(rows[place]))
    )
    return copies.components(len(rows), found.first, found.second)


def write(options: Options, opened: "DatasetFolder", rows: "np.ndarray", reasons: "np.ndarray") -> None:
    """The dataset folder with the new column and split; its images are hard links to those of the other folder."""
    import hashlib
    from dataclasses import replace

    import numpy as np

    from ribcage.data import curation, dataset_folder
    from ribcage.data.importer import resharding, writer
    from ribcage.runtime import files

    assert options.out is not None
    opened.require_tables()
    table = opened.index.table.copy()
    earlier = table[curation.COLUMN] if curation.COLUMN in table else np.full(len(table), "", object)
    column, split = np.array(earlier, object), table["split"].to_numpy(object)
    column[rows] = reasons
    split[rows[reasons != curation.SELECTED]] = ""
    index = replace(opened.index, table=table.assign(split=split, **{curation.COLUMN: column}))
    with files.explained(options.out, resharding.ADVICE):
        options.out.mkdir(parents=True, exist_ok=True)
        writer.clear(options.out)  # files of an interrupted command
        with files.only_writer(options.out):
            resharding.link_images(opened, options.out)
            resharding.copy_tables(opened, options.out)
            with files.atomic(options.out / dataset_folder.INDEX_FILE) as part:
                index.save(part)
            plan = hashlib.blake2b(f"{opened.facts.plan} {','.join(split)}".encode(), digest_size=16).hexdigest()
            dataset_folder.write_facts(options.out, replace(opened.facts, plan=plan))
