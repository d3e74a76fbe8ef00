"""Liveness in a directed acyclic graph whose edges are operations, as the cells of NAS benchmarks.

Shapes: E edges. Functions take one graph; batch them with `jax.vmap`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Liveness(NamedTuple):
    """What each edge is good for.

    Attributes:
        fed: bool[E], the edge is there and its source gets something from the input.
        used: bool[E], the edge is there and its target reaches the output.
    """

    fed: jax.Array
    used: jax.Array

    @property
    def live(self) -> jax.Array:
        """Edges on a path from the input to the output, bool[E]."""
        return self.fed & self.used


def liveness(present: jax.Array, edges: Sequence[tuple[int, int]]) -> Liveness:
    """Finds the edges on paths from the first to the last node.

    Args:
        present: bool[E], whether each edge carries anything.
        edges: Source and target node of each edge; a source is smaller than its target, node 0 is the input
            and the largest target the output.

    Returns:
        Liveness of each edge.

    Raises:
        ValueError: There is no edge, `present` has another length, or an edge does not lead to a larger node.
    """
    if not edges or jnp.shape(present) != (len(edges),):
        raise ValueError(f"present: expected shape ({len(edges)},) with at least one edge, got {jnp.shape(present)}")
    for source, target in edges:
        if not 0 <= source < target:
            raise ValueError(f"edges: expected a source smaller than its target, got {source} to {target}")
    last = max(target for _, target in edges)
    nothing = jnp.zeros((), bool)
    reached = {node: nothing for node in range(last + 1)} | {0: jnp.ones((), bool)}
    for i in sorted(range(len(edges)), key=lambda i: edges[i][1]):
        source, target = edges[i]
        reached[target] = reached[target] | (reached[source] & present[i])
    reaches = {node: nothing for node in range(last + 1)} | {last: jnp.ones((), bool)}
    for i in sorted(range(len(edges)), key=lambda i: -edges[i][0]):
        source, target = edges[i]
        reaches[source] = reaches[source] | (reaches[target] & present[i])
    return Liveness(
        fed=jnp.stack([present[i] & reached[source] for i, (source, _) in enumerate(edges)]),
        used=jnp.stack([present[i] & reaches[target] for i, (_, target) in enumerate(edges)]),
    )
