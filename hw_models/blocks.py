"""Tables of measured blocks as devices: what a network takes is the sum of what its blocks were measured to take.

A table has a line for each block, under the names that Once-for-All's and ProxylessNAS's users have in their YAML files
(https://github.com/mit-han-lab/once-for-all, `latency_lookup_table.py`; Cai et al., https://arxiv.org/abs/1908.09791):

    Conv-input:224x224x3-output:112x112x16                                  the stem, 3 x 3
    expanded_conv-input:56x56x24-output:28x28x40-expand:72-kernel:5-stride:2-idskip:0-se:1-hs:0
    Conv_1-input:7x7x216-output:7x7x1296                                    1 x 1 before pooling
    AvgPool2D-input:7x7x1296-output:1x1x1296
    Conv_2-input:1x1x1296-output:1x1x1984                                   1 x 1 behind it
    Logits-input:1x1x1984-output:1000                                       the classifier, without pooling
    Exit-input:14x14x112-output:12x12x224-logits:101                        the head of an exit: 3 x 3, pooling, classes

`expand` is the number of middle channels where the name has `se`, and the ratio to the input channels where it has not.
`idskip` and the activation (`hs`) need not fit: of two lines that differ in these alone, that of `hs:1` counts. A CSV
file has columns `block,latency_ms,energy_mj`; a line `base,LATENCY,ENERGY` is what every network takes on top. A YAML
file maps names to `{mean: MILLISECONDS}`.

A network is known by its layer table, and so are blocks: rows that are a block together are found in the table by the
sums of their columns. Their whole cost then stands in the first of these rows, as kernels that take a second each to
launch, and weights that take a joule each; `hw_models.device.table_device` has no other cost. So every function of
layer tables and devices prices measured blocks as it prices layers.
Shapes: B blocks of a table, L layers, G groups of layers. Units: s, J; ms and mJ in files.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from pydantic import Field

from hw_models.layers import LayerKind, LayerTable, layer_table

BASE = "base"
_CLOSE = 1e-5  # relative difference up to which sums of float32 are the same
_MISSING_S = 1e6  # of blocks that a table lacks: longer than anything, and no infinity, which times zero is none
_SHAPE = r"([0-9]+)x([0-9]+)x([0-9]+)"
_NAME = re.compile(
    rf"(Conv|expanded_conv|Conv_1|AvgPool2D|Conv_2|Logits|Exit)-input:{_SHAPE}-output:(?:{_SHAPE}|([0-9]+))"
    r"(?:-logits:([0-9]+))?"
    r"(?:-expand:([0-9]+)-kernel:([0-9]+)-stride:([0-9]+)-idskip:[01](?:-se:([01])-hs:([01]))?)?"
)
_EXAMPLE = "expanded_conv-input:56x56x24-output:28x28x40-expand:72-kernel:5-stride:2-idskip:0-se:1-hs:0"


class Block(NamedTuple):
    """A measured part of a network; maps are square.

    Attributes:
        kind: As the name begins.
        size: Side of the map read.
        channels: Read.
        out_size: Side of the map written.
        out_channels: Written.
        mid: Middle channels of an `expanded_conv`; classes of an `Exit`'s output.
        kernel: Side of the depthwise kernel of an `expanded_conv`.
        stride: Its stride.
        se: Whether it has squeeze and excitation.
    """

    kind: str
    size: int
    channels: int
    out_size: int
    out_channels: int
    mid: int = 0
    kernel: int = 0
    stride: int = 1
    se: bool = False

    @property
    def name(self) -> str:
        """Its name, as tables have it."""
        if self.kind == "Logits":
            return f"Logits-input:{self.size}x{self.size}x{self.channels}-output:{self.out_channels}"
        shapes = f"input:{self.size}x{self.size}x{self.channels}-output:{self.out_size}x{self.out_size}"
        name = f"{self.kind}-{shapes}x{self.out_channels}"
        if self.kind == "Exit":
            return f"{name}-logits:{self.mid}"
        if self.kind != "expanded_conv":
            return name
        skip = int(self.stride == 1 and self.channels == self.out_channels)
        return f"{name}-expand:{self.mid}-kernel:{self.kernel}-stride:{self.stride}-idskip:{skip}-se:{self.se:d}-hs:1"


@struct.dataclass
class BlockTable:
    """Costs of blocks that are known by the sums of their layers.

    Attributes:
        sums: f32[B, 5], of MACs, weights, elements read, elements written, and rows.
        latency_s: f32[B].
        energy_j: f32[B].
        names: Of the blocks; static.
    """

    sums: jax.Array
    latency_s: jax.Array
    energy_j: jax.Array
    names: tuple[str, ...] = struct.field(pytree_node=False, default=())


def parse_block(name: str) -> Block:
    """Reads the name of a block.

    Raises:
        ValueError: It is none; or one that no network of MBConv blocks has.
    """
    found = _NAME.fullmatch(name.strip())
    if found is None:
        raise ValueError(f"expected the name of a block such as {_EXAMPLE}, got {name!r}")
    kind, *texts = found.groups()
    numbers = [None if text is None else int(text) for text in texts]
    height, width, channels, out_height, out_width, out, logits, classes, expand, kernel, stride, se, _ = numbers
    is_whole = (expand is not None) == (kind == "expanded_conv") and (classes is not None) == (kind == "Exit")
    if height != width or out_height != out_width or not is_whole or (logits is not None and kind != "Logits"):
        raise ValueError(f"expected a block on square maps with all of its numbers, such as {_EXAMPLE}, got {name!r}")
    block = Block(kind, height or 0, channels or 0, out_height or 1, out or logits or 0, mid=classes or 0)
    if kind != "expanded_conv":
        return block
    mid = (expand or 0) * (1 if se is not None else block.channels)
    return block._replace(mid=mid, kernel=kernel or 0, stride=stride or 1, se=bool(se))


def block_layers(block: Block) -> LayerTable:
    """Returns the layers of a block, columns [L], as tables of networks have them: fused, batch norms as biases."""
    kind, macs, weights, reads, writes = zip(*_rows(block), strict=True)
    return layer_table(kind, macs, weight_elements=weights, input_elements=reads, output_elements=writes)


def _rows(block: Block) -> list[tuple[float, ...]]:
    """Kind, MACs, weights, elements read and written of each layer of a block."""
    rows: list[tuple[float, ...]] = []
    ins, out, mid = block.channels, block.out_channels, block.mid
    pixels, out_pixels = block.size**2, block.out_size**2

    def conv(kind: LayerKind, read: int, written: int, *, taps: int, at: int, source: int, bias: bool = True) -> None:
        weights = written * taps * (1 if kind == LayerKind.DEPTHWISE else read)
        rows.append((kind, weights * at, weights + written * bias, read * source, written * at))

    def follow(kind: LayerKind, channels: int, read: int, written: int) -> None:
        rows.append((kind, channels * read, 0, channels * read, channels * written))

    if block.kind in ("Conv", "Exit"):
        conv(LayerKind.DENSE, ins, out, taps=9, at=out_pixels, source=pixels)
    if block.kind == "Exit":
        follow(LayerKind.POOLING, out, out_pixels, 1)
        conv(LayerKind.LINEAR, out, mid, taps=1, at=1, source=1)
    elif block.kind in ("Conv_1", "Conv_2"):
        conv(LayerKind.POINTWISE, ins, out, taps=1, at=out_pixels, source=pixels, bias=block.kind == "Conv_1")
    elif block.kind == "AvgPool2D":
        follow(LayerKind.POOLING, ins, pixels, 1)
    elif block.kind == "Logits":
        conv(LayerKind.LINEAR, ins, out, taps=1, at=1, source=1)
    elif block.kind == "expanded_conv":
        if mid != ins:
            conv(LayerKind.POINTWISE, ins, mid, taps=1, at=pixels, source=pixels)
        conv(LayerKind.DEPTHWISE, mid, mid, taps=block.kernel**2, at=out_pixels, source=pixels)
        if block.se:
            hidden = _divisible(mid // 4)
            follow(LayerKind.POOLING, mid, out_pixels, 1)
            conv(LayerKind.LINEAR, mid, hidden, taps=1, at=1, source=1)
            conv(LayerKind.LINEAR, hidden, mid, taps=1, at=1, source=1)
            follow(LayerKind.ELEMENTWISE, mid, out_pixels, out_pixels)
        conv(LayerKind.POINTWISE, mid, out, taps=1, at=out_pixels, source=out_pixels)
        follow(LayerKind.ELEMENTWISE, out, 2 * out_pixels, out_pixels)
        if block.stride > 1:
            follow(LayerKind.POOLING, ins, pixels, out_pixels)
        if ins != out:
            conv(LayerKind.POINTWISE, ins, out, taps=1, at=out_pixels, source=out_pixels, bias=False)
    return rows


class BlockCost(NamedTuple):
    """What a block was measured to take: ms, and mJ where energy was measured."""

    latency_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    energy_mj: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


def block_table(costs: Mapping[str, BlockCost]) -> BlockTable:
    """Returns the table of blocks by name; a base is added to the stems, of which every network has one.

    Args:
        costs: By name; energies of all blocks or of none.

    Raises:
        ValueError: A name is none of a block.
    """
    base = costs.get(BASE, BlockCost(0.0, 0.0))
    chosen: dict[Block, tuple[bool, BlockCost]] = {}
    for name, cost in costs.items():
        if name != BASE:
            block, is_swish = parse_block(name), name.endswith("hs:1")
            if is_swish or block not in chosen:
                chosen[block] = is_swish, cost
    sums, latencies, energies = [], [], []
    for block, (_, cost) in chosen.items():
        extra = base if block.kind == "Conv" else BlockCost(0.0, 0.0)
        rows = np.array(_rows(block))
        sums.append([*rows[:, 1:].sum(axis=0), len(rows)])
        latencies.append(1e-3 * (cost.latency_ms + extra.latency_ms))
        energies.append(1e-3 * ((cost.energy_mj or 0.0) + (extra.energy_mj or 0.0)))
    return BlockTable(
        sums=jnp.asarray(np.array(sums), jnp.float32),
        latency_s=jnp.asarray(latencies, jnp.float32),
        energy_j=jnp.asarray(energies, jnp.float32),
        names=tuple(block.name for block in chosen),
    )


def measured_layers(layers: LayerTable, group: jax.Array, groups: int, table: BlockTable) -> LayerTable:
    """Returns layers that cost on `table_device` what a table says of the blocks that they are.

    Args:
        layers: Columns [L].
        group: int32[L], the block that each row belongs to.
        groups: G, static.
        table: The table.

    Returns:
        Columns [L]: the first active row of each block stands for all of it. A block that the table lacks takes longer
        than anything.
    """
    sums = jnp.zeros((groups, 5)).at[group].add(_columns(layers))
    is_it = jnp.all(jnp.abs(sums[:, None] - table.sums[None]) <= _CLOSE * table.sums[None], axis=-1)
    is_known, row = jnp.any(is_it, axis=1), jnp.argmax(is_it, axis=1)
    latency_s = jnp.where(is_known, table.latency_s[row], _MISSING_S)
    energy_j = jnp.where(is_known, table.energy_j[row], 0.0)
    rows = jnp.arange(layers.kind.shape[-1])
    runs = layers.active > 0
    first = jnp.full(groups, len(rows)).at[group].min(jnp.where(runs, rows, len(rows)))
    stands = runs & (first[group] == rows)
    nothing = jnp.zeros_like(layers.macs)
    return dataclasses.replace(
        layers,
        macs=nothing,
        weight_elements=jnp.where(stands, energy_j[group], 0.0),
        input_elements=nothing,
        output_elements=nothing,
        kernels=jnp.where(stands, latency_s[group], 0.0),
        active=stands.astype(jnp.float32),
    )


def require_blocks(table: BlockTable, names: Sequence[str], *, device: str, space: str) -> None:
    """Raises `ValueError` where a table lacks one of the blocks that a space has, in one line that names it."""
    known = set(table.names)
    missing = [name for name in names if name not in known]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(
            f"{device}: expected a table of all {len(names)} blocks of {space}, got none of {missing[0]}{more}; "
            f"hadas devices blocks --space {space} -o FILE.csv lists them"
        )


def _columns(layers: LayerTable) -> jax.Array:
    """What is summed over the rows of a block, f32[L, 5]."""
    runs = layers.active > 0
    columns = [layers.macs, layers.weight_elements, layers.input_elements, layers.output_elements]
    return jnp.stack([jnp.where(runs, column, 0.0) for column in (*columns, jnp.ones_like(layers.macs))], axis=-1)


def _divisible(channels: int) -> int:
    """Rounds channels to a multiple of 8, never below 90 % of them (MobileNet)."""
    rounded = max((channels + 4) // 8 * 8, 8)
    return rounded + 8 if 10 * rounded < 9 * channels else rounded
