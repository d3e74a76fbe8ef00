"""The weight-sharing supernet and its exit heads, as pure functions."""

from hadas_jax.supernet.blocks import Drops, Skip, draw_drops
from hadas_jax.supernet.cut import cut, cut_space
from hadas_jax.supernet.layers import Tree, is_kernel, resize
from hadas_jax.supernet.network import (
    BatchStats,
    Logits,
    Parameters,
    apply,
    apply_training,
    estimate_batch_stats,
    initialise,
    run_heads,
    run_trunk,
)

__all__ = [
    "BatchStats",
    "Drops",
    "Logits",
    "Parameters",
    "Skip",
    "Tree",
    "apply",
    "apply_training",
    "cut",
    "cut_space",
    "draw_drops",
    "estimate_batch_stats",
    "initialise",
    "is_kernel",
    "resize",
    "run_heads",
    "run_trunk",
]
