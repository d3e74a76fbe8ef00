"""The weight-sharing supernet and its exit heads, as pure functions."""

from hadas_jax.supernet.network import (
    BatchStats,
    Logits,
    Parameters,
    Tree,
    apply,
    apply_training,
    estimate_batch_stats,
    initialise,
    is_kernel,
)

__all__ = [
    "BatchStats",
    "Logits",
    "Parameters",
    "Tree",
    "apply",
    "apply_training",
    "estimate_batch_stats",
    "initialise",
    "is_kernel",
]
