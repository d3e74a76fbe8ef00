"""Fitting a predictor to networks and their throughput, and its errors on networks left out.

An epoch is one compiled scan over batches, of which every member has an order of its own. The loss is the mean absolute
error of the standardised log throughput, the optimiser Adam with decoupled weight decay and a cosine schedule. The data
stays on the device, codes as int8.
Shapes: K members, N networks, B networks per batch, H networks left out; E edges.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.stats import kendalltau

from hw_models.codes import CodeLayout
from hw_models.predictors.predictor import (
    PredictorNotes,
    Recipe,
    ThroughputPredictor,
    Weights,
    dropout_mask,
    init_weights,
    predict_throughputs,
    recipe_of,
    score,
)

OnEpoch = Callable[[int, int, float], None]
"""Called with epochs done, epochs in all, and the loss."""
_MOST_HELD_OUT = 50_000
_LEAST_STD = 1e-6


@dataclasses.dataclass(frozen=True)
class HeldOutErrors:
    """How near a predictor comes on networks it was not fitted to.

    Attributes:
        actual: float64[H], images/s.
        predicted: float64[H].
    """

    actual: np.ndarray
    predicted: np.ndarray

    @property
    def relative(self) -> np.ndarray:
        """Relative errors, float64[H]."""
        return np.abs(self.predicted / self.actual - 1)

    @property
    def mean(self) -> float:
        """Mean relative error."""
        return float(self.relative.mean())

    @property
    def median(self) -> float:
        """Median relative error."""
        return float(np.median(self.relative))

    @property
    def percentile_95(self) -> float:
        """Relative error that 95 of 100 networks stay below."""
        return float(np.quantile(self.relative, 0.95))

    @property
    def kendall_tau(self) -> float:
        """Rank correlation; not a number for less than two networks."""
        if len(self.actual) < 2:
            return float("nan")
        return float(kendalltau(self.actual, self.predicted).statistic)


@dataclasses.dataclass(frozen=True)
class FittedPredictor:
    """A predictor and how good it is.

    Attributes:
        predictor: The predictor; its notes have the held-out error.
        held_out: Errors on networks left out.
        losses: Of each epoch, mean absolute error of the standardised log throughput, over all members.
    """

    predictor: ThroughputPredictor
    held_out: HeldOutErrors
    losses: tuple[float, ...]

    @property
    def held_out_error(self) -> float:
        """Mean relative error on networks left out."""
        return self.held_out.mean


def fit_predictor(
    key: jax.Array,
    codes: jax.Array | np.ndarray,
    throughputs: jax.Array | np.ndarray,
    *,
    layout: CodeLayout,
    kind: str = "mlp",
    members: int = 1,
    recipe: Recipe | None = None,
    held_out: int | None = None,
    notes: PredictorNotes | None = None,
    on_epoch: OnEpoch | None = None,
) -> FittedPredictor:
    """Fits a predictor.

    Args:
        key: Random key of everything: split, weights, order of the data, dropout.
        codes: int[N, E].
        throughputs: float[N], positive.
        layout: Of the codes.
        kind: `mlp`, `embedding` or `lookup`, see `hw_models.predictors.predictor`.
        members: K, models that differ in initial weights and order of the data.
        recipe: Settings; None: `recipe_of(kind)`.
        held_out: Networks, drawn at random, that are left out to judge by; None: a tenth, at most 50,000.
        notes: What the data is; None: nothing is known of it.
        on_epoch: Called after each epoch.

    Returns:
        The predictor and its errors on the networks left out.

    Raises:
        ValueError: The data or a setting is none of these, or the fit diverged.
    """
    default = recipe_of(kind)
    recipe = recipe or default
    codes, throughputs = _checked(codes, throughputs, layout)
    count = len(codes)
    left_out = min(max(count // 10, 1), _MOST_HELD_OUT) if held_out is None else held_out
    if not 1 <= left_out < count:
        raise ValueError(f"held_out: expected 1 to {count - 1} of {count} networks, got {left_out}")
    if members < 1:
        raise ValueError(f"members: expected at least 1, got {members}")
    split_key, key = jax.random.split(key)
    order = np.asarray(jax.random.permutation(split_key, count))
    test, rest = order[:left_out], order[left_out:]
    logs = np.log(throughputs[rest])
    mean, std = logs.mean(), 1.0 if kind == "lookup" else max(float(logs.std()), _LEAST_STD)
    targets = jnp.asarray((logs - mean) / std, jnp.float32)
    weights, losses = _train(
        key,
        jnp.asarray(codes[rest]),
        targets,
        kind=kind,
        layout=layout,
        members=members,
        recipe=recipe,
        on_epoch=on_epoch,
    )
    predictor = ThroughputPredictor(weights, jnp.float32(mean), jnp.float32(std), kind, layout)
    predicted = np.asarray(predict_throughputs(predictor, jnp.asarray(codes[test])).throughput, float)
    errors = HeldOutErrors(throughputs[test], predicted)
    notes = dataclasses.replace(notes or PredictorNotes(), networks=len(rest), held_out_error=errors.mean)
    return FittedPredictor(predictor.replace(notes=notes), errors, losses)  # type: ignore[attr-defined]


def _checked(
    codes: jax.Array | np.ndarray, throughputs: jax.Array | np.ndarray, layout: CodeLayout
) -> tuple[np.ndarray, np.ndarray]:
    codes, throughputs = np.asarray(codes), np.asarray(throughputs, float)
    edges, last = len(layout.groups), layout.operations - 1
    if codes.ndim != 2 or codes.shape[1] != edges or not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"codes: expected int[N, {edges}], got {codes.dtype}{list(codes.shape)}")
    if len(codes) and not (codes.min() >= 0 and codes.max() <= last):
        raise ValueError(f"codes: expected digits from 0 to {last}, got {codes.min()} to {codes.max()}")
    if throughputs.shape != codes.shape[:1]:
        raise ValueError(f"throughputs: expected one for each of {len(codes)} codes, got {list(throughputs.shape)}")
    bad = np.flatnonzero(~(np.isfinite(throughputs) & (throughputs > 0)))
    if len(bad):
        raise ValueError(f"throughputs: expected numbers above 0, got {throughputs[bad[0]]} in place {bad[0]}")
    if len(codes) < 2:
        raise ValueError(f"codes: expected at least 2 networks, got {len(codes)}")
    return codes.astype(np.int8), throughputs


class _State(NamedTuple):
    weights: Weights
    moments: optax.OptState


def _train(
    key: jax.Array,
    codes: jax.Array,
    targets: jax.Array,
    *,
    kind: str,
    layout: CodeLayout,
    members: int,
    recipe: Recipe,
    on_epoch: OnEpoch | None,
) -> tuple[Weights, tuple[float, ...]]:
    """Trains the members of an ensemble: weights, leaves [K, ...], and the loss of each epoch."""
    batch = min(recipe.batch, len(codes))
    steps = len(codes) // batch
    schedule = optax.cosine_decay_schedule(recipe.learning_rate, steps * recipe.epochs)
    optimiser = optax.adamw(schedule, weight_decay=recipe.weight_decay)

    def start(key: jax.Array) -> _State:
        weights = init_weights(key, kind, layout, hidden=recipe.hidden)
        return _State(weights, optimiser.init(weights))

    def epoch(state: _State, key: jax.Array, codes: jax.Array, targets: jax.Array) -> tuple[_State, jax.Array]:
        order_key, dropout_key = jax.random.split(key)
        order = jax.random.permutation(order_key, len(codes))[: steps * batch].reshape(steps, batch)

        def step(state: _State, item: tuple[jax.Array, jax.Array]) -> tuple[_State, jax.Array]:
            chosen, key = item
            loss, gradients = jax.value_and_grad(_loss)(
                state.weights, codes[chosen], targets[chosen], key, kind=kind, layout=layout, dropout=recipe.dropout
            )
            with jax.numpy_dtype_promotion("standard"):  # optax mixes whole and other numbers
                updates, moments = optimiser.update(gradients, state.moments, state.weights)
            return _State(optax.apply_updates(state.weights, updates), moments), loss

        state, losses = jax.lax.scan(step, state, (order, jax.random.split(dropout_key, steps)))
        return state, jnp.mean(losses)

    @functools.partial(jax.jit, donate_argnums=0)
    def run(states: _State, keys: jax.Array, codes: jax.Array, targets: jax.Array) -> tuple[_State, jax.Array]:
        def one(item: tuple[_State, jax.Array]) -> tuple[_State, jax.Array]:
            return epoch(item[0], item[1], codes, targets)

        # CPUs take twice as long for a batched matrix product as for its parts one by one.
        one_by_one, side_by_side = functools.partial(jax.lax.map, one), jax.vmap(one)
        return jax.lax.platform_dependent((states, keys), cpu=one_by_one, default=side_by_side)

    start_key, key = jax.random.split(key)
    state, losses = jax.jit(jax.vmap(start))(jax.random.split(start_key, members)), []
    for done in range(recipe.epochs):
        keys = jax.random.split(jax.random.fold_in(key, done), members)
        state, of_members = run(state, keys, codes, targets)
        losses.append(float(jnp.mean(of_members)))
        if not np.isfinite(losses[-1]):
            raise ValueError(
                f"learning_rate: expected one that converges, got {recipe.learning_rate:g}: the fit diverged in epoch "
                f"{done + 1}"
            )
        if on_epoch is not None:
            on_epoch(done + 1, recipe.epochs, losses[-1])
    return state.weights, tuple(losses)


def _loss(
    weights: Weights,
    codes: jax.Array,
    targets: jax.Array,
    key: jax.Array,
    *,
    kind: str,
    layout: CodeLayout,
    dropout: float,
) -> jax.Array:
    """Mean absolute error of a batch, codes int8[B, E], targets float32[B]."""
    predict = functools.partial(score, kind=kind, layout=layout)
    if dropout and kind == "embedding":
        kept = dropout_mask(key, dropout, count=len(codes), edges=len(layout.groups))
        scores = jax.vmap(lambda code, kept: predict(weights, code, kept=kept))(codes, kept)
    else:
        scores = jax.vmap(lambda code: predict(weights, code))(codes)
    return jnp.mean(jnp.abs(scores - targets))
