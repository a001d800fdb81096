"""Import a dataset into a dataset folder, which holds one array of images and one table.

The import reads the tables of a public dataset or of your own images, decodes and resizes every image once, and keeps
the labels as they are in the source. 'ribcage import DATASET --help' shows the options of a dataset. An interrupted
import continues when the same command is run again.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ribcage.runtime.engines import EngineName
from ribcage.runtime.remote.places import Place
from ribcage.runtime.spelling import count_phrase

if TYPE_CHECKING:
    from ribcage.data.dataset_facts import Facts
    from ribcage.data.dataset_folder import DatasetFolder
    from ribcage.data.importer.writer import Writer
    from ribcage.data.index import Index

POSITIONAL = ("dataset", "root")
PLACES = {"root": Place.SOURCE, "out": Place.FOLDER_OUT, "masks": Place.FILE, "split_list": Place.FILE}
WAITING_THREADS = 16
"""Minimum number of threads that read images from a server."""
EXAMPLES = (
    "import nih /data/ChestX-ray14 --out data/nih",
    "import folder /data/ours --out data/ours --size 512",
    "import mimic /data/mimic-cxr-jpg --out data/mimic --part 3/16",
    "import mimic /data/mimic-cxr-jpg --out data/mimic --engine ray",
)


@dataclass(frozen=True)
class Options:
    """What to import, and how."""

    dataset: str
    """Name of the dataset; `folder` for your own files."""
    root: Path | None = None
    """Folder or file to which the dataset was downloaded, or its remote address, such as s3://bucket/nih (not needed
    for phantom)."""
    out: Path | None = None
    """Dataset folder to write (required); it may be at a remote address (docs/remote.md)."""
    size: int | None = None
    """Side length of the stored images in pixels; smaller images are enlarged (default: 256, or less if all images
    are smaller)."""
    fit: Literal["pad", "crop", "squash"] = "pad"
    """Method of making images square: pad with black, crop at the centre, or squash (the aspect ratio changes)."""
    depth: Literal[8, 16] = 8
    """Bit depth of the stored images."""
    threads: int = 0
    """Number of threads that decode images; 0 means one per core."""
    engine: EngineName = "local"
    """Where images are decoded: local (in threads of this process) or ray (on all machines of a Ray cluster)."""
    window: str = ""
    """DICOM window: the name of a window in the file, such as LUNG, or CENTRE,WIDTH (default: the window of the
    file; see docs/datasets.md)."""
    allow_rejected: str = "50%"
    """Maximum number of rejected images: a number, a percentage such as 5%, or all. If more images are rejected, the
    exit code is 3."""
    limit: int = 0
    """Import only the first N images; 0 means all images."""
    redo: bool = False
    """Import again from the start, even if the folder contains a complete or unfinished import."""
    part: str = ""
    """Import only part K of N, written as K/N, such as 3/16; 'ribcage merge OUT' joins all parts. Each part can be
    imported on a different machine, provided that all machines share the folder --out (default: import everything)."""
    images_per_shard: int = 0
    """Number of images per file (shard); 0 means that all images are in one file. Shards are recommended for large
    datasets and for datasets in object stores (docs/datasets.md)."""
    link: bool = False
    """Store only the table, not the images; the images are decoded from the original files whenever they are used."""
    split_list: tuple[str, ...] = ()
    """Files with image names, one per line, that define the splits: train=FILE test=FILE."""
    drop_shared: tuple[str, ...] = ()
    """Splits from which an image is dropped if its patient, or a copy of the image, is also in another split."""
    masks: tuple[Path, ...] = ()
    """Files with masks of the images: CSV files of CheXmask, or JSON files in COCO format."""
    name: str = ""
    """Name of the dataset in reports; identical patient identifiers count as the same patient only in datasets of the
    same name (default: the published name)."""
    member: dict[str, object] = field(default_factory=dict)


def member(name: str) -> "Callable[..., Index]":
    """The function whose keywords are the dataset's own options."""
    from ribcage.data import datasets

    return datasets.load_dataset(name).index


def member_file(name: str) -> Path:
    """The source of a dataset."""
    return Path(__file__).parents[1] / "data" / "datasets" / f"{name}.py"


def run(options: Options) -> "DatasetFolder | None":
    """Read the tables, then the images; print a summary; return the opened folder, or None if only a part was
    imported."""
    from ribcage.data import dataset_folder
    from ribcage.data.importer import parts, writer
    from ribcage.runtime import engines
    from ribcage.runtime.remote import addresses

    check(options)
    assert options.out is not None
    index, facts = describe(options)
    threads = options.threads or cores(remote=addresses.is_remote(index.root))
    engine = engines.engine(options.engine, threads)
    if options.part:
        part = parts.Part.parse(options.part)
        if options.redo:
            parts.clear_part(options.out, part)
        if not finished(options.out, index, facts):
            write(parts.PartWriter(index, facts, options.out, part, engine=engine), f"{index.name} {part}")
            print(
                f"Part {part} of {options.out} is finished. When all parts are finished, run "
                f"'ribcage merge {options.out}'."
            )
            return None
    elif options.redo:
        writer.clear(options.out)
    if finished(options.out, index, facts):
        print(f"{options.out} is complete already.")
    elif options.link:
        writer.link(index, facts, options.out)
    else:
        write(writer.Writer(index, facts, options.out, engine=engine), index.name)
    opened = dataset_folder.open(options.out)
    print(summary(opened))
    print_rejections(options.allow_rejected, opened)
    return opened


