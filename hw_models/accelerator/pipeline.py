"""Pipeline paradigm: one stage per layer, all at work at once; the slowest sets the throughput.

DNNBuilder (Zhang et al., ICCAD 2018, https://doi.org/10.1145/3240765.3240801), as E2E-Perf of EH-DNAS uses it
(Jiang et al., 2021, https://arxiv.org/abs/2111.12299). A stage with weights works on `cpf` channels and `kpf` kernels
at once and takes MACs / (cpf kpf) cycles for an image. Each stage reads its weights again for every row of its output,
so parallelism in proportion to the work, as much as the DDR memory feeds, leaves every stage the same time; powers of
two leave it about the same. Then as many images run side by side, with the same weights, as DSPs and memory blocks
allow: throughput = batch * clock / (slowest + 1). Where not even one image fits, all parallelism is halved.
Shapes: L rows of `hw_models.accelerator.network`. Functions take one architecture; batch them with `jax.vmap`.

Memory blocks of an FPGA: how many of 18 Kb a memory of a width and depth takes.

Stages of a pipeline: how parallel each is, and the cycles, DSPs and memory blocks that it takes.

See `hw_models.accelerator.pipeline` for the paradigm and its sources.
Shapes: L rows of `hw_models.accelerator.network`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hw_models.accelerator.fpga import Fpga, FpgaTooSmallError
from hw_models.accelerator.network import DartsNetwork, Rows, network_rows, row_counts

# A block is 512 words of up to 36 bits, or more words of fewer bits; two of them make 512 words of 72 bits.
_WIDTHS = (1, 2, 4, 9, 18)
_DEEPEST = 16384
_DEPTH = 512


def memory_blocks(width: jax.Array, depth: jax.Array) -> jax.Array:
    """Counts the blocks of a memory.

    The width is cut into slices of 72 and 36 bits, and what is left takes the deepest blocks that are wide enough.

    Args:
        width: int32[...], bits of a word.
        depth: int32[...], words.

    Returns:
        int32[...], in blocks of 18 Kb.
    """
    rows = (depth + _DEPTH - 1) // _DEPTH
    whole, rest = width // 72, width % 72
    half = (rest >= 36).astype(jnp.int32)
    rest = rest - 36 * half
    wider_than = sum((rest > narrow).astype(jnp.int32) for narrow in _WIDTHS)
    deep = jnp.right_shift(_DEEPEST, wider_than)
    return (2 * whole + half) * rows + jnp.where(rest > 0, (depth + deep - 1) // deep, 0)


# The wanted parallelism is rounded up to a whole number and then to the power of two nearest in ratio: 2^p is taken
# from the first whole number above 2^(p - 1/2).
_STEPS = np.ceil(2.0 ** (np.arange(1, 13) - 0.5))
_MOST_MACS = 2.0**31


class Stages(NamedTuple):
    """What a stage of each row takes, int32[L].

    Attributes:
        channels: Cpf, channels at once.
        kernels: Kpf, kernels at once.
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


MOST_HALVINGS = 12


class Demand(NamedTuple):
    """What the stages of a network take together, f32[].

    Attributes:
        dsp: For an image.
        cache_blocks: For an image.
        weight_blocks: Whatever the batch.
        control_dsp: Whatever the batch.
        slowest_cycles: Of the slowest stage, for an image.
    """

    dsp: jax.Array
    cache_blocks: jax.Array
    weight_blocks: jax.Array
    control_dsp: jax.Array
    slowest_cycles: jax.Array


@struct.dataclass
class PipelineCost:
    """How a network runs as a pipeline; leaves f32[].

    Attributes:
        throughput: Images/s; 0 where the network does not fit.
        latency_s: From the first pixel of an image to its result, stages filled one after another: an upper bound,
            as parallel branches fill together. Infinite where the network does not fit.
        batch: Images side by side.
        slowest_cycles: Of the slowest stage, for an image.
        dsp: Taken in all.
        bram18: Taken in all.
        dsp_batch: Batch that DSPs alone would allow.
        bram18_batch: Batch that memory blocks alone would allow.
        halvings: How often all parallelism was halved.
    """

    throughput: jax.Array
    latency_s: jax.Array
    batch: jax.Array
    slowest_cycles: jax.Array
    dsp: jax.Array
    bram18: jax.Array
    dsp_batch: jax.Array
    bram18_batch: jax.Array
    halvings: jax.Array


