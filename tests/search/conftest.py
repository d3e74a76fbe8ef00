"""Clouds of points with ties and duplicates, one shape for each number of objectives."""

import numpy as np
import pytest


def make_clouds(*, count: int, objectives: int, seed: int) -> np.ndarray:
    """float32[count, 40, objectives]: a third on a coarse grid, a third on a fine one, a third continuous."""
    rng = np.random.default_rng([seed, objectives])
    values = rng.random((count, 40, objectives))
    steps = np.resize([4, 50, 2**20], count)[:, None, None]
    values = np.floor(values * steps) / steps
    copies = rng.integers(0, 40, (count, 40 // 4))
    for cloud, rows in zip(values, copies, strict=True):
        cloud[-len(rows) :] = cloud[rows]
    return values.astype(np.float32)


@pytest.fixture(scope="session")
def clouds():
    """The function above: count, objectives, seed -> float32[count, 40, objectives]."""
    return make_clouds
