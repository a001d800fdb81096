"""Chosen rows: the rows that a model is trained and validated on.

Only rank 0 reads the fingerprints of the images; the other processes receive its result.
"""

from collections.abc import Callable

import numpy as np

from ribcage.bundle.init import initial_provenance
from ribcage.data import selection
from ribcage.data.collection import Datasets
from ribcage.evaluation import leakage
from ribcage.runtime import distributed
from ribcage.runtime.messages import Message
from ribcage.runtime.spelling import count_phrase
from ribcage.training.options import TrainingOptions
from ribcage.training.run_folder import say


def training_rows(options: TrainingOptions, data: Datasets, *splits: str) -> tuple[np.ndarray, str]:
    """The rows of the splits to train on, for a fraction of the patients; and a sentence about them."""
    every = data.rows_of(*splits, frontal=options.frontal)
    chosen = without_copies(data, every, *splits) if options.drop_copies else every
    if not len(chosen):
        raise ValueError(
            f"Every image of split {' '.join(splits)} is also in another split, so no image is left for training. "
            "Divide the dataset into other splits, or pass --no-drop-copies."
        )
    copies, before = len(every) - len(chosen), len(chosen)
    chosen = usable_rows(options, data, chosen)
    shared = before - len(chosen)
    chosen = selection.share_of_patients(data, chosen, options.labels, options.seed)
    notes = [f"{options.labels:g} of the patients"] if options.labels < 1 else []
    notes += [f"without {count_phrase(copies, 'copy', 'copies')} of images in other splits"] if copies else []
    images = count_phrase(shared, "image")
    notes += [f"without {images} whose patient or copy is in another split"] if shared else []
    training = f"Training on {len(chosen):,} of {count_phrase(len(every), 'image')}"
    return chosen, training + (f" ({'; '.join(notes)})" if notes else "")


def without_copies(data: Datasets, rows: np.ndarray, *splits: str) -> np.ndarray:
    """The rows without copies of images in other splits."""
    copied = _mask_of_first(lambda: selection.copied_elsewhere(data, rows, *splits), len(rows))
    return rows[~copied] if copied.any() else rows


def _mask_of_first(mask: Callable[[], np.ndarray], count: int) -> np.ndarray:
    """(count,) bool: the mask that rank 0 computes; the others receive its bits."""
    packed = distributed.run_on_first(lambda: np.packbits(mask()))
    return np.unpackbits(packed, count=count).view(bool)


def usable_rows(options: TrainingOptions, data: Datasets, rows: np.ndarray) -> np.ndarray:
    """These rows without those of --drop-shared; raise where a stored image has changed since its import."""
    left = rows
    if options.drop_shared:
        gone = _mask_of_first(lambda: selection.rows_that_give_way(data, options.drop_shared), data.total)
        left = rows[~gone[rows]]
    if not len(left):
        raise ValueError(
            f"--drop-shared {' '.join(options.drop_shared)} leaves no images for training or none for validation. "
            f"Drop the shared images from another split."
        )
    data.require_intact(left)
    return left


def warn_of_overlap(
    options: TrainingOptions, data: Datasets, splits: tuple[str, str], train_rows: np.ndarray, val_rows: np.ndarray
) -> None:
    """Print where training and validation share patients or images, also by the initial weights."""

    def found() -> list[Message]:
        trained = leakage.initial_weights_warning(initial_provenance(options.init), data, val_rows, splits[1])
        return [
            *selection.apart(data, train_rows, val_rows, splits),
            *selection.sharing(data, train_rows, val_rows, splits, options.drop_shared),
            *([Message(trained, warning=True)] if trained else []),
        ]

    for message in distributed.run_on_first(found):
        say(message)
