"""Copy a dataset folder and divide its images into a different number of files, without a new import.

The copy is byte-identical to the result of an import with the same --images-per-shard. If copying is
interrupted, run the same command again; it then starts from the beginning.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ribcage.runtime.remote.places import Place

if TYPE_CHECKING:
    from ribcage.data.dataset_folder import DatasetFolder

POSITIONAL = ("data",)
PLACES = {"data": Place.DATASET, "out": Place.FOLDER_OUT}
EXAMPLES = ("reshard data/nih --out data/nih-shards --images-per-shard 512",)


@dataclass(frozen=True)
class Options:
    """What to copy."""

    data: Path | None = None
    """Dataset folder to copy (required)."""
    out: Path | None = None
    """Dataset folder to write (required)."""
    images_per_shard: int = 512
    """Number of images per file; 0 means one file (docs/datasets.md)."""


def run(options: Options) -> "DatasetFolder":
    """Copy; print a summary; return the opened copy."""
    from ribcage.commands import import_
    from ribcage.data import dataset_folder
    from ribcage.data.importer import resharding
    from ribcage.runtime import progress

    wrong = ["DATA is missing: pass the dataset folder to copy"] * (options.data is None)
    wrong += ["--out is missing: pass the dataset folder to write"] * (options.out is None)
    wrong += [f"--images-per-shard cannot be {options.images_per_shard}"] * (options.images_per_shard < 0)
    if wrong:
        raise ValueError("; ".join(wrong) + ". See 'ribcage reshard --help'.")
    assert options.data is not None and options.out is not None
    opened = dataset_folder.open(options.data)
    steps = resharding.reshard(opened, options.out, options.images_per_shard)
    for _ in progress.track(steps, len(opened), f"copy {opened.facts.name}", "images"):
        pass
    copied = dataset_folder.open(options.out)
    if (options.out / resharding.REJECTED).exists():
        print(import_.summary(copied))
    return copied
