"""Relaxations of the DARTS space: from architecture parameters to distributions over the operations of each edge.

The search network adds up operations by `softmax_shares` (Liu et al., "DARTS", 2018, https://arxiv.org/abs/1806.09055)
or by `gumbel_shares`, a sample that approaches one operation per edge as the temperature falls (Jang et al., 2016,
https://arxiv.org/abs/1611.01144). Hardware runs neither of them but the network that `derive_code` makes of alpha, two
edges to a node; `relaxed_code` is the smooth form of that rule, and what cost models are given.
Shapes: 28 edges, those of the normal cell first, 8 operations; n edges to a node.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from hadas_jax.spaces.darts import OPERATIONS, check_alpha, edges_of_nodes, strongest_edges


def softmax_shares(alpha: jax.Array) -> jax.Array:
    """Returns softmax(alpha) over operations, float32[28, 8]; raises `ValueError` for another shape."""
    check_alpha(alpha)
    return jax.nn.softmax(alpha, axis=-1)


def gumbel_shares(key: jax.Array, alpha: jax.Array, temperature: ArrayLike) -> jax.Array:
    """Draws a relaxed choice of one operation for each edge, by Gumbel-softmax.

    Args:
        key: Random key.
        alpha: float32[28, 8].
        temperature: float32[], above 0; near 0 the sample is nearly one-hot.

    Returns:
        float32[28, 8], rows that sum to 1; differentiable in alpha.

    Raises:
        ValueError: `alpha` has another shape.
    """
    check_alpha(alpha)
    noise = jax.random.gumbel(key, alpha.shape, alpha.dtype)
    return jax.nn.softmax((alpha + noise) / jnp.asarray(temperature, alpha.dtype), axis=-1)


def relaxed_code(alpha: jax.Array, temperature: ArrayLike = 1.0) -> jax.Array:
    """Returns the distribution over codes that `derive_code` is the limit of.

    An edge is as strong as its likeliest operation other than `none`, as in `derive_code`. Each node draws two of its
    edges without replacement, in proportion to strength^(1 / temperature), and each edge drawn has an operation other
    than `none` by softmax(alpha / temperature). So two edges lead to every node in expectation, as in every network,
    and an alpha that is far on the side of one network gives that network.

    Args:
        alpha: float32[28, 8].
        temperature: float32[], above 0; towards 0 the result approaches the derived code.

    Returns:
        float32[28, 8], rows that sum to 1, the share of `none` being that of the edge left out.

    Raises:
        ValueError: `alpha` has another shape.
    """
    check_alpha(alpha)
    temperature = jnp.asarray(temperature, alpha.dtype)
    strength = jnp.max(jax.nn.log_softmax(alpha, axis=-1)[:, 1:], axis=-1) / temperature
    shares = jnp.concatenate([_inclusion(edges) for edges in edges_of_nodes(strength)])[:, None]
    operations = jax.nn.softmax(alpha[:, 1:] / temperature, axis=-1)
    return jnp.concatenate([1.0 - shares, shares * operations], axis=-1)


def sampled_codes(key: jax.Array, alpha: jax.Array, count: int) -> jax.Array:
    """Draws networks as `relaxed_code` has them, with its gradient (straight-through, Bengio et al., 2013).

    A cost model that is not linear, and knows networks alone, is asked about networks: the mean of its answers is the
    expected cost. Its answer for the mean of all networks is another figure, which may not depend on alpha at all.

    Args:
        key: Random key.
        alpha: float32[28, 8].
        count: N.

    Returns:
        float32[N, 28, 8], one-hot; the derivative of each by alpha is that of `relaxed_code`.

    Raises:
        ValueError: `alpha` has another shape.
    """
    soft = relaxed_code(alpha)
    fixed = jax.lax.stop_gradient(alpha)

    def draw(key: jax.Array) -> jax.Array:
        edge_key, operation_key = jax.random.split(key)
        strength = jnp.max(jax.nn.log_softmax(fixed, axis=-1)[:, 1:], axis=-1)
        # The two largest of a node, with Gumbel noise, are a draw without replacement.
        strength = strength + jax.random.gumbel(edge_key, strength.shape, alpha.dtype)
        digits = 1 + jax.random.categorical(operation_key, fixed[:, 1:], axis=-1)
        return jax.nn.one_hot(jnp.where(strongest_edges(strength), digits, 0), len(OPERATIONS), dtype=alpha.dtype)

    hard = jax.vmap(draw)(jax.random.split(key, count))
    return hard + (soft - jax.lax.stop_gradient(soft))[None]


def _inclusion(log_weights: jax.Array) -> jax.Array:
    """Probability of each edge to be one of two drawn without replacement, [n] -> [n], n >= 2; sums to 2.

    All in logarithms, so that weights that are next to nothing beside others still decide who is second.
    """
    edges = len(log_weights)
    others = jnp.where(jnp.eye(edges, dtype=bool), -jnp.inf, 0.0)
    log_first = jax.nn.log_softmax(log_weights)
    # [f, e]: e is drawn second where f was drawn first.
    log_second = log_weights[None, :] + others
    log_second = log_second - jax.scipy.special.logsumexp(log_second, axis=1, keepdims=True)
    return jnp.exp(log_first) + jnp.exp(jax.scipy.special.logsumexp(log_first[:, None] + log_second, axis=0))
