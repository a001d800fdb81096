"""Join the parts of an import on several machines into one dataset folder.

Import each part with 'ribcage import … --part K/N' and the same --out, then merge. The result is byte-identical to that
of a single import. An interrupted merge continues when the same command is run again.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ribcage.data.dataset_folder import DatasetFolder

POSITIONAL = ("out",)
EXAMPLES = ("merge data/mimic",)


@dataclass(frozen=True)
class Options:
    """What to merge."""

    out: Path | None = None
    """Dataset folder with the parts, the --out of their imports (required)."""
    allow_rejected: str = "50%"
    """Maximum number of rejected images: a number, a percentage such as 5%, or all. If more images are rejected, the
    exit code is 3."""


def run(options: Options) -> "DatasetFolder":
    """Merge; print a summary; return the opened folder."""
    from ribcage.commands import import_
    from ribcage.data import dataset_folder
    from ribcage.data.importer import parts
    from ribcage.runtime import limits

    wrong = [] if options.out else ["OUT is missing: pass the dataset folder with the parts"]
    wrong += limits.failures_errors("--allow-rejected", options.allow_rejected)
    if wrong:
        raise ValueError("; ".join(wrong) + ". See 'ribcage merge --help'.")
    assert options.out is not None
    if (options.out / "dataset.json").exists():
        print(f"{options.out} is complete already.")
        parts.remove_parts(options.out)
    else:
        import_.write(parts.Merger(options.out), "merge")
    opened = dataset_folder.open(options.out)
    print(import_.summary(opened))
    import_.print_rejections(options.allow_rejected, opened)
    return opened


def exit_code(options: Options, opened: "DatasetFolder") -> int:
    """3 where more images were rejected than --allow-rejected accepts."""
    from ribcage.commands import import_

    return import_.rejection_code(options.allow_rejected, opened)
