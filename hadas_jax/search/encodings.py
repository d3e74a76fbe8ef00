"""Integer genomes as points of a continuous space, for strategies that know no integers.

Random keys: Bean, "Genetic algorithms and random keys for sequencing and optimization", 1994,
https://doi.org/10.1287/ijoc.6.2.154. Every function handles one genome; batch with `jax.vmap`.
Shapes: G genes, D coordinates; gene g takes the values 0 .. cardinalities[g] - 1.
"""

import dataclasses
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np


class Encoding(Protocol):
    """What `Scalarised` asks of an encoding; instances of equal cardinalities are equal."""

    @property
    def size(self) -> int:
        """D, the number of coordinates."""

    @property
    def step(self) -> float:
        """The standard deviation of a search's first steps."""

    def encode(self, genome: jax.Array) -> jax.Array:
        """int32[G] -> float32[D] that decodes to it."""

    def decode(self, point: jax.Array) -> jax.Array:
        """float32[D], any values -> int32[G], every gene within its cardinality."""

    def fold(self, point: jax.Array) -> jax.Array:
        """float32[D] -> float32[D] within the encoding's bounds that decodes to the same genome."""


@dataclasses.dataclass(frozen=True)
class RandomKeys:
    """One coordinate per gene: its value is the bin of [0, 1) that the key lies in, after mirroring at both ends.

    Suits genes whose values have an order. Mirroring leaves no plateau outside the bounds.

    Attributes:
        cardinalities: of the G genes, each at most 2^20, so that float32 keys reach every value.
    """

    cardinalities: tuple[int, ...]

    def __post_init__(self) -> None:
        if max(self.cardinalities) > 2**20:
            raise ValueError(f"cardinalities: expected at most 2^20 for random keys, got {max(self.cardinalities)}")

    @property
    def size(self) -> int:
        """D = G."""
        return len(self.cardinalities)

    @property
    def step(self) -> float:
        """A fifth of the range."""
        return 0.2

    def encode(self, genome: jax.Array) -> jax.Array:
        """int32[G] -> float32[G], the middle of each gene's bin."""
        return (genome.astype(jnp.float32) + 0.5) / jnp.asarray(self.cardinalities, jnp.float32)

    def decode(self, point: jax.Array) -> jax.Array:
        """float32[G] -> int32[G]."""
        bins = jnp.floor(self.fold(point) * jnp.asarray(self.cardinalities, jnp.float32))
        return jnp.minimum(bins.astype(jnp.int32), jnp.asarray(self.cardinalities, jnp.int32) - 1)

    def fold(self, point: jax.Array) -> jax.Array:
        """float32[G] -> float32[G] in [0, 1]: mirrored at whole numbers; what is not finite becomes 0.5."""
        known = jnp.where(jnp.isfinite(point), point, 0.5)
        return 1 - jnp.abs(1 - jnp.mod(known, 2.0))


@dataclasses.dataclass(frozen=True)
class Logits:
    """One coordinate per value: a gene's value is the index of the greatest of its block.

    Suits genes whose values have no order; D is the sum of the cardinalities.

    Attributes:
        cardinalities: of the G genes.
    """

    cardinalities: tuple[int, ...]

    @property
    def size(self) -> int:
        """D."""
        return sum(self.cardinalities)

    @property
    def step(self) -> float:
        """Half the height of an encoded value above the rest."""
        return 0.5

    def encode(self, genome: jax.Array) -> jax.Array:
        """int32[G] -> float32[D]: 1 at each gene's value, 0 elsewhere."""
        starts, _, _ = self._blocks()
        return jnp.zeros(self.size, jnp.float32).at[genome + jnp.asarray(starts, jnp.int32)].set(1)

    def decode(self, point: jax.Array) -> jax.Array:
        """float32[D] -> int32[G]."""
        _, places, real = self._blocks()
        values = jnp.where(jnp.asarray(real), point[places], -jnp.inf)
        return jnp.argmax(values, axis=1).astype(jnp.int32)

    def fold(self, point: jax.Array) -> jax.Array:
        """float32[D] -> the same: there are no bounds."""
        return point

    def _blocks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where each block starts [G], the coordinate of each value [G, most], which of those are values."""
        sizes = np.asarray(self.cardinalities)
        starts = np.cumsum(sizes) - sizes
        offsets = np.arange(sizes.max())[None]
        real = offsets < sizes[:, None]
        return starts, np.where(real, starts[:, None] + offsets, 0), real


ENCODINGS: dict[str, type[RandomKeys] | type[Logits]] = {"random_keys": RandomKeys, "logits": Logits}
"""Encodings by name."""
