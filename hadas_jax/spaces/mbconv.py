"""MBConv backbone spaces given as data, the backbones that their genomes decode to, and where these may have exits.

A space lists, per stage, the widths, depths, kernels and expand ratios to choose from. A gene stands for every choice
with more than one option, in the order resolution, widths, depths, kernels, expand ratios, number format; a genome
holds the index of each choice. In the AttentiveNAS space (https://arxiv.org/abs/2011.09011) they are HADAS's 28 genes.
Shapes: G genes, S stages, W = S + 2 widths (stem, stages, last convolution), N block positions, E exits (positions that
some backbone's exit may follow).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

MAX_EXITS = 16  # 2^16 subsets; more call for a search instead of a list
Channels = TypeVar("Channels", int, jax.Array)


@dataclass(frozen=True)
class Codec:
    """Translates between genomes (indices) and values.

    Attributes:
        names: One name per gene, e.g. `"width.mb1"`.
        choices: Per gene, the values that it may take, at least one.
    """

    names: tuple[str, ...]
    choices: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.choices):
            raise ValueError(f"expected one name per gene, got {len(self.names)} and {len(self.choices)}")
        for name, options in zip(self.names, self.choices, strict=True):
            if not options or len(set(options)) != len(options):
                raise ValueError(f"gene {name}: expected one or more different choices, got {options}")

    @cached_property
    def cardinalities(self) -> np.ndarray:
        """Number of choices of each gene, int32[G]."""
        return np.array([len(options) for options in self.choices], np.int32)

    @cached_property
    def _table(self) -> np.ndarray:
        """Values padded to the longest gene by repeating the last one, int32[G, max choices]."""
        longest = max(self.cardinalities, default=1)
        rows = [options + options[-1:] * (longest - len(options)) for options in self.choices]
        return np.array(rows, np.int32).reshape(len(rows), longest)

    @property
    def count(self) -> int:
        """Number of genomes, exact."""
        return math.prod(int(c) for c in self.cardinalities)

    def decode(self, genome: jax.Array) -> jax.Array:
        """Returns the values int32[G] of a genome int32[G]; indices past the end read the last choice."""
        table = jnp.asarray(self._table)
        return jnp.take_along_axis(table, genome[:, None], axis=1, mode="clip")[:, 0]

    def encode(self, values: Sequence[int]) -> np.ndarray:
        """Returns the genome int32[G] of concrete values [G].

        Raises:
            ValueError: A value is none of its gene's choices, or there are too few or too many values.
        """
        if len(values) != len(self.choices):
            raise ValueError(f"expected {len(self.choices)} values, one per gene, got {len(values)}")
        genome = np.zeros(len(values), np.int32)
        for g, (name, options, value) in enumerate(zip(self.names, self.choices, values, strict=True)):
            if int(value) not in options:
                raise ValueError(f"gene {name}: expected one of {options}, got {int(value)}")
            genome[g] = options.index(int(value))
        return genome


@dataclass(frozen=True)
class Stage:
    """Options of one stage of MBConv blocks; every block of a stage shares kernel and expand ratio.

    Attributes:
        width: Output channels.
        depth: Numbers of blocks.
        kernel: Depthwise kernel sizes, odd.
        expand: Ratios of middle to input channels; a stage of ratio 1 alone has no expanding convolution.
        stride: Of the first block, 1 or 2.
        se: squeeze-and-excitation in every block.
    """

    width: tuple[int, ...]
    depth: tuple[int, ...]
    kernel: tuple[int, ...]
    expand: tuple[int, ...]
    stride: int = 1
    se: bool = False

    @property
    def expands(self) -> bool:
        """Whether the blocks have an expanding 1x1 convolution."""
        return self.expand != (1,)


@struct.dataclass
class Backbone:
    """One design of a space; all fields int32, batched by leading axes.

    Attributes:
        resolution: [] input height and width in pixels.
        width: [W] channels of stem, stages and last convolution.
        depth: [S] blocks per stage.
        kernel: [S] depthwise kernel size per stage.
        expand: [S] expand ratio per stage.
        number_format: [] a `hw_models.NumberFormat`, what the network runs in; None: whatever the device runs first.
    """

    resolution: jax.Array
    width: jax.Array
    depth: jax.Array
    kernel: jax.Array
    expand: jax.Array
    number_format: jax.Array | None = None


@dataclass(frozen=True)
class MBConvSpace:
    """A space of MBConv backbones with early exits.

    Attributes:
        name: Shown to people.
        resolution: Input sizes in pixels; empty: the size of the images at hand (see `adapt`).
        stem_width: Output channels of the 3x3 stem.
        stem_stride: 1 or 2.
        stages: The MBConv stages.
        last_width: Channels of the last 1x1 convolution, before the classifier.
        head_expand: Ratio of the convolution before pooling to the last stage's width.
        first_exit: Lowest block index (counted over the backbone's own blocks) that an exit may follow.
        exit_width: Channels of the exit heads' convolution.
        in_channels: Of the images.
        classes: Of the data set.
        number_formats: `hw_models.NumberFormat` values to choose from; empty: whatever the device runs first.
    """

    name: str
    resolution: tuple[int, ...]
    stem_width: tuple[int, ...]
    stem_stride: int
    stages: tuple[Stage, ...]
    last_width: tuple[int, ...]
    head_expand: int = 6
    first_exit: int = 5
    exit_width: int = 224
    in_channels: int = 3
    classes: int = 1000
    number_formats: tuple[int, ...] = dataclasses.field(default=(), repr=False)  # no property of the supernet

    def adapt(self, *, in_channels: int, classes: int, image_size: int) -> "MBConvSpace":
        """Returns this space for a data set; a space without resolutions takes the images' own size."""
        resolution = self.resolution or (image_size,)
        return dataclasses.replace(self, in_channels=in_channels, classes=classes, resolution=resolution)

    @cached_property
    def _choices(self) -> dict[str, tuple[int, ...]]:
        """All choices by name, those with a single option included, in gene order."""
        parts = [f"mb{i}" for i in range(1, len(self.stages) + 1)]
        widths = [self.stem_width, *(stage.width for stage in self.stages), self.last_width]
        choices = {"resolution": self.resolution}
        choices |= {f"width.{p}": w for p, w in zip(["stem", *parts, "last"], widths, strict=True)}
        for field in ("depth", "kernel", "expand"):
            choices |= {f"{field}.{p}": getattr(s, field) for p, s in zip(parts, self.stages, strict=True)}
        return choices | ({"number_format": self.number_formats} if self.number_formats else {})

    @cached_property
    def codec(self) -> Codec:
        """The genes: every choice with more than one option."""
        if not self.resolution:
            raise ValueError(f"space {self.name} has no resolution yet: call adapt with the data's image size")
        free = {name: options for name, options in self._choices.items() if len(options) > 1}
        return Codec(names=tuple(free), choices=tuple(free.values()))

    @property
    def count(self) -> int:
        """Number of backbones."""
        return self.codec.count

    @property
    def positions(self) -> int:
        """N: block positions of the supernet, the depths of all stages at their largest."""
        return sum(max(stage.depth) for stage in self.stages)

    @property
    def num_exits(self) -> int:
        """E: positions that some backbone's exit may follow."""
        return self.positions - self.first_exit

    def decode(self, genome: jax.Array) -> Backbone:
        """Returns the backbone of a genome int32[G]; batch with `jax.vmap`."""
        values = self.codec.decode(genome)
        genes = {name: values[g] for g, name in enumerate(self.codec.names)}
        fixed = {n: jnp.int32(options[0]) for n, options in self._choices.items() if len(options) == 1}
        every = [genes[name] if name in genes else fixed[name] for name in self._choices]
        S = len(self.stages)
        ends = np.cumsum([1, S + 2, S, S, S])
        width, depth, kernel, expand = (jnp.stack(every[a:b]) for a, b in itertools.pairwise(ends))
        number_format = every[-1] if self.number_formats else None
        return Backbone(every[0], width, depth, kernel, expand, number_format)

    def encode(self, backbone: Backbone) -> np.ndarray:
        """Returns the genome int32[G] of one concrete backbone; in the first format where it has none.

        Raises:
            ValueError: A field has the wrong length, or a value that is none of the space's choices.
        """
        fields: list[object]
        fields = [backbone.resolution, backbone.width, backbone.depth, backbone.kernel, backbone.expand]
        if self.number_formats:
            fields.append(self.number_formats[0] if backbone.number_format is None else backbone.number_format)
        flat = np.concatenate([np.atleast_1d(np.asarray(field)) for field in fields])
        every = Codec(names=tuple(self._choices), choices=tuple(self._choices.values()))
        genome = every.encode(flat.tolist())
        return genome[every.cardinalities > 1]

    @property
    def largest_genome(self) -> np.ndarray:
        """The largest value of every choice, and the number format of most bytes, int32[G]."""
        return self._end(largest=True)

    @property
    def smallest_genome(self) -> np.ndarray:
        """The smallest value of every choice, and the number format of fewest bytes, int32[G]."""
        return self._end(largest=False)

    def _end(self, *, largest: bool) -> np.ndarray:
        genes = zip(self.codec.names, self.codec.choices, strict=True)
        # Number formats count from the one of most bytes.
        ends = [max(options) if largest != (name == "number_format") else min(options) for name, options in genes]
        return self.codec.encode(ends)

    def largest(self) -> Backbone:
        """Returns the backbone with the largest value of every choice."""
        return self.decode(jnp.asarray(self.largest_genome))

    def smallest(self) -> Backbone:
        """Returns the backbone with the smallest value of every choice."""
        return self.decode(jnp.asarray(self.smallest_genome))


def make_divisible(channels: Channels) -> Channels:
    """Rounds channels to a multiple of 8, never below 90 % of the value (AttentiveNAS, MobileNet)."""
    if isinstance(channels, int):
        rounded = max((channels + 4) // 8 * 8, 8)
        return rounded + 8 if 10 * rounded < 9 * channels else rounded
    near = jnp.maximum((channels + 4) // 8 * 8, 8)
    return jnp.where(10 * near < 9 * channels, near + 8, near)


@functools.singledispatch
def block_active(space: Any, backbone: Backbone) -> jax.Array:
    """Returns bool[N]: which block positions the backbone uses (the first `depth` of every stage)."""
    return jnp.concatenate([jnp.arange(max(stage.depth)) < backbone.depth[s] for s, stage in enumerate(space.stages)])


@functools.singledispatch
def available_exits(space: Any, backbone: Backbone) -> jax.Array:
    """Returns bool[E]: exits whose position the backbone uses, as its block `first_exit` or a later one."""
    active = block_active(space, backbone)
    index = jnp.cumsum(active.astype(jnp.int32)) - 1
    return (active & (index >= space.first_exit))[space.first_exit :]
