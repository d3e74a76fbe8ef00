"""Expected cost of relaxed backbones: what a distribution over genomes costs on average, as smooth arithmetic.

Genes are independent, each with a probability for each of its choices. The cost of a backbone is a sum over parts
(see `hadas_jax.spaces.block_costs`) of a row of a table, picked by a few genes, times how often the part runs, picked
by the gene of the depth, which is none of those. So the expectation is exact: every part's table contracted with the
probabilities of its genes, times the expected number of runs. At one-hot probabilities it is the backbone's cost.
Differentiable search by expected latency: Cai et al., "ProxylessNAS", 2019, https://arxiv.org/abs/1812.00332.
Shapes: G genes, C choices of the longest gene; R rows of the table; Nc, Nm, Nh settings of the core, memory and host
clock.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.spaces.block_costs import _parts
from hadas_jax.spaces.mbconv import MBConvSpace
from hw_models import Cost, Device, OperatingPoint, idle_power, operating_point, run_energy, run_latency


class ClockProbabilities(NamedTuple):
    """How likely each setting of each clock is; clocks are independent, each sums to 1.

    Attributes:
      core: float32[Nc].
      memory: float32[Nm].
      host: float32[Nh].
    """

    core: jax.Array
    memory: jax.Array
    host: jax.Array


def relaxed_cost(
    space: MBConvSpace, blocks: jax.Array, device: Device, *, probabilities: jax.Array, indices: jax.Array
) -> Cost:
    """Expected cost of one run of a relaxed backbone without exits at one operating point; batch with `jax.vmap`.

    Args:
      space: static.
      blocks: of `block_costs` for the same space and device.
      device: the cost model.
      probabilities: float32[G, C], of each choice of each gene; columns past a gene's last choice are ignored.
      indices: int32[3], clock settings as for `hw_models.operating_point`.

    Returns:
      Costs float32[].

    Raises:
      ValueError: probabilities of another shape.
    """
    cores, memories = blocks.shape[:2]
    core, memory = jnp.clip(indices[0], 0, cores - 1), jnp.clip(indices[1], 0, memories - 1)
    sums = _expected_sums(space, blocks[core, memory], probabilities)
    return _assemble(sums, device, operating_point(device, indices))


def relaxed_cost_over_clocks(
    space: MBConvSpace,
    blocks: jax.Array,
    device: Device,
    *,
    probabilities: jax.Array,
    clocks: ClockProbabilities,
) -> Cost:
    """Expected cost of a relaxed backbone at relaxed clocks, independent of the genes; batch with `jax.vmap`.

    Every operating point is costed and weighed, so the expectation is exact although power and time multiply.

    Args:
      space: static.
      blocks: as `relaxed_cost`.
      device: the cost model.
      probabilities: float32[G, C].
      clocks: of the device's settings.

    Returns:
      Costs float32[].

    Raises:
      ValueError: probabilities of another shape.
    """
    sums = _expected_sums(space, jnp.moveaxis(blocks, 2, 0), probabilities)
    point = OperatingPoint(
        device.core_hz[:, None, None], device.memory_hz[None, :, None], device.host_hz[None, None, :]
    )
    cost = _assemble(sums[:, :, None], device, point)
    return jax.tree.map(lambda leaf: jnp.einsum("cmh,c,m,h->", leaf, *clocks), cost)


def _assemble(sums: jax.Array, device: Device, point: OperatingPoint) -> Cost:
    """Sums [..., 3] of kernel seconds, launch cycles and joules to the cost of a run, as `backbone_cost` does."""
    latency_s = sums[..., 0] + sums[..., 1] / point.host_hz
    return Cost(
        latency_s=latency_s + run_latency(device, point),
        energy_j=idle_power(device, point) * latency_s + sums[..., 2] + run_energy(device, point),
    )


def _expected_sums(space: MBConvSpace, table: jax.Array, probabilities: jax.Array) -> jax.Array:
    """Table [R, ...] -> the expected sum of a backbone's rows [...]."""
    genes, width = len(space.codec.cardinalities), max(space.codec.cardinalities)
    if probabilities.ndim != 2 or probabilities.shape[0] != genes or probabilities.shape[1] < width:
        raise ValueError(f"probabilities: expected [{genes}, {width}] or wider, got {probabilities.shape}")
    layout = _layout(space)
    # The gene past the last one has a single choice.
    certain = jnp.zeros((1, width)).at[0, 0].set(1.0)
    known = jnp.concatenate([probabilities[:, :width], certain])
    parts, slots = layout.genes.shape
    share = jnp.sum(known[layout.depth_genes] * layout.depths, axis=1, keepdims=True)
    for slot in range(slots):
        choices = known[layout.genes[:, slot], : layout.sizes[slot]]
        share = (share[:, :, None] * choices[:, None, :]).reshape(parts, -1)
    return jnp.tensordot(share.ravel(), table[layout.rows.ravel()], axes=1)


class _Layout(NamedTuple):
    """The table with as many rows for every part, one for each combination of choices in its slots of genes.

    Attributes:
      rows: int[parts, product of sizes], in the table; what lies past a gene's last choice repeats that.
      sizes: choices of each slot.
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
