"""The search network of DARTS, of which every edge is a mixture of all operations.

Batch norm inside cells is by the statistics of the batch, without scale and shift, so that shares mean what they say
(Liu et al., "DARTS", 2018, https://arxiv.org/abs/1806.09055). A pure function of weights and shares, with derivatives
of second order.
Shapes: B batch, H, W map, K classes; inside, maps have channels first and the batch last.

A cell of the DARTS search network: every edge is the sum of all operations, each by its share.

The edges of a cell are computed one after the other by a single piece of code, which keeps compilation short and the
maps of an edge in the cache. Every operation ends in a batch norm without scale and shift.
Shapes: E edges (14), B batch, H, W map, C channels of the cell.

The first convolutions of a DARTS network, with batch norm of a learned scale and shift, by the batch's statistics.

`cifar` is one 3x3 convolution, which both inputs of the first cell read; `imagenet` three of stride 2, of which the
first cell reads the last two.
Shapes: B batch, H, W image, C channels.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.spaces.darts import EDGE_INPUT, EDGE_NODE, EDGES, NODES, OPERATIONS
from hadas_jax.spaces.darts_network import DartsNetwork
from hadas_jax.supernet.darts.network import CellLayout, cell_layouts
from hadas_jax.supernet.darts.ops import (
    apart_with_gradient,
    average_pool,
    depthwise,
    max_pool,
    norm,
    pointwise,
    product_norm,
    reduce_map,
    standardise,
)
from hadas_jax.supernet.layers import Tree, conv

SEPARABLE = tuple(name for name in OPERATIONS if name.startswith("sep"))
SKIP = "skip_connect"
DILATED = tuple(name for name in OPERATIONS if name.startswith("dil"))


def initialise_cell(plan: CellLayout, key: jax.Array) -> Tree:
    """Returns `input_0`, `input_1` and each operation's weights, stacked over the edges that have them."""
    channels = plan.channels
    first_key, last_key, skip_key, *keys = jax.random.split(key, 3 + len(SEPARABLE + DILATED))
    halves = (2, channels // 2, plan.inputs[0])
    weights: Tree = {
        "input_0": uniform(first_key, halves if plan.was_reduced else (channels, plan.inputs[0]), plan.inputs[0]),
        "input_1": uniform(last_key, (channels, plan.inputs[1]), plan.inputs[1]),
    }
    for name, own in zip(SEPARABLE + DILATED, keys, strict=True):
        kernel, times = int(name[-1]), 2 if name in SEPARABLE else 1
        weights[name] = {}
        for index, (tap_key, product_key) in enumerate(jax.random.split(own, (times, 2))):
            taps = (EDGES, channels, kernel, kernel)
            weights[name][f"depthwise_{index}"] = uniform(tap_key, taps, kernel**2)
            weights[name][f"pointwise_{index}"] = uniform(product_key, (EDGES, channels, channels), channels)
    if plan.is_reduced:
        edges = int(np.count_nonzero(EDGE_INPUT < 2))
        weights[SKIP] = {"reduction": uniform(skip_key, (edges, 2, channels // 2, channels), channels)}
    return weights


def uniform(key: jax.Array, shape: tuple[int, ...], fan_in: int) -> jax.Array:
    """Draws uniform numbers within 1 / sqrt(inputs of an output), as PyTorch does."""
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def apply_cell(
    plan: CellLayout, weights: Tree, shares: jax.Array, before: jax.Array, last: jax.Array, *, remat: bool
) -> jax.Array:
    """Runs a cell.

    Args:
        plan: Static.
        weights: As `initialise_cell` gives.
        shares: float32[E, 8], of each operation at each edge.
        before: Output of the cell before the last, [C', H', W', B].
        last: Output of the last cell, [C'', H, W, B].
        remat: Keep the inputs of edges alone for the gradient, and compute each edge twice.

    Returns:
        [4 C, H, W, B], or half the map in a reduce cell.
    """
    inputs = jnp.stack(read_inputs(plan, weights, before, last))
    operations = {name: weights[name] for name in SEPARABLE + DILATED}
    if not plan.is_reduced:
        states = jnp.concatenate([inputs, jnp.zeros((NODES, *inputs.shape[1:]), inputs.dtype)])
        ends = jnp.asarray(EDGE_INPUT), jnp.asarray(EDGE_NODE + 2)
        states = _run_edges(states, operations, shares, ends, remat=remat)
    else:
        halving, others = np.flatnonzero(EDGE_INPUT < 2), np.flatnonzero(EDGE_INPUT >= 2)
        states = _halve(inputs[EDGE_INPUT[halving]], _at(operations, halving) | {SKIP: weights[SKIP]}, shares[halving])
        ends = jnp.asarray(EDGE_INPUT[others] - 2), jnp.asarray(EDGE_NODE[others])
        states = _run_edges(states, _at(operations, others), shares[others], ends, remat=remat)
    nodes = states[-NODES:]
    return nodes.reshape(-1, *nodes.shape[2:])


def read_inputs(plan: CellLayout, weights: Tree, before: jax.Array, last: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Brings the inputs of a cell to its channels and to one size: ReLU, 1x1 convolution, batch norm."""
    convolve = reduce_map if plan.was_reduced else pointwise
    first = standardise(convolve(jax.nn.relu(before), weights["input_0"]))
    return first, standardise(pointwise(jax.nn.relu(last), weights["input_1"]))


def _at(operations: Tree, edges: np.ndarray) -> Tree:
    return jax.tree.map(lambda leaf: leaf[edges], operations)


def _halve(x: jax.Array, weights: Tree, shares: jax.Array) -> jax.Array:
    """Runs the edges of stride 2 from x [8, C, H, W, B], two to each node, and adds those up: [4, C, H', W', B]."""
    edge = jax.checkpoint(partial(_mix, stride=2))
    arriving = jax.lax.map(lambda own: edge(*own), (x, weights, shares))
    pairs = arriving.reshape(NODES, -1, *arriving.shape[1:])
    return pairs[:, 0] + pairs[:, 1]


def _run_edges(
    states: jax.Array, weights: Tree, shares: jax.Array, ends: tuple[jax.Array, jax.Array], *, remat: bool
) -> jax.Array:
    """Adds edges of stride 1 to states [S, C, H, W, B] one after the other; `ends`: where each starts and ends."""

    def step(states: jax.Array, edge: tuple) -> tuple[jax.Array, None]:
        return _add_edge(states, *edge, remat), None

    return jax.lax.scan(step, states, (weights, shares, *ends))[0]


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _add_edge(
    states: jax.Array, weights: Tree, shares: jax.Array, start: jax.Array, end: jax.Array, remat: bool
) -> jax.Array:
    """One edge; its gradient adds to a single state in place, where JAX's own would add zeros to all others."""
    return _add_at(states, end, _mix(_take(states, start), weights, shares, stride=1))


def _add_forward(
    states: jax.Array, weights: Tree, shares: jax.Array, start: jax.Array, end: jax.Array, remat: bool
) -> tuple[jax.Array, tuple]:
    edge = partial(_mix, stride=1)
    found, pull = jax.vjp(jax.checkpoint(edge) if remat else edge, _take(states, start), weights, shares)
    return _add_at(states, end, found), (pull, start, end)


def _add_backward(remat: bool, residuals: tuple, gradient: jax.Array) -> tuple:
    pull, start, end = residuals
    to_state, to_weights, to_shares = pull(_take(gradient, end))
    return _add_at(gradient, start, to_state), to_weights, to_shares, None, None


_add_edge.defvjp(_add_forward, _add_backward)


def _take(states: jax.Array, index: jax.Array) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(states, index, keepdims=False)


def _add_at(states: jax.Array, index: jax.Array, found: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_index_in_dim(states, _take(states, index) + found, index, 0)


def _mix(x: jax.Array, weights: Tree, shares: jax.Array, *, stride: int) -> jax.Array:
    """Computes one edge from its state x [C, H, W, B] and shares [8]: [C, H', W', B]."""
    share = dict(zip(OPERATIONS, shares, strict=True))
    positive = _relu(x)
    parts = [
        norm(max_pool(x, stride), share["max_pool_3x3"]),
        norm(average_pool(x, stride), share["avg_pool_3x3"]),
    ]
    if stride == 1:
        parts.append(x * share[SKIP].astype(x.dtype))
    else:
        parts.append(norm(reduce_map(positive, weights[SKIP]["reduction"]), share[SKIP]))
    for name in SEPARABLE + DILATED:
        own = weights[name]
        y = depthwise(positive, own["depthwise_0"], stride, 2 if name in DILATED else 1)
        if name in SEPARABLE:
            y = depthwise(product_norm(y, own["pointwise_0"], jnp.float32(1), True), own["depthwise_1"])
        parts.append(product_norm(y, own["pointwise_1" if name in SEPARABLE else "pointwise_0"], share[name]))
    return _add(*parts)


_relu = apart_with_gradient(jax.nn.relu)
_add = apart_with_gradient(lambda *parts: sum(parts[1:], parts[0]))


def stem_convolutions(network: DartsNetwork) -> tuple[tuple[int, int, int], ...]:
    """Returns channels read, channels written and stride of each convolution."""
    read, channels = network.in_channels, network.channels
    if network.stem == "cifar":
        return ((read, 3 * channels, 1),)
    return ((read, channels // 2, 2), (channels // 2, channels, 2), (channels, channels, 2))


def initialise_stem(network: DartsNetwork, key: jax.Array) -> Tree:
    """Returns `conv_0`, ... with `kernel` float32[3, 3, C, C'], `scale` and `bias` float32[C']."""
    sizes = stem_convolutions(network)
    weights = {}
    keys = jax.random.split(key, len(sizes))
    for index, (read, written, _) in enumerate(sizes):
        bound = (9 * read) ** -0.5
        weights[f"conv_{index}"] = {
            "kernel": jax.random.uniform(keys[index], (3, 3, read, written), minval=-bound, maxval=bound),
            "scale": jnp.ones(written),
            "bias": jnp.zeros(written),
        }
    return weights


def apply_stem(network: DartsNetwork, weights: Tree, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maps images [B, H, W, C] to the two inputs of the first cell, [C', H', W', B]."""
    outputs = []
    x = images
    for index, (_, _, stride) in enumerate(stem_convolutions(network)):
        layer = weights[f"conv_{index}"]
        y = conv(jax.nn.relu(x) if index else x, layer["kernel"], stride=stride, padding=1)
        y = standardise(y.transpose(3, 1, 2, 0))
        y = y * layer["scale"][:, None, None, None] + layer["bias"][:, None, None, None]
        outputs.append(y)
        x = y.transpose(3, 1, 2, 0)
    return outputs[max(len(outputs) - 2, 0)], outputs[-1]


def initialise_search(network: DartsNetwork, key: jax.Array) -> Tree:
    """Draws weights, uniform within 1 / sqrt(inputs of an output) as in PyTorch.

    Args:
        network: Static.
        key: Random key.

    Returns:
        float32 arrays: `stem`; `cell_0`, ...; `classifier` with `kernel` and `bias`.
    """
    plans = cell_layouts(network)
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
    for index, plan in enumerate(cell_layouts(network)):
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