def pipeline_cost(network: DartsNetwork, architecture: jax.Array, fpga: Fpga) -> PipelineCost:
    """Allocates the FPGA to the stages of a network.

    Rounded to whole numbers everywhere, so without a useful gradient; use a predictor in a gradient search.

    Args:
        network: Static.
        architecture: int[28].
        fpga: The FPGA.

    Returns:
        The cost. The rule looks at bandwidth only for the parallelism it wants, not after rounding.

    Raises:
        ValueError: `architecture` is no code, or the network is too large, see `pipeline_stages`.
    """
    rows = network_rows(network)
    counts = row_counts(network, _code(architecture))
    traffic = weight_traffic(rows, counts)

    def demand_at(halvings: jax.Array) -> Demand:
        return total_demand(rows, counts, fpga, stages=pipeline_stages(rows, traffic, fpga, halvings=halvings))

    def is_too_large(halvings: jax.Array) -> jax.Array:
        return (jnp.minimum(*batches(demand_at(halvings), fpga)) < 1) & (halvings < MOST_HALVINGS)

    halvings = jax.lax.while_loop(is_too_large, lambda halvings: halvings + 1, jnp.int32(0))
    demand = demand_at(halvings)
    dsp_batch, bram18_batch = batches(demand, fpga)
    batch = jnp.maximum(jnp.minimum(dsp_batch, bram18_batch), 0.0)
    stages = pipeline_stages(rows, traffic, fpga, halvings=halvings)
    filled = np.minimum(rows.kernel / rows.in_size, 1.0).astype(np.float32)
    fill_cycles = jnp.sum(counts * filled * stages.cycles.astype(jnp.float32))
    latency_s = (fill_cycles + demand.slowest_cycles) / fpga.clock_hz
    return PipelineCost(
        throughput=throughput(batch, demand.slowest_cycles, fpga),
        latency_s=jnp.where(batch > 0, latency_s, jnp.inf),
        batch=batch,
        slowest_cycles=demand.slowest_cycles,
        dsp=demand.control_dsp + batch * demand.dsp,
        bram18=demand.weight_blocks + batch * demand.cache_blocks,
        dsp_batch=dsp_batch,
        bram18_batch=bram18_batch,
        halvings=halvings.astype(jnp.float32),
    )


def check_pipeline_fits(network: DartsNetwork, architecture: jax.Array, fpga: Fpga) -> None:
    """Checks a network against an FPGA.

    Raises:
        FpgaTooSmallError: Not even one image fits with a parallelism of 1; the message names the resource, what
            the network needs of it and what a design may take.
        ValueError: `architecture` is no code.
    """
    rows, counts = network_rows(network), row_counts(network, _code(architecture))
    stages = pipeline_stages(rows, weight_traffic(rows, counts), fpga, halvings=jnp.int32(MOST_HALVINGS))
    demand = total_demand(rows, counts, fpga, stages=stages)
    for resource, usable, has, needs in (
        ("DSPs", fpga.usable_dsp, fpga.dsp, demand.control_dsp + demand.dsp),
        ("memory blocks of 18 Kb", fpga.usable_bram18, fpga.bram18, demand.weight_blocks + demand.cache_blocks),
    ):
        if needs > usable:
            raise FpgaTooSmallError(
                f"{fpga.name}: expected at least {int(needs)} usable {resource} for one image in a pipeline of this "
                f"network, got {int(usable)} of {int(has)}"
            )


def total_demand(rows: Rows, counts: jax.Array, fpga: Fpga, *, stages: Stages) -> Demand:
    """Adds the stages up, with `counts` f32[L] of each row."""

    def total(column: jax.Array | np.ndarray) -> jax.Array:
        return jnp.sum(counts * jnp.asarray(column, jnp.float32))

    slowest = jnp.max(jnp.where((counts > 0) & rows.is_weighted, stages.cycles, 0))
    return Demand(
        dsp=total(stages.dsp),
        cache_blocks=total(stages.cache_blocks),
        weight_blocks=total(stages.weight_blocks),
        control_dsp=fpga.control_dsp_weighted * total(rows.is_weighted)
        + fpga.control_dsp_other * total(rows.is_pooling),
        slowest_cycles=slowest.astype(jnp.float32),
    )


def batches(demand: Demand, fpga: Fpga) -> tuple[jax.Array, jax.Array]:
    """Images side by side that DSPs, and that memory blocks, allow, f32[] each; not positive where none fits."""
    dsp = (fpga.usable_dsp - demand.control_dsp) / demand.dsp
    memory = (fpga.usable_bram18 - demand.weight_blocks) / demand.cache_blocks
    return jnp.floor(dsp), jnp.floor(memory)


def throughput(batch: jax.Array, slowest_cycles: jax.Array, fpga: Fpga) -> jax.Array:
    """Images/s of a batch, f32[...]."""
    return batch * fpga.clock_hz / (slowest_cycles + 1.0)


def _code(architecture: jax.Array) -> jax.Array:
    architecture = jnp.asarray(architecture)
    if not jnp.issubdtype(architecture.dtype, jnp.integer):
        raise ValueError(f"architecture: expected a code of 28 whole numbers, got {architecture.dtype}")
    return architecture
