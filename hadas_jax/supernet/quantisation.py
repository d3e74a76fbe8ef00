"""Number formats, simulated in float32: what weights and activations become where a device stores them.

int8: kernels are symmetric per output channel, activations affine per tensor in unsigned bytes, as ONNX's
QuantizeLinear has them (Jacob et al. 2018, https://arxiv.org/abs/1712.05877; Nagel et al. 2021,
https://arxiv.org/abs/2106.08295). Biases and logits keep float32, as an exported network's sums are of 32 bit.
fp16: every kernel, bias and output of a layer is rounded to half precision, and sums are of 32 bit.
Rounding passes gradients straight through (Bengio et al. 2013, https://arxiv.org/abs/1308.3432), clipping none.
A range is float32[2], the least and the largest value of a tensor; 0 is always within, and is stored exactly.
Shapes: C input and O output channels, k kernel.
"""

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from hw_models import NumberFormat

RangeMethod = Literal["mse", "percentile", "minmax"]
UNIT = np.array([0.0, 1.0], np.float32)  # of what sigmoids give
_LEVELS, _KERNEL_LEVELS = 255.0, 127.0  # steps of an activation's range, of a kernel on each side of 0
_LEAST_SPAN = 1e-6
_LEAST_CHANNEL = 2.0**-12  # of a kernel's largest value: smaller channels share this scale, so that biases fit 32 bit
_SHARES = np.linspace(1.0, 0.4, 13, dtype=np.float32)  # of the farther end of a range that are tried
_SAMPLE = 2**16  # values of a tensor that errors are taken of, about
_CLIPPED = 1e-4  # of the values, by percentile


@dataclass(frozen=True)
class Storage:
    """How a network stores its weights and activations; static.

    Attributes:
        number_format: The format.
        ranges: How the ranges of int8 are found, see `find_range`.
    """

    number_format: NumberFormat = NumberFormat.FP32
    ranges: RangeMethod = "mse"


FLOAT32 = Storage()


@jax.custom_jvp
def _whole(x: jax.Array) -> jax.Array:
    return jnp.round(x)


@jax.custom_jvp
def _half(x: jax.Array) -> jax.Array:
    return jax.lax.reduce_precision(x, exponent_bits=5, mantissa_bits=10)


_whole.defjvp(lambda primals, tangents: (_whole(*primals), tangents[0]))
_half.defjvp(lambda primals, tangents: (_half(*primals), tangents[0]))


def activation_scale(range: jax.Array | np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Returns the scale of a range float32[2] and its zero point, a whole number in 0 .. 255; both float32[]."""
    range = jnp.asarray(range)
    low, high = jnp.minimum(range[0], 0.0), jnp.maximum(range[1], 0.0)
    scale = jnp.maximum(high - low, _LEAST_SPAN) / _LEVELS
    return scale, jnp.round(-low / scale)


def stored(x: jax.Array, number_format: NumberFormat, range: jax.Array | np.ndarray | None = None) -> jax.Array:
    """Returns an activation as it is read back after it was stored.

    Args:
        x: float32[...].
        number_format: The format; static.
        range: Of the tensor, for int8; None: it is not stored in 8 bit.
    """
    if number_format == NumberFormat.FP16:
        return _half(x)
    if number_format == NumberFormat.FP32 or range is None:
        return x
    scale, zero = activation_scale(range)
    return jnp.clip(_whole(x * (1.0 / scale)), -zero, _LEVELS - zero) * scale


def kernel_scale(kernel: jax.Array | np.ndarray) -> jax.Array:
    """Returns float32[O]: the scale of each output channel of a kernel [..., O]."""
    most = jnp.max(jnp.abs(kernel), axis=tuple(range(kernel.ndim - 1)))
    floor = jnp.maximum(jnp.max(most) * _LEAST_CHANNEL, _LEAST_SPAN)
    return jnp.maximum(most, floor) / _KERNEL_LEVELS


def stored_kernel(kernel: jax.Array, number_format: NumberFormat) -> jax.Array:
    """Returns a kernel [..., O] as it is read back after it was stored; the scale of int8 passes no gradient."""
    if number_format == NumberFormat.FP16:
        return _half(kernel)
    if number_format == NumberFormat.FP32:
        return kernel
    scale = jax.lax.stop_gradient(kernel_scale(kernel)).reshape((1,) * (kernel.ndim - 1) + (-1,))
    return _whole(kernel / scale) * scale


def stored_bias(bias: jax.Array, number_format: NumberFormat) -> jax.Array:
    """Returns a bias as it is read back after it was stored; int8 keeps biases in 32 bit."""
    return _half(bias) if number_format == NumberFormat.FP16 else bias


def swish(x: jax.Array, number_format: NumberFormat) -> jax.Array:
    """Returns x sigmoid(x) where the sigmoid is stored, as exported networks do; the product is not stored yet."""
    if number_format == NumberFormat.FP32:
        return jax.nn.swish(x)
    return x * stored(jax.nn.sigmoid(x), number_format, UNIT)


def find_range(x: jax.Array, method: RangeMethod = "mse") -> jax.Array:
    """Finds the range to store a tensor in 8 bit with; channels that are zero everywhere do not count.

    Args:
        x: float32[...].
        method: `minmax`: all values fit. `mse`: the farther end is drawn in to where the mean squared error of what is
            read back is least, of some 65,536 values at even steps. `percentile`: it is drawn in as long as one value
            in 10,000 at most is clipped.

    Returns:
        float32[2].
    """
    low, high = jnp.minimum(jnp.min(x), 0.0), jnp.maximum(jnp.max(x), 0.0)
    whole = jnp.stack([low, high])
    if method == "minmax":
        return whole
    ends = jnp.asarray(_SHARES) * jnp.maximum(-low, high)
    if method == "percentile":
        clipped = jax.lax.map(lambda end: jnp.mean((jnp.abs(x) > end).astype(jnp.float32)), ends)
        end = jnp.min(jnp.where(clipped <= _CLIPPED, ends, jnp.inf))
    else:
        some = _sample(x)

        def error(end: jax.Array) -> jax.Array:
            return jnp.mean(jnp.square(stored(some, NumberFormat.INT8, jnp.clip(whole, -end, end)) - some))

        end = ends[jnp.argmin(jax.lax.map(error, ends))]
    return jnp.clip(whole, -end, end)


def _sample(x: jax.Array) -> jax.Array:
    """Returns every n-th value of a tensor float32[..., C], of all channels alike."""
    step = max(x.size // _SAMPLE, 1)
    while math.gcd(step, x.shape[-1]) > 1:
        step += 1
    return x.reshape(-1)[::step]


class Stored(nn.Module):
    """An activation of a supernet as the network stores it.

    Where batch norm takes the batch's own statistics, nothing is rounded, and the range for int8 is found and put into
    the collection `batch_stats` if that is mutable; otherwise the range that is there rounds.

    Attributes:
        storage: How.
        observes: Batch norm takes the batch's own statistics.
    """

    storage: Storage
    observes: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns x as it is read back."""
        number_format = self.storage.number_format
        if number_format != NumberFormat.INT8:
            return x if self.observes else stored(x, number_format)
        if self.observes:
            if self.is_mutable_collection("batch_stats"):
                self.variable("batch_stats", "range", lambda: find_range(x, self.storage.ranges))
            return x
        return stored(x, number_format, self.variable("batch_stats", "range", jnp.zeros, (2,)).value)
