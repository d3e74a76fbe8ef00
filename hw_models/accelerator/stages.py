"""Stages of a pipeline: how parallel each is, and the cycles, DSPs and memory blocks that it takes.

See `hw_models.accelerator.pipeline` for the paradigm and its sources.
Shapes: L rows of `hw_models.accelerator.network`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.accelerator.fpga import Fpga
from hw_models.accelerator.memory_blocks import memory_blocks
from hw_models.accelerator.network import Rows

# The wanted parallelism is rounded up to a whole number and then to the power of two nearest in ratio: 2^p is taken
# from the first whole number above 2^(p - 1/2).
_STEPS = np.ceil(2.0 ** (np.arange(1, 13) - 0.5))
_MOST_MACS = 2.0**31


class Stages(NamedTuple):
    """What a stage of each row takes, int32[L].

    Attributes:
        channels: cpf, channels at once.
        kernels: kpf, kernels at once.
        cycles: For an image.
        dsp: For an image, without control.
        cache_blocks: Memory blocks that hold columns of the input, for an image.
        weight_blocks: Memory blocks for weights and batch norm, whatever the batch.
    """

    channels: jax.Array
    kernels: jax.Array
    cycles: jax.Array
    dsp: jax.Array
    cache_blocks: jax.Array
    weight_blocks: jax.Array


def weight_traffic(rows: Rows, counts: jax.Array) -> jax.Array:
    """Weights read for a row of pixels at every stage, so many times MACs / height, f32[], in elements per image."""
    per_layer = np.where(rows.is_weighted, rows.macs / rows.out_size, 0.0).astype(np.float32)
    return jnp.sum(counts * per_layer)


def parallelism_limits(rows: Rows, fpga: Fpga, *, halvings: jax.Array) -> jax.Array:
    """Weight traffic below which a stage gets a parallelism of 2, 4, 8, ..., f32[L, 12]; 0 where there are no weights.

    A parallelism of macs / cycles is wanted, for the `cycles` that the DDR memory needs to read all weights once for
    every row; halved, the whole numbers that it is rounded from are halved too.
    """
    macs = np.where(rows.is_weighted, rows.macs, 0.0).astype(np.float32)
    steps = _STEPS.astype(np.float32) * jnp.left_shift(1, halvings).astype(jnp.float32) - 1.0
    elements_per_cycle = fpga.ddr_bits_per_s / fpga.word_bits / fpga.clock_hz
    return macs[:, None] / steps[None] * elements_per_cycle


def pipeline_stages(rows: Rows, traffic: jax.Array, fpga: Fpga, *, halvings: jax.Array) -> Stages:
    """Sizes a stage for each row, whether the network has it or not.

    Args:
        rows: Of the network.
        traffic: f32[], as `weight_traffic`.
        fpga: The FPGA.
        halvings: int32[], how often parallelism is halved.

    Returns:
        The stages.

    Raises:
        ValueError: A layer has 2^31 multiply-accumulates or more, beyond the whole numbers used here.
    """
    if rows.macs.max() >= _MOST_MACS:
        worst = int(np.argmax(rows.macs))
        raise ValueError(
            f"network: expected layers of less than 2^31 multiply-accumulates, got {rows.macs[worst]:.3g} in "
            f"{rows.name[worst]}"
        )
    word = fpga.word_bits
    wanted = jnp.sum((traffic < parallelism_limits(rows, fpga, halvings=halvings)).astype(jnp.int32), axis=1)
    most = fpga.stage_parallelism
    most_channels = np.ceil(np.log2(np.minimum(rows.inputs, most))).astype(np.int32)
    most_kernels = np.floor(np.log2(np.minimum(rows.outputs, most))).astype(np.int32)
    # Channels first, then levelled out: more than twice as many channels as kernels make a needless adder tree.
    channels = jnp.minimum(wanted, most_channels)
    kernels = jnp.minimum(wanted - channels, most_kernels)
    moved = jnp.clip((channels - kernels) // 2, 0, most_kernels - kernels)
    channels, kernels = jnp.left_shift(1, channels - moved), jnp.left_shift(1, kernels + moved)
    pool = np.minimum(fpga.pool_parallelism, rows.outputs).astype(np.int32)
    channels = jnp.where(rows.is_pooling, pool, channels)
    kernels = jnp.where(rows.is_pooling, 1, kernels)
    runs = rows.is_pooling | rows.is_weighted
    product = channels * kernels
    cached = (rows.inputs * rows.in_size * (rows.kernel + rows.stride)).astype(np.int32)
    cache = memory_blocks(channels * word, _ceil_div(cached, channels))
    dsp = _ceil_div(product, jnp.int32(fpga.multiplications_per_dsp))
    return Stages(
        channels=channels,
        kernels=kernels,
        cycles=jnp.where(runs, _ceil_div(rows.macs.astype(np.int32), product), 0),
        dsp=jnp.where(rows.is_weighted, dsp, 0),
        cache_blocks=jnp.where(runs, cache, 0),
        weight_blocks=jnp.where(rows.is_weighted, _weight_blocks(rows, fpga, channels, kernels), 0),
    )


def _weight_blocks(rows: Rows, fpga: Fpga, channels: jax.Array, kernels: jax.Array) -> jax.Array:
    """Two buffers of the weights that make `kernels` outputs, written through the port; scale and bias of each."""
    word = fpga.word_bits
    width = channels * kernels * word
    depth = _ceil_div(rows.fan_in.astype(np.int32), channels)
    written = _ceil_div(width * depth, jnp.int32(fpga.weight_port_bits))
    weights = memory_blocks(jnp.maximum(width, fpga.weight_port_bits), 2 * jnp.minimum(depth, written))
    norm = memory_blocks(2 * word * kernels, jnp.maximum(_ceil_div(rows.outputs.astype(np.int32), kernels), 2))
    return weights + norm


def _ceil_div(a: jax.Array | np.ndarray, b: jax.Array) -> jax.Array:
    return (jnp.asarray(a) + b - 1) // b
