"""Detections: what a detector found in images of dataset folders, as a table, and what was drawn in them.

Boxes are in stored pixels of their image, as those of an Index are; `original` moves them to the file's own pixels.
The file has one row per image – what is known of it, and the list of its boxes, the surest first.
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
from ribcage.data.dataset_folder import Fit
from ribcage.data.findings import IGNORE, Policy
from ribcage.data.loader import Loader
from ribcage.imaging import augment, image_file
from ribcage.inference import predictions
from ribcage.inference.forward_pass import Trainable, batch_outputs, evaluation_mode, rows_of_process
from ribcage.methods.detect import Detect
from ribcage.metrics.boxes import BoxTable
from ribcage.models.detectors.boxes import Found
from ribcage.runtime import distributed, files, parquet

SIDES = ("x", "y", "width", "height")
COLUMNS = ("image", "finding", "score", *SIDES)
TYPES = {"image": "int64", "finding": "str", **dict.fromkeys(("score", *SIDES), "float32")}


@dataclass(frozen=True)
class Detections:
    """What was found in some images."""

    findings: tuple[str, ...]
    """What was looked for."""
    images: pd.DataFrame
    """One row per image: set, row, path, patient, split … as a table of predictions has them, and where the set knows
    it `file_width` and `file_height`, of the image in its file."""
    boxes: pd.DataFrame
    """image (its place in `images`), finding, score, x, y, width, height; by image, then by falling score."""

    def marks(self, finding: str) -> BoxTable:
        """Those of one finding."""
        chosen = self.boxes[self.boxes["finding"] == finding]
        return BoxTable(chosen["image"].to_numpy(np.int64), corners(chosen), chosen["score"].to_numpy(np.float64))

    def above(self, scores: dict[str, float]) -> "Detections":
        """Only what reaches the score of its finding."""
        least = self.boxes["finding"].map(scores).to_numpy(np.float64)
        kept = self.boxes[self.boxes["score"].to_numpy(np.float64) >= least]
        return Detections(self.findings, self.images, kept.reset_index(drop=True))

    def save(self, file: Path) -> None:
        """Write as Parquet, wholly or not at all."""
        firsts = np.searchsorted(self.boxes["image"].to_numpy(), np.arange(len(self.images) + 1))
        kinds = {name: pa.string() if name == "finding" else pa.float32() for name in COLUMNS[1:]}
        values = [pa.array(self.boxes[name], kind) for name, kind in kinds.items()]
        lists = pa.ListArray.from_arrays(pa.array(firsts, pa.int32()), pa.StructArray.from_arrays(values, list(kinds)))
        about = pa.Table.from_pandas(self.images, preserve_index=False)
        about = about.replace_schema_metadata({"ribcage.looked_for": "\n".join(self.findings)})
        with files.explained(file.parent, "Free some."), files.atomic(file) as part:
            pq.write_table(about.append_column("boxes", lists), part, compression="zstd")


def read_detections(file: Path) -> Detections:
    """Read what `save` wrote, or say in one line what is wrong with it."""
    try:
        columns = parquet.read_parquet(file)
    except parquet.NoTableError as error:
        raise ValueError(f"{file} is damaged or not a Parquet file ({error}).") from None
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
    """From (M, 7) image, finding, score, x0, y0, x1, y1 in stored pixels, in any order; findings by their place."""
    order = np.lexsort((-found[:, 2], found[:, 0]))
    image, finding, score, x0, y0, x1, y1 = found[order].T
    named = np.array([*findings, ""], object)[finding.astype(np.int64)]
    columns = dict(zip(COLUMNS, (image, named, score, x0, y0, x1 - x0, y1 - y0), strict=True))
    return Detections(tuple(findings), images, pd.DataFrame(columns).astype(TYPES))


# ---- finding boxes


class BoxFinder(Trainable, Protocol):
    """Whatever finds boxes in images: a detector, or a classifier with boxes around its saliency maps."""

    def found(self, images: Tensor) -> list[Found]:
        """The boxes of each image, in its pixels."""


def detect(
    method: BoxFinder,
    data: Datasets,
    rows: np.ndarray,
    *,
    model: ModelSpec,
    device: torch.device | str = "cpu",
    batch: int = 64,
    threads: int | None = None,
    bf16: bool = False,
    label: str = "",
    cached: CachedMaps | None = None,
) -> Detections:
    """Find boxes in these rows; with several processes rank 0 gets all, the others none.

    Boxes of every score are kept.
    cached: feature maps of a frozen backbone for the plain views; the method is a Detect then.
    """
    rows = np.unique(np.asarray(rows, np.int64))
    if not len(rows):
        raise ValueError("There is no image to predict: no row was selected.")
    mine = rows_of_process(rows, batch)
    parts = [np.empty((0, 7))]
    if len(mine):
        loader = Loader(
            data, [augment.plain_view(model.size)], batch=batch, rows=mine, findings=(), shuffle=False, threads=threads,
            channels=model.channels, normalise=(model.mean, model.std), device=device,
        )  # fmt: skip
        loader.cached = cached
        parts += list(_boxes(method, loader, torch.device(device), bf16, label if distributed.rank() == 0 else ""))
    gathered = distributed.gathered(np.concatenate(parts))
    if not gathered:
        return detections_from(model.findings, detection_context(data, rows[:0]), parts[0])
    found = np.concatenate(gathered)
    found[:, 0] = np.searchsorted(rows, found[:, 0])
    return detections_from(model.findings, detection_context(data, rows), found)


def _boxes(method: BoxFinder, loader: Loader, device: torch.device, bf16: bool, label: str) -> Iterator[np.ndarray]:
    """(M, 7) of each batch: row, finding, score, box in stored pixels."""

    def compute(batch: Batch) -> np.ndarray:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return _of_batch(_found(method, batch, device), batch, loader)

    with evaluation_mode(method):
        yield from batch_outputs(loader, compute, label)


def _found(method: BoxFinder, batch: Batch, device: torch.device) -> list[Found]:
    """What a batch shows, or what was made of it before."""
    if batch.maps and isinstance(method, Detect):
        return method.found(batch.views[0].to(device), [one.to(device, non_blocking=True) for one in batch.maps])
    return method.found(batch.views[0].to(device, memory_format=torch.channels_last))


def _of_batch(found: Sequence[Found], batch: Batch, loader: Loader) -> np.ndarray:
    """(M, 7): row, finding, score, box in stored pixels."""
    parts = [np.empty((0, 7))]
    for one, row, source in zip(found, batch.rows.tolist(), batch.sources.tolist(), strict=True):
        boxes = to_stored_pixels(one.boxes.float().cpu().numpy(), loader.views[0].shape, loader.data[source].size)
        said = torch.stack([one.findings.float(), one.scores.float()], dim=1).cpu().numpy()
        parts.append(np.concatenate([np.full((len(boxes), 1), float(row)), said, boxes], axis=1))
    return np.concatenate(parts)


# ---- what was drawn


def truth(data: Datasets, rows: np.ndarray, finding: str) -> BoxTable:
    """The true boxes of a finding in these rows, which ascend, in stored pixels; images by their place in `rows`."""
    boxes = data.boxes([finding]).of_rows(rows)
    return BoxTable.ground_truth(boxes[:, 0].astype(np.int64), boxes[:, 2:])


def drawn(data: Datasets, rows: np.ndarray, findings: Sequence[str], policy: Policy = IGNORE) -> np.ndarray:
    """(N, F) bool: in which of these rows, which ascend, it is known where a finding is, or that it is nowhere.

    A finding that is there, or of which nothing certain is said, and that nobody drew may be anywhere: such an image
    teaches a detector, and tells of one, what is not so.
    """
    known = data.known_labels(rows, findings, policy) <= 0.5  # not where NaN
    for place, finding in enumerate(findings):
        known[truth(data, rows, finding).images, place] = True
    return known


def boxes_in_view(data: Datasets, rows: np.ndarray, findings: Sequence[str], size: tuple[int, int]) -> np.ndarray:
    """(M, 6) n, finding, x0, y0, x1, y1: the true boxes in these rows, which ascend, in pixels of their plain view."""
    boxes = data.boxes(findings).of_rows(rows)
    return augment.move_boxes(boxes, augment.draw_numbers(augment.plain_view(size), 0, 0, rows, 0, data.sides(rows)))


def detection_context(data: Datasets, rows: np.ndarray) -> pd.DataFrame:
    """What is known of these rows, which ascend, with the sizes of their files where the sets know them."""
    parts = []
    for dataset, own in zip(data, data.own_rows(rows), strict=True):
        table = dataset.index.table.iloc[own]
        parts.append(table[[name for name in ("width", "height") if name in table]])
    sizes = pd.concat(parts, ignore_index=True).rename(columns={"width": "file_width", "height": "file_height"})
    return pd.concat([predictions.row_context(data, rows), sizes], axis=1)


# ---- from one image to another


def corners(boxes: pd.DataFrame) -> np.ndarray:
    """(M, 4) float64: x0, y0, x1, y1."""
    x, y, width, height = (boxes[name].to_numpy(np.float64) for name in SIDES)
    return np.stack([x, y, x + width, y + height], axis=1)


def to_stored_pixels(boxes: np.ndarray, view: tuple[int, int], side: int) -> np.ndarray:
    """(M, 4) x0, y0, x1, y1 of the plain view of this (height, width) → the same in pixels of the stored image."""
    affine = augment.draw_numbers(augment.plain_view(view), 0, 0, np.zeros(1, np.int64), 0, side).affine[
        0
    ]  # (2, 3), without a turn
    return transformed_boxes(boxes, affine)


def original(boxes: np.ndarray, file: tuple[int, int], side: int, fit: Fit) -> np.ndarray:
    """(M, 4) of a stored image of this side → the same in pixels of its file of this (width, height), cut at its
    edges; what lies in the black border alone becomes empty."""
    whole = image_file.fit_matrix(*file, side, fit)
    back = np.array(
        [[1 / whole[0, 0], 0, -whole[0, 2] / whole[0, 0]], [0, 1 / whole[1, 1], -whole[1, 2] / whole[1, 1]]]
    )
    return transformed_boxes(boxes, back).clip(0, [*file, *file])


def transformed_boxes(boxes: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """(M, 4) float64 under a (2, 3) map that does not turn."""
    scale, shift = np.tile(np.diag(affine[:, :2]), 2), np.tile(affine[:, 2], 2)
    return boxes.astype(np.float64) * scale + shift
