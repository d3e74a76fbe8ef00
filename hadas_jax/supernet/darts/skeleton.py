"""What the network of a genotype consists of, and its fresh weights.

Liu et al., "DARTS", 2018, https://arxiv.org/abs/1806.09055: a stem, cells of which two are reduce cells, global
pooling, a classifier; for training also an auxiliary head after the second reduce cell. Batch norms have scales and
biases.
Shapes: B batch, H, W image or map, C channels, O output channels, K classes, k kernel.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from hadas_jax.spaces.darts import CELLS, EDGES
from hadas_jax.spaces.genotypes import Genotype, code_of
from hadas_jax.supernet.darts.cell import AuxiliaryHead, Cell
from hadas_jax.supernet.darts.layers import ConvNorm
from hadas_jax.supernet.elastic import linear
from hadas_jax.supernet.tree import Tree
from hw_models.accelerator.network import DartsNetwork

_STEM_INPUTS = 2  # cells that take the stem's output


class Run(NamedTuple):
    """Equal cells that follow each other.

    Attributes:
        start: The first one.
        cells: How many there are.
        cell: What they are.
    """

    start: int
    cells: int
    cell: Cell

    @property
    def name(self) -> str:
        """Of their weights."""
        return f"cells{self.start}"


class Stem(nn.Module):
    """What comes before the cells; for `use_batch_stats` see `hadas_jax.supernet.elastic.BatchNorm`."""

    network: DartsNetwork
    use_batch_stats: bool

    @nn.compact
    def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps images [B, H, W, channels] to the first cell's inputs [B, H', W', C]."""
        channels, layer = self.network.channels, partial(ConvNorm, use_batch_stats=self.use_batch_stats, kernel_size=3)
        if self.network.stem == "cifar":
            x = layer(3 * channels, name="conv1")(images)
            return x, x
        x = layer(channels // 2, stride=2, name="conv1")(images)
        before = layer(channels, stride=2, name="conv2")(jax.nn.relu(x))
        return before, layer(channels, stride=2, name="conv3")(jax.nn.relu(before))


class Classifier(nn.Module):
    """What comes after the cells."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to logits float32[B, K]."""
        return linear(self.classes, jnp.mean(x, (1, 2)), name="linear").astype(jnp.float32)


def cell_runs(network: DartsNetwork, genotype: Genotype, *, use_batch_stats: bool) -> tuple[Run, ...]:
    """Returns the cells of a network, equal ones together.

    Cells are equal when they are of one kind and size and take maps of equal shapes, that is, from the third on after
    the stem and from the second on after a reduce cell.
    """
    digits = dict(zip(CELLS, (tuple(cell.tolist()) for cell in code_of(genotype).reshape(-1, EDGES)), strict=True))
    runs: list[Run] = []
    channels, reductions = network.channels, network.reductions
    for i in range(network.cells):
        is_reduce = i in reductions
        follows_reduce = i - 1 in reductions or (i == 0 and network.stem == "imagenet")
        channels *= 2 if is_reduce else 1
        cell = Cell(digits[CELLS[is_reduce]], channels, is_reduce, follows_reduce, use_batch_stats)
        if i > _STEM_INPUTS and cell == runs[-1].cell:
            runs[-1] = runs[-1]._replace(cells=runs[-1].cells + 1)
        else:
            runs.append(Run(i, 1, cell))
    return tuple(runs)


def auxiliary_head(network: DartsNetwork, use_batch_stats: bool) -> AuxiliaryHead:
    """Returns the auxiliary head of a network."""
    return AuxiliaryHead(network.classes, 3 if network.stem == "cifar" else 2, use_batch_stats)


def weight_shapes(network: DartsNetwork, genotype: Genotype, *, auxiliary: bool = False) -> Tree:
    """Returns the weights' shapes, as `jax.ShapeDtypeStruct`; see `initialise_derived`."""
    size, key, shapes = network.image_size, jax.random.key(0), {}

    def shaped(name: str, module: nn.Module, *inputs: Any) -> Any:
        output, variables = jax.eval_shape(module.init_with_output, key, *inputs)
        shapes[name] = variables["params"]
        return output

    images = jax.ShapeDtypeStruct((1, size, size, network.in_channels), jnp.float32)
    before, last = shaped("stem", Stem(network, True), images)
    for run in cell_runs(network, genotype, use_batch_stats=True):
        before, last = last, shaped(run.name, run.cell, before, last)
        shapes[run.name] = _stacked(shapes[run.name], run.cells)
        if auxiliary and run.start == network.reductions[-1]:
            shaped("auxiliary", auxiliary_head(network, True), last)
    shaped("classifier", Classifier(network.classes), last)
    return shapes


def _stacked(shapes: Tree, count: int) -> Tree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape), leaf.dtype), shapes)


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
