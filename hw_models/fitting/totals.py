"""Networks known by their totals only: features, and the p-norm roofline of the whole network.

    latency = p_norm(compute, memory) + layers + run

where compute grows with the MACs, memory with activations and weights, and each layer and each convolution has a
fixed cost of its own; networks that split a convolution into many layers pay it many times. The mean power follows
the rates at which MACs and elements are served: `idle + mac_j * macs / latency + element_j * elements / latency`.
One set of clocks: the coefficients hold for the clocks the measurements were taken at.

Shapes: N networks. Functions take one network, leaves f32[]; batch them with `jax.vmap`. Units: s, W, J, elements.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import struct

from hw_models.fitting.descent import minimise
from hw_models.roofline import p_norm

_STEPS = 800
_LEARNING_RATE = 0.05
_HUBER_DELTA = 0.1
_LEAST_S = 1e-12
"""Keeps the logarithm of a time finite; far below the time of any kernel."""

BaseT = TypeVar("BaseT")


@struct.dataclass
class NetworkTotals:
    """What a whole network asks of the hardware, for one sample.

    Attributes:
        macs: f32[...], multiply-accumulates; half of what is often called FLOPs.
        conv_weights: f32[...], parameters of convolutions.
        norm_weights: f32[...], parameters of batch norms, statistics included; 0 without batch norms.
        linear_weights: f32[...], parameters of linear layers.
        activation_elements: f32[...], sum of the sizes of all layers' outputs.
        layers: f32[...], layers of any kind: activations, additions and splits included.
        conv_layers: f32[...], convolutions.
        norm_layers: f32[...], batch norms.
        linear_layers: f32[...], linear layers.
        resolution: f32[...], side of the input image in pixels.
    """

    macs: jax.Array
    conv_weights: jax.Array
    norm_weights: jax.Array
    linear_weights: jax.Array
    activation_elements: jax.Array
    layers: jax.Array
    conv_layers: jax.Array
    norm_layers: jax.Array
    linear_layers: jax.Array
    resolution: jax.Array


@struct.dataclass
class LatencyBase:
    """Coefficients of the roofline on totals, as natural logarithms, so that a gradient step keeps them positive.

    Attributes:
        log_mac_s: f32[], time per MAC.
        log_element_s: f32[], time per activation element.
        log_weight_s: f32[], time per parameter.
        log_layer_s: f32[], time per layer.
        log_conv_s: f32[], time per convolution, on top.
        log_run_s: f32[], time per run.
        log_order_above_one: f32[], of p - 1, the order of the norm less one.
    """

    log_mac_s: jax.Array
    log_element_s: jax.Array
    log_weight_s: jax.Array
    log_layer_s: jax.Array
    log_conv_s: jax.Array
    log_run_s: jax.Array
    log_order_above_one: jax.Array


@struct.dataclass
class PowerBase:
    """Coefficients of the mean power, as natural logarithms.

    Attributes:
        log_idle_w: f32[], power that follows no rate.
        log_mac_j: f32[], energy per MAC.
        log_element_j: f32[], energy per activation element.
    """

    log_idle_w: jax.Array
    log_mac_j: jax.Array
    log_element_j: jax.Array


class TotalTimes(NamedTuple):
    """Parts of the time of a run, f32[...] each."""

    compute_s: jax.Array
    memory_s: jax.Array
    roofline_s: jax.Array
    layers_s: jax.Array
    run_s: jax.Array

    @property
    def latency_s(self) -> jax.Array:
        """Time of the run."""
        return self.roofline_s + self.layers_s + self.run_s


def total_times(base: LatencyBase, totals: NetworkTotals) -> TotalTimes:
    """Computes the parts of the latency of one network, in s."""
    compute_s = jnp.exp(base.log_mac_s) * totals.macs
    memory_s = jnp.exp(base.log_element_s) * totals.activation_elements
    memory_s += jnp.exp(base.log_weight_s) * (totals.conv_weights + totals.linear_weights)
    return TotalTimes(
        compute_s=compute_s,
        memory_s=memory_s,
        roofline_s=p_norm(compute_s, memory_s, 1.0 + jnp.exp(base.log_order_above_one)),
        layers_s=jnp.exp(base.log_layer_s) * totals.layers + jnp.exp(base.log_conv_s) * totals.conv_layers,
        run_s=jnp.exp(base.log_run_s),
    )


def base_power(base: PowerBase, totals: NetworkTotals, latency_s: jax.Array) -> jax.Array:
    """Mean power of one network over a run that takes `latency_s`, in W."""
    work_j = jnp.exp(base.log_mac_j) * totals.macs + jnp.exp(base.log_element_j) * totals.activation_elements
    return jnp.exp(base.log_idle_w) + work_j / latency_s


def latency_features(totals: NetworkTotals, times: TotalTimes) -> jax.Array:
    """Features of one network for a learned correction of its latency: logarithms of sizes, ratios and shares.

    Args:
        totals: Leaves f32[].
        times: Of the analytic model.

    Returns:
        f32[22]: sizes and counts; MACs per element and per parameter, parameters per convolution, mean fan-in, size
        of a map, channels of a batch norm, layers per convolution, batch norms per convolution; compute to
        memory time, and the shares of roofline, layers and run in the latency.
    """
    macs, elements, conv_weights, layers, convs, resolution = (
        jnp.log(jnp.maximum(count, 1.0))
        for count in (
            totals.macs,
            totals.activation_elements,
            totals.conv_weights,
            totals.layers,
            totals.conv_layers,
            totals.resolution,
        )
    )
    norm_weights, linear_weights, norms, linears = (
        jnp.log1p(count)
        for count in (totals.norm_weights, totals.linear_weights, totals.norm_layers, totals.linear_layers)
    )
    sizes = [macs, elements, conv_weights, norm_weights, linear_weights, convs, norms, layers, resolution, linears]
    ratios = [macs - elements, macs - conv_weights, conv_weights - convs, conv_weights - norm_weights]
    ratios += [elements - convs, norm_weights - norms, layers - convs, norms - convs]
    parts = (times.roofline_s, times.layers_s, times.run_s)
    compute, memory, latency, *shared = (
        jnp.log(part + _LEAST_S) for part in (times.compute_s, times.memory_s, times.latency_s, *parts)
    )
    shares = [compute - memory, *(part - latency for part in shared)]
    return jnp.stack([*sizes, *ratios, *shares])


def power_features(features: jax.Array, totals: NetworkTotals, latency_s: jax.Array) -> jax.Array:
    """Features of one network for a learned correction of its power: those of the latency and the rates.

    Args:
        features: f32[22] of `latency_features`.
        totals: Leaves f32[].
        latency_s: f32[], predicted.

    Returns:
        f32[25], with the logarithms of the latency, and of MACs and elements per second appended.
    """
    log_latency = jnp.log(latency_s)
    rates = jnp.stack([log_latency, features[0] - log_latency, features[1] - log_latency])
    return jnp.concatenate([features, rates])


def fit_latency_base(totals: NetworkTotals, latency_s: jax.Array) -> LatencyBase:
    """Fits the roofline to measured networks by gradient, with a Huber loss on the log ratio.

    Args:
        totals: Leaves f32[N].
        latency_s: f32[N], measured.

    Returns:
        The coefficients.
    """
    # Typical rates of embedded GPUs: 1 TMAC/s, 1e9 elements/s, 10 us per layer.
    first = LatencyBase(*(jnp.log(jnp.float32(start)) for start in (1e-12, 1e-9, 1e-9, 1e-5, 1e-5, 1e-4, 1.0)))
    return _fit(first, lambda base: total_times(base, totals).latency_s, latency_s)


def fit_power_base(totals: NetworkTotals, latency_s: jax.Array, power_w: jax.Array) -> PowerBase:
    """Fits the mean power to measured networks, as `fit_latency_base`.

    Args:
        totals: Leaves f32[N].
        latency_s: f32[N], as it will be at prediction: predicted, not measured.
        power_w: f32[N], measured mean power.

    Returns:
        The coefficients.
    """
    first = PowerBase(*(jnp.log(jnp.float32(start)) for start in (1.0, 1e-11, 1e-9)))
    return _fit(first, lambda base: base_power(base, totals, latency_s), power_w)


def _fit(first: BaseT, model: Callable[[BaseT], jax.Array], target: jax.Array) -> BaseT:
    optimiser = optax.adam(optax.cosine_decay_schedule(_LEARNING_RATE, _STEPS))

    def loss(base: BaseT) -> jax.Array:
        return jnp.mean(optax.huber_loss(jnp.log(model(base) / target), delta=_HUBER_DELTA))

    return minimise(loss, first, optimiser, steps=_STEPS)
