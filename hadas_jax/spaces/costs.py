"""Cost of backbones by table, and of relaxed ones in expectation: each part of a network is costed once.

The cost of a stem, of a stage's first block, of its further blocks and of the classifier depends on a handful of genes.
All their combinations are a thousand rows, exact at every setting of the clocks; a backbone is then a sum over 2 S + 2
rows at most, whatever its depth.

Genes of a relaxed backbone are independent, each with a probability for each of its choices. Its cost is a sum over
parts of a row of the table, picked by a few genes, times how often the part runs, picked by the gene of the depth,
which is none of those. So the expectation is exact: every part's table contracted with the probabilities of its genes,
times the expected number of runs. At one-hot probabilities it is the backbone's cost. Differentiable search by expected
latency: Cai et al., "ProxylessNAS", 2019, https://arxiv.org/abs/1812.00332.
Shapes: G genes, C choices of the longest gene, S stages, R rows of the table, P backbones; Nc, Nm settings of the core
and memory clock.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

import hw_models
from hadas_jax.spaces.mbconv import MBConvSpace
from hadas_jax.spaces.workload import row_owners, workload
from hw_models import Cost, Device, LayerTable, OperatingPoint
from hw_models.blocks import BlockTable, measured_layers
from hw_models.cost import CorrectionTerms, correction_terms, load_and_traffic_energy, whole_run

_AT_A_TIME = 16384


class _Part(NamedTuple):
    """A stem, a first block, further blocks or a classifier.

    Attributes:
        layers: int[.], its rows in the layer table.
        genes: Positions in the genome of the choices that bear on its cost.
        offset: Of its rows in the table.
        depths: How often it runs, by the choice of `depth_gene`.
        depth_gene: Gene of the stage's depth; None: `depths` has one entry.
    """

    layers: np.ndarray
    genes: tuple[int, ...]
    offset: int
    depths: tuple[int, ...]
    depth_gene: int | None


@functools.lru_cache
def _block_layers(space: MBConvSpace) -> tuple[LayerTable, np.ndarray | None]:
    """Returns the layers of each row of the table, numpy columns [R, most layers of a part], and number formats [R]."""
    parts, sizes = _parts(space), space.codec.cardinalities
    genomes, owned = [], []
    for part in parts:
        choices = np.indices([sizes[gene] for gene in part.genes]).reshape(len(part.genes), -1).T
        rows = np.repeat(space.largest_genome[None], len(choices), axis=0)
        rows[:, list(part.genes)] = choices
        genomes.append(rows)
        owned += [part.layers] * len(choices)
    every = jnp.asarray(np.concatenate(genomes))
    layers = jax.jit(jax.vmap(lambda genome: workload(space, space.decode(genome))))(every)
    formats = jax.vmap(space.decode)(every).number_format
    longest = max(len(part.layers) for part in parts)
    picked = np.stack([np.pad(rows, (0, longest - len(rows))) for rows in owned])
    columns = jax.tree.map(lambda column: np.take_along_axis(np.asarray(column), picked, axis=1), layers)
    is_own = np.arange(longest) < np.array([len(rows) for rows in owned])[:, None]
    layers = dataclasses.replace(columns, active=columns.active * is_own)
    return layers, None if formats is None else np.asarray(formats)


@struct.dataclass
class BlockCosts:
    """The table.

    Attributes:
        roofline: float32[Nc, Nm, R, 3]: seconds that kernels run, host cycles to launch them, and joules of core load
            and traffic. Rows of one setting lie side by side, as a backbone reads them.
        terms: float32[R, T], what the device's correction depends on, in the order of the leaves of
            `hw_models.cost.CorrectionTerms`; T = 0 without one.
    """

    roofline: jax.Array
    terms: jax.Array


def block_costs(space: MBConvSpace, device: Device) -> BlockCosts:
    """Costs every row of the table at every core and memory setting; without exit heads.

    Args:
        space: Static.
        device: The cost model; the result holds for its clock settings, and for its default number format where the
            space has none.
    """
    with jax.ensure_compile_time_eval():
        layers, formats = _block_layers(space)
        if device.blocks is not None:
            layers = _measured_rows(space, layers, device.blocks)

    def grid_of(part: LayerTable, number_format: Any) -> hw_models.ClockGrid:
        return hw_models.sum_layers(hw_models.clock_grid(part, device, number_format=number_format))

    grid = jax.vmap(grid_of)(layers, formats)
    load_and_traffic = jax.vmap(lambda part: load_and_traffic_energy(part, device))(grid)
    launches = jnp.broadcast_to(grid.launch_cycles[:, None, None], grid.roofline_s.shape)
    roofline = jnp.moveaxis(jnp.stack([grid.roofline_s, launches, load_and_traffic], axis=-1), 0, 2)
    is_stem = jnp.arange(len(launches)) < _parts(space)[1].offset
    terms = jax.vmap(lambda part, starts: correction_terms(part, device, is_start=starts))(layers, is_stem)
    columns = [jnp.sum(leaf, axis=1) for leaf in jax.tree.leaves(terms)]
    return BlockCosts(roofline, jnp.stack(columns, axis=1) if columns else jnp.zeros((len(launches), 0)))


def _measured_rows(space: MBConvSpace, layers: LayerTable, table: BlockTable) -> LayerTable:
    """What a table says of the rows [R, most layers of a part], of which the classifier's are a block each."""
    rows = np.arange(len(layers.kind)) >= _parts(space)[-1].offset
    group = np.where(rows[:, None], np.arange(layers.kind.shape[1])[None], 0)
    groups = int(group.max()) + 1
    return jax.jit(
        lambda every: jax.lax.map(lambda row: measured_layers(row[0], row[1], groups, table), every, batch_size=64)
    )((jax.tree.map(jnp.asarray, layers), jnp.asarray(group, jnp.int32)))