def exit_code(options: Options, opened: "DatasetFolder | None") -> int:
    """3 where more images were rejected than --allow-rejected accepts; of parts, only the merge counts them."""
    return 0 if opened is None else rejection_code(options.allow_rejected, opened)


def rejection_code(allowed: str, opened: "DatasetFolder") -> int:
    """3 where more images were rejected than allowed, else 0."""
    from ribcage.runtime import limits

    facts = opened.facts
    return 3 if facts.rejected > limits.allowed_failures(allowed, facts.images + facts.rejected) else 0


def print_rejections(allowed: str, opened: "DatasetFolder") -> None:
    """Explain the exit code 3, if that follows."""
    if rejection_code(allowed, opened):
        print(
            "The exit code is 3; to accept rejected images, pass --allow-rejected with a number, a percentage or all."
        )


def check(options: Options) -> None:
    """Raise one ValueError with everything that is wrong with the options; ImportError if the engine is not
    installed."""
    from ribcage.data import datasets
    from ribcage.data.importer import parts
    from ribcage.data.importer import tables as importer_tables
    from ribcage.imaging.dicom import value_of_interest
    from ribcage.runtime import limits
    from ribcage.runtime.remote import addresses

    wrong = []
    if options.out is None:
        wrong.append("--out is missing: pass the dataset folder to write")
    if options.root is None and datasets.needs_root(options.dataset):
        wrong.append(f"ROOT is missing: pass the folder or file of {options.dataset}")
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        wrong.append(f"--out {options.out} is a file, not a folder")
    for name, allowed in (("fit", ("pad", "crop", "squash")), ("depth", (8, 16))):
        if getattr(options, name) not in allowed:
            wrong.append(f"--{name} must be {' or '.join(map(str, allowed))}, not {getattr(options, name)!r}")
    wrong += [f"--size {options.size} must be from {importer_tables.LEAST_SIZE} to 4096"] * (
        options.size is not None and not importer_tables.LEAST_SIZE <= options.size <= 4096
    )
    wrong += [f"--{key.replace('_', '-')} cannot be {getattr(options, key)}"
              for key in ("threads", "limit", "images_per_shard") if getattr(options, key) < 0]  # fmt: skip
    wrong += limits.failures_errors("--allow-rejected", options.allow_rejected)
    if options.engine == "ray" and options.threads:
        wrong.append("--threads applies to --engine local only; on Ray, each process decodes images in one thread")
    if options.engine == "ray" and options.link:
        wrong.append("--engine ray and --link exclude each other, because --link decodes only a sample of the images")
    for parse, text in ((value_of_interest.parse_window, options.window), (parts.Part.parse, options.part or "1/1")):
        try:
            parse(text)
        except ValueError as error:
            wrong.append(str(error).rstrip("."))
    if options.link and options.root is not None and addresses.is_remote(options.root):
        wrong.append("--link needs a local ROOT, because the images are read again whenever they are used")
    if options.part and options.link:
        wrong.append("--part and --link exclude each other, because a linked folder stores no images")
    if options.images_per_shard and options.link:
        wrong.append("--images-per-shard and --link exclude each other, because a linked folder stores no images")
    wrong += [f"--drop-shared {name}: the split must be train, val or test" for name in options.drop_shared
              if name not in ("train", "val", "test")]  # fmt: skip
    if wrong:
        raise ValueError("; ".join(wrong) + ". See 'ribcage import --help'.")


def describe(options: Options) -> "tuple[Index, Facts]":
    """The Index, and the facts of the folder to be."""
    from ribcage.data import dataset_facts, dataset_folder, datasets, splits
    from ribcage.data.readers.mask_tables import with_masks
    from ribcage.runtime.remote import addresses, cache

    module = datasets.load_dataset(options.dataset)
    index = datasets.index(options.dataset, options.root, **options.member)
    local = datasets.needs_root(options.dataset) and not addresses.is_remote(index.root)
    root = index.root.absolute() if local else index.root
    index = replace(index, name=options.name or index.name, root=root)
    for file in options.masks:
        index = with_masks(index, cache.local_place(file))
    if options.split_list:
        listed = splits.from_lists(options.split_list, index.table["patient"], index.table["path"])
        index = replace(index, table=index.table.assign(split=listed))
    if options.limit:
        index = index.take(range(min(options.limit, len(index))))
    facts = dataset_facts.Facts(
        name=index.name,
        dataset=options.dataset,
        source=module.SOURCE,
        licence=module.LICENCE,
        images=len(index),
        rejected=0,
        size=options.size or min(256, native_size(index)),
        fit=options.fit,
        depth=options.depth,
        mean=0.0,
        std=1.0,
        findings=index.findings,
        root=addresses.address_text(index.root),
        options=options.member,
        linked=options.link,
        window=options.window,
        versions=dataset_folder.versions(),
        drop_shared=options.drop_shared,
        images_per_shard=options.images_per_shard,
    )
    return index, facts


