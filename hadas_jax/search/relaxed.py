"""Gradient search over relaxed genomes: probabilities of choices instead of choices, one descent per weight vector.

A gene's choices are the softmax of logits and Gumbel noise (Jang et al. 2017, https://arxiv.org/abs/1611.01144;
Maddison et al. 2017, https://arxiv.org/abs/1611.00712), which falls from blurred to nearly one-hot with the
temperature. Objectives are scalarised by the augmented Tchebycheff function (Steuer and Choo 1983,
https://doi.org/10.1007/BF02591870), so that weights reach every part of a front, concave ones included.
Shapes: W weight vectors, M objectives (minimised), G genes, C choices of the longest gene.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from hadas_jax.search.directions import tchebycheff
from hadas_jax.search.pareto import assert_matrix

Objectives = Callable[[jax.Array], jax.Array]
"""Probabilities float32[G, C] -> float32[M], differentiable."""


@struct.dataclass
class RelaxedParams:
    """What a user may sweep.

    Attributes:
        learning_rate: float32[], of Adam, on the logits.
        first_temperature: float32[], of the first step; falls exponentially.
        last_temperature: float32[], of the last step.
        noise: float32[], factor of the Gumbel noise; 0 gives the plain softmax.
        augmentation: float32[], weight of the sum of objectives beside the worst one.
    """

    learning_rate: jax.Array
    first_temperature: jax.Array
    last_temperature: jax.Array
    noise: jax.Array
    augmentation: jax.Array

    @classmethod
    def default(cls) -> "RelaxedParams":
        """Values that suit a hundred steps."""
        return cls(*(jnp.float32(value) for value in (0.1, 1.0, 0.2, 1.0, 0.01)))


class Descents(NamedTuple):
    """Where the descents ended.

    Attributes:
        genomes: int32[W, G], the likeliest choices.
        probabilities: float32[W, G, C], softmax of the logits without noise, at temperature 1; draw more genomes from
            them with `jax.random.categorical`.
        visited: int32[steps, W, G], the likeliest choices of each step's draw.
        objectives: float32[steps, W, M] of what was drawn.
        losses: float32[steps, W], these objectives scalarised.
    """

    genomes: jax.Array
    probabilities: jax.Array
    visited: jax.Array
    objectives: jax.Array
    losses: jax.Array


def relaxed_search(
    key: jax.Array,
    objectives: Objectives,
    *,
    cardinalities: tuple[int, ...],
    weights: jax.Array,
    ideal: jax.Array,
    span: jax.Array,
    params: RelaxedParams,
    steps: int = 100,
    start: jax.Array | None = None,
) -> Descents:
    """Descends from every start towards the objectives that its weights ask for.

    Pure and not jitted by itself: call it within `jax.jit`, so that what `objectives` closes over, such as a fitted
    surrogate, may be an argument there and new values compile nothing.

    Args:
        key: Typed PRNG key.
        objectives: Static.
        cardinalities: Number of choices of each gene, static.
        weights: float32[W, M], not negative.
        ideal: float32[M], the least of each objective.
        span: float32[M], positive, what counts as one unit of each objective.
        params: Rates and temperatures.
        steps: Of Adam, static.
        start: float32[W, G, C], logits to start from, such as `logits_of` elite genomes; None: all choices alike.

    Returns:
        Where the descents ended, and what they met on the way.

    Raises:
        ValueError: There is no step.
        AssertionError: Shapes do not fit.

    Examples:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from hadas_jax.search.relaxed import RelaxedParams, relaxed_search
        >>> def objectives(probabilities):
        ...     mean = probabilities @ jnp.arange(4.0)
        ...     return jnp.stack([mean.sum(), (3 - mean).sum()])
        >>> search = jax.jit(lambda key: relaxed_search(
        ...     key, objectives, cardinalities=(4, 4), weights=jnp.eye(2), ideal=jnp.zeros(2),
        ...     span=jnp.full(2, 6.0), params=RelaxedParams.default()))
        >>> search(jax.random.key(0)).genomes.tolist()
        [[0, 0], [3, 3]]
    """
    assert_matrix("weights", weights)
    W, M = weights.shape
    chex.assert_shape(ideal, (M,), custom_message="ideal")
    chex.assert_shape(span, (M,), custom_message="span")
    valid = jnp.asarray(np.arange(max(cardinalities))[None] < np.array(cardinalities)[:, None])
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    if start is None:
        start = jnp.zeros((W, *valid.shape), jnp.float32)
    chex.assert_shape(start, (W, *valid.shape), custom_message="start")

    def loss(
        logits: jax.Array, key: jax.Array, weight: jax.Array, temperature: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        drawn = logits + params.noise * jax.random.gumbel(key, logits.shape)
        blurred = jax.nn.softmax(jnp.where(valid, drawn / temperature, -jnp.inf))
        met = objectives(blurred)
        value = tchebycheff((met - ideal) / span, weight, augmentation=params.augmentation)
        return value, (_likeliest(blurred), met)

    optimiser = optax.adam(params.learning_rate)
    slopes = jax.vmap(jax.value_and_grad(loss, has_aux=True), in_axes=(0, 0, 0, None))

    def step(carry: tuple, now: tuple[jax.Array, jax.Array]) -> tuple[tuple, tuple]:
        logits, state = carry
        key, temperature = now
        (losses, (visited, met)), gradient = slopes(logits, jax.random.split(key, W), weights, temperature)
        # Adam raises its decay, a float, to its count, an int: no strict promotion rule allows that.
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(logits, updates), state), (visited, met, losses)

    share = jnp.arange(steps, dtype=jnp.float32) / max(steps - 1, 1)
    temperatures = params.first_temperature * (params.last_temperature / params.first_temperature) ** share
    (logits, _), trace = jax.lax.scan(
        step, (start, optimiser.init(start)), (jax.random.split(key, steps), temperatures)
    )
    probabilities = jax.nn.softmax(jnp.where(valid[None], logits, -jnp.inf))
    return Descents(_likeliest(probabilities), probabilities, *trace)


def logits_of(genomes: jax.Array, cardinalities: tuple[int, ...], *, confidence: float = 0.5) -> jax.Array:
    """Logits that give each gene's choice this probability, and the gene's other choices equal shares of the rest.

    Args:
        genomes: int32[W, G].
        cardinalities: Number of choices of each gene.
        confidence: Within 0 .. 1, both excluded; below a gene's even share the choice is made less likely.

    Returns:
        float32[W, G, C].

    Raises:
        ValueError: Confidence out of range.
        AssertionError: Another number of genes.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: expected a number between 0 and 1, got {confidence}")
    chex.assert_shape(genomes, (genomes.shape[0], len(cardinalities)), custom_message="genomes")
    others = np.maximum(np.array(cardinalities) - 1, 1)
    lead = jnp.asarray(np.log(confidence * others / (1 - confidence)), jnp.float32)
    return lead[None, :, None] * jax.nn.one_hot(genomes, max(cardinalities))


def _likeliest(probabilities: jax.Array) -> jax.Array:
    return jnp.argmax(probabilities, axis=-1).astype(jnp.int32)
