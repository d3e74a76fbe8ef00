"""The network of a genotype as pure functions of (weights, statistics, images), to be trained from scratch.

Liu et al., "DARTS", 2018, https://arxiv.org/abs/1806.09055: a stem, cells of which two are reduce cells, global
pooling, a classifier; for training also an auxiliary head after the second reduce cell. Batch norms have scales and
biases. Equal cells that follow each other are scanned over, so each is compiled once. Layers compute in the type of
their input, float32 or bfloat16; weights and statistics are float32.
Shapes: B batch, H, W image or map (of stride 2: sizes rounded up), C channels of a cell or a map, O output channels,
K classes, N batches, 8 edges of a cell, two to each of its four nodes.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from hadas_jax.spaces.darts import CELLS, EDGE_INPUT, EDGE_NODE, EDGES, NODES, OPERATIONS
from hadas_jax.spaces.darts_network import DartsNetwork
from hadas_jax.spaces.genotypes import Genotype, code_of
from hadas_jax.supernet.darts.ops import average_pool, max_pool
from hadas_jax.supernet.layers import BatchNorm, Tree, call, conv, depthwise_conv, linear, mean_over

_POOL = 5
_AUXILIARY_WIDTHS = (128, 768)
_STEM_INPUTS = 2  # cells that take the stem's output
_UNDRAWN = nn.initializers.zeros  # kernels are drawn by `initialise_derived`, all at once
_States = tuple[jax.Array, jax.Array]  # outputs of the last two cells


def initialise_derived(network: DartsNetwork, genotype: Genotype, key: jax.Array, *, auxiliary: bool = False) -> Tree:
    """Draws fresh weights, kernels uniform within 1 / sqrt(fan in) as in the original; not to be traced.

    Args:
        network: Channels, cells, classes, image size, stem.
        genotype: The cells.
        key: PRNG key.
        auxiliary: With an auxiliary head.

    Returns:
        Tree of float32 weights by module; those of cells have a leading axis over equal cells that follow each other.
    """
    shapes = weight_shapes(network, genotype, auxiliary=auxiliary)
    size = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    # Cut up on the host: compiling a slice for each of hundreds of weights takes seconds.
    draws, at = np.asarray(jax.random.uniform(key, (size,), minval=-1.0, maxval=1.0)), 0

    def drawn(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        nonlocal at
        part, at = draws[at : at + leaf.size].reshape(leaf.shape), at + leaf.size
        if path[-1].key in ("bias", "scale"):
            return jnp.asarray(np.full_like(part, path[-1].key == "scale"))
        return jnp.asarray(part * np.float32(_fan_in(path[-1].key, leaf.shape) ** -0.5))

    return jax.tree_util.tree_map_with_path(drawn, shapes)


def _fan_in(name: str, shape: tuple[int, ...]) -> int:
    """Inputs of an output, of depthwise kernels [.., k, k, C], others [.., k, k, C, O], and of a matrix [C, O]."""
    return math.prod(shape[-3:-1]) if name == "depthwise" else math.prod(shape[-4:-1])


def weight_shapes(network: DartsNetwork, genotype: Genotype, *, auxiliary: bool = False) -> Tree:
    """Returns the weights' shapes, as `jax.ShapeDtypeStruct`; see `initialise_derived`."""
    size, key, shapes = network.image_size, jax.random.key(0), {}

    def shaped(name: str, module: nn.Module, *inputs: Any) -> Any:
        output, variables = jax.eval_shape(module.init_with_output, key, *inputs)
        shapes[name] = variables["params"]
        return output

    images = jax.ShapeDtypeStruct((1, size, size, network.in_channels), jnp.float32)
    before, last = shaped("stem", _Stem(network, True), images)
    for run in cell_runs(network, genotype, use_batch_stats=True):
        before, last = last, shaped(run.name, run.cell, before, last)
        shapes[run.name] = _stacked(shapes[run.name], run.cells)
        if auxiliary and run.start == network.reductions[-1]:
            shaped("auxiliary", _AuxiliaryHead(network, True), last)
    shaped("classifier", _Classifier(network.classes), last)
    return shapes


