"""What all networks are made of: convolutions, batch norm, resizing, and how modules are applied to trees of weights.

Layers compute in the type of their input, float32 or bfloat16; parameters and statistics are float32.

XLA's convolutions are slow on CPUs. Code that is lowered for one has others in their place: a dense convolution is a
matrix product over gathered patches, a depthwise one k * k shifted multiply-adds, which fuse into one pass.
Shapes: B batch, H, W image, C input and O output channels, k kernel.
"""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import ArrayLike, DTypeLike

LAYOUT = ("NHWC", "HWIO", "NHWC")
SMALL_MAP = 196  # input pixels up to which the gradient of a depthwise kernel is a matrix product
_BICUBIC = -0.75  # the a of Keys, "Cubic convolution interpolation", 1981
Tree = Any  # a pytree of arrays, nested by module name


def per_platform(on_cpu: Callable, elsewhere: Callable, *, gradients_on_cpu: Callable) -> Callable[..., jax.Array]:
    """Returns a function (x, kernel, int, int) that is computed in one way on CPUs and in another elsewhere.

    The choice is made when code is lowered, so that a CPU can compile for accelerators. So it is for the gradients,
    which keep x and kernel alone.

    Args:
        on_cpu: The function as CPUs compute it.
        elsewhere: The same function as other platforms compute it.
        gradients_on_cpu: Maps (x, kernel, gradient of the result, int, int) to the gradients by x and kernel.
    """

    def gradients_elsewhere(x: jax.Array, kernel: jax.Array, gradient: jax.Array, *static: int) -> Any:
        return jax.vjp(lambda x, kernel: elsewhere(x, kernel, *static), x, kernel)[1](gradient)

    def run(*args: Any) -> jax.Array:
        return jax.lax.platform_dependent(cpu=lambda: on_cpu(*args), default=lambda: elsewhere(*args))

    def forward(x: jax.Array, kernel: jax.Array, first: int, second: int) -> tuple[jax.Array, tuple]:
        return run(x, kernel, first, second), (x, kernel)

    def backward(first: int, second: int, kept: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        args = (*kept, gradient, first, second)
        ways = partial(gradients_on_cpu, *args), partial(gradients_elsewhere, *args)
        return jax.lax.platform_dependent(cpu=ways[0], default=ways[1])

    with_gradients = jax.custom_vjp(run, nondiff_argnums=(2, 3))
    with_gradients.defvjp(forward, backward)
    return with_gradients


def conv(images: jax.Array, kernel: jax.Array, *, stride: int, padding: int) -> jax.Array:
    """Convolves images [B, H, W, C] with a kernel [k, k, C, O], padded symmetrically by `padding`."""
    chex.assert_rank([images, kernel], 4, custom_message="images [B, H, W, C] and kernel [k, k, C, O]")
    return _dense(images, kernel, stride, padding)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _dense(*args: Any) -> jax.Array:
    return jax.lax.platform_dependent(cpu=lambda: _conv_by_patches(*args), default=lambda: _dense_conv(*args))


def _dense_jvp(stride: int, padding: int, primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """For derivatives of all orders in both directions, without keeping what either way needs for them."""
    (images, kernel), (to_images, to_kernel) = primals, tangents
    result = _dense(images, kernel, stride, padding)
    parts = []
    if not isinstance(to_images, jax.custom_derivatives.SymbolicZero):
        parts.append(_dense(to_images, kernel, stride, padding))
    if not isinstance(to_kernel, jax.custom_derivatives.SymbolicZero):
        parts.append(_dense(images, to_kernel, stride, padding))
    return result, sum(parts[1:], start=parts[0]) if parts else jnp.zeros_like(result)


_dense.defjvp(_dense_jvp, symbolic_zeros=True)


def _dense_conv(images: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    pads = ((padding, padding),) * 2
    return jax.lax.conv_general_dilated(images, kernel, (stride, stride), pads, dimension_numbers=LAYOUT)


def _conv_by_patches(images: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    k, _, channels, out_channels = kernel.shape
    height, width = images.shape[1:3]
    if height * width < k * k:
        return _conv_by_pixels(images, kernel, stride, padding)
    patches = jnp.concatenate(_shifted_views(_pad(images, padding), k, stride), axis=-1)
    return patches @ kernel.reshape(k * k * channels, out_channels)


def _conv_by_pixels(images: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """For maps of fewer pixels than the kernel has taps: a product over all pixels, in which padding costs nothing."""
    k, _, channels, out_channels = kernel.shape
    inputs = images.shape[1:3]
    outputs = tuple((n + 2 * padding - k) // stride + 1 for n in inputs)
    joins = _tap_of_pixels(inputs, outputs, k, stride, padding)
    taps = np.where(joins.any(-1), joins.argmax(-1), k * k)  # [input pixels, output pixels], k * k: none
    table = jnp.concatenate([kernel.reshape(k * k, channels, out_channels), jnp.zeros_like(kernel[0, :1])])
    matrix = jnp.moveaxis(table[taps], 1, 2).reshape(taps.shape[0] * channels, taps.shape[1] * out_channels)
    return (images.reshape(images.shape[0], -1) @ matrix).reshape(-1, *outputs, out_channels)


def _pad(images: jax.Array, pad: int) -> jax.Array:
    return jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))


def _shifted_views(padded: jax.Array, k: int, stride: int, dilation: int = 1) -> list[jax.Array]:
    """Returns the k * k strided views [..., H', W', C] of a padded image, row by row."""
    reach = dilation * (k - 1) + 1
    height, width = (1 + (n - reach) // stride for n in padded.shape[-3:-1])
    return [
        padded[..., i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride, :]
        for i in range(0, reach, dilation)
        for j in range(0, reach, dilation)
    ]


def _tap_of_pixels(
    inputs: tuple[int, ...], outputs: tuple[int, ...], k: int, stride: int, padding: int, dilation: int = 1
) -> np.ndarray:
    """Returns float32[input pixels, output pixels, k * k]: 1 where the tap joins the two pixels."""
    taps = np.zeros((*inputs, *outputs, k, k), np.float32)
    for row, column in np.ndindex(*outputs):
        for i, j in np.ndindex(k, k):
            source = (row * stride + i * dilation - padding, column * stride + j * dilation - padding)
            if all(0 <= at < size for at, size in zip(source, inputs, strict=True)):
                taps[(*source, row, column, i, j)] = 1.0
    return taps.reshape(np.prod(inputs), np.prod(outputs), k * k)


def depthwise_conv(images: jax.Array, kernel: jax.Array, stride: int = 1, *, dilation: int = 1) -> jax.Array:
    """Convolves each channel with its own kernel, padded symmetrically by dilation * (k // 2).

    Args:
        images: [B, H, W, C].
        kernel: [k, k, C], k odd.
        stride: 1 or 2.
        dilation: Distance of neighbouring taps in pixels.

    Returns:
        [B, ceil(H / stride), ceil(W / stride), C].
    """
    chex.assert_rank([images, kernel], [4, 3], custom_message="images [B, H, W, C] and kernel [k, k, C]")
    k = kernel.shape[0]
    # Taps that reach beyond the map from everywhere are left out: on a map of one pixel, the centre is all.
    rim = max(k // 2 - (max(images.shape[1:3]) - 1) // dilation, 0)
    return _depthwise(images, kernel[rim : k - rim, rim : k - rim], stride, dilation)


def _grouped_conv(images: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    return jax.lax.conv_general_dilated(
        images,
        kernel[:, :, None],
        (stride, stride),
        ((dilation * (kernel.shape[0] // 2),) * 2,) * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=LAYOUT,
        feature_group_count=kernel.shape[-1],
    )


def _shifted_conv(images: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    return _multiply_add(_pad(images, dilation * (kernel.shape[0] // 2)), kernel, stride, dilation)


def _multiply_add(padded: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    k, _, channels = kernel.shape
    taps = kernel.reshape(k * k, 1, 1, 1, channels)
    first, *others = _shifted_views(padded, k, stride, dilation)
    total = first * taps[0]
    for view, tap in zip(others, taps[1:], strict=True):
        total = total + view * tap
    return total


def _shifted_gradients(
    images: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int, dilation: int
) -> tuple[jax.Array, jax.Array]:
    k, _, channels = kernel.shape
    height, width = images.shape[1:3]

    # Input: the transposed convolution, that is, the flipped kernel over the gradient spread out by the stride.
    spread = gradient
    if stride > 1:
        rows, cols = (stride * (n - 1) + 1 for n in gradient.shape[1:3])
        spread = jnp.zeros((gradient.shape[0], rows, cols, channels), gradient.dtype)
        spread = spread.at[:, ::stride, ::stride, :].set(gradient)
    before = dilation * (k - 1 - k // 2)
    after = [n + before - m for n, m in zip((height, width), spread.shape[1:3], strict=True)]
    spread = jnp.pad(spread, ((0, 0), (before, after[0]), (before, after[1]), (0, 0)))
    to_images = _multiply_add(spread, kernel[::-1, ::-1], 1, dilation)

    by_pixels = height * width <= SMALL_MAP
    gradient_of_kernel = _kernel_gradient_by_pixels if by_pixels else _kernel_gradient_by_image
    to_kernel = gradient_of_kernel(images, gradient, k, stride, dilation)
    return to_images, to_kernel.reshape(kernel.shape).astype(kernel.dtype)


def _kernel_gradient_by_pixels(images: jax.Array, gradient: jax.Array, k: int, stride: int, dilation: int) -> jax.Array:
    """Returns [k * k, C] from the products of all pairs of input and output pixels, of which a tap sums a diagonal.

    Beside image by image: 3 to 10 times faster at 2x2 to 8x8 pixels, 1.2 to 3 times at 14x14, and quicker to compile.
    """
    batch, *_, channels = images.shape
    x, y = (a.reshape(batch, -1, channels) for a in (images, gradient))
    products = jnp.einsum("bic,boc->cio", x, y, preferred_element_type=jnp.float32).reshape(channels, -1)
    joins = _tap_of_pixels(images.shape[1:3], gradient.shape[1:3], k, stride, dilation * (k // 2), dilation)
    return (products @ joins.reshape(-1, k * k)).T


def _kernel_gradient_by_image(images: jax.Array, gradient: jax.Array, k: int, stride: int, dilation: int) -> jax.Array:
    """Returns [k * k, C], image by image, so that no k * k copies of the batch are held."""

    def add(total: jax.Array, pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        padded, grad = pair
        views = _shifted_views(padded, k, stride, dilation)
        return total + jnp.stack([jnp.sum(view * grad, axis=(0, 1), dtype=jnp.float32) for view in views]), None

    start = jnp.zeros((k * k, images.shape[-1]), jnp.float32)
    return jax.lax.scan(add, start, (_pad(images, dilation * (k // 2)), gradient))[0]


_depthwise = per_platform(_shifted_conv, _grouped_conv, gradients_on_cpu=_shifted_gradients)


def _fan_in_std(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Returns sqrt(1 / fan in) everywhere, for linear layers [C, O]."""
    return jnp.full(shape, (1.0 / shape[0]) ** 0.5, dtype)


def half_size_average(x: jax.Array) -> jax.Array:
    """2x2 average pooling of [B, H, W, C] with stride 2; odd sizes are padded by 1 and the padding counts."""
    pads = [(0, 0), *((n % 2, n % 2) for n in x.shape[1:3]), (0, 0)]
    total = jax.lax.reduce_window(x, np.zeros((), x.dtype), jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), pads)
    return total / 4.0


class BatchNorm(nn.Module):
    """Batch normalisation whose statistics are either the batch's own or given ones.

    With `use_batch_stats` the batch's statistics normalise, and are stored (variance unbiased, as PyTorch keeps
    it) when the collection `batch_stats` is mutable; otherwise the stored ones normalise.
    """

    use_batch_stats: bool
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises [B, ..., C] over all axes but the last."""
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        if self.use_batch_stats:
            axes = tuple(range(x.ndim - 1))
            wide = x.astype(jnp.float32)
            mean = jnp.mean(wide, axes)
            var = jnp.maximum(jnp.mean(wide * wide, axes) - mean * mean, 0.0)  # one pass over x for both
            if self.is_mutable_collection("batch_stats"):
                count = x.size // channels
                self.variable("batch_stats", "mean", lambda: mean)
                self.variable("batch_stats", "var", lambda: var * (count / max(count - 1, 1)))
        else:
            mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,)).value
            var = self.variable("batch_stats", "var", jnp.ones, (channels,)).value
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return along_channels(factor, x) * x + along_channels(bias - mean * factor, x)


def along_channels(vector: jax.Array, like: jax.Array) -> jax.Array:
    """Returns a vector [C] in the type and with the axes of [..., C]."""
    return vector.astype(like.dtype).reshape((1,) * (like.ndim - 1) + vector.shape)


def linear(features: int, x: jax.Array, *, name: str) -> jax.Array:
    """Maps x [B, C] linearly to [B, features]; to be called within a module."""
    return nn.Dense(features, kernel_init=_fan_in_std, dtype=x.dtype, name=name)(x)


def resize(images: jax.Array, size: int) -> jax.Array:
    """Resizes images to `size` x `size` pixels by `torch.nn.functional.interpolate(mode="bicubic")`.

    So networks see what their checkpoints were trained on: `jax.image.resize` takes a = -0.5 and smooths where it
    shrinks; PyTorch takes a = -0.75, half-pixel centres, repeats the border and never smooths. Rows and columns are one
    small matrix product each.

    Args:
        images: Floating [..., H, W, C].
        size: Static, at least 1.

    Returns:
        [..., size, size, C]; the images themselves where they have this size.

    Raises:
        ValueError: The size is below 1.
    """
    if size < 1:
        raise ValueError(f"size: expected at least 1 pixel, got {size}")
    height, width = images.shape[-3:-1]
    if height != size:
        images = jnp.einsum("...hwc,yh->...ywc", images, _bicubic(height, size, images.dtype), precision="highest")
    if width != size:
        images = jnp.einsum("...hwc,xw->...hxc", images, _bicubic(width, size, images.dtype), precision="highest")
    return images


def _bicubic(before: int, after: int, dtype: jnp.dtype) -> jax.Array:
    return jnp.asarray(bicubic_weights(before, after), dtype)


@functools.lru_cache(maxsize=64)
def bicubic_weights(before: int, after: int) -> np.ndarray:
    """Returns float64[after, before]: what every pixel of a line adds to every pixel of the resized line."""
    centres = (np.arange(after) + 0.5) * before / after - 0.5
    lower = np.floor(centres).astype(int)
    weights = np.zeros((after, before))
    for tap in range(-1, 3):
        source = lower + tap
        np.add.at(weights, (np.arange(after), np.clip(source, 0, before - 1)), _cubic(np.abs(centres - source)))
    return weights


def _cubic(distance: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel at distances in 0 .. 2."""
    a, d = _BICUBIC, distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((d - 5) * d + 8) * d * a - 4 * a
    return np.where(d <= 1, near, far)


def drop_factors(key: jax.Array, rate: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Draws factors float32[shape] that drop with a rate and keep the mean: 0, or 1 / (1 - rate)."""
    kept = jax.random.uniform(key, shape) >= rate
    return kept.astype(jnp.float32) / (1.0 - rate)


def mean_over(function: Callable[[jax.Array], Tree], batches: jax.Array, *, like: Tree) -> Tree:
    """Returns the mean over batches [N, ...] of what a function returns for each, a tree of the shapes of `like`."""

    def add(total: Tree, batch: jax.Array) -> tuple[Tree, None]:
        return jax.tree.map(jnp.add, total, function(batch)), None

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
    total, _ = jax.lax.scan(add, zeros, batches)
    return jax.tree.map(lambda leaf: leaf / len(batches), total)


def is_kernel(tree: Tree) -> Tree:
    """Returns which leaves of a tree of weights are kernels: neither biases nor batch-norm parameters."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in ("bias", "scale"), tree)


def call(module: nn.Module, weights: Tree, stats: Tree | None, *args: Any, keep_stats: bool) -> tuple[Any, Tree]:
    """Applies a module to its weights.

    Args:
        module: With `use_batch_stats` where `stats` is None.
        weights: Of the module.
        stats: Given batch-norm statistics; None: the batch's own normalise.
        args: Inputs.
        keep_stats: Return the batch's own statistics.

    Returns:
        The output, and the batch's statistics or an empty tree.
    """
    if stats is not None:
        return module.apply({"params": weights, "batch_stats": stats}, *args), {}
    if not keep_stats:
        return module.apply({"params": weights}, *args), {}
    output, found = module.apply({"params": weights}, *args, mutable=["batch_stats"])
    return output, found["batch_stats"]
