"""The weight-sharing supernet and its exit heads, as pure functions."""

from hadas_jax.supernet.network import (
    BatchStats,
    Logits,
    Parameters,
    apply,
    apply_training,
    estimate_batch_stats,
    initialise,
)
from hadas_jax.supernet.regularisation import Drops, draw_drops
from hadas_jax.supernet.resize import resize
from hadas_jax.supernet.tree import Tree, is_kernel
from hadas_jax.supernet.trunk import Skip, run_heads, run_trunk

__all__ = [
    "BatchStats",
    "Drops",
    "Logits",
    "Parameters",
    "Skip",
    "Tree",
    "apply",
    "apply_training",
    "draw_drops",
    "estimate_batch_stats",
    "initialise",
    "is_kernel",
    "resize",
    "run_heads",
    "run_trunk",
]
