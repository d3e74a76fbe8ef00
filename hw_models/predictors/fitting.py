"""Fitting a predictor to networks and their throughput, and judging it by networks left out.

Shapes: K members, N networks, H networks left out.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.accelerator.network import EDGES, OPERATIONS
from hw_models.predictors.held_out import HeldOutErrors
from hw_models.predictors.predictor import PredictorNotes, ThroughputPredictor, predict_throughputs
from hw_models.predictors.recipes import Recipe, recipe_of
from hw_models.predictors.training import OnEpoch, train

_MOST_HELD_OUT = 50_000
_LEAST_DEVIATION = 1e-6


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
        codes: int[N, 28].
        throughputs: float[N], positive.
        kind: `mlp`, `embedding` or `lookup`, see `hw_models.predictors.models`.
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
    codes, throughputs = _checked(codes, throughputs)
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
    mean, deviation = logs.mean(), 1.0 if kind == "lookup" else max(float(logs.std()), _LEAST_DEVIATION)
    targets = jnp.asarray((logs - mean) / deviation, jnp.float32)
    weights, losses = train(
        key, jnp.asarray(codes[rest]), targets, kind=kind, members=members, recipe=recipe, on_epoch=on_epoch
    )
    predictor = ThroughputPredictor(weights, jnp.float32(mean), jnp.float32(deviation), kind)
    predicted = np.asarray(predict_throughputs(predictor, jnp.asarray(codes[test])).throughput, float)
    errors = HeldOutErrors(throughputs[test], predicted)
    notes = dataclasses.replace(notes or PredictorNotes(), networks=len(rest), held_out_error=errors.mean)
    return FittedPredictor(predictor.replace(notes=notes), errors, losses)  # type: ignore[attr-defined]


def _checked(codes: jax.Array | np.ndarray, throughputs: jax.Array | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes, throughputs = np.asarray(codes), np.asarray(throughputs, float)
    if codes.ndim != 2 or codes.shape[1] != 2 * EDGES or not np.issubdtype(codes.dtype, np.integer):
        raise ValueError(f"codes: expected int[N, 28], got {codes.dtype}{list(codes.shape)}")
    if len(codes) and not (codes.min() >= 0 and codes.max() < len(OPERATIONS)):
        raise ValueError(f"codes: expected digits from 0 to {len(OPERATIONS) - 1}, got {codes.min()} to {codes.max()}")
    if throughputs.shape != codes.shape[:1]:
        raise ValueError(f"throughputs: expected one for each of {len(codes)} codes, got {list(throughputs.shape)}")
    bad = np.flatnonzero(~(np.isfinite(throughputs) & (throughputs > 0)))
    if len(bad):
        raise ValueError(f"throughputs: expected numbers above 0, got {throughputs[bad[0]]} in place {bad[0]}")
    if len(codes) < 2:
        raise ValueError(f"codes: expected at least 2 networks, got {len(codes)}")
    return codes.astype(np.int8), throughputs
