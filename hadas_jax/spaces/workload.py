"""What a backbone and its exit heads ask of the hardware, as a layer table.

Rows stand for fused layers (convolution, batch norm and activation in one kernel), as edge runtimes run them.
Rows of block positions that a backbone does not use are inactive. Every row belongs to a segment: the trunk is
cut after each position that an exit may follow, and each head is a segment of its own. Every row of the trunk
also belongs to a part (stem, a stage, classifier) and to a block of it.
Shapes: D depth of a stage at its largest, E exits, L layers. Counts are for one sample, in elements.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.spaces.mbconv import Backbone, MBConvSpace, Stage, make_divisible
from hw_models import Device, LayerKind, LayerTable
from hw_models.blocks import Block, measured_layers, require_blocks


class _Rows(NamedTuple):
    """Rows of one kind for the positions of one stage; arrays broadcast to [D]."""

    kind: LayerKind
    macs: jax.Array
    weights: jax.Array
    inputs: jax.Array
    outputs: jax.Array
    active: jax.Array


class RowOwners(NamedTuple):
    """Where each row of `workload` belongs.

    Attributes:
        segment: int32[L]; 0 .. E are the trunk (e ends with the position that exit e follows, E with the classifier); E
            + 1 + e is the head of exit e.
        part: int32[L]; 0 the stem, 1 + s stage s, S + 1 the classifier, -1 a head.
        block: int32[L]; position within the stage, 0 in stem and classifier, -1 in a head.
    """

    segment: np.ndarray
    part: np.ndarray
    block: np.ndarray


@functools.lru_cache
def row_owners(space: MBConvSpace) -> RowOwners:
    """Returns where each row of `workload` belongs."""
    traced: list[RowOwners] = []

    def trace() -> LayerTable:
        table, owners = _layout(space, space.largest())
        traced.append(owners)
        return table

    jax.eval_shape(trace)
    return traced[0]


@functools.singledispatch
def segments(space: Any) -> np.ndarray:
    """Returns int32[L]: the segment of each row of `workload`, see `RowOwners`."""
    return row_owners(space).segment


@functools.singledispatch
def workload(space: Any, backbone: Backbone) -> LayerTable:
    """Returns the layer table of one backbone with all its exit heads; batch with `jax.vmap`.

    Args:
        space: Static.
        backbone: One design of the space.
    """
    return _layout(space, backbone)[0]


def device_workload(space: Any, backbone: Backbone, device: Device) -> LayerTable:
    """Returns the layer table of `workload` as a device prices it: what its table says of the blocks, if it has one."""
    layers = workload(space, backbone)
    if device.blocks is None:
        return layers
    owner = block_owners(space)
    return measured_layers(layers, jnp.asarray(owner), int(owner.max()) + 1, device.blocks)


@functools.singledispatch
def require_priced(space: Any, device: Device) -> None:
    """Raises `ValueError` where a device is a table that lacks a block of a space, in one line that names it."""
    if device.blocks is not None:
        require_blocks(device.blocks, block_names(space), device=device.name, space=space.name)


@functools.lru_cache
def block_owners(space: MBConvSpace) -> np.ndarray:
    """Returns int32[L]: the block, of those that tables have, that each row of `workload` belongs to."""
    where, last = row_owners(space), len(space.stages) + 1
    # The layers of the classifier are blocks of their own.
    own = np.where(where.part == last, np.arange(len(where.part)), where.block)
    keys = np.stack([where.part, own, np.where(where.part < 0, where.segment, -1)])
    return np.unique(keys, axis=1, return_inverse=True)[1].ravel().astype(np.int32)


def block_names(space: MBConvSpace) -> list[str]:
    """Returns the names of all blocks that networks of a space may have, as tables of blocks have them; sorted.

    Raises:
        ValueError: A stage has ratio 1 beside others, whose blocks tables do not tell apart.
    """
    names = {block.name for resolution in space.resolution for block in _blocks_at(space, resolution)}
    return sorted(names)


def _blocks_at(space: MBConvSpace, resolution: int) -> Iterator[Block]:
    """Yields the blocks of a space at a resolution, some of them more than once."""
    size, widths = _side(resolution, space.stem_stride), space.stem_width
    yield from (Block("Conv", resolution, space.in_channels, size, width) for width in widths)
    position = 0
    for stage in space.stages:
        if 1 in stage.expand and stage.expands:
            raise ValueError(f"{space.name}: expected stages of ratio 1 alone or of none, for a table of blocks")
        out_size, deep = _side(size, stage.stride), max(stage.depth) > 1
        for kernel, ratio, out in itertools.product(stage.kernel, stage.expand, stage.width):
            first = [(size, ins, out_size, stage.stride) for ins in widths]
            for side, ins, out_side, stride in first + ([(out_size, out, out_size, 1)] if deep else []):
                mid = make_divisible(ins * ratio) if stage.expands else ins
                yield Block("expanded_conv", side, ins, out_side, out, mid, kernel, stride, stage.se)
        position += max(stage.depth)
        if position > space.first_exit:
            head = out_size - 2 if out_size >= 3 else out_size
            yield from (
                Block("Exit", out_size, width, head, space.exit_width, space.classes + 1) for width in stage.width
            )
        size, widths = out_size, stage.width
    for width in widths:
        head = make_divisible(width * space.head_expand)
        yield Block("Conv_1", size, width, size, head)
        yield Block("AvgPool2D", size, head, 1, head)
        yield from (Block("Conv_2", 1, head, 1, last) for last in space.last_width)
    yield from (Block("Logits", 1, last, 1, space.classes) for last in space.last_width)


def _side(size: int, stride: int) -> int:
    return (size + stride - 1) // stride


def _layout(space: MBConvSpace, backbone: Backbone) -> tuple[LayerTable, RowOwners]:
    """Builds the rows and says where they belong."""
    rows: list[_Rows] = []
    owners: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def add(row: _Rows, segment: np.ndarray, part: int, block: np.ndarray) -> None:
        rows.append(row)
        owners.append((segment, np.full(segment.shape, part), block))

    zero = np.array([0])
    size = _strided(backbone.resolution, space.stem_stride)
    add(_stem(space, backbone, size), zero, 0, zero)
    position = 0
    for s, stage in enumerate(space.stages):
        blocks = np.arange(max(stage.depth))
        positions = position + blocks
        used = jnp.arange(len(positions)) < backbone.depth[s]
        trunk = np.maximum(positions - space.first_exit, 0)
        out_size = _strided(size, stage.stride)
        for row, only_first in _blocks(stage, s, backbone, size=size, out_size=out_size):
            here = slice(0, 1) if only_first else slice(None)
            add(_masked(row, used[here]), trunk[here], 1 + s, blocks[here])
        heads = positions[positions >= space.first_exit]
        if len(heads):
            for row in _exit_head(space, backbone.width[s + 1], out_size):
                owner = space.num_exits + 1 + heads - space.first_exit
                add(_masked(row, used[-len(heads) :]), owner, -1, np.full(heads.shape, -1))
        position += len(positions)
        size = out_size
    for row in _classifier(space, backbone, size):
        add(row, np.array([space.num_exits]), len(space.stages) + 1, zero)
    every = RowOwners(*(np.concatenate(column).astype(np.int32) for column in zip(*owners, strict=True)))
    return _table(rows, [segment for segment, _, _ in owners]), every


def _strided(size: jax.Array, stride: int) -> jax.Array:
    return (size + stride - 1) // stride


def _conv(
    kind: LayerKind,
    ins: jax.Array,
    outs: jax.Array,
    *,
    size: jax.Array,
    in_size: jax.Array,
    taps: jax.Array | int,
) -> _Rows:
    """A convolution or linear layer; a depthwise one reads one input channel for each output."""
    weights = outs * taps if kind == LayerKind.DEPTHWISE else ins * outs * taps
    return _Rows(kind, weights * size**2, weights + outs, ins * in_size**2, outs * size**2, jnp.bool_(True))


def _pass(kind: LayerKind, channels: jax.Array, *, inputs: jax.Array, outputs: jax.Array) -> _Rows:
    """Pooling or an element-wise layer: pixels read and written per channel."""
    ins = channels * inputs
    return _Rows(kind, ins, jnp.zeros_like(ins), ins, channels * outputs, jnp.bool_(True))


def _masked(row: _Rows, used: jax.Array) -> _Rows:
    return row._replace(active=jnp.broadcast_to(row.active, used.shape) & used)


def _stem(space: MBConvSpace, backbone: Backbone, size: jax.Array) -> _Rows:
    channels = jnp.int32(space.in_channels)
    return _conv(LayerKind.DENSE, channels, backbone.width[0], size=size, in_size=backbone.resolution, taps=9)


def _blocks(
    stage: Stage, s: int, backbone: Backbone, *, size: jax.Array, out_size: jax.Array
) -> list[tuple[_Rows, bool]]:
    """Rows of a stage's blocks [D], and whether they belong to its first block alone."""
    first = jnp.arange(max(stage.depth)) == 0
    out = jnp.broadcast_to(backbone.width[s + 1], first.shape)
    ins = jnp.where(first, backbone.width[s], out)
    in_size = jnp.where(first, size, out_size)
    here = jnp.broadcast_to(out_size, first.shape)
    mid = make_divisible(ins * backbone.expand[s]) if stage.expands else ins
    rows = []
    if stage.expands:
        rows.append(_conv(LayerKind.POINTWISE, ins, mid, size=in_size, in_size=in_size, taps=1))
    taps = jnp.broadcast_to(backbone.kernel[s] ** 2, first.shape)
    rows.append(_conv(LayerKind.DEPTHWISE, mid, mid, size=here, in_size=in_size, taps=taps))
    if stage.se:
        hidden, one = make_divisible(mid // 4), jnp.ones_like(mid)
        rows.append(_pass(LayerKind.POOLING, mid, inputs=here**2, outputs=one))
        rows.append(_conv(LayerKind.LINEAR, mid, hidden, size=one, in_size=one, taps=1))
        rows.append(_conv(LayerKind.LINEAR, hidden, mid, size=one, in_size=one, taps=1))
        rows.append(_pass(LayerKind.ELEMENTWISE, mid, inputs=here**2, outputs=here**2))
    rows.append(_conv(LayerKind.POINTWISE, mid, out, size=here, in_size=here, taps=1))
    rows.append(_pass(LayerKind.ELEMENTWISE, out, inputs=2 * here**2, outputs=here**2))
    shortcut = []
    if stage.stride > 1:
        shortcut.append(_pass(LayerKind.POOLING, ins[:1], inputs=in_size[:1] ** 2, outputs=here[:1] ** 2))
    conv = _conv(LayerKind.POINTWISE, ins[:1], out[:1], size=here[:1], in_size=here[:1], taps=1)
    conv = conv._replace(weights=ins[:1] * out[:1], active=ins[:1] != out[:1])
    shortcut.append(conv)
    return [(row, False) for row in rows] + [(row, True) for row in shortcut]


def _exit_head(space: MBConvSpace, channels: jax.Array, size: jax.Array) -> list[_Rows]:
    width, one = jnp.int32(space.exit_width), jnp.int32(1)
    out_size = jnp.where(size >= 3, size - 2, size)
    return [
        _conv(LayerKind.DENSE, channels, width, size=out_size, in_size=size, taps=9),
        _pass(LayerKind.POOLING, width, inputs=out_size**2, outputs=one),
        _conv(LayerKind.LINEAR, width, jnp.int32(space.classes + 1), size=one, in_size=one, taps=1),
    ]


def _classifier(space: MBConvSpace, backbone: Backbone, size: jax.Array) -> list[_Rows]:
    width, last, one = backbone.width[-2], backbone.width[-1], jnp.int32(1)
    head = make_divisible(width * space.head_expand)
    final = _conv(LayerKind.POINTWISE, head, last, size=one, in_size=one, taps=1)
    return [
        _conv(LayerKind.POINTWISE, width, head, size=size, in_size=size, taps=1),
        _pass(LayerKind.POOLING, head, inputs=size**2, outputs=one),
        final._replace(weights=head * last),
        _conv(LayerKind.LINEAR, last, jnp.int32(space.classes), size=one, in_size=one, taps=1),
    ]


def _table(rows: list[_Rows], owners: list[np.ndarray]) -> LayerTable:
    def column(field: str) -> jax.Array:
        parts = [jnp.broadcast_to(getattr(row, field), owner.shape) for row, owner in zip(rows, owners, strict=True)]
        return jnp.concatenate(parts).astype(jnp.float32)

    kinds = [np.full(owner.shape, int(row.kind), np.int32) for row, owner in zip(rows, owners, strict=True)]
    active = column("active")
    return LayerTable(
        kind=jnp.asarray(np.concatenate(kinds)),
        macs=column("macs"),
        weight_elements=column("weights"),
        input_elements=column("inputs"),
        output_elements=column("outputs"),
        kernels=jnp.ones_like(active),
        active=active,
    )
