"""The search network of DARTS, of which every edge is a mixture of all operations, each by its share.

Liu et al., "DARTS", 2018, https://arxiv.org/abs/1806.09055. A pure function of weights and shares, with derivatives of
second order. Every operation ends in a batch norm by the statistics of the batch, without scale and shift, so that
shares mean what they say. The edges of a cell are computed one after the other by a single piece of code, which keeps
compilation short and the maps of an edge in the cache; normal cells that follow each other are turns of a loop too. The
stem is one 3x3 convolution (`cifar`), which both inputs of the first cell read, or three of stride 2 (`imagenet`), of
which the first cell reads the last two; its batch norms have a learned scale and shift.
Shapes: E edges (14), B batch, H, W map, C channels of the cell, K classes; inside, maps have channels first and the
batch last.
"""

import itertools
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.spaces.darts import EDGE_INPUT, EDGE_NODE, EDGES, NODES, OPERATIONS
from hadas_jax.spaces.darts_network import DartsNetwork
from hadas_jax.supernet.darts import ops
from hadas_jax.supernet.layers import Tree, conv

_SEPARABLE = tuple(name for name in OPERATIONS if name.startswith("sep"))
_SKIP = "skip_connect"
_DILATED = tuple(name for name in OPERATIONS if name.startswith("dil"))


