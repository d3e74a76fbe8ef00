"""Finding repeated genomes exactly, by sorting them packed into a few words.

Shapes: P genomes, G genes; gene g takes the values 0 .. cardinalities[g] - 1.
"""

from collections.abc import Sequence

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
    fresh = jnp.zeros(place.shape, bool).at[0].set(True)
    for word in ordered:
        fresh = fresh.at[1:].set(fresh[1:] | (word[1:] != word[:-1]))
    return jnp.zeros(place.shape, bool).at[origin].set(fresh)
