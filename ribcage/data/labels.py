"""Labels of several dataset folders as one matrix."""

from collections.abc import Sequence

import numpy as np

from ribcage.data.dataset_folder import Store
from ribcage.data.findings import Policy
from ribcage.data.loader import Loader
from ribcage.imaging.augment import plain_view

IGNORE = Policy()


def known_labels(
    stores: Sequence[Store], rows: np.ndarray, findings: Sequence[str], policy: Policy = IGNORE
) -> np.ndarray:
    """(N, F) labels 1, 0 and NaN under the policy the model learns by, without its smoothing."""
    there = [place for place, name in enumerate(findings) if any(name in one.index.findings for one in stores)]
    asked = [findings[place] for place in there]
    shown = Loader(stores, [plain_view(32)], rows=rows, findings=asked, policy=policy.settled, threads=1)
    labels = np.full((len(rows), len(findings)), np.nan, np.float32)
    labels[:, there] = shown.labels(0, rows)
    return labels
