"""The hardware of a search: what networks of the DARTS space cost on it, and its part of the search loss.

Accelerators are priced by E2E-Perf; as its pipeline moves in steps, a search goes along a predictor of it. Devices are
priced by the roofline model at all operating points that the search may choose from, which is smooth by itself.

Jiang et al., "EH-DNAS", 2021, https://arxiv.org/abs/2111.12299, adds lambda / g(alpha), where g is a standardised
throughput, which has no bound where g passes 0. Here

    loss(alpha) = min over f of  weight h(c(alpha, f)) + sum over k of mu_k log(c_k(alpha, f) / bound_k)

where h is the logarithm, whose gradient is that of the relative cost, or the cost relative to that of a flat alpha. The
minimum runs over the operating points f, exactly; its gradient is that at the best point. The multipliers mu_k rise
while the network that alpha stands for violates constraint k, and fall while it keeps it (dual ascent on a Lagrangian),
so that constraints are met by the network that is derived and not by its relaxation alone.
Shapes: F operating points, 1 for accelerators; K constraints.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

import hw_models
from hadas_jax.settings import HardwareLossSettings
from hadas_jax.spaces.darts import relaxed_code, sampled_codes
from hadas_jax.spaces.darts_costs import darts_workload, throughput_table
from hadas_jax.spaces.darts_network import DartsNetwork
from hw_models.accelerator import Fpga
from hw_models.predictors import ThroughputPredictor, predict_throughput

_SAMPLES = 64  # networks whose mean cost stands for the expected one


class Costs(NamedTuple):
    """Cost of one image at every operating point.

    Attributes:
        image_s: float32[F], seconds per image: the latency of a device, 1 / throughput of an accelerator.
        energy_j: float32[F], or None where nothing is known of it.
    """

    image_s: jax.Array
    energy_j: jax.Array | None

    def metric(self, name: str) -> jax.Array:
        """Returns float32[F]: `latency` (seconds per image), `energy` (joules) or `edp`, their product.

        Raises:
            ValueError: Nothing is known of the energy.
        """
        if name == "latency":
            return self.image_s
        if self.energy_j is None:
            raise ValueError(f"minimise {name}: expected latency, as nothing is known of an accelerator's energy")
        return self.energy_j if name == "energy" else self.energy_j * self.image_s

    def at(self, point: ArrayLike) -> "Costs":
        """Returns the costs at one operating point, leaves float32[]."""
        chosen = jnp.asarray(point, jnp.int32)
        return jax.tree.map(lambda leaf: leaf[chosen], self)


@dataclass(frozen=True)
class Hardware:
    """Prices networks.

    Attributes:
        name: Of the device, or of paradigm and FPGA.
        relaxed: (alpha float32[28, 8], PRNG key) -> expected costs of the networks that alpha relaxes, differentiable.
        exact: Code int[28] -> costs; image_s is infinite where a network does not fit.
        points: Operating points, leaves float32[F]; None for accelerators.
    """

    name: str
    relaxed: Callable[[jax.Array, jax.Array], Costs]
    exact: Callable[[jax.Array], Costs]
    points: hw_models.OperatingPoint | None


def device_hardware(device: hw_models.Device, network: DartsNetwork) -> Hardware:
    """Prices networks by the roofline model and its correction, one image at a time.

    A relaxed network has the expected roofline, and the correction of the expected features.

    Args:
        device: With the clocks to choose from.
        network: Size of the networks.
    """
    points = hw_models.operating_points(device)

    def costs(architecture: jax.Array) -> Costs:
        found = hw_models.network_cost_everywhere(darts_workload(network, architecture), device)
        return Costs(found.latency_s, found.energy_j)

    return Hardware(device.name, lambda alpha, key: costs(relaxed_code(alpha)), costs, points)


def accelerator_hardware(
    paradigm: str, network: DartsNetwork, *, fpga: Fpga, predictor: ThroughputPredictor | None
) -> Hardware:
    """Prices networks by E2E-Perf, and relaxed ones by the geometric mean of a predictor's answers for samples of them.

    Args:
        paradigm: `generic` or `pipeline`.
        network: Size of the networks.
        fpga: Of the accelerator.
        predictor: Of the throughput in this paradigm, for this size; None for a search that does not look at costs.

    Raises:
        ValueError: As `throughput_table`.
    """
    throughputs = throughput_table(paradigm, network, fpga=fpga)

    def relaxed(alpha: jax.Array, key: jax.Array) -> Costs:
        if predictor is None:
            raise ValueError("predictor: expected one to price relaxed networks by, got none")
        networks = sampled_codes(key, alpha, _SAMPLES)
        logs = jax.vmap(lambda network: jnp.log(predict_throughput(predictor, network).throughput))(networks)
        return Costs(jnp.exp(-jnp.mean(logs))[None], None)

    def exact(code: jax.Array) -> Costs:
        return Costs(1.0 / throughputs(code[None]), None)

    return Hardware(f"{paradigm} accelerator on {fpga.name}", relaxed, exact, None)


@dataclass(frozen=True)
class Constraint:
    """An upper bound of a cost.

    Attributes:
        metric: `latency` or `energy`.
        bound: In seconds per image, or joules.
    """

    metric: str
    bound: float


@dataclass(frozen=True)
class Objective:
    """What the search asks of the hardware.

    Attributes:
        settings: The cost in the loss, and the constraints.
        reference: Float, cost that a relative one is a multiple of.
    """

    settings: HardwareLossSettings
    reference: float = 1.0

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What the network may cost at most, in SI units, latency first."""
        settings = self.settings
        latencies = [] if settings.max_latency_ms is None else [1e-3 * settings.max_latency_ms]
        latencies += [] if settings.min_fps is None else [1.0 / settings.min_fps]
        constraints = [Constraint("latency", min(latencies))] if latencies else []
        constraints += [] if settings.max_energy_mj is None else [Constraint("energy", 1e-3 * settings.max_energy_mj)]
        return tuple(constraints)

    @property
    def is_blind(self) -> bool:
        """Whether the search does not look at the hardware: plain DARTS."""
        return self.settings.weight == 0 and not self.constraints

    def loss(self, costs: Costs, multipliers: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns the loss float32[] of a relaxed architecture, and the operating point int32[] that it is least at.

        Args:
            costs: Of the architecture.
            multipliers: float32[K].
        """
        settings = self.settings
        ratio = costs.metric(settings.minimise) / self.reference
        everywhere = settings.weight * (jnp.log(ratio) if settings.form == "log" else ratio)
        for multiplier, log_ratio in zip(multipliers, self._log_ratios(costs), strict=True):
            everywhere = everywhere + multiplier * log_ratio
        point = jnp.argmin(jax.lax.stop_gradient(everywhere))
        return everywhere[point], point

    def chosen_point(self, costs: Costs) -> jax.Array:
        """Returns the operating point for a network, int32[]: the least metric where the constraints are kept.

        Where no point keeps them, the one of least violation.
        """
        value = costs.metric(self.settings.minimise)
        if not self.constraints:
            return jnp.argmin(value)
        violation = jnp.max(jnp.maximum(self._log_ratios(costs), 0.0), axis=0)
        kept = violation <= 0
        return jnp.where(jnp.any(kept), jnp.argmin(jnp.where(kept, value, jnp.inf)), jnp.argmin(violation))

    def violations(self, costs: Costs) -> jax.Array:
        """Returns float32[K]: log(cost / bound) of a network at its chosen point, above 0 where it violates."""
        return self._log_ratios(costs)[:, self.chosen_point(costs)]

    def ascend(self, multipliers: jax.Array, violation: jax.Array) -> jax.Array:
        """Returns the multipliers float32[K] after a step of dual ascent.

        Args:
            multipliers: float32[K], before.
            violation: float32[K], of `violations`.
        """
        # A network that does not fit violates by infinity; a factor of e is enough to turn the search.
        return jnp.maximum(multipliers + self.settings.budget_ascent * jnp.clip(violation, -1.0, 1.0), 0.0)

    def _log_ratios(self, costs: Costs) -> jax.Array:
        """Logarithms of cost over bound, float32[K, F]."""
        if not self.constraints:
            return jnp.zeros((0, *costs.image_s.shape), jnp.float32)
        return jnp.stack([jnp.log(costs.metric(k.metric) / k.bound) for k in self.constraints])
