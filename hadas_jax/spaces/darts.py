"""The DARTS space: codes of two cells, and relaxations of them from architecture parameters.

A code has 28 digits: an operation (1 to 7, see `OPERATIONS`) for each of the 14 edges of the normal cell and then of
the reduce cell, 0 where the edge is absent. Edges are in the order of the nodes they lead to, 2, 3, 4 and 5 of them;
two edges lead to every node. Liu et al., "DARTS: Differentiable Architecture Search", 2018,
https://arxiv.org/abs/1806.09055.

The search network adds up operations by the softmax of alpha (DARTS) or by `gumbel_shares`, a sample that approaches
one operation per edge as the temperature falls (Jang et al., 2016, https://arxiv.org/abs/1611.01144). Hardware runs
neither of them but the network that `derive_code` makes of alpha, two edges to a node; `relaxed_code` is the smooth
form of that rule, and what cost models are given.
Shapes: N codes, 28 edges, 8 operations; n edges to a node.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from hw_models.codes import CodeLayout

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""Operations by digit."""
NODES = 4
EDGE_INPUT = np.array([j for node in range(NODES) for j in range(2 + node)], np.int32)
"""int32[14], where each edge starts: 0 and 1 are the inputs of the cell, 2 + i is node i."""
EDGE_NODE = np.array([node for node in range(NODES) for _ in range(2 + node)], np.int32)
"""int32[14], the node that each edge leads to."""
EDGES = len(EDGE_INPUT)
DARTS_CODES = CodeLayout(groups=(*[0] * EDGES, *(1 if start < 2 else 2 for start in EDGE_INPUT)), operations=8)
"""Layout of codes: edges of a normal cell cost alike, of a reduce cell those of stride 2 (at its inputs) and others."""
CELLS = ("normal", "reduce")
_INPUTS_PER_NODE = 2
_ALL_OPERATIONS = tuple(range(1, len(OPERATIONS)))
# First edge of each node, and the number of edges in all.
_STARTS = np.searchsorted(EDGE_NODE, np.arange(NODES + 1))


def is_valid(codes: jax.Array) -> jax.Array:
    """Tells networks from other codes, int[..., 28] -> bool[...].

    Raises:
        ValueError: `codes` has another shape or is not of whole numbers.
    """
    _check_shape(codes)
    in_range = jnp.all((codes >= 0) & (codes < len(OPERATIONS)), axis=-1)
    cells = (codes != 0).reshape(*codes.shape[:-1], len(CELLS), EDGES)
    nodes = [jnp.sum(cells[..., a:b], axis=-1) for a, b in itertools.pairwise(_STARTS)]
    return in_range & jnp.all(jnp.stack(nodes, axis=-1) == _INPUTS_PER_NODE, axis=(-2, -1))


def check_code(code: Sequence[int] | np.ndarray | jax.Array) -> np.ndarray:
    """Checks one code.

    Args:
        code: int[28].

    Returns:
        int32[28].

    Raises:
        ValueError: There are not 28 digits, one is outside 0 to 7, or the edges to a node are not two; the message
            says which.
    """
    digits = np.asarray(code)
    _check_shape(digits)
    if digits.ndim != 1:
        raise ValueError(f"code: expected 28 digits, got an array of shape {digits.shape}")
    outside = np.flatnonzero((digits < 0) | (digits >= len(OPERATIONS)))
    if len(outside):
        cell, edge = divmod(int(outside[0]), EDGES)
        raise ValueError(
            f"code: expected digits from 0 to {len(OPERATIONS) - 1}, got {digits[outside[0]]} at edge {edge} of the "
            f"{CELLS[cell]} cell"
        )
    for cell, name in enumerate(CELLS):
        for node in range(NODES):
            edges = digits[cell * EDGES :][_STARTS[node] : _STARTS[node + 1]]
            if np.count_nonzero(edges) != _INPUTS_PER_NODE:
                raise ValueError(
                    f"code: expected {_INPUTS_PER_NODE} edges to node {node} of the {name} cell, got "
                    f"{np.count_nonzero(edges)} ({''.join(map(str, edges))})"
                )
    return digits.astype(np.int32)


def parse_code(text: str) -> np.ndarray:
    """Reads a code from text, 28 digits with spaces where you like; returns int32[28].

    Raises:
        ValueError: There is something else than digits in it, or as `check_code`.
    """
    digits = "".join(text.split())
    if not (digits.isascii() and digits.isdigit()) or len(digits) != len(CELLS) * EDGES:
        raise ValueError(f"code: expected {len(CELLS) * EDGES} digits, got {text!r}")
    return check_code([int(digit) for digit in digits])


def format_code(code: Sequence[int] | np.ndarray | jax.Array) -> str:
    """Writes a code as 28 digits, those of a node together and the cells apart; errors as `check_code`."""
    cells = check_code(code).reshape(len(CELLS), EDGES)
    nodes = (["".join(map(str, cell[a:b])) for a, b in itertools.pairwise(_STARTS)] for cell in cells)
    return "  ".join(" ".join(node) for node in nodes)


