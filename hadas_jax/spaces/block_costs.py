"""Cost of backbones by table: each part of a network is costed once for all choices that bear on it.

The cost of a stem, of a stage's first block, of its further blocks and of the classifier depends on a handful of
genes. All their combinations are a thousand rows, exact at every setting of the clocks; a backbone is then a sum
over 2 S + 2 rows at most, whatever its depth.
Shapes: G genes, S stages, R rows of the table, P backbones; Nc, Nm settings of the core and memory clock.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.spaces.mbconv import MBConvSpace
from hadas_jax.spaces.workload import places, workload
from hw_models import (
    Cost,
    Device,
    LayerTable,
    clock_grid,
    idle_power,
    operating_point,
    run_energy,
    run_latency,
    sum_layers,
)
from hw_models.clock_grid import load_and_traffic_energy

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
def block_layers(space: MBConvSpace) -> LayerTable:
    """Returns the layers of each row of the table, numpy columns [R, most layers of a part].

    Call it outside `jit`: the table does not depend on traced values.
    """
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
    longest = max(len(part.layers) for part in parts)
    picked = np.stack([np.pad(rows, (0, longest - len(rows))) for rows in owned])
    columns = jax.tree.map(lambda column: np.take_along_axis(np.asarray(column), picked, axis=1), layers)
    is_own = np.arange(longest) < np.array([len(rows) for rows in owned])[:, None]
    return dataclasses.replace(columns, active=columns.active * is_own)


def block_costs(layers: LayerTable, device: Device) -> jax.Array:
    """Costs every row of the table at every core and memory setting; without exit heads.

    Args:
      layers: of `block_layers`.
      device: the cost model; the result holds for its clock settings and default number format.

    Returns:
      float32[Nc, Nm, R, 3]: seconds that kernels run, host cycles to launch them, and joules of core load and
      traffic. Rows of one setting lie side by side, as a backbone reads them.
    """
    grid = jax.vmap(lambda part: sum_layers(clock_grid(part, device)))(layers)
    load_and_traffic = jax.vmap(lambda part: load_and_traffic_energy(part, device))(grid)
    launches = jnp.broadcast_to(grid.launch_cycles[:, None, None], grid.roofline_s.shape)
    return jnp.moveaxis(jnp.stack([grid.roofline_s, launches, load_and_traffic], axis=-1), 0, 2)


def backbone_cost(
    space: MBConvSpace, blocks: jax.Array, device: Device, *, genome: jax.Array, indices: jax.Array
) -> Cost:
    """Cost of one run of a backbone without exits at one operating point; see `population_cost` for many.

    Args:
      space: static.
      blocks: of `block_costs` for the same space and device.
      device: the cost model.
      genome: int32[G].
      indices: int32[3], clock settings as for `hw_models.operating_point`.

    Returns:
      Costs float32[].
    """
    cores, memories, rows, _ = blocks.shape
    core, memory = jnp.clip(indices[0], 0, cores - 1), jnp.clip(indices[1], 0, memories - 1)
    sums = jnp.zeros(3)
    # One flat table and one row after the other: gathers of whole parts are several times slower on the CPU.
    flat, first = blocks.reshape(-1, 3), (core * memories + memory) * rows
    for part in _parts(space):
        sums = sums + _times(part, genome) * flat[first + _row(space, part, genome)]
    point = operating_point(device, indices)
    latency_s = sums[0] + sums[1] / point.host_hz
    return Cost(
        latency_s=latency_s + run_latency(device, point),
        energy_j=idle_power(device, point) * latency_s + sums[2] + run_energy(device, point),
    )


def population_cost(
    space: MBConvSpace, blocks: jax.Array, device: Device, *, genomes: jax.Array, indices: jax.Array
) -> Cost:
    """Cost of many backbones, each at an operating point of its own.

    Args:
      space: static.
      blocks: as `backbone_cost`.
      device: the cost model.
      genomes: int32[P, G].
      indices: int32[P, 3].

    Returns:
      Costs float32[P].
    """
    # A bounded number at a time keeps what is looked up in the cache.
    return jax.lax.map(
        lambda pair: backbone_cost(space, blocks, device, genome=pair[0], indices=pair[1]),
        (genomes, indices),
        batch_size=_AT_A_TIME,
    )


def _row(space: MBConvSpace, part: _Part, genome: jax.Array) -> jax.Array:
    row = jnp.int32(0)
    for gene in part.genes:
        size = int(space.codec.cardinalities[gene])
        row = row * size + jnp.clip(genome[gene], 0, size - 1)
    return part.offset + row


def _times(part: _Part, genome: jax.Array) -> jax.Array:
    depths = jnp.asarray(part.depths, jnp.float32)
    return depths[0] if part.depth_gene is None else depths[genome[part.depth_gene]]


@functools.lru_cache
def _parts(space: MBConvSpace) -> tuple[_Part, ...]:
    where, names, stages = places(space), space.codec.names, space.stages
    labels = ["stem", *(f"mb{s}" for s in range(1, len(stages) + 1)), "last"]
    parts: list[_Part] = []

    def add(part: int, block: int, choices: list[str], depths: tuple[int, ...] = (1,), depth: str = "") -> None:
        genes = tuple(names.index(name) for name in choices if name in names)
        offset = parts[-1].offset + _size(space, parts[-1]) if parts else 0
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


def _size(space: MBConvSpace, part: _Part) -> int:
    return math.prod(int(space.codec.cardinalities[gene]) for gene in part.genes)