def _stacked(shapes: Tree, count: int) -> Tree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), shapes)


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
    return _forward(network, genotype, weights, statistics, images)[0]


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
        drops: float32[cells, 8, B], of the edges that are no identities, from `drop_factors`; None: nothing is dropped.
        auxiliary: Run the auxiliary head too, which the weights have.
        dtype: What everything but statistics and logits is computed in, float32 or bfloat16.
        remat: For gradients keep the cells' inputs alone and compute each cell twice.

    Returns:
        Logits float32[B, K], and those of the auxiliary head or None.
    """
    logits, extra, _ = _forward(
        network, genotype, weights, None, images.astype(dtype), drops=drops, auxiliary=auxiliary, remat=remat
    )
    return logits, extra


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
        return _forward(network, genotype, weights, None, images.astype(jnp.dtype(dtype)), keep_stats=True)[-1]

    return mean_over(one, batches, like=jax.eval_shape(one, batches[0]))


class _ConvNorm(nn.Module):
    """Convolution and batch norm, without activation.

    Attributes:
        features: O.
        use_batch_stats: See `BatchNorm`.
        kernel_size: K, odd.
        stride: 1 or 2.
    """

    features: int
    use_batch_stats: bool
    kernel_size: int = 1
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', O]."""
        kernel = self.param("kernel", _UNDRAWN, (self.kernel_size, self.kernel_size, x.shape[-1], self.features))
        x = conv(x, kernel.astype(x.dtype), stride=self.stride, padding=self.kernel_size // 2)
        return BatchNorm(self.use_batch_stats, name="bn")(x)


class _FactorisedReduction(nn.Module):
    """ReLU, two 1x1 convolutions of stride 2, of which the second sees the pixels between the first's, batch norm.

    An odd map ends with zeros where there are no such pixels.

    Attributes:
        features: O, even.
        use_batch_stats: See `BatchNorm`.
    """

    features: int
    use_batch_stats: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', O]."""
        height, width = x.shape[1:3]
        x = jnp.pad(jax.nn.relu(x), ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        kernel = self.param("kernel", _UNDRAWN, (1, 1, x.shape[-1], self.features))[0, 0].astype(x.dtype)
        half = self.features // 2
        halves = [x[:, ::2, ::2] @ kernel[:, :half], x[:, 1::2, 1::2] @ kernel[:, half:]]
        return BatchNorm(self.use_batch_stats, name="bn")(jnp.concatenate(halves, axis=-1))


class _DepthwiseSeparable(nn.Module):
    """ReLU, depthwise convolution, 1x1 convolution, batch norm.

    Attributes:
        kernel_size: K, odd.
        stride: 1 or 2.
        dilation: Distance of neighbouring taps.
        use_batch_stats: See `BatchNorm`.
    """

    kernel_size: int
    stride: int
    dilation: int
    use_batch_stats: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', C]."""
        kernel = self.param("depthwise", _UNDRAWN, (self.kernel_size, self.kernel_size, x.shape[-1]))
        x = depthwise_conv(jax.nn.relu(x), kernel.astype(x.dtype), self.stride, dilation=self.dilation)
        return _ConvNorm(x.shape[-1], self.use_batch_stats, name="pointwise")(x)


class _Operation(nn.Module):
    """The operation of an edge, other than `none`; a skip of stride 1 is the identity.

    Attributes:
        kind: One of `OPERATIONS`.
        stride: 1 or 2.
        use_batch_stats: See `BatchNorm`.
    """

    kind: str
    stride: int
    use_batch_stats: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', C]."""
        if self.kind == "max_pool_3x3":
            return max_pool(x, self.stride)
        if self.kind == "avg_pool_3x3":
            return average_pool(x, self.stride)
        if self.kind == "skip_connect":
            return x if self.stride == 1 else _FactorisedReduction(x.shape[-1], self.use_batch_stats, name="skip")(x)
        layer = partial(_DepthwiseSeparable, int(self.kind[-1]), use_batch_stats=self.use_batch_stats)
        if self.kind.startswith("dil"):
            return layer(self.stride, 2, name="first")(x)
        return layer(1, 1, name="second")(layer(self.stride, 1, name="first")(x))


class _Stem(nn.Module):
    """What comes before the cells; for `use_batch_stats` see `BatchNorm`."""

    network: DartsNetwork
    use_batch_stats: bool

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps images [B, H, W, channels] to the first cell's inputs [B, H', W', C]."""
        channels, layer = self.network.channels, partial(_ConvNorm, use_batch_stats=self.use_batch_stats, kernel_size=3)
        if self.network.stem == "cifar":
            x = layer(3 * channels, name="conv1")(images)
            return x, x
        x = layer(channels // 2, stride=2, name="conv1")(images)
        before = layer(channels, stride=2, name="conv2")(jax.nn.relu(x))
        return before, layer(channels, stride=2, name="conv3")(jax.nn.relu(before))


class _Cell(nn.Module):
    """Two maps to one, the concatenation of four nodes.

    Attributes:
        digits: _Operation of each of the 14 edges, 0 where there is none.
        channels: C.
        is_reduce: Edges from the cell's inputs have stride 2.
        follows_reduce: The first input is twice as large as the second.
        use_batch_stats: See `BatchNorm`.
    """

    digits: tuple[int, ...]
    channels: int
    is_reduce: bool
    follows_reduce: bool
    use_batch_stats: bool

    @nn.compact
    def __call__(self, before: jax.Array, last: jax.Array, keep: jax.Array | None = None) -> jax.Array:
        """Maps the outputs of the two cells before [B, H, W, ...] to [B, H', W', 4 C].

        Args:
            before: Output of the cell before the last.
            last: Output of the last cell.
            keep: float32[8, B], factors of the edges for drop-path, identities left alone; None: all ones.
        """
        batch_stats = self.use_batch_stats
        if self.follows_reduce:
            before = _FactorisedReduction(self.channels, batch_stats, name="input0")(before)
        else:
            before = _ConvNorm(self.channels, batch_stats, name="input0")(jax.nn.relu(before))
        last = _ConvNorm(self.channels, batch_stats, name="input1")(jax.nn.relu(last))
        states, edges = [before, last], [edge for edge, digit in enumerate(self.digits) if digit]
        for node in range(NODES):
            ends = []
            for position, edge in enumerate(edges):
                if EDGE_NODE[edge] != node:
                    continue
                kind, source = OPERATIONS[self.digits[edge]], int(EDGE_INPUT[edge])
                stride = 2 if self.is_reduce and source < 2 else 1
                end = _Operation(kind, stride, batch_stats, name=f"edge{edge}")(states[source])
                if keep is not None and (kind, stride) != ("skip_connect", 1):
                    end = end * keep[position].astype(end.dtype)[:, None, None, None]
                ends.append(end)
            states.append(sum(ends[1:], start=ends[0]))
        return jnp.concatenate(states[2:], axis=-1)


class _Classifier(nn.Module):
    """What comes after the cells."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to logits float32[B, K]."""
        return linear(self.classes, jnp.mean(x, (1, 2)), name="linear").astype(jnp.float32)


class _AuxiliaryHead(nn.Module):
    """Classifier on the map after the second reduce cell, for training alone.

    Maps on which 5x5 pooling does not give 2x2 are pooled to 2x2 by halves, which overlap where sizes are odd.

    Attributes:
        network: That it is added to.
        use_batch_stats: See `BatchNorm`.
    """

    network: DartsNetwork
    use_batch_stats: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to logits float32[B, K]."""
        narrow, wide = _AUXILIARY_WIDTHS
        x = _quarters(jax.nn.relu(x), 3 if self.network.stem == "cifar" else 2)
        x = _ConvNorm(narrow, self.use_batch_stats, name="first")(x)
        x = jax.nn.relu(x).reshape(-1, 1, 1, 4 * narrow)  # a 2x2 convolution sees all of it at once
        x = jax.nn.relu(_ConvNorm(wide, self.use_batch_stats, name="second")(x))
        return linear(self.network.classes, x[:, 0, 0], name="classifier").astype(jnp.float32)


def _quarters(x: jax.Array, stride: int) -> jax.Array:
    """Averages [B, H, W, C] to [B, 2, 2, C]."""
    size = x.shape[1]
    pools = size >= _POOL and (size - _POOL) // stride == 1
    halves = ((0, _POOL), (stride, stride + _POOL)) if pools else ((0, -(-size // 2)), (size // 2, size))
    means = [[jnp.mean(x[:, a:b, c:d], axis=(1, 2)) for c, d in halves] for a, b in halves]
    return jnp.stack([jnp.stack(row, axis=1) for row in means], axis=1)


class _CellRun(NamedTuple):
    """Equal cells that follow each other.

    Attributes:
        start: The first one.
        cells: How many there are.
        cell: What they are.
    """

    start: int
    cells: int
    cell: _Cell

    @property
    def name(self) -> str:
        """Of their weights."""
        return f"cells{self.start}"


def cell_runs(network: DartsNetwork, genotype: Genotype, *, use_batch_stats: bool) -> tuple[_CellRun, ...]:
    """Returns the cells of a network, equal ones together.

    Cells are equal when they are of one kind and size and take maps of equal shapes, that is, from the third on after
    the stem and from the second on after a reduce cell.
    """
    digits = dict(zip(CELLS, (tuple(cell.tolist()) for cell in code_of(genotype).reshape(-1, EDGES)), strict=True))
    runs: list[_CellRun] = []
    channels, reductions = network.channels, network.reductions
    for i in range(network.cells):
        is_reduce = i in reductions
        follows_reduce = i - 1 in reductions or (i == 0 and network.stem == "imagenet")
        channels *= 2 if is_reduce else 1
        cell = _Cell(digits[CELLS[is_reduce]], channels, is_reduce, follows_reduce, use_batch_stats)
        if i > _STEM_INPUTS and cell == runs[-1].cell:
            runs[-1] = runs[-1]._replace(cells=runs[-1].cells + 1)
        else:
            runs.append(_CellRun(i, 1, cell))
    return tuple(runs)


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
) -> tuple[jax.Array, jax.Array | None, Tree]:
    """Returns logits, those of the auxiliary head, and the batch's statistics by module, where they are kept."""
    by_batch, found, extra = statistics is None, {}, None
    given: Tree = {} if statistics is None else statistics

    def run_module(name: str, module: nn.Module, *inputs: jax.Array) -> Any:
        output, found[name] = call(module, weights[name], given.get(name), *inputs, keep_stats=keep_stats)
        return output

    states = run_module("stem", _Stem(network, by_batch), images)
    for run in cell_runs(network, genotype, use_batch_stats=by_batch):
        own = (
            weights[run.name],
            given.get(run.name),
            None if drops is None else drops[run.start : run.start + run.cells],
        )
        step = partial(_cell, run.cell, keep_stats)
        states, found[run.name] = _over_cells(jax.checkpoint(step) if remat else step, states, own, run.cells)
        if auxiliary and run.start == network.reductions[-1]:
            extra = run_module("auxiliary", _AuxiliaryHead(network, by_batch), states[1])
    logits, _ = call(_Classifier(network.classes), weights["classifier"], None, states[1], keep_stats=False)
    return logits, extra, found


def _cell(cell: _Cell, keep_stats: bool, states: _States, own: tuple[Tree, Tree | None, Any]) -> tuple[_States, Tree]:
    """Runs one cell on the outputs of the two before, with its weights, statistics and factors."""
    weights, statistics, keep = own
    output, found = call(cell, weights, statistics, *states, keep, keep_stats=keep_stats)
    return (states[1], output), found


def _over_cells(step: Callable, states: _States, own: Tree, count: int) -> tuple[_States, Tree]:
    if count > 1:
        return jax.lax.scan(step, states, own)
    states, found = step(states, jax.tree.map(lambda leaf: leaf[0], own))
    return states, jax.tree.map(lambda leaf: leaf[None], found)