def initialise_search(network: DartsNetwork, key: jax.Array) -> Tree:
    """Draws weights, uniform within 1 / sqrt(inputs of an output) as in PyTorch.

    Args:
        network: Static.
        key: Random key.

    Returns:
        float32 arrays: `stem`; `cell_0`, ...; `classifier` with `kernel` and `bias`.
    """
    layouts = _cell_layouts(network)
    stem_key, kernel_key, bias_key, *keys = jax.random.split(key, 3 + len(layouts))
    features = NODES * layouts[-1].channels
    return {
        "stem": _initialise_stem(network, stem_key),
        **{
            f"cell_{i}": _initialise_cell(layout, key)
            for i, (layout, key) in enumerate(zip(layouts, keys, strict=True))
        },
        "classifier": {
            "kernel": _uniform(kernel_key, (features, network.classes), features),
            "bias": _uniform(bias_key, (network.classes,), features),
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
    """
    chex.assert_shape(shares, (2 * EDGES, len(OPERATIONS)), custom_message="shares")
    size = (network.image_size, network.image_size, network.in_channels)
    chex.assert_shape(images, (None, *size), custom_message="images")
    weights = jax.tree.map(lambda leaf: leaf.astype(dtype), weights)
    before, last = _apply_stem(network, weights["stem"], images.astype(dtype))
    normal, reduced = shares.reshape(2, EDGES, len(OPERATIONS))
    cells = ((layout, weights[f"cell_{index}"]) for index, layout in enumerate(_cell_layouts(network)))
    for (_, is_reduced), run in itertools.groupby(cells, lambda cell: (cell[0].channels, cell[0].is_reduced)):
        (layout, first), *others = run
        kind = reduced if is_reduced else normal
        if others:
            own = [first, *(each for _, each in others)]
            before, last = _apply_equal_cells(layout, own, kind, before, last, remat=remat)
        else:
            before, last = last, _apply_cell(layout, first, kind, before, last, remat=remat)
    classifier = weights["classifier"]
    logits = jnp.mean(last, axis=(1, 2)).T @ classifier["kernel"] + classifier["bias"][None]
    return logits.astype(jnp.float32)


class _CellLayout(NamedTuple):
    """One cell.

    Attributes:
        inputs: Channels of the output of the cell before the last, and of the last.
        channels: Of its nodes; it writes four times as many.
        is_reduced: Its edges from the inputs have stride 2.
        was_reduced: The last cell halved the map, so input 0 has to be halved too.
    """

    inputs: tuple[int, int]
    channels: int
    is_reduced: bool
    was_reduced: bool


def _cell_layouts(network: DartsNetwork) -> tuple[_CellLayout, ...]:
    """Returns the cells in order."""
    channels = network.channels
    before = last = 3 * channels if network.stem == "cifar" else channels
    was_reduced = network.stem == "imagenet"
    layouts = []
    for cell in range(network.cells):
        is_reduced = cell in network.reductions
        channels *= 2 if is_reduced else 1
        layouts.append(_CellLayout((before, last), channels, is_reduced, was_reduced))
        before, last, was_reduced = last, NODES * channels, is_reduced
    return tuple(layouts)


def _stem_convolutions(network: DartsNetwork) -> tuple[tuple[int, int, int], ...]:
    """Returns channels read, channels written and stride of each convolution."""
    read, channels = network.in_channels, network.channels
    if network.stem == "cifar":
        return ((read, 3 * channels, 1),)
    return ((read, channels // 2, 2), (channels // 2, channels, 2), (channels, channels, 2))


def _initialise_stem(network: DartsNetwork, key: jax.Array) -> Tree:
    """Returns `conv_0`, ... with `kernel` float32[3, 3, C, C'], `scale` and `bias` float32[C']."""
    sizes = _stem_convolutions(network)
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


def _apply_stem(network: DartsNetwork, weights: Tree, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maps images [B, H, W, C] to the two inputs of the first cell, [C', H', W', B]."""
    outputs = []
    x = images
    for index, (_, _, stride) in enumerate(_stem_convolutions(network)):
        layer = weights[f"conv_{index}"]
        y = conv(jax.nn.relu(x) if index else x, layer["kernel"], stride=stride, padding=1)
        y = ops.standardise(y.transpose(3, 1, 2, 0))
        y = y * layer["scale"][:, None, None, None] + layer["bias"][:, None, None, None]
        outputs.append(y)
        x = y.transpose(3, 1, 2, 0)
    return outputs[max(len(outputs) - 2, 0)], outputs[-1]


def _initialise_cell(layout: _CellLayout, key: jax.Array) -> Tree:
    """Returns `input_0`, `input_1` and each operation's weights, stacked over the edges that have them."""
    channels = layout.channels
    first_key, last_key, skip_key, *keys = jax.random.split(key, 3 + len(_SEPARABLE + _DILATED))
    halves = (2, channels // 2, layout.inputs[0])
    weights: Tree = {
        "input_0": _uniform(
            first_key, halves if layout.was_reduced else (channels, layout.inputs[0]), layout.inputs[0]
        ),
        "input_1": _uniform(last_key, (channels, layout.inputs[1]), layout.inputs[1]),
    }
    for name, own in zip(_SEPARABLE + _DILATED, keys, strict=True):
        kernel, times = int(name[-1]), 2 if name in _SEPARABLE else 1
        weights[name] = {}
        for index, (tap_key, product_key) in enumerate(jax.random.split(own, (times, 2))):
            taps = (EDGES, channels, kernel, kernel)
            weights[name][f"depthwise_{index}"] = _uniform(tap_key, taps, kernel**2)
            weights[name][f"pointwise_{index}"] = _uniform(product_key, (EDGES, channels, channels), channels)
    if layout.is_reduced:
        edges = int(np.count_nonzero(EDGE_INPUT < 2))
        weights[_SKIP] = {"reduction": _uniform(skip_key, (edges, 2, channels // 2, channels), channels)}
    return weights


def _uniform(key: jax.Array, shape: tuple[int, ...], fan_in: int) -> jax.Array:
    """Draws uniform numbers within 1 / sqrt(inputs of an output), as PyTorch does."""
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _apply_cell(
    layout: _CellLayout, weights: Tree, shares: jax.Array, before: jax.Array, last: jax.Array, *, remat: bool
) -> jax.Array:
    """Runs a cell.

    Args:
        layout: Static.
        weights: As `_initialise_cell` gives.
        shares: float32[E, 8], of each operation at each edge.
        before: Output of the cell before the last, [C', H', W', B].
        last: Output of the last cell, [C'', H, W, B].
        remat: Keep the inputs of edges alone for the gradient, and compute each edge twice.

    Returns:
        [4 C, H, W, B], or half the map in a reduce cell.
    """
    inputs = jnp.stack(_read_inputs(layout, weights, before, last))
    operations = _operations(weights)
    if not layout.is_reduced:
        return _run_normal_edges(inputs, operations, shares, remat=remat)
    halving, others = np.flatnonzero(EDGE_INPUT < 2), np.flatnonzero(EDGE_INPUT >= 2)
    states = _halve(inputs[EDGE_INPUT[halving]], _at(operations, halving) | {_SKIP: weights[_SKIP]}, shares[halving])
    ends = jnp.asarray(EDGE_INPUT[others] - 2), jnp.asarray(EDGE_NODE[others])
    return _joined(_run_edges(states, _at(operations, others), shares[others], ends, remat=remat))


def _apply_equal_cells(
    layout: _CellLayout, weights: list[Tree], shares: jax.Array, before: jax.Array, last: jax.Array, *, remat: bool
) -> tuple[jax.Array, jax.Array]:
    """Runs normal cells that follow each other and have the same channels, as turns of one loop.

    They differ in what they read alone: so each turn brings its maps to what the edges of the next one read. The stem's
    maps are filled up with empty channels to those of a cell.

    Args:
        layout: Static, of the first.
        weights: Of each.
        shares: As those of `_apply_cell`, like what follows.
        before: Output of the cell before the last.
        last: Output of the last cell.
        remat: For the gradient, compute twice.

    Returns:
        Outputs of the last two cells, [4 C, H, W, B].
    """
    inputs = jnp.stack(_read_inputs(layout, weights[0], before, last))
    channels = NODES * layout.channels
    last = jnp.pad(last, ((0, channels - len(last)), (0, 0), (0, 0), (0, 0)))
    reading = [
        jnp.stack([jnp.pad(own[name], ((0, 0), (0, channels - own[name].shape[1]))) for name in ("input_0", "input_1")])
        for own in weights[1:]
    ]
    reading.append(jnp.zeros_like(reading[0]))
    operations = jax.tree.map(lambda *each: jnp.stack(each), *map(_operations, weights))
    is_final = jnp.arange(len(weights)) == len(weights) - 1

    @jax.checkpoint
    def read(maps: tuple[jax.Array, jax.Array], own: jax.Array) -> jax.Array:
        return jnp.stack([ops.standardise(ops.pointwise(jax.nn.relu(x), own[i])) for i, x in enumerate(maps)])

    def cell(carry: tuple, item: tuple) -> tuple[tuple, None]:
        inputs, last = carry[0], carry[2]
        own, reading, is_final = item
        output = _run_normal_edges(inputs, own, shares, remat=remat)
        inputs = jax.lax.cond(is_final, lambda: inputs, lambda: read((last, output), reading))
        return (inputs, last, output), None

    start = inputs, jnp.zeros_like(last), last
    (_, before, last), _ = jax.lax.scan(cell, start, (operations, jnp.stack(reading), is_final))
    return before, last


def _run_normal_edges(inputs: jax.Array, operations: Tree, shares: jax.Array, *, remat: bool) -> jax.Array:
    """Runs the edges of a normal cell on its inputs [2, C, H, W, B]: [4 C, H, W, B]."""
    states = jnp.concatenate([inputs, jnp.zeros((NODES, *inputs.shape[1:]), inputs.dtype)])
    ends = jnp.asarray(EDGE_INPUT), jnp.asarray(EDGE_NODE + 2)
    return _joined(_run_edges(states, operations, shares, ends, remat=remat))


def _joined(states: jax.Array) -> jax.Array:
    """The maps of all nodes, the last of the states [S, C, H, W, B], as those of one."""
    nodes = states[-NODES:]
    return nodes.reshape(-1, *nodes.shape[2:])


def _operations(weights: Tree) -> Tree:
    return {name: weights[name] for name in _SEPARABLE + _DILATED}


def _read_inputs(layout: _CellLayout, weights: Tree, before: jax.Array, last: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Brings the inputs of a cell to its channels and to one size: ReLU, 1x1 convolution, batch norm."""
    convolve = ops.reduce_map if layout.was_reduced else ops.pointwise
    first = ops.standardise(convolve(jax.nn.relu(before), weights["input_0"]))
    return first, ops.standardise(ops.pointwise(jax.nn.relu(last), weights["input_1"]))


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
        ops.norm(ops.max_pool(x, stride), None, share["max_pool_3x3"]),
        ops.norm(ops.average_pool(x, stride), None, share["avg_pool_3x3"]),
    ]
    if stride == 1:
        parts.append(x * share[_SKIP].astype(x.dtype))
    else:
        parts.append(ops.norm(ops.reduce_map(positive, weights[_SKIP]["reduction"]), None, share[_SKIP]))
    for name in _SEPARABLE + _DILATED:
        own = weights[name]
        y = ops.depthwise(positive, own["depthwise_0"], stride, 2 if name in _DILATED else 1)
        if name in _SEPARABLE:
            y = ops.depthwise(ops.norm(y, own["pointwise_0"], jnp.float32(1), True), own["depthwise_1"])
        parts.append(ops.norm(y, own["pointwise_1" if name in _SEPARABLE else "pointwise_0"], share[name]))
    return _add(*parts)


_relu = ops.apart_with_gradient(jax.nn.relu)
_add = ops.apart_with_gradient(lambda *parts: sum(parts[1:], parts[0]))
