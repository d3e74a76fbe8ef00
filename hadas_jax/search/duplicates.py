"""Finding repeated genomes exactly, by sorting them.

Shapes: P genomes, G genes; gene g takes the values 0 .. cardinalities[g] - 1.
"""

from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp

from hadas_jax.search._checks import check_shape

_RANGE = 2**32


def pack_genome(genome: jax.Array, cardinalities: Sequence[int]) -> tuple[jax.Array, ...]:
    """Writes genomes as mixed-radix numbers, as many genes to a 32-bit word as fit.

    Args:
        genome: int32[..., G], every gene within its cardinality.
        cardinalities: G values, static.

    Returns:
        words uint32[...]: two genomes have equal words exactly if they are equal.

    Raises:
        ValueError: if the last axis has another length than cardinalities.
    """
    check_shape("genome", genome, (*genome.shape[:-1], len(cardinalities)))
    words: list[jax.Array] = []
    room = 0
    for gene, cardinality in enumerate(cardinalities):
        value = genome[..., gene].astype(jnp.uint32)
        if room * cardinality > _RANGE or not words:
            words.append(value)
            room = cardinality
        else:
            words[-1] = words[-1] * jnp.uint32(cardinality) + value
            room *= cardinality
    return tuple(words)


def first_occurrences(genomes: jax.Array, cardinalities: Sequence[int]) -> jax.Array:
    """Marks every genome that no earlier row equals.

    Args:
        genomes: int32[P, G], every gene within its cardinality.
        cardinalities: G values, static.

    Returns:
        bool[P].

    Raises:
        ValueError: if G does not fit.
    """
    words = pack_genome(genomes, cardinalities)
    place = jnp.arange(genomes.shape[0], dtype=jnp.int32)
    *ordered, origin = jax.lax.sort((*words, place), num_keys=len(words), is_stable=True)
    return jnp.zeros(place.shape, bool).at[origin].set(changes(ordered), unique_indices=True)


def first_live(genomes: jax.Array, *, live: jax.Array) -> jax.Array:
    """Marks every live genome that no earlier live row equals, for genes of any range.

    Rows are sorted by one gene after the other, from the last to the first: G sorts of one key, which compile as
    one.

    Args:
        genomes: int32[P, G].
        live: bool[P], which rows count at all.

    Returns:
        bool[P].

    Raises:
        ValueError: if live is not of shape [P].
    """
    check_shape("live", live, genomes.shape[:1])

    def by(order: jax.Array, column: jax.Array) -> tuple[jax.Array, None]:
        return jax.lax.sort((column[order], order), num_keys=1, is_stable=True)[1], None

    place = jnp.arange(genomes.shape[0], dtype=jnp.int32)
    columns = jnp.concatenate([genomes.T, (~live)[None, :].astype(jnp.int32)])
    order, _ = jax.lax.scan(by, place, columns, reverse=True)
    fresh = changes(tuple(genomes[order].T))
    return live & jnp.zeros(place.shape, bool).at[order].set(fresh, unique_indices=True)


def changes(columns: Sequence[jax.Array]) -> jax.Array:
    """Marks the rows of a sorted table that differ from the row before.

    Args:
        columns: [P] each.

    Returns:
        bool[P]: True for the first row.
    """
    fresh = reduce(jnp.logical_or, [column != jnp.roll(column, 1) for column in columns])
    return fresh | (jnp.arange(fresh.shape[0]) == 0)
