"""Integer genomes and the values that they stand for.

A space is a list of genes; gene g takes one of `choices[g]`, and a genome holds the index of each choice.
Shapes: G genes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Codec:
    """Translates between genomes (indices) and values.

    Attributes:
      names: one name per gene, e.g. `"width.mb1"`.
      choices: per gene, the values that it may take, at least one.
    """

    names: tuple[str, ...]
    choices: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.choices):
            raise ValueError(f"expected one name per gene, got {len(self.names)} and {len(self.choices)}")
        for name, options in zip(self.names, self.choices, strict=True):
            if not options or len(set(options)) != len(options):
                raise ValueError(f"gene {name}: expected one or more different choices, got {options}")

    @cached_property
    def cardinalities(self) -> np.ndarray:
        """Number of choices of each gene, int32[G]."""
        return np.array([len(options) for options in self.choices], np.int32)

    @cached_property
    def _table(self) -> np.ndarray:
        """Values padded to the longest gene by repeating the last one, int32[G, max choices]."""
        longest = max(self.cardinalities, default=1)
        rows = [options + options[-1:] * (longest - len(options)) for options in self.choices]
        return np.array(rows, np.int32).reshape(len(rows), longest)

    @property
    def count(self) -> int:
        """Number of genomes, exact."""
        return math.prod(int(c) for c in self.cardinalities)

    def decode(self, genome: jax.Array) -> jax.Array:
        """Returns the values int32[G] of a genome int32[G]; indices past the end read the last choice."""
        table = jnp.asarray(self._table)
        return jnp.take_along_axis(table, genome[:, None], axis=1, mode="clip")[:, 0]

    def encode(self, values: Sequence[int]) -> np.ndarray:
        """Returns the genome int32[G] of concrete values [G].

        Raises:
          ValueError: a value is none of its gene's choices, or there are too few or too many values.
        """
        if len(values) != len(self.choices):
            raise ValueError(f"expected {len(self.choices)} values, one per gene, got {len(values)}")
        genome = np.zeros(len(values), np.int32)
        for g, (name, options, value) in enumerate(zip(self.names, self.choices, values, strict=True)):
            if int(value) not in options:
                raise ValueError(f"gene {name}: expected one of {options}, got {int(value)}")
            genome[g] = options.index(int(value))
        return genome
