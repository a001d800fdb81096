"""Random scores and labels, with ties, unknown labels, patients and weights."""

import numpy as np

NAN, INF = np.nan, np.inf


def case(seed: int, rows: int = 200, findings: int = 3, *, levels: int = 0, unknown: float = 0.2):
    """Synthetic scores, labels and patients. levels: how many different scores there are (0: all differ)."""
    chance = np.random.default_rng(seed)
    labels = (chance.random((rows, findings)) < 0.3).astype(float)
    scores = chance.normal(size=labels.shape) + labels
    if levels:
        scores = np.round(scores * levels / 4)
    labels[chance.random(labels.shape) < unknown] = NAN
    return scores, labels, chance.integers(0, max(rows // 4, 1), rows)


def hard_case(seed: int):
    """One finding with whatever can go wrong: ties, infinities, huge and tiny scores, one class, one row, weights of 0."""
    chance = np.random.default_rng(seed)
    rows = int(chance.choice([1, 2, 3, 10, 50]))
    pool = np.array([0, -0.0, 1, 1 + 2**-52, INF, -INF, 1e300, -1e300, 1e-300, 5e-324, 0.5, chance.normal()])
    scores = chance.choice(pool, rows) if seed % 2 else chance.normal(size=rows)
    labels = (chance.random(rows) < chance.choice([0, 0.1, 0.5, 1])).astype(float)
    labels[chance.random(rows) < 0.2] = NAN
    weights = chance.choice([0, 0.3, 1, 2.5, 1e-6], rows) if seed % 3 else np.ones(rows)
    return scores, labels, weights
