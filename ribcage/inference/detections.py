"""Detections: boxes found in images of dataset folders, as a table, and the ground-truth boxes of these images.

Boxes are in pixels of the stored image, as in an Index; `original` converts them to pixels of the file. The Parquet
file has one row per image, with its metadata and a list of its boxes by falling score.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ribcage.bundle.spec import ModelSpec
from ribcage.data.batch import Batch, CachedMaps
from ribcage.data.collection import Datasets
from ribcage.data.dataset_facts import Fit
from ribcage.data.index import SIDES
from ribcage.data.label_policy import IGNORE, Policy
from ribcage.data.loader import Loader
from ribcage.imaging import augment, image_file
from ribcage.inference import predictions
from ribcage.inference.forward_pass import Trainable, batch_outputs, evaluation_mode, rows_of_process
from ribcage.methods.detect import Detect
from ribcage.metrics.boxes import BoxTable
from ribcage.models.detectors.boxes import Found
from ribcage.runtime import distributed, files, parquet
from ribcage.runtime.devices import autocast

DETECTIONS_FILE = "detections.parquet"
COLUMNS = ("image", "finding", "score", *SIDES)
TYPES = {"image": "int64", "finding": "str", **dict.fromkeys(("score", *SIDES), "float32")}


@dataclass(frozen=True)
class Detections:
    """Boxes found in some images."""

    findings: tuple[str, ...]
    """All findings that the detector can find."""
    images: pd.DataFrame
    """One row per image: set, row, path, patient, split … as in a table of predictions, and `file_width` and
    `file_height`, the size of the image in its file, where the dataset has them."""
    boxes: pd.DataFrame
    """image (position in `images`), finding, score, x, y, width, height; sorted by image, then by falling score."""

    def box_table(self, finding: str) -> BoxTable:
        """The boxes of one finding."""
        chosen = self.boxes[self.boxes["finding"] == finding]
        return BoxTable(chosen["image"].to_numpy(np.int64), corners(chosen), chosen["score"].to_numpy(np.float64))

    def above(self, scores: dict[str, float]) -> "Detections":
        """Only the boxes that reach the score threshold of their finding."""
        least = self.boxes["finding"].map(scores).to_numpy(np.float64)
        kept = self.boxes[self.boxes["score"].to_numpy(np.float64) >= least]
        return Detections(self.findings, self.images, kept.reset_index(drop=True))

    def save(self, file: Path) -> None:
        """Write as Parquet, atomically."""
        firsts = np.searchsorted(self.boxes["image"].to_numpy(), np.arange(len(self.images) + 1))
        kinds = {name: pa.string() if name == "finding" else pa.float32() for name in COLUMNS[1:]}
        values = [pa.array(self.boxes[name], kind) for name, kind in kinds.items()]
        lists = pa.ListArray.from_arrays(pa.array(firsts, pa.int32()), pa.StructArray.from_arrays(values, list(kinds)))
        about = pa.Table.from_pandas(self.images, preserve_index=False)
        about = about.replace_schema_metadata({"ribcage.looked_for": "\n".join(self.findings)})
        with files.explained(file.parent, "Free some."), files.atomic(file) as part:
            pq.write_table(about.append_column("boxes", lists), part, compression="zstd")


def read_detections(file: Path) -> Detections:
    """Read what `save` wrote; ValueError says in one line why it cannot be read."""
    columns = parquet.read_own_table(file)
    named = (columns.schema.metadata or {}).get(b"ribcage.looked_for")
    if named is None or "boxes" not in columns.column_names:
        raise ValueError(f"{file} is not a table of detections: it has no list of boxes.")
    lists = columns["boxes"].combine_chunks()
    values = pa.Table.from_struct_array(lists.flatten()).to_pandas()
    values.insert(0, "image", np.repeat(np.arange(len(lists)), lists.value_lengths().to_numpy()))
    return Detections(
        tuple(named.decode().split("\n")), parquet.frame(columns.drop_columns("boxes")), values.astype(TYPES)
    )


def detections_from(findings: Sequence[str], images: pd.DataFrame, found: np.ndarray) -> Detections:
    """Detections from (M, 7) rows of image, finding (its position), score, x0, y0, x1, y1 in stored pixels, in any
    order."""
    order = np.lexsort((-found[:, 2], found[:, 0]))
    image, finding, score, x0, y0, x1, y1 = found[order].T
    named = np.array([*findings, ""], object)[finding.astype(np.int64)]
    columns = dict(zip(COLUMNS, (image, named, score, x0, y0, x1 - x0, y1 - y0), strict=True))
    return Detections(tuple(findings), images, pd.DataFrame(columns).astype(TYPES))


# ---- finding boxes


class BoxFinder(Trainable, Protocol):
    """Anything that finds boxes: a detector, or a classifier with boxes around its saliency maps."""

    def found(self, images: Tensor) -> list[Found]:
        """The boxes of each image, in pixels of `images`."""


def detect(
    method: BoxFinder,
    data: Datasets,
    rows: np.ndarray,
    *,
    model: ModelSpec,
    device: torch.device | str = "cpu",
    batch: int = 64,
    threads: int | None = None,
    dtype: torch.dtype = torch.float32,
    label: str = "",
    cached: CachedMaps | None = None,
) -> Detections:
    """Find boxes in these rows. With several processes, rank 0 returns all boxes and the others return none.

    Boxes of every score are returned.
    cached: feature maps of a frozen backbone for the plain views; requires `method` to be a Detect.
    """
    rows = np.unique(np.asarray(rows, np.int64))
    if not len(rows):
        raise ValueError("No images are selected, so there is nothing to predict.")
    mine = rows_of_process(rows, batch)
    parts = [np.empty((0, 7))]
    if len(mine):
        loader = Loader(
            data, [augment.plain_view(model.size)], batch=batch, rows=mine, findings=(), shuffle=False, threads=threads,
            channels=model.channels, normalise=(model.mean, model.std), device=device,
        )  # fmt: skip
        loader.cached = cached
        parts += list(_boxes(method, loader, torch.device(device), dtype, label if distributed.rank() == 0 else ""))
    gathered = distributed.gathered(np.concatenate(parts))
    if not gathered:
        return detections_from(model.findings, detection_context(data, rows[:0]), parts[0])
    found = np.concatenate(gathered)
    found[:, 0] = np.searchsorted(rows, found[:, 0])
    return detections_from(model.findings, detection_context(data, rows), found)


def _boxes(
    method: BoxFinder, loader: Loader, device: torch.device, dtype: torch.dtype, label: str
) -> Iterator[np.ndarray]:
    """(M, 7) for each batch: row, finding, score, x0, y0, x1, y1 in stored pixels."""

    def compute(batch: Batch) -> np.ndarray:
        with autocast(device, dtype):
            return _of_batch(_found(method, batch, device), batch, loader)

    with evaluation_mode(method):
        yield from batch_outputs(loader, compute, label)


def _found(method: BoxFinder, batch: Batch, device: torch.device) -> list[Found]:
    """The boxes of a batch, from its cached feature maps if it has them."""
    if batch.maps and isinstance(method, Detect):
        return method.found(batch.views[0].to(device), [one.to(device, non_blocking=True) for one in batch.maps])
    return method.found(batch.views[0].to(device, memory_format=torch.channels_last))


def _of_batch(found: Sequence[Found], batch: Batch, loader: Loader) -> np.ndarray:
    """(M, 7): row, finding, score, x0, y0, x1, y1 in stored pixels."""
    parts = [np.empty((0, 7))]
    for one, row, source in zip(found, batch.rows.tolist(), batch.sources.tolist(), strict=True):
        boxes = to_stored_pixels(one.boxes.float().cpu().numpy(), loader.views[0].shape, loader.data[source].size)
        columns = torch.stack([one.findings.float(), one.scores.float()], dim=1).cpu().numpy()
        parts.append(np.concatenate([np.full((len(boxes), 1), float(row)), columns, boxes], axis=1))
    return np.concatenate(parts)


# ---- ground truth


def truth(data: Datasets, rows: np.ndarray, finding: str, policy: Policy = IGNORE) -> BoxTable:
    """Ground-truth boxes of a finding in these rows (ascending), in stored pixels; `images` are positions in `rows`."""
    boxes = data.boxes([finding], policy.settled.readers).of_rows(rows)
    return BoxTable.ground_truth(boxes[:, 0].astype(np.int64), boxes[:, 2:])


def drawn(data: Datasets, rows: np.ndarray, findings: Sequence[str], policy: Policy = IGNORE) -> np.ndarray:
    """(N, F) bool: for which of these rows (ascending) the boxes of a finding are fully known, including "no box".

    Without boxes, a finding that is present or uncertain may be anywhere in the image. Such an image would add false
    negatives to the training and false positives to the evaluation of a detector.
    """
    known = data.known_labels(rows, findings, policy) <= 0.5  # not where NaN
    for place, finding in enumerate(findings):
        known[truth(data, rows, finding, policy).images, place] = True
    return known


def boxes_in_view(
    data: Datasets, rows: np.ndarray, findings: Sequence[str], size: tuple[int, int], policy: Policy = IGNORE
) -> np.ndarray:
    """(M, 6) n, finding, x0, y0, x1, y1: ground-truth boxes of these rows (ascending), in pixels of their plain
    view."""
    boxes = data.boxes(findings, policy.settled.readers).of_rows(rows)
    return augment.move_boxes(boxes, augment.draw_numbers(augment.plain_view(size), 0, 0, rows, 0, data.sides(rows)))


def detection_context(data: Datasets, rows: np.ndarray) -> pd.DataFrame:
    """Metadata of these rows (ascending), with the size of the file's image where the datasets have it."""
    parts = []
    for dataset, own in zip(data, data.own_rows(rows), strict=True):
        table = dataset.index.table.iloc[own]
        parts.append(table[[name for name in ("width", "height") if name in table]])
    sizes = pd.concat(parts, ignore_index=True).rename(columns={"width": "file_width", "height": "file_height"})
    return pd.concat([predictions.row_context(data, rows), sizes], axis=1)


