"""The point of each saliency map where the evidence for a finding is greatest, in pixels of the stored image."""

import numpy as np
import torch

from ribcage.bundle.spec import ModelSpec
from ribcage.data.collection import Datasets
from ribcage.data.loader import Loader
from ribcage.imaging import augment, heatmaps
from ribcage.inference.gradcam import saliency_maps
from ribcage.models.logit_model import LogitModel


def points(
    method: LogitModel,
    data: Datasets,
    rows: np.ndarray,
    *,
    model: ModelSpec,
    device: torch.device | str = "cpu",
    batch: int = 64,
    threads: int | None = None,
) -> np.ndarray:
    """(N, F, 2) x, y in stored pixels: the maximum of each finding's map; NaN if the map is zero everywhere.

    rows: ascending.
    """
    view = augment.plain_view(model.size)
    loader = Loader(
        data, [view], batch=batch, rows=rows, findings=(), shuffle=False, threads=threads,
        channels=model.channels, normalise=(model.mean, model.std), device=device,
    )  # fmt: skip
    found = [np.empty((0, len(method.findings), 2))]
    for shown in loader.epoch(0):
        seen = saliency_maps(method, shown.views[0].to(device))
        peaks = heatmaps.peaks(seen.maps, seen.cells).double().cpu().numpy()
        rows_shown = shown.rows.numpy()
        numbers = augment.draw_numbers(view, 0, 0, rows_shown, 0, data.sides(rows_shown))
        found.append(np.stack([heatmaps.points_in_image(*each) for each in zip(peaks, numbers.affine, strict=True)]))
    return np.concatenate(found)
