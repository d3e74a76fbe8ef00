"""A network that a user brings, as a space of one design: nothing is searched in it but exits and clocks.

Its places for exits stand for the blocks of other spaces, so everything that is asked of a space (layer tables,
segments, which exits there are, memory) has an answer for it, and the same inner engine serves both.
Shapes: E exits, L layers. Counts are for one sample, in elements.
"""

from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.spaces.footprint import Footprint, footprint
from hadas_jax.spaces.mbconv import Backbone, Codec, MBConvSpace, available_exits, block_active
from hadas_jax.spaces.workload import require_priced, segments, workload
from hw_models import Device, LayerTable, layer_table

# Kind, multiply-accumulates, weights, inputs, outputs and kernels, as the columns of a layer table.
Row = tuple[int, int, int, int, int, int]


@dataclass(frozen=True)
class GivenNetwork:
    """A network with its possible exits.

    Attributes:
        name: Shown to people.
        image_size: Height and width of the images that it takes.
        in_channels: Of the images.
        classes: K.
        places: Names of the tensors that exits follow, E of them in the order of the network.
        maps: Of each place how many pixels or tokens, and how many channels.
        trunk: Layers up to each place and up to the end, E + 1 segments.
        heads: Layers of each exit's head.
        trunk_memory: Peak of the activations without exits.
        head_memory: Peak while each head runs.
    """

    name: str
    image_size: int
    in_channels: int
    classes: int
    places: tuple[str, ...]
    maps: tuple[tuple[int, int], ...]
    trunk: tuple[tuple[Row, ...], ...]
    heads: tuple[tuple[Row, ...], ...]
    trunk_memory: int
    head_memory: tuple[int, ...]

    @property
    def num_exits(self) -> int:
        """E."""
        return len(self.places)

    @property
    def first_exit(self) -> int:
        """The lowest block that an exit may follow."""
        return 0

    @property
    def resolution(self) -> tuple[int, ...]:
        """The one size of images."""
        return (self.image_size,)

    @cached_property
    def codec(self) -> Codec:
        """One gene of a single choice."""
        return Codec(("network",), ((0,),))

    @property
    def count(self) -> int:
        """Number of backbones."""
        return 1

    @property
    def largest_genome(self) -> np.ndarray:
        """The only one, int32[1]."""
        return np.zeros(1, np.int32)

    smallest_genome = largest_genome

    def decode(self, genome: jax.Array) -> Backbone:
        """Returns the only backbone, whose blocks are the parts up to each place."""
        del genome
        none = jnp.zeros(0, jnp.int32)
        return Backbone(jnp.int32(self.image_size), none, jnp.array([self.num_exits], jnp.int32), none, none)

    def largest(self) -> Backbone:
        """Returns the only backbone."""
        return self.decode(jnp.zeros(1, jnp.int32))

    smallest = largest


AnySpace = MBConvSpace | GivenNetwork
"""A space to search backbones in, or a network that is given."""


@block_active.register
def _(space: GivenNetwork, backbone: Backbone) -> jax.Array:
    del backbone
    return jnp.ones(space.num_exits, bool)


@available_exits.register
def _(space: GivenNetwork, backbone: Backbone) -> jax.Array:
    del backbone
    return jnp.ones(space.num_exits, bool)


@segments.register
def _(space: GivenNetwork) -> np.ndarray:
    parts = (*space.trunk, *space.heads)
    return np.repeat(np.arange(len(parts), dtype=np.int32), [len(rows) for rows in parts])


@workload.register
def _(space: GivenNetwork, backbone: Backbone) -> LayerTable:
    del backbone
    rows = [row for part in (*space.trunk, *space.heads) for row in part]
    kind, macs, weights, inputs, outputs, kernels = (list(map(float, column)) for column in zip(*rows, strict=True))
    return layer_table(
        [int(each) for each in kind],
        macs,
        weight_elements=weights,
        input_elements=inputs,
        output_elements=outputs,
        kernels=kernels,
    )


@footprint.register
def _(space: GivenNetwork, backbone: Backbone) -> Footprint:
    del backbone
    trunk, heads = ([sum(row[2] for row in part) for part in parts] for parts in (space.trunk, space.heads))
    return Footprint(
        trunk_memory=jnp.int32(space.trunk_memory),
        exit_memory=jnp.asarray(space.head_memory, jnp.int32).reshape(-1),
        trunk_weights=jnp.int32(sum(trunk)),
        exit_weights=jnp.asarray(heads, jnp.int32).reshape(-1),
    )


@require_priced.register
def _(space: GivenNetwork, device: Device) -> None:
    if device.blocks is not None:
        raise ValueError(
            f"{device.name}: expected a device that prices the layers of {space.name}, got a table of blocks of others"
        )
