"""Training of predictors: an epoch is one compiled scan over batches, of which every member has an order of its own.

The loss is the mean absolute error of the standardised log throughput, the optimiser Adam with decoupled weight decay
and a cosine schedule. The data stays on the device, codes as int8.
Shapes: K members, N networks, B networks per batch.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hw_models.predictors.models import Weights, dropout_mask, init_weights, score
from hw_models.predictors.recipes import Recipe

OnEpoch = Callable[[int, int, float], None]
"""Called with epochs done, epochs in all, and the loss."""


class _State(NamedTuple):
    weights: Weights
    moments: optax.OptState


def train(
    key: jax.Array,
    codes: jax.Array,
    targets: jax.Array,
    *,
    kind: str,
    members: int,
    recipe: Recipe,
    on_epoch: OnEpoch | None,
) -> tuple[Weights, tuple[float, ...]]:
    """Trains the members of an ensemble.

    Args:
        key: Random key.
        codes: int8[N, 28].
        targets: float32[N], standardised log throughputs.
        kind: Of the models.
        members: K.
        recipe: Settings; a batch larger than N is N.
        on_epoch: Called after each epoch.

    Returns:
        Weights, leaves [K, ...], and the loss of each epoch.

    Raises:
        ValueError: The loss is no longer finite.
    """
    batch = min(recipe.batch, len(codes))
    steps = len(codes) // batch
    # CPUs take twice as long for a batched matrix product as for its parts one by one.
    side_by_side = None if jax.default_backend() == "cpu" else members
    schedule = optax.cosine_decay_schedule(recipe.learning_rate, steps * recipe.epochs)
    optimiser = optax.adamw(schedule, weight_decay=recipe.weight_decay)

    def start(key: jax.Array) -> _State:
        weights = init_weights(key, kind, hidden=recipe.hidden)
        return _State(weights, optimiser.init(weights))

    def epoch(state: _State, key: jax.Array, codes: jax.Array, targets: jax.Array) -> tuple[_State, jax.Array]:
        order_key, dropout_key = jax.random.split(key)
        order = jax.random.permutation(order_key, len(codes))[: steps * batch].reshape(steps, batch)

        def step(state: _State, item: tuple[jax.Array, jax.Array]) -> tuple[_State, jax.Array]:
            chosen, key = item
            loss, gradients = jax.value_and_grad(_loss)(
                state.weights, codes[chosen], targets[chosen], key, kind=kind, dropout=recipe.dropout
            )
            with jax.numpy_dtype_promotion("standard"):  # optax mixes whole and other numbers
                updates, moments = optimiser.update(gradients, state.moments, state.weights)
            return _State(optax.apply_updates(state.weights, updates), moments), loss

        state, losses = jax.lax.scan(step, state, (order, jax.random.split(dropout_key, steps)))
        return state, jnp.mean(losses)

    @functools.partial(jax.jit, donate_argnums=0)
    def run(states: _State, keys: jax.Array, codes: jax.Array, targets: jax.Array) -> tuple[_State, jax.Array]:
        return jax.lax.map(
            lambda item: epoch(item[0], item[1], codes, targets), (states, keys), batch_size=side_by_side
        )

    start_key, key = jax.random.split(key)
    state, losses = jax.jit(jax.vmap(start))(jax.random.split(start_key, members)), []
    for done in range(recipe.epochs):
        keys = jax.random.split(jax.random.fold_in(key, done), members)
        state, found = run(state, keys, codes, targets)
        losses.append(float(jnp.mean(found)))
        if not np.isfinite(losses[-1]):
            raise ValueError(
                f"learning_rate: expected one that converges, got {recipe.learning_rate:g}: the fit diverged in epoch "
                f"{done + 1}"
            )
        if on_epoch is not None:
            on_epoch(done + 1, recipe.epochs, losses[-1])
    return state.weights, tuple(losses)


def _loss(
    weights: Weights, codes: jax.Array, targets: jax.Array, key: jax.Array, *, kind: str, dropout: float
) -> jax.Array:
    """Mean absolute error of a batch, codes int8[B, 28], targets float32[B]."""
    if dropout and kind == "embedding":
        kept = dropout_mask(key, dropout, count=len(codes))
        found = jax.vmap(lambda code, kept: score(weights, code, kind=kind, kept=kept))(codes, kept)
    else:
        found = jax.vmap(lambda code: score(weights, code, kind=kind))(codes)
    return jnp.mean(jnp.abs(found - targets))
