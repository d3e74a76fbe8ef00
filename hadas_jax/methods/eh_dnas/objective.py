"""The hardware's part of the search loss: weighted, with budgets, or both; clocks are chosen with the architecture.

The original adds lambda / g(alpha), where g is a standardised throughput, which has no bound where g passes 0. Here

    loss(alpha) = min over f of  weight h(c(alpha, f)) + sum over k of mu_k log(c_k(alpha, f) / budget_k)

where h is the logarithm, whose gradient is that of the relative cost, or the cost relative to that of a flat alpha.
The minimum runs over the operating points f, exactly; its gradient is that at the best point. The multipliers mu_k
rise while the network that alpha stands for is over budget k, and fall while it is within (dual ascent on a
Lagrangian), so that budgets are met by the network that is derived and not by its relaxation alone.
Shapes: F operating points, K budgets.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from hadas_jax.methods.eh_dnas.hardware import Costs, metric

FORMS: dict[str, Callable[[jax.Array], jax.Array]] = {"log": jnp.log, "relative": lambda ratio: ratio}


@dataclass(frozen=True)
class Budget:
    """An upper bound of a cost.

    Attributes:
      metric: `latency` or `energy`.
      bound: in seconds per image, or joules.
    """

    metric: str
    bound: float


@dataclass(frozen=True)
class Objective:
    """What the search asks of the hardware.

    Attributes:
      metric: to be minimised: `latency`, `energy` or `edp`.
      weight: of the metric in the loss, the paper's lambda; 0 leaves it out.
      form: `log` or `relative`.
      reference: float, cost that a relative one is a multiple of.
      budgets: that the network must keep.
      ascent: step of the multipliers.
    """

    metric: str
    weight: float
    form: str
    reference: float
    budgets: tuple[Budget, ...]
    ascent: float

    @property
    def is_blind(self) -> bool:
        """Whether the search does not look at the hardware: plain DARTS."""
        return self.weight == 0 and not self.budgets


def hardware_loss(objective: Objective, costs: Costs, multipliers: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the loss float32[] and the operating point int32[] that it is least at.

    Args:
      objective: of the search.
      costs: of a relaxed architecture.
      multipliers: float32[K].
    """
    everywhere = objective.weight * FORMS[objective.form](metric(costs, objective.metric) / objective.reference)
    for multiplier, budget in zip(multipliers, objective.budgets, strict=True):
        everywhere = everywhere + multiplier * jnp.log(metric(costs, budget.metric) / budget.bound)
    point = jnp.argmin(jax.lax.stop_gradient(everywhere))
    return everywhere[point], point


def chosen_point(objective: Objective, costs: Costs) -> jax.Array:
    """Returns the operating point for a network, int32[]: the least metric within the budgets.

    Where no point keeps them, the one that is least beyond.

    Args:
      objective: of the search.
      costs: of the network.
    """
    value = metric(costs, objective.metric)
    if not objective.budgets:
        return jnp.argmin(value)
    excess = jnp.max(jnp.maximum(_log_ratios(objective, costs), 0.0), axis=0)
    within = excess <= 0
    return jnp.where(jnp.any(within), jnp.argmin(jnp.where(within, value, jnp.inf)), jnp.argmin(excess))


def excess(objective: Objective, costs: Costs) -> jax.Array:
    """Returns float32[K]: log(cost / budget) of a network at its chosen point, above 0 where it is over a budget."""
    return _log_ratios(objective, costs)[:, chosen_point(objective, costs)]


def ascend(objective: Objective, multipliers: jax.Array, over: jax.Array) -> jax.Array:
    """Returns the multipliers float32[K] after a step of dual ascent.

    Args:
      objective: of the search.
      multipliers: float32[K], before.
      over: float32[K], from `excess`.
    """
    # A network that does not fit is over by infinity; a factor of e is enough to turn the search.
    return jnp.maximum(multipliers + objective.ascent * jnp.clip(over, -1.0, 1.0), 0.0)


def _log_ratios(objective: Objective, costs: Costs) -> jax.Array:
    """float32[K, F]."""
    if not objective.budgets:
        return jnp.zeros((0, *costs.image_s.shape), jnp.float32)
    return jnp.stack([jnp.log(metric(costs, budget.metric) / budget.bound) for budget in objective.budgets])
