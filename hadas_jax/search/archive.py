"""An archive of fixed capacity: the non-dominated genomes of all that were ever inserted.

Where more are non-dominated than fit, the most crowded go, as in Deb et al., "A fast and elitist multiobjective
genetic algorithm: NSGA-II", 2002, https://doi.org/10.1109/4235.996017.
Shapes: N capacity, B genomes inserted at once, M objectives (minimised), G genes.
"""

import jax
import jax.numpy as jnp
from flax import struct

from hadas_jax.search._checks import check_matrix, check_shape
from hadas_jax.search.duplicates import first_live
from hadas_jax.search.pareto import crowding_distance, non_dominated_ranks, truncate


@struct.dataclass
class Archive:
    """Members come first, the least crowded first.

    Attributes:
        genomes: int32[N, G]; -1 where not valid.
        fitness: float32[N, M]; +inf where not valid.
        violation: float32[N], by how much each member breaks its constraints; +inf where not valid.
        valid: bool[N].
    """

    genomes: jax.Array
    fitness: jax.Array
    violation: jax.Array
    valid: jax.Array


def empty_archive(capacity: int, genes: int, objectives: int) -> Archive:
    """An archive without members.

    Args:
        capacity: N.
        genes: G.
        objectives: M.

    Returns:
        The archive.

    Raises:
        ValueError: if any of them is below 1.
    """
    for name, value in (("capacity", capacity), ("genes", genes), ("objectives", objectives)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    return Archive(
        genomes=jnp.full((capacity, genes), -1, jnp.int32),
        fitness=jnp.full((capacity, objectives), jnp.inf, jnp.float32),
        violation=jnp.full(capacity, jnp.inf, jnp.float32),
        valid=jnp.zeros(capacity, bool),
    )


@jax.jit
def insert(archive: Archive, genomes: jax.Array, fitness: jax.Array, *, violation: jax.Array | None = None) -> Archive:
    """Adds genomes and keeps the non-dominated ones.

    A genome that is a member already, or stands earlier among the new ones, is not looked at again. Rows with a NaN
    never enter. Until something feasible comes, the members are those that break their constraints least. Where
    more than N are left, those of the greatest crowding distance stay; that of the ends of each objective is
    infinite, so that they stay if N is at least 2 M.

    Args:
        archive: of capacity N.
        genomes: int32[B, G].
        fitness: float32[B, M].
        violation: float32[B], at least 0, by how much each genome breaks its constraints; None: by nothing.

    Returns:
        The archive after that: the non-dominated ones of its members and the new genomes.

    Raises:
        ValueError: for a wrong shape or dtype of genomes, fitness or violation.
    """
    B = genomes.shape[0]
    check_matrix("fitness", fitness, columns=archive.fitness.shape[1])
    check_shape("genomes", genomes, (fitness.shape[0], archive.genomes.shape[1]))
    if genomes.dtype != jnp.int32:
        raise ValueError(f"genomes: expected int32, got {genomes.dtype}")
    broken = jnp.zeros(B, jnp.float32) if violation is None else violation.astype(jnp.float32)
    check_shape("violation", broken, (B,))
    values = fitness.astype(jnp.float32)
    new = Archive(genomes, values, broken, ~(jnp.any(jnp.isnan(values), axis=1) | jnp.isnan(broken)))
    merged = jax.tree.map(lambda old, new: jnp.concatenate([old, new]), archive, new)
    unique = first_live(merged.genomes, live=merged.valid)
    ranks = non_dominated_ranks(merged.fitness, violation=merged.violation, valid=unique)
    kept = truncate(ranks, crowding_distance(merged.fitness, ranks), size=archive.valid.shape[0])
    member = ranks[kept] == 0
    chosen = jax.tree.map(lambda leaf: leaf[kept], merged)
    return Archive(
        genomes=jnp.where(member[:, None], chosen.genomes, -1),
        fitness=jnp.where(member[:, None], chosen.fitness, jnp.inf),
        violation=jnp.where(member, chosen.violation, jnp.inf),
        valid=member,
    )
