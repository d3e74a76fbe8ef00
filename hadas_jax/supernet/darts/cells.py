"""A cell of the DARTS search network: every edge is the sum of all operations, each by its share.

All that leaves a state is computed at once: ReLU and pooling a single time for all its edges, and the four
convolutions of an edge end in one matrix product, whose weights carry batch norm and shares (`standardising`).
Shapes: B batch, H, W map, C channels of the cell, T edges that leave a state.
"""

import jax
import jax.numpy as jnp

from hadas_jax.supernet.darts.depthwise import depthwise
from hadas_jax.supernet.darts.operations import (
    average_pool,
    max_pool,
    pointwise,
    reduce_map,
    standardise,
    standardising,
)
from hadas_jax.supernet.darts.plans import STATES, CellPlan, edges_from, nodes_from
from hadas_jax.supernet.tree import Tree
from hw_models.accelerator.network import NODES, OPERATIONS

MAX_POOL, AVERAGE_POOL, SKIP = (OPERATIONS.index(name) for name in ("max_pool_3x3", "avg_pool_3x3", "skip_connect"))
SEPARABLE = tuple(name for name in OPERATIONS if name.startswith("sep"))
DILATED = tuple(name for name in OPERATIONS if name.startswith("dil"))
CONVOLUTIONS = slice(OPERATIONS.index(SEPARABLE[0]), len(OPERATIONS))


def initialise_cell(plan: CellPlan, key: jax.Array) -> Tree:
    """Returns `input_0`, `input_1` and, for each state, its operations' weights stacked over its edges."""
    keys = jax.random.split(key, 2 + STATES)
    weights = {f"state_{state}": _initialise_state(plan, state, keys[2 + state]) for state in range(STATES)}
    channels = plan.channels
    halves = (2, channels // 2, plan.inputs[0])
    weights["input_0"] = uniform(keys[0], halves if plan.was_reduced else (channels, plan.inputs[0]), plan.inputs[0])
    weights["input_1"] = uniform(keys[1], (channels, plan.inputs[1]), plan.inputs[1])
    return weights


def _initialise_state(plan: CellPlan, state: int, key: jax.Array) -> Tree:
    edges, channels = len(edges_from(state)), plan.channels
    skip_key, *keys = jax.random.split(key, 1 + len(SEPARABLE + DILATED))
    weights: dict[str, dict[str, jax.Array]] = {}
    for name, own in zip(SEPARABLE + DILATED, keys, strict=True):
        kernel, times = int(name[-1]), 2 if name in SEPARABLE else 1
        weights[name] = {}
        for index, (tap_key, product_key) in enumerate(jax.random.split(own, (times, 2))):
            taps = (edges, channels, kernel, kernel)
            weights[name][f"depthwise_{index}"] = uniform(tap_key, taps, kernel**2)
            weights[name][f"pointwise_{index}"] = uniform(product_key, (edges, channels, channels), channels)
    if plan.stride(state) == 2:
        weights["skip_connect"] = {"reduction": uniform(skip_key, (edges, 2, channels // 2, channels), channels)}
    return weights


def uniform(key: jax.Array, shape: tuple[int, ...], fan_in: int) -> jax.Array:
    """Draws uniform numbers within 1 / sqrt(inputs of an output), as PyTorch does."""
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def apply_cell(plan: CellPlan, weights: Tree, shares: jax.Array, before: jax.Array, last: jax.Array) -> jax.Array:
    """Runs a cell.

    Args:
        plan: Static.
        weights: As `initialise_cell` gives.
        shares: [14, 8], of each operation at each edge.
        before: Output of the cell before the last, [C', H', W', B].
        last: Output of the last cell, [C'', H, W, B].

    Returns:
        [4 C, H, W, B], or half the map in a reduce cell.
    """
    states = list(read_inputs(plan, weights, before, last))
    sums: list[list[jax.Array]] = [[] for _ in range(NODES)]
    for state in range(STATES):
        edges = edges_from(state)
        leaving = _leaving(weights[f"state_{state}"], shares[edges], states[state], plan.stride(state))
        for row, node in enumerate(nodes_from(state)):
            sums[node].append(leaving[row])
        if state >= 1:
            arrived = sums[state - 1]
            states.append(sum(arrived[1:], arrived[0]))
    return jnp.concatenate(states[2:])


def read_inputs(plan: CellPlan, weights: Tree, before: jax.Array, last: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Brings the inputs of a cell to its channels and to one size: ReLU, 1x1 convolution, batch norm."""
    before = jax.nn.relu(before)
    if plan.was_reduced:
        first = reduce_map(before, weights["input_0"][None])[0]
    else:
        first = pointwise(before, weights["input_0"])
    return standardise(first), standardise(pointwise(jax.nn.relu(last), weights["input_1"]))


def _leaving(weights: Tree, shares: jax.Array, x: jax.Array, stride: int) -> jax.Array:
    """Computes all edges that leave a state x [C, H, W, B], of shares [T, 8]: [T, C, H', W', B]."""
    pooled = [standardise(max_pool(x, stride)), standardise(average_pool(x, stride))]
    positive = jax.nn.relu(x)
    total = _convolved(weights, shares[:, CONVOLUTIONS], positive, stride)
    if stride == 1:
        pooled.append(x)
    else:
        skipped = standardise(reduce_map(positive, weights["skip_connect"]["reduction"]))
        total = total + skipped * shares[:, SKIP].astype(x.dtype)[:, None, None, None, None]
    first = shares[:, MAX_POOL : MAX_POOL + len(pooled)].astype(x.dtype)
    return total + jnp.einsum("tk,kchwb->tchwb", first, jnp.stack(pooled))


def _convolved(weights: Tree, shares: jax.Array, positive: jax.Array, stride: int) -> jax.Array:
    """Sums the four convolutions of each edge, of shares [T, 4]: [T, C, H', W', B]."""
    maps, products = [], []
    for name in SEPARABLE:
        own = weights[name]
        inner = depthwise(positive[None], own["depthwise_0"], stride)
        folded, offset = standardising(inner, own["pointwise_0"])
        inner = jax.nn.relu(pointwise(inner, folded.astype(inner.dtype)) - offset.astype(inner.dtype))
        maps.append(depthwise(inner, own["depthwise_1"]))
        products.append(own["pointwise_1"])
    for name in DILATED:
        own = weights[name]
        maps.append(depthwise(positive[None], own["depthwise_0"], stride, 2))
        products.append(own["pointwise_0"])
    edges, channels = products[0].shape[:2]
    stacked = jnp.stack(maps, axis=1)
    folded, offsets = standardising(stacked, jnp.stack(products, axis=1))
    # One product for an edge: its four maps side by side by the weights scaled by batch norm and share.
    scaled = folded * shares[:, :, None, None]
    side_by_side = jnp.swapaxes(scaled, 1, 2).reshape(edges, channels, -1)
    offset = jnp.sum(offsets * shares[:, :, None, None, None, None], axis=1)
    out = pointwise(stacked.reshape(edges, -1, *stacked.shape[3:]), side_by_side.astype(positive.dtype))
    return out - offset.astype(out.dtype)