def native_size(index: "Index") -> int:
    """The longest side of any image where the index knows it already, else 256."""
    known = [int(index.table[side].max()) for side in ("width", "height") if side in index.table]
    return max(known, default=256)


def finished(out: Path, index: "Index", facts: "Facts") -> bool:
    """Whether the folder already holds just this; another complete folder is not touched."""
    from ribcage.data import dataset_facts
    from ribcage.data.importer import writer

    if not (out / "dataset.json").exists():
        return False
    found = dataset_facts.Facts.load(out / "dataset.json")
    if (found.plan, found.images_per_shard) != (writer.plan(index, facts), facts.images_per_shard):
        other = f"{out} contains another dataset, or the same dataset with other options"
        raise ValueError(f"{other}. Choose another --out, or replace it with --redo.")
    writer.tidy(out)
    return True


def write(writer: "Writer", name: str) -> None:
    """Import with a progress bar; Ctrl-C, SIGTERM and SIGUSR1 stop it cleanly."""
    from ribcage.runtime import progress, signals

    total = len(writer.rows)
    try:
        with signals.stoppable(), writer:
            if writer.done:
                print(f"Resuming after {writer.done:,} of {count_phrase(total, 'image')}.")
            for _ in progress.track(writer.run(), total, f"import {name}", "images", writer.done):
                pass
    except KeyboardInterrupt as stop:
        raise type(stop)(f"{stop} Run the same command again to continue from here.".lstrip()) from None


def cores(*, remote: bool = False) -> int:
    """Number of threads: one per core, or more if they mostly wait for a server."""
    from ribcage.runtime.threads import available_cores

    count = available_cores()
    return max(count, WAITING_THREADS) if remote else count


def summary(opened: "DatasetFolder") -> str:
    """What the folder holds, in a few lines."""
    from ribcage.data.importer import tables as importer_tables

    out, facts, table = opened.folder, opened.facts, opened.index.table
    splits = ", ".join(f"{split or 'no split'} {count:,}" for split, count in table["split"].value_counts().items())
    kind = "linked" if facts.linked else f"{facts.size}×{facts.size}, {facts.depth} bit, {facts.fit}"
    notes = [f"  {count:,} × {note}" for note, count in facts.notes.items()]
    patients = int((opened.index.patient_codes.keys != "").sum())
    images = count_phrase(facts.images, "image")
    people = f"from {count_phrase(patients, 'patient')}" if patients else "without patient identifiers"
    lines = [
        f"{out}: {images} ({kind}) {people}; {splits}.",
        *filter(None, [importer_tables.enlarged(table, facts), described_reports(opened), described_masks(opened)]),
        *notes,
        f"{count_phrase(facts.rejected, 'image')} rejected{': ' + reasons(out) if facts.rejected else '.'}",
    ]
    return "\n".join(lines)


def described_reports(opened: "DatasetFolder") -> str:
    """The number of radiology reports and of the images that they describe; "" if there are none."""
    rows = opened.reports["rows"]
    return f"{count_phrase(len(rows), 'report')} on {count_phrase(sum(map(len, rows)), 'image')}." if len(rows) else ""


def described_masks(opened: "DatasetFolder") -> str:
    """The number of masks and points, and of the images on which they were drawn; "" if there are none."""
    tables = (("mask", opened.masks), ("point", opened.points))
    said = [f"{count_phrase(len(table), name)} on {count_phrase(table['row'].nunique(), 'image')}"
            for name, table in tables if len(table)]  # fmt: skip
    return ", ".join(said) + "." if said else ""


def reasons(out: Path, most: int = 3) -> str:
    """The commonest reasons for which images were rejected."""
    import csv
    from collections import Counter

    with (out / "rejected.csv").open(encoding="utf-8", newline="") as file:
        counts = Counter(row["reason"] for row in csv.DictReader(file))
    first = [f"{count:,} × {reason.rstrip('.')}" for reason, count in counts.most_common(most)]
    more = "; …" if len(counts) > most else ""
    return (
        f"{'; '.join(first)}{more}. All rejected images are listed in {out / 'rejected.csv'}; fix them and pass --redo."
    )
