from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.supernet.darts.ops import depthwise
from hadas_jax.supernet.layers import SMALL_MAP, conv, depthwise_conv

LAYOUT = ("NHWC", "HWIO", "NHWC")


def draw_arrays(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def grouped(images, kernel, stride):
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        images,
        kernel[:, :, None],
        (stride, stride),
        ((pad, pad), (pad, pad)),
        dimension_numbers=LAYOUT,
        feature_group_count=images.shape[-1],
        precision="highest",
    )


def with_gradients(function, images, kernel):
    """The result and both gradients of a fixed random projection of it."""

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def run(images, kernel):
        out, back = jax.vjp(function, images, kernel)
        (upstream,) = draw_arrays(out.shape)
        return out, *back(upstream)

    return run(images, kernel)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 8), (14, 15)])
def test_depthwise_convolution_and_both_gradients_are_the_grouped_ones(size, k, stride):
    arrays = draw_arrays((2, *size, 3), (k, k, 3))
    expected = with_gradients(lambda x, w: grouped(x, w, stride), *arrays)
    found = with_gradients(lambda x, w: depthwise_conv(x, w, stride), *arrays)
    assert found[0].shape == (2, -(-size[0] // stride), -(-size[1] // stride), 3)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("k", "stride"), [(3, 1), (5, 2)])
@pytest.mark.parametrize("size", [(2, 3), (8, 8), (14, 15)])
def test_dilated_convolution_and_both_gradients_are_those_of_a_kernel_with_holes(size, k, stride):
    images, kernel = draw_arrays((2, *size, 3), (k, k, 3))

    def with_holes(x, w):
        wide = jnp.zeros((2 * k - 1, 2 * k - 1, 3), w.dtype).at[::2, ::2].set(w)
        return grouped(x, wide, stride)

    expected = with_gradients(with_holes, images, kernel)
    found = with_gradients(lambda x, w: depthwise_conv(x, w, stride, dilation=2), images, kernel)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_the_sizes_above_are_on_both_sides_of_the_small_map():
    assert 8 * 8 <= SMALL_MAP < 14 * 15


@pytest.mark.parametrize(("size", "k", "stride", "padding"), [(9, 3, 2, 1), (8, 3, 1, 1), (4, 3, 1, 0)])
def test_dense_convolution_and_its_gradients_are_laxs(size, k, stride, padding):
    images, kernel = draw_arrays((2, size, size, 3), (k, k, 3, 5))

    def lax_conv(x, w):
        pads = ((padding, padding),) * 2
        return jax.lax.conv_general_dilated(x, w, (stride, stride), pads, dimension_numbers=LAYOUT)

    expected = with_gradients(lax_conv, images, kernel)
    found = with_gradients(lambda x, w: conv(x, w, stride=stride, padding=padding), images, kernel)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


CONVOLUTIONS = {
    "dense": (lambda x, w: conv(x, w, stride=1, padding=1), (2, 8, 8, 3), (3, 3, 3, 5)),
    "depthwise": (depthwise_conv, (2, 8, 8, 3), (3, 3, 3)),
    "depthwise, batch last": (depthwise, (3, 8, 8, 2), (3, 3, 3)),
}


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize("name", list(CONVOLUTIONS))
def test_the_way_of_a_convolution_and_its_gradients_is_chosen_where_it_is_lowered(name, platform):
    function, *shapes = CONVOLUTIONS[name]

    def gradients(x, w):
        out, back = jax.vjp(function, x, w)
        return back(out)

    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    text = jax.export.export(jax.jit(gradients), platforms=[platform])(*arrays).mlir_module()
    assert text.count("stablehlo.convolution") == (0 if platform == "cpu" else 3)


def test_wrong_ranks_are_named():
    with pytest.raises(AssertionError, match=r"images \[B, H, W, C\] and kernel \[k, k, C, O\]"):
        conv(jnp.zeros((2, 8, 8)), jnp.zeros((3, 3, 3, 5)), stride=1, padding=1)
