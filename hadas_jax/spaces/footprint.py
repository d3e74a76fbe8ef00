"""What a backbone with exits takes on a device: peak memory of activations, and weights.

Layers run one after the other for one sample, each fused with its batch norm and activation. While a layer runs, its
input and its output are in memory, and whatever a later layer still needs, such as the input of a shortcut. An exit
runs while the features that go on are kept; every exit is a peak of its own, and the trunk is the same with and without
them. The image counts at the backbone's resolution. Weights are those of the exported network, batch norm folded in.
`hadas_jax.deploy.memory` finds the same from the layers of a network that is cut out.
Shapes: D depth of a stage at its largest, E exits. Counts are in elements, of as many bytes as the number format has.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hadas_jax.spaces.mbconv import Backbone, MBConvSpace, Stage, available_exits, make_divisible
from hadas_jax.spaces.workload import segments, workload
from hw_models import NumberFormat

_BYTES = np.array([each.element_bytes for each in NumberFormat], np.int32)


@struct.dataclass
class Footprint:
    """Elements that a backbone and its exits take.

    Attributes:
        trunk_memory: int32[], peak of the activations without exits.
        exit_memory: int32[E], peak while each exit runs; 0 where the backbone does not have it.
        trunk_weights: int32[].
        exit_weights: int32[E], likewise.
        element_bytes: int32[], of the backbone's number format; None: the device's first.
    """

    trunk_memory: jax.Array
    exit_memory: jax.Array
    trunk_weights: jax.Array
    exit_weights: jax.Array
    element_bytes: jax.Array | None = None

    @classmethod
    def nothing(cls, exits: int) -> "Footprint":
        """Returns that of a backbone with E exits that take nothing."""
        none, each = jnp.int32(0), jnp.zeros(exits, jnp.int32)
        return cls(none, each, none, each)

    def memory(self, exits: jax.Array) -> jax.Array:
        """Returns int32[...]: the peak of the activations with some exits, bool[..., E]."""
        return jnp.maximum(self.trunk_memory, jnp.max(jnp.where(exits, self.exit_memory, 0), axis=-1, initial=0))

    def weights(self, exits: jax.Array) -> jax.Array:
        """Returns int32[...]: the weights with some exits, bool[..., E]."""
        return self.trunk_weights + jnp.sum(jnp.where(exits, self.exit_weights, 0), axis=-1)


@functools.singledispatch
def footprint(space: Any, backbone: Backbone) -> Footprint:
    """Returns what a backbone and each of its exits take; batch with `jax.vmap`.

    Args:
        space: Static.
        backbone: One design of the space.
    """
    layers, E = workload(space, backbone), space.num_exits
    rows = (layers.weight_elements * layers.active).astype(jnp.int32)  # whole numbers, whose sums float32 would round
    weights = jax.ops.segment_sum(rows, jnp.asarray(segments(space)), 2 * E + 1)
    available = available_exits(space, backbone)
    size = -(-backbone.resolution // space.stem_stride)
    trunk = [space.in_channels * backbone.resolution**2 + backbone.width[0] * size**2]
    exits = []
    for s, stage in enumerate(space.stages):
        out_size = -(-size // stage.stride)
        used = jnp.arange(max(stage.depth)) < backbone.depth[s]
        trunk.append(jnp.max(jnp.where(used, _block_memory(stage, s, backbone, size=size, out_size=out_size), 0)))
        exits.append(jnp.full(max(stage.depth), _exit_memory(space, backbone.width[s + 1], out_size)))
        size = out_size
    trunk.append(_classifier_memory(space, backbone, size))
    exit_memory = jnp.where(available, jnp.concatenate(exits)[space.first_exit :], 0)
    return Footprint(
        trunk_memory=jnp.max(jnp.stack(trunk)),
        exit_memory=exit_memory,
        trunk_weights=jnp.sum(weights[: E + 1]),
        exit_weights=jnp.where(available, weights[E + 1 :], 0),
        element_bytes=None if backbone.number_format is None else jnp.asarray(_BYTES)[backbone.number_format],
    )


def _block_memory(stage: Stage, s: int, backbone: Backbone, *, size: jax.Array, out_size: jax.Array) -> jax.Array:
    """The peak within each block of a stage, int32[D]; the shortcut keeps the block's input in memory up to its end."""
    first = jnp.arange(max(stage.depth)) == 0
    out = jnp.broadcast_to(backbone.width[s + 1], first.shape)
    ins = jnp.where(first, backbone.width[s], out)
    mid = make_divisible(ins * backbone.expand[s]) if stage.expands else ins
    in_pixels, pixels = jnp.where(first, size, out_size) ** 2, out_size**2
    x, y, middle = ins * in_pixels, out * pixels, mid * pixels
    peaks = [
        x + middle + (mid * in_pixels if stage.expands else 0),  # the depthwise convolution, with what it reads
        x + middle + y,  # the projection
        3 * y,  # the sum
    ]
    if stage.se:
        peaks += [x + middle + 2 * mid, x + middle + mid + make_divisible(mid // 4), x + 2 * middle + mid]
    half = ins * pixels if stage.stride > 1 else x
    halved = jnp.where(first, x + y + half, 0) if stage.stride > 1 else jnp.zeros_like(x)
    projected = jnp.where(first & (ins != out), half + 2 * y, 0)
    return jnp.max(jnp.stack([*peaks, halved, projected]), axis=0)


def _exit_memory(space: MBConvSpace, channels: jax.Array, size: jax.Array) -> jax.Array:
    """The peak while an exit runs, int32[]: the features that go on, and what the head reads and writes."""
    pixels = jnp.where(size >= 3, size - 2, size) ** 2
    width = space.exit_width
    return channels * size**2 + jnp.maximum(width * pixels + width, width + space.classes + 1)


def _classifier_memory(space: MBConvSpace, backbone: Backbone, size: jax.Array) -> jax.Array:
    """The peak after the last block, int32[]."""
    head, last = make_divisible(backbone.width[-2] * space.head_expand), backbone.width[-1]
    pixels = size**2
    peaks = [(backbone.width[-2] + head) * pixels, head * pixels + head, head + last, last + space.classes]
    return jnp.max(jnp.stack(peaks))
