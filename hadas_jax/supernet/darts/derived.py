"""The network of a genotype as pure functions of (weights, statistics, images), to be trained from scratch.

Liu et al., "DARTS", 2018, https://arxiv.org/abs/1806.09055. Equal cells that follow each other are scanned over,
so each is compiled once.
Shapes: B batch, H, W image, K classes, N batches, 8 edges of a cell.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import ArrayLike, DTypeLike

from hadas_jax.spaces.genotypes import Genotype
from hadas_jax.supernet.darts.cell import Cell
from hadas_jax.supernet.darts.skeleton import Classifier, Stem, auxiliary_head, cell_runs
from hadas_jax.supernet.tree import Tree, call
from hw_models.accelerator.network import NODES, DartsNetwork

_States = tuple[jax.Array, jax.Array]  # outputs of the last two cells


def draw_path_drops(key: jax.Array, network: DartsNetwork, batch: int, *, rate: ArrayLike) -> jax.Array:
    """Draws factors for drop-path: whole edges that are no identities, for each sample by itself.

    Args:
        key: PRNG key.
        network: Static.
        batch: B.
        rate: float32[], share of edges that are dropped; the others are scaled to keep the mean.

    Returns:
        float32[cells, 8, B], 0 or 1 / (1 - rate).
    """
    kept = jax.random.uniform(key, (network.cells, 2 * NODES, batch)) >= rate
    return kept.astype(jnp.float32) / (1.0 - rate)


def apply_derived(
    network: DartsNetwork, genotype: Genotype, weights: Tree, statistics: Tree, images: jax.Array
) -> jax.Array:
    """Runs a trained network.

    Args:
        network: Static.
        genotype: Static.
        weights: From `initialise_derived`, trained.
        statistics: Of its batch norms, from `estimate_statistics`.
        images: [B, H, W, channels], float32 or bfloat16, which is what the network computes in.

    Returns:
        Logits float32[B, K].
    """
    return _forward(network, genotype, weights, statistics, images).logits


def apply_derived_training(
    network: DartsNetwork,
    genotype: Genotype,
    weights: Tree,
    images: jax.Array,
    *,
    drops: jax.Array | None = None,
    auxiliary: bool = False,
    dtype: DTypeLike = jnp.float32,
    remat: bool = False,
) -> tuple[jax.Array, jax.Array | None]:
    """Runs a network normalised by the batch's own statistics.

    Args:
        network: Static.
        genotype: Static.
        weights: From `initialise_derived`.
        images: float32[B, H, W, channels].
        drops: float32[cells, 8, B], from `draw_path_drops`; None: nothing is dropped.
        auxiliary: Run the auxiliary head too, which the weights have.
        dtype: What everything but statistics and logits is computed in, float32 or bfloat16.
        remat: For gradients keep the cells' inputs alone and compute each cell twice.

    Returns:
        Logits float32[B, K], and those of the auxiliary head or None.
    """
    found = _forward(
        network, genotype, weights, None, images.astype(dtype), drops=drops, auxiliary=auxiliary, remat=remat
    )
    return found.logits, found.auxiliary


@partial(jax.jit, static_argnums=(0, 1), static_argnames="dtype")
def estimate_statistics(
    network: DartsNetwork, genotype: Genotype, weights: Tree, batches: jax.Array, *, dtype: str = "float32"
) -> Tree:
    """Estimates the statistics of batch norms: the mean over batches of each batch's own.

    Args:
        network: Static.
        genotype: Static.
        weights: From `initialise_derived`, trained; an auxiliary head is left out.
        batches: float32[N, B, H, W, channels], training images.
        dtype: What features are computed in, float32 or bfloat16.

    Returns:
        Tree of means and variances by module.
    """

    def one(images: jax.Array) -> Tree:
        return _forward(network, genotype, weights, None, images.astype(jnp.dtype(dtype)), keep_stats=True).statistics

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one, batches[0]))
    add = lambda total, images: (jax.tree.map(jnp.add, total, one(images)), None)  # noqa: E731
    total, _ = jax.lax.scan(add, zeros, batches)
    return jax.tree.map(lambda leaf: leaf / len(batches), total)


class _Forward(NamedTuple):
    logits: jax.Array
    auxiliary: jax.Array | None
    statistics: Tree


def _forward(
    network: DartsNetwork,
    genotype: Genotype,
    weights: Tree,
    statistics: Tree | None,
    images: jax.Array,
    *,
    drops: jax.Array | None = None,
    auxiliary: bool = False,
    remat: bool = False,
    keep_stats: bool = False,
) -> _Forward:
    by_batch, found, extra = statistics is None, {}, None
    given: Tree = {} if statistics is None else statistics

    def run_module(name: str, module: nn.Module, *inputs: jax.Array) -> Any:
        output, found[name] = call(module, weights[name], given.get(name), *inputs, keep_stats=keep_stats)
        return output

    states = run_module("stem", Stem(network, by_batch), images)
    for run in cell_runs(network, genotype, use_batch_stats=by_batch):
        own = (
            weights[run.name],
            given.get(run.name),
            None if drops is None else drops[run.start : run.start + run.cells],
        )
        step = partial(_cell, run.cell, keep_stats)
        states, found[run.name] = _over_cells(jax.checkpoint(step) if remat else step, states, own, run.cells)
        if auxiliary and run.start == network.reductions[-1]:
            extra = run_module("auxiliary", auxiliary_head(network, by_batch), states[1])
    logits, _ = call(Classifier(network.classes), weights["classifier"], None, states[1], keep_stats=False)
    return _Forward(logits, extra, found)


def _cell(cell: Cell, keep_stats: bool, states: _States, own: tuple[Tree, Tree | None, Any]) -> tuple[_States, Tree]:
    """Runs one cell on the outputs of the two before, with its weights, statistics and factors."""
    weights, statistics, keep = own
    output, found = call(cell, weights, statistics, *states, keep, keep_stats=keep_stats)
    return (states[1], output), found


def _over_cells(step: Callable, states: _States, own: Tree, count: int) -> tuple[_States, Tree]:
    if count > 1:
        return jax.lax.scan(step, states, own)
    states, found = step(states, jax.tree.map(lambda leaf: leaf[0], own))
    return states, jax.tree.map(lambda leaf: leaf[None], found)