def population_cost(
    space: MBConvSpace, blocks: BlockCosts, device: Device, *, genomes: jax.Array, indices: jax.Array
) -> Cost:
    """Cost of one run of each of many backbones without exits, each at an operating point of its own.

    Args:
        space: Static.
        blocks: Of `block_costs` for the same space and device.
        device: The cost model.
        genomes: int32[P, G].
        indices: int32[P, 3], clock settings as for `hw_models.operating_point`.

    Returns:
        Costs float32[P].
    """
    count, size = len(genomes), min(_AT_A_TIME, len(genomes))

    def priced(some: tuple[jax.Array, jax.Array]) -> Cost:
        sums = jax.vmap(lambda genome, index: _backbone_sums(space, blocks, genome, index))(*some)
        return _run_cost(sums.T, device, hw_models.operating_point(device, some[1]))

    def in_batches(rows: jax.Array) -> jax.Array:
        whole = jnp.pad(rows, ((0, -count % size), (0, 0)))
        return whole.reshape(-1, size, whole.shape[1])

    # A bounded number at a time keeps what is looked up in the cache.
    found = jax.lax.map(priced, (in_batches(genomes), in_batches(indices)))
    return jax.tree.map(lambda column: column.ravel()[:count], found)


def relaxed_cost(
    space: MBConvSpace, blocks: BlockCosts, device: Device, *, probabilities: jax.Array, indices: jax.Array
) -> Cost:
    """Expected cost of one run of a relaxed backbone without exits at one operating point; batch with `jax.vmap`.

    The correction of a device is that at the expected features, which is exact at one-hot probabilities.

    Args:
        space: Static.
        blocks: Of `block_costs` for the same space and device.
        device: The cost model.
        probabilities: float32[G, C], of each choice of each gene; columns past a gene's last choice are ignored.
        indices: int32[3], clock settings as for `hw_models.operating_point`.

    Returns:
        Costs float32[].

    Raises:
        AssertionError: Probabilities of another shape.
    """
    cores, memories = blocks.roofline.shape[:2]
    core, memory = jnp.clip(indices[0], 0, cores - 1), jnp.clip(indices[1], 0, memories - 1)
    table = jnp.concatenate([blocks.roofline[core, memory], blocks.terms], axis=1)
    sums = _expected_sums(space, table, probabilities)
    return _run_cost(sums, device, hw_models.operating_point(device, indices))


def _backbone_sums(space: MBConvSpace, blocks: BlockCosts, genome: jax.Array, indices: jax.Array) -> jax.Array:
    """What `_run_cost` takes of one backbone, float32[3 + T]."""
    cores, memories, rows, _ = blocks.roofline.shape
    core, memory = jnp.clip(indices[0], 0, cores - 1), jnp.clip(indices[1], 0, memories - 1)
    sums, terms = jnp.zeros(3), jnp.zeros(blocks.terms.shape[1])
    # One flat table and one row after the other: gathers of whole parts are several times slower on the CPU.
    flat, first = blocks.roofline.reshape(-1, 3), (core * memories + memory) * rows
    for part in _parts(space):
        row = jnp.int32(0)
        for gene in part.genes:
            size = int(space.codec.cardinalities[gene])
            row = row * size + jnp.clip(genome[gene], 0, size - 1)
        depths = jnp.asarray(part.depths, jnp.float32)
        times = depths[0] if part.depth_gene is None else depths[genome[part.depth_gene]]
        sums = sums + times * flat[first + part.offset + row]
        terms = terms + times * blocks.terms[part.offset + row]
    return jnp.concatenate([sums, terms])