# ---- coordinates


def corners(boxes: pd.DataFrame) -> np.ndarray:
    """(M, 4) float64: x0, y0, x1, y1."""
    x, y, width, height = (boxes[name].to_numpy(np.float64) for name in SIDES)
    return np.stack([x, y, x + width, y + height], axis=1)


def to_stored_pixels(boxes: np.ndarray, view: tuple[int, int], side: int) -> np.ndarray:
    """(M, 4) x0, y0, x1, y1 in the plain view of this (height, width) → in pixels of the stored image."""
    affine = augment.draw_numbers(augment.plain_view(view), 0, 0, np.zeros(1, np.int64), 0, side).affine[
        0
    ]  # (2, 3), no rotation
    return transformed_boxes(boxes, affine)


def original(boxes: np.ndarray, file: tuple[int, int], side: int, fit: Fit) -> np.ndarray:
    """(M, 4) boxes of a stored image of this side length → in pixels of its file of this (width, height), clipped to
    the image; a box in the padding becomes empty."""
    whole = image_file.fit_matrix(*file, side, fit)
    back = np.array(
        [[1 / whole[0, 0], 0, -whole[0, 2] / whole[0, 0]], [0, 1 / whole[1, 1], -whole[1, 2] / whole[1, 1]]]
    )
    return transformed_boxes(boxes, back).clip(0, [*file, *file])


def transformed_boxes(boxes: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """(M, 4) float64 boxes after a (2, 3) affine map without rotation."""
    scale, shift = np.tile(np.diag(affine[:, :2]), 2), np.tile(affine[:, 2], 2)
    return boxes.astype(np.float64) * scale + shift
