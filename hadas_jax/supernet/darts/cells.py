"""A cell of the DARTS search network: every edge is the sum of all operations, each by its share.

The edges of a cell are computed one after the other by a single piece of code, which keeps compilation short and the
maps of an edge in the cache. Every operation ends in a batch norm without scale and shift.
Shapes: E edges (14), B batch, H, W map, C channels of the cell.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.supernet.darts.apart import apart_with_gradient
from hadas_jax.supernet.darts.depthwise import depthwise
from hadas_jax.supernet.darts.norm import norm, product_norm, standardise
from hadas_jax.supernet.darts.operations import pointwise, reduce_map
from hadas_jax.supernet.darts.plans import CellPlan
from hadas_jax.supernet.darts.pooling import average_pool, max_pool
from hadas_jax.supernet.tree import Tree
from hw_models.accelerator.network import EDGE_INPUT, EDGE_NODE, EDGES, NODES, OPERATIONS

SEPARABLE = tuple(name for name in OPERATIONS if name.startswith("sep"))
SKIP = "skip_connect"
DILATED = tuple(name for name in OPERATIONS if name.startswith("dil"))


def initialise_cell(plan: CellPlan, key: jax.Array) -> Tree:
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
    plan: CellPlan, weights: Tree, shares: jax.Array, before: jax.Array, last: jax.Array, *, remat: bool
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


def read_inputs(plan: CellPlan, weights: Tree, before: jax.Array, last: jax.Array) -> tuple[jax.Array, jax.Array]:
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