def _run_cost(sums: jax.Array, device: Device, point: OperatingPoint) -> Cost:
    """Sums [3 + T, ...] of kernel seconds, launch cycles, joules and terms of a correction to costs of runs [...]."""
    latency_s = sums[0] + sums[1] / point.host_hz
    total = Cost(latency_s, hw_models.idle_power(device, point) * latency_s + sums[2])
    terms = None if device.correction is None else CorrectionTerms.of(sums[3:])
    return whole_run(total, device, point, terms)


@functools.lru_cache
def _parts(space: MBConvSpace) -> tuple[_Part, ...]:
    where, names, stages = row_owners(space), space.codec.names, space.stages
    cardinalities = space.codec.cardinalities
    labels = ["stem", *(f"mb{s}" for s in range(1, len(stages) + 1)), "last"]
    parts: list[_Part] = []

    def add(part: int, block: int, choices: list[str], depths: tuple[int, ...] = (1,), depth: str = "") -> None:
        genes = tuple(names.index(name) for name in [*choices, "number_format"] if name in names)
        offset = sum(math.prod(int(cardinalities[gene]) for gene in known.genes) for known in parts)
        layers = np.flatnonzero((where.part == part) & (where.block == block))
        parts.append(_Part(layers, genes, offset, depths, names.index(depth) if depth in names else None))

    add(0, 0, ["resolution", "width.stem"])
    for s, stage in enumerate(stages, start=1):
        own = [f"width.mb{s}", f"kernel.mb{s}", f"expand.mb{s}"]
        add(s, 0, ["resolution", f"width.{labels[s - 1]}", *own])
        if max(stage.depth) > 1:
            add(s, 1, ["resolution", *own], tuple(depth - 1 for depth in stage.depth), f"depth.mb{s}")
    add(len(stages) + 1, 0, ["resolution", f"width.mb{len(stages)}", "width.last"])
    return tuple(parts)


def _expected_sums(space: MBConvSpace, table: jax.Array, probabilities: jax.Array) -> jax.Array:
    """Table [R, ...] -> the expected sum of a backbone's rows [...]."""
    genes, width = len(space.codec.cardinalities), max(space.codec.cardinalities)
    chex.assert_shape(probabilities, (genes, None), custom_message="probabilities")
    chex.assert_axis_dimension_gteq(probabilities, 1, width, custom_message="probabilities")
    layout = _layout(space)
    # The gene past the last one has a single choice.
    certain = jnp.zeros((1, width)).at[0, 0].set(1.0)
    padded = jnp.concatenate([probabilities[:, :width], certain])
    parts, slots = layout.genes.shape
    share = jnp.sum(padded[layout.depth_genes] * layout.depths, axis=1, keepdims=True)
    for slot in range(slots):
        choices = padded[layout.genes[:, slot], : layout.sizes[slot]]
        share = (share[:, :, None] * choices[:, None, :]).reshape(parts, -1)
    return jnp.tensordot(share.ravel(), table[layout.rows.ravel()], axes=1)


class _Layout(NamedTuple):
    """The table with as many rows for every part, one for each combination of choices in its slots of genes.

    Attributes:
        rows: int[parts, product of sizes], in the table; what lies past a gene's last choice repeats that.
        sizes: Choices of each slot.
        genes: int[parts, slots], which gene stands in each slot; G for none.
        depth_genes: int[parts], the gene that says how often the part runs; G for none.
        depths: float32[parts, C], how often, by its choice.
    """

    rows: np.ndarray
    sizes: tuple[int, ...]
    genes: np.ndarray
    depth_genes: np.ndarray
    depths: np.ndarray


@functools.lru_cache
def _layout(space: MBConvSpace) -> _Layout:
    parts, none = _parts(space), len(space.codec.cardinalities)
    cardinalities = np.append(space.codec.cardinalities, 1)
    slots, width = max(len(part.genes) for part in parts), cardinalities.max()
    genes = np.array([part.genes + (none,) * (slots - len(part.genes)) for part in parts])
    sizes = cardinalities[genes]
    choices = np.indices(sizes.max(axis=0))
    rows = []
    for part, size in zip(parts, sizes, strict=True):
        present = np.minimum(choices, (size - 1).reshape(-1, *[1] * slots))
        rows.append(part.offset + np.ravel_multi_index(tuple(present), tuple(size)))
    return _Layout(
        rows=np.stack(rows).reshape(len(parts), -1),
        sizes=choices.shape[1:],
        genes=genes,
        depth_genes=np.array([none if part.depth_gene is None else part.depth_gene for part in parts]),
        depths=np.stack([np.pad(part.depths, (0, width - len(part.depths))) for part in parts]).astype(np.float32),
    )