def sample_codes(
    key: jax.Array,
    count: int,
    *,
    operations: Sequence[int] = _ALL_OPERATIONS,
    different: bool = False,
) -> jax.Array:
    """Draws networks at random, all equally likely.

    Under `jax.jit` with the other arguments static, a few million per second.

    Args:
        key: Random key.
        count: N.
        operations: Digits to draw from, by default all seven.
        different: Whether the two operations of a node must differ, as in the data sets of EH-DNAS.

    Returns:
        int8[N, 28].

    Raises:
        ValueError: `count` is negative, or there is no choice of operations: a digit outside 1 to 7, one twice, none,
            or, if they must differ, a single one.
    """
    digits = _checked_operations(operations, least=2 if different else 1)
    if count < 0:
        raise ValueError(f"count: expected 0 or more, got {count}")
    choices = np.array([len(np.triu_indices(b - a, 1)[0]) for a, b in itertools.pairwise(_STARTS)])
    # For each cell and node: a pair of edges, the operation of the first, and of the second.
    shares = jax.random.uniform(key, (3, count, len(CELLS), NODES))
    pairs = _below(shares[0], jnp.asarray(choices, jnp.float32))
    first = _below(shares[1], jnp.float32(len(digits)))
    if different:
        second = (first + 1 + _below(shares[2], jnp.float32(len(digits) - 1))) % len(digits)
    else:
        second = _below(shares[2], jnp.float32(len(digits)))
    by_node = []
    for node in range(NODES):
        edges = np.arange(_STARTS[node + 1] - _STARTS[node], dtype=np.int32)
        # Which edge is the first, and the second, of each pair.
        low, high = (jnp.asarray(ends, jnp.int32)[pairs[..., node]] for ends in np.triu_indices(len(edges), 1))
        at_low, at_high = digits[first[..., node]], digits[second[..., node]]
        drawn = jnp.where(low[..., None] == edges[None, None], at_low[..., None], jnp.int8(0))
        by_node.append(jnp.where(high[..., None] == edges[None, None], at_high[..., None], drawn))
    return jnp.concatenate(by_node, axis=-1).reshape(count, len(CELLS) * EDGES)


def derive_code(alpha: jax.Array) -> jax.Array:
    """Returns the network that architecture parameters stand for, as DARTS derives it.

    An edge is as strong as its likeliest operation other than `none`, by softmax over all eight; each node keeps its
    two strongest edges with these operations. Where two are equally strong, the first counts.

    Args:
        alpha: float[28, 8], those of the normal cell first.

    Returns:
        int32[28].

    Raises:
        ValueError: `alpha` has another shape.
    """
    alpha = jnp.asarray(alpha)
    _check_alpha(alpha)
    shares = jax.nn.softmax(alpha, axis=-1)[:, 1:]
    digit = 1 + jnp.argmax(shares, axis=-1).astype(jnp.int32)
    return jnp.where(_strongest_edges(jnp.max(shares, axis=-1)), digit, 0)


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
    _check_alpha(alpha)
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
    _check_alpha(alpha)
    temperature = jnp.asarray(temperature, alpha.dtype)
    strength = jnp.max(jax.nn.log_softmax(alpha, axis=-1)[:, 1:], axis=-1) / temperature
    shares = jnp.concatenate([_inclusion(edges) for edges in _edges_of_nodes(strength)])[:, None]
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
        return jax.nn.one_hot(jnp.where(_strongest_edges(strength), digits, 0), len(OPERATIONS), dtype=alpha.dtype)

    hard = jax.vmap(draw)(jax.random.split(key, count))
    return hard + (soft - jax.lax.stop_gradient(soft))[None]


def _strongest_edges(strength: jax.Array) -> jax.Array:
    """Returns which edges are among the two strongest of their node, float[28] -> bool[28]; the first of equals is."""
    kept = []
    for nodes in _edges_of_nodes(strength):
        _, strongest = jax.lax.top_k(nodes, _INPUTS_PER_NODE)
        kept.append(jnp.any(strongest[:, None] == jnp.arange(len(nodes), dtype=jnp.int32)[None], axis=0))
    return jnp.concatenate(kept)


def _edges_of_nodes(values: jax.Array) -> list[jax.Array]:
    """Divides values [28] of edges by the nodes that the edges lead to, those of the normal cell first."""
    return [values[a:b] for cell in range(len(CELLS)) for a, b in itertools.pairwise(_STARTS + cell * EDGES)]


def _check_alpha(alpha: jax.Array) -> None:
    """Raises `ValueError` unless alpha is floating and of shape [28, 8]."""
    if alpha.shape != (len(CELLS) * EDGES, len(OPERATIONS)) or not jnp.issubdtype(alpha.dtype, jnp.floating):
        raise ValueError(f"alpha: expected float[28, 8], got {alpha.dtype}{list(alpha.shape)}")


def _check_shape(codes: jax.Array | np.ndarray) -> None:
    if not np.issubdtype(codes.dtype, np.integer) or codes.shape[-1:] != (len(CELLS) * EDGES,):
        raise ValueError(f"code: expected 28 whole numbers, got {codes.dtype}{list(codes.shape)}")


def _checked_operations(operations: Sequence[int], *, least: int) -> jax.Array:
    unknown = [digit for digit in operations if digit not in _ALL_OPERATIONS]
    if unknown:
        raise ValueError(f"operations: expected digits from 1 to {len(_ALL_OPERATIONS)}, got {unknown[0]!r}")
    if len(set(operations)) != len(operations) or len(operations) < least:
        raise ValueError(f"operations: expected at least {least} different digits, got {tuple(operations)}")
    return jnp.asarray(operations, jnp.int8)


def _below(shares: jax.Array, bound: jax.Array) -> jax.Array:
    """Uniform numbers in [0, 1) to whole numbers below a bound, int32."""
    scaled = shares * jnp.broadcast_to(bound, shares.shape)
    return jnp.minimum(scaled.astype(jnp.int32), jnp.broadcast_to(bound, shares.shape).astype(jnp.int32) - 1)


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
