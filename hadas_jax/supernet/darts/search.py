"""The search network of DARTS, of which every edge is a mixture of all operations.

Batch norm inside cells is by the statistics of the batch, without scale and shift, so that shares mean what they say
(Liu et al., "DARTS", 2018, https://arxiv.org/abs/1806.09055). A pure function of weights and shares, with derivatives
of second order.
Shapes: B batch, H, W map, K classes; inside, maps have channels first and the batch last.
"""

import jax
import jax.numpy as jnp

from hadas_jax.supernet.darts.cells import apply_cell, initialise_cell, uniform
from hadas_jax.supernet.darts.plans import cell_plans
from hadas_jax.supernet.darts.stems import apply_stem, initialise_stem
from hadas_jax.supernet.tree import Tree
from hw_models.accelerator.network import EDGES, NODES, OPERATIONS, DartsNetwork


def initialise_search(network: DartsNetwork, key: jax.Array) -> Tree:
    """Draws weights, uniform within 1 / sqrt(inputs of an output) as in PyTorch.

    Args:
        network: Static.
        key: Random key.

    Returns:
        float32 arrays: `stem`; `cell_0`, ...; `classifier` with `kernel` and `bias`.
    """
    plans = cell_plans(network)
    stem_key, kernel_key, bias_key, *keys = jax.random.split(key, 3 + len(plans))
    features = NODES * plans[-1].channels
    return {
        "stem": initialise_stem(network, stem_key),
        **{f"cell_{i}": initialise_cell(plan, key) for i, (plan, key) in enumerate(zip(plans, keys, strict=True))},
        "classifier": {
            "kernel": uniform(kernel_key, (features, network.classes), features),
            "bias": uniform(bias_key, (network.classes,), features),
        },
    }


def apply_search(
    network: DartsNetwork,
    weights: Tree,
    shares: jax.Array,
    images: jax.Array,
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    remat: bool = True,
) -> jax.Array:
    """Runs the search network.

    Args:
        network: Static.
        weights: As `initialise_search` gives.
        shares: float32[28, 8], of each operation at each edge of the normal cell, then of the reduce cell: a
            softmax of alpha, or a sample.
        images: float32[B, H, W, channels].
        dtype: What features are computed in; statistics are float32.
        remat: Keep the inputs of edges alone for the gradient, and compute each edge twice: a tenth of the memory, and
            on CPUs no more time.

    Returns:
        Logits float32[B, K].

    Raises:
        ValueError: `shares` or `images` have another shape.
    """
    _check_shapes(network, shares, images)
    weights = jax.tree.map(lambda leaf: leaf.astype(dtype), weights)
    before, last = apply_stem(network, weights["stem"], images.astype(dtype))
    normal, reduced = shares.reshape(2, EDGES, len(OPERATIONS))
    for index, plan in enumerate(cell_plans(network)):
        own, kind = weights[f"cell_{index}"], reduced if plan.is_reduced else normal
        before, last = last, apply_cell(plan, own, kind, before, last, remat=remat)
    classifier = weights["classifier"]
    logits = jnp.mean(last, axis=(1, 2)).T @ classifier["kernel"] + classifier["bias"][None]
    return logits.astype(jnp.float32)


def _check_shapes(network: DartsNetwork, shares: jax.Array, images: jax.Array) -> None:
    if shares.shape != (2 * EDGES, len(OPERATIONS)):
        raise ValueError(f"shares: expected float32[28, 8], got shape {shares.shape}")
    size = (network.image_size, network.image_size, network.in_channels)
    if images.ndim != 4 or images.shape[1:] != size:
        raise ValueError(f"images: expected [batch, {', '.join(map(str, size))}], got shape {images.shape}")
