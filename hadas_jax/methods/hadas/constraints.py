"""What a network may cost at most: the limits of a search, and by how much something breaks them.

Objectives are (error, latency_s, energy_j), means over samples; a limit that is not set is +inf. An excess is relative:
0.1 stands for a tenth above the limit, and the excess of several objectives is the largest of theirs. Limits on what is
no objective (`ConfigLimits`) are told apart: without them nothing is computed for them.

What a backbone costs without exits, and the least that any of its dynamic versions can cost.

Shapes: G genes, E exits, W words of a bit set, F operating points. Costs are of one sample, in seconds and joules.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hadas_jax.evaluation import count_bits, segment_costs
from hadas_jax.evaluation.early_exit import percentile_paths
from hadas_jax.settings import Constraints
from hadas_jax.spaces import AnySpace, MBConvSpace, available_exits, segments, workload
from hadas_jax.spaces.footprint import Footprint, footprint
from hadas_jax.spaces.workload import device_workload
from hw_models import Cost, Device, LayerTable, NumberFormat, default_point, network_cost
from hw_models.units import Range, in_other_units

_LEAST_ERROR = 1e-3  # an error limit of 0 would make every excess infinite
_ROOM = 100.0  # what the largest backbone takes, over what the smallest one does, generously


def relative_excess(objectives: tuple[jax.Array, jax.Array, jax.Array], limits: jax.Array) -> jax.Array:
    """By how much candidates exceed their limits: the largest value / limit - 1 over error, latency and energy.

    Args:
        objectives: Error, latency_s, energy_j, float32[...] that broadcast together.
        limits: float32[3], +inf for none.

    Returns:
        float32[...]: at most 0 exactly where all limits are kept. An excess of error is relative to at least 0.001.
    """
    scale = limits.at[0].max(_LEAST_ERROR)

    def excess(value: jax.Array, m: int) -> jax.Array:
        none = jnp.isinf(limits[m])
        limit, unit = jnp.where(none, 0.0, limits[m]), jnp.where(none, 1.0, scale[m])
        return jnp.where(none, -1.0, (value - limit) / unit)

    error, latency, energy = (excess(value, m) for m, value in enumerate(objectives))
    return jnp.maximum(error, jnp.maximum(latency, energy))


@struct.dataclass
class ConfigLimits:
    """Limits on an exit configuration beside its objectives; +inf for none.

    Attributes:
        p99_s: float32[], on the latency that 99 % of the samples keep.
        memory: float32[], on the peak of the activations in bytes.
        weights: float32[], on the bytes of the weights, exits included.
        element_bytes: int32[], of a backbone that has no number format of its own.
    """

    p99_s: jax.Array
    memory: jax.Array
    weights: jax.Array
    element_bytes: jax.Array

    @classmethod
    def of(cls, limits: Constraints, device: Device) -> "ConfigLimits | None":
        """Returns those of a search on a device; None where none of them is set."""
        scaled: tuple[tuple[float | None, float], ...] = (
            (limits.max_p99_latency_ms, 1e-3),
            (limits.max_memory_mb, 1e6),
            (limits.max_flash_mb, 1e6),
        )
        if all(limit is None for limit, _ in scaled):
            return None
        p99_s, memory, weights = (jnp.float32(jnp.inf if limit is None else limit * scale) for limit, scale in scaled)
        return cls(p99_s, memory, weights, jnp.int32(device.formats[0].element_bytes))

    def excess(self, p99_s: Any) -> Any:
        """Returns by how much latencies that 99 % of the samples keep exceed the limit; at most 0 within."""
        return p99_s / self.p99_s - 1

    def size_excess(self, size: Footprint, exits: Any) -> jax.Array:
        """Returns by how much a backbone with some exits, bool[..., E], exceeds the limits on sizes, float32[...]."""
        element = self.element_bytes if size.element_bytes is None else size.element_bytes
        memory, weights = ((element * each).astype(jnp.float32) for each in (size.memory(exits), size.weights(exits)))
        return jnp.maximum(memory / self.memory, weights / self.weights) - 1


def trunk(space: AnySpace, genome: jax.Array) -> LayerTable:
    """Returns the layer table of a backbone int32[G] without exit heads."""
    return _without_heads(space, workload(space, space.decode(genome)))


def _without_heads(space: AnySpace, layers: LayerTable) -> LayerTable:
    in_trunk = jnp.asarray(segments(space) <= space.num_exits, jnp.float32)
    return dataclasses.replace(layers, active=layers.active * in_trunk)


@partial(jax.jit, static_argnames="space")
def static_costs(space: AnySpace, genomes: jax.Array, device: Device) -> tuple[Cost, jax.Array]:
    """Returns costs float32[N] of backbones int32[N, G] without exits, and their numbers of weights float32[N]."""

    def one(genome: jax.Array) -> tuple[Cost, jax.Array]:
        layers, backbone = trunk(space, genome), space.decode(genome)
        priced = _without_heads(space, device_workload(space, backbone, device))
        cost = network_cost(priced, device, default_point(device), number_format=backbone.number_format)
        return cost, jnp.sum(layers.weight_elements * layers.active)

    return jax.vmap(one)(genomes)


def lower_bound(
    space: MBConvSpace, genome: jax.Array, correct: jax.Array, device: Device, *, samples: int
) -> tuple[jax.Array, jax.Array]:
    """What no dynamic version of a backbone goes below, whichever its exits.

    Under the ideal mapping a version is wrong on at least the samples that no exit gets right, and with all exits,
    their heads for free, as many samples stop as early as can be.

    Args:
        space: Static.
        genome: int32[G].
        correct: uint32[E + 1, W], bit sets of the samples that every exit gets right.
        device: The cost model.
        samples: Static.

    Returns:
        float32[F, 3]: error, latency_s and energy_j at every operating point; and float32[F]: the latency that 99 % of
        the samples keep.
    """
    backbone = space.decode(genome)
    available = jnp.append(available_exits(space, backbone), True)
    right = jax.lax.associative_scan(jnp.bitwise_or, jnp.where(available[:, None], correct, 0), axis=0)
    share = count_bits(right).astype(jnp.float32) / samples
    going_on = jnp.concatenate([jnp.ones(1), 1 - share[:-1]])
    costs = segment_costs(space, backbone, device)
    latency, energy = (going_on @ column[: space.num_exits + 1] for column in (costs.latency_s, costs.energy_j))
    path = percentile_paths(going_on, 99, samples=samples).astype(jnp.float32)
    p99 = path @ costs.latency_s[: space.num_exits + 1]
    return jnp.stack([jnp.full_like(latency, 1 - share[-1]), latency, energy], axis=1), p99


def require_reachable(limits: Constraints, space: AnySpace, device: Device) -> None:
    """Refuses limits that contradict each other or the space: not even the start of the smallest backbone keeps them.

    Args:
        limits: Of a search.
        space: Of the backbones.
        device: The cost model.

    Raises:
        ValueError: No design of the space can keep the limits.
    """
    smallest = jnp.asarray(space.smallest_genome)
    if limits.max_params is not None:
        params = int(static_costs(space, smallest[None], device)[1][0])
        if params > limits.max_params:
            raise ValueError(
                f"max_params: expected at least {params:,}, the weights of the smallest backbone of the space "
                f"{space.name}, got {limits.max_params:,}"
            )
    if limits.max_memory_mb is not None or limits.max_flash_mb is not None:
        _require_room(limits, space, device)
    if limits.max_latency_ms is None and limits.max_p99_latency_ms is None and limits.max_energy_mj is None:
        return
    costs = jax.jit(lambda genome: segment_costs(space, space.decode(genome), device))(smallest)
    latency_ms, energy_mj = (1e3 * np.asarray(column)[0] for column in (costs.latency_s, costs.energy_j))
    for name, least, limit, unit in (
        ("max_latency_ms", latency_ms, limits.max_latency_ms, "ms"),
        ("max_p99_latency_ms", latency_ms, limits.max_p99_latency_ms, "ms"),
        ("max_energy_mj", energy_mj, limits.max_energy_mj, "mJ"),
    ):
        if limit is not None and least.min() > limit:
            sensible = Range(name, unit, float(least.min()), _ROOM * float(least.max()))
            likely = in_other_units(limit, unit, sensible.contains)
            raise ValueError(
                f"{name}: expected more than {least.min():.3g} {unit}, which the smallest backbone of the space "
                f"{space.name} takes on {device.name} up to its first exit, got {limit:g}"
                + (f": {likely}" if likely else "")
            )
    for name in ("max_latency_ms", "max_p99_latency_ms"):
        limit = getattr(limits, name)
        if limit is None or limits.max_energy_mj is None:
            continue
        within = latency_ms <= limit
        if energy_mj[within].min() > limits.max_energy_mj:
            raise ValueError(
                f"{name} {limit:g} and max_energy_mj {limits.max_energy_mj:g} contradict "
                f"each other: at clocks of {device.name} that are fast enough, the smallest backbone of the space "
                f"{space.name} takes {energy_mj[within].min():.3g} mJ up to its first exit"
            )


def _require_room(limits: Constraints, space: AnySpace, device: Device) -> None:
    """Refuses limits on memory and weights that not even the smallest backbone keeps without exits."""
    size = jax.jit(lambda: footprint(space, space.smallest()))()
    formats = space.number_formats if isinstance(space, MBConvSpace) else ()
    number_format = NumberFormat(max(formats, default=device.formats[0]))
    for name, what, elements in (
        ("max_memory_mb", "activations", size.trunk_memory),
        ("max_flash_mb", "weights", size.trunk_weights),
    ):
        limit, least = getattr(limits, name), 1e-6 * number_format.element_bytes * int(elements)
        if limit is not None and least > limit:
            raise ValueError(
                f"{name}: expected at least {least:.3g} MB, which the {what} of the smallest backbone of the space "
                f"{space.name} take in {number_format.name.lower()}, got {limit:g}"
            )
