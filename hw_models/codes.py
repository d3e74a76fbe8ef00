"""Codes: networks that have one of several operations on each of several edges, and how often they have it.

Cell-based spaces such as DARTS (https://arxiv.org/abs/1806.09055) write a network as one digit for each edge. Edges of
one group ask the hardware for the same, so hardware sees no more of a code than how many edges of each group have each
operation.
Shapes: E edges, O operations, G groups. Functions take one architecture; batch them with `jax.vmap`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class CodeLayout:
    """What the digits of a code stand for.

    Attributes:
        groups: int[E], the group of each edge, counted from 0.
        operations: O; digit 0 is the operation that costs nothing, the edge being absent.
    """

    groups: tuple[int, ...]
    operations: int

    @property
    def counts_shape(self) -> tuple[int, int]:
        """Shape [G, O] of `operation_counts`."""
        return max(self.groups) + 1, self.operations

    def operation_counts(self, architecture: jax.Array) -> jax.Array:
        """Counts the edges of each group with each operation.

        Args:
            architecture: int[E], a code, or float[E, O], a distribution over operations for each edge.

        Returns:
            float32[G, O]; differentiable in a distribution.

        Raises:
            ValueError: The array is neither.
        """
        architecture = jnp.asarray(architecture)
        edges, (groups, operations) = len(self.groups), self.counts_shape
        is_code = jnp.issubdtype(architecture.dtype, jnp.integer)
        if architecture.shape != ((edges,) if is_code else (edges, operations)):
            raise ValueError(
                f"architecture: expected int[{edges}] or float[{edges}, {operations}], got shape {architecture.shape}"
            )
        shares = jax.nn.one_hot(architecture, operations, dtype=jnp.float32) if is_code else architecture
        members = jnp.asarray(np.array(self.groups)[None] == np.arange(groups)[:, None], jnp.float32)
        # Sums of small whole numbers, which no rounding touches; a matrix product may round its inputs.
        return jnp.sum(members[:, :, None] * shares[None], axis=1)
