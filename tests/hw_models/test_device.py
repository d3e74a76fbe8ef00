"""Tests of devices and operating points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hw_models as hw


def test_every_number_of_a_device_is_a_float32_leaf(device):
    leaves = jax.tree.leaves(device)
    assert len(leaves) == 23
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)
    assert device.name == "agx-xavier-gpu"


def test_agx_xavier_has_3654_operating_points(device):
    points = hw.operating_points(device)
    assert {leaf.shape for leaf in jax.tree.leaves(points)} == {(3654,)}
    assert len(np.unique(np.stack(jax.tree.leaves(points)), axis=1).T) == 3654


def test_points_stand_in_the_documented_order(device):
    _, n_memory, n_host = 14, 9, 29
    points = hw.operating_points(device)
    c, m, h = 3, 7, 11
    at = (c * n_memory + m) * n_host + h
    chosen = hw.operating_point(device, jnp.array([c, m, h]))
    assert jax.tree.map(lambda leaf: float(leaf[at]), points) == jax.tree.map(float, chosen)
    np.testing.assert_allclose(chosen.core_hz, 420.75e6)
    np.testing.assert_allclose(chosen.memory_hz, 1866e6)
    np.testing.assert_allclose(chosen.host_hz, 960e6)


def test_indices_may_be_batched_and_are_clipped(device):
    points = hw.operating_point(device, jnp.array([[[0, 0, 0], [99, 99, 99]]]))
    assert points.core_hz.shape == (1, 2)
    assert float(points.core_hz[0, 1]) == float(device.core_hz[-1])
    assert float(hw.operating_point(device, jnp.array([-1, 0, 0])).core_hz) == float(device.core_hz[0])


@pytest.mark.parametrize("indices", [np.zeros(3, np.float32), np.zeros(2, np.int32), np.int32(1)])
def test_indices_of_another_form_are_refused(device, indices):
    with pytest.raises(AssertionError, match="indices"):
        hw.operating_point(device, indices)


def test_the_default_point_is_the_highest_clocks(device):
    point = hw.default_point(device)
    np.testing.assert_allclose(jax.tree.leaves(point), [1377e6, 2133e6, 2265.6e6])


def test_a_device_keeps_the_clocks_that_are_asked_for(device):
    few = hw.with_clocks(device, core_hz=[1377e6, 115e6], host_hz=[2265.6e6])
    np.testing.assert_allclose(few.core_hz, [114.75e6, 1377e6])
    assert few.memory_hz.shape == (9,)
    assert few.host_hz.shape == (1,)


def test_caps_include_their_own_setting_and_infinity_is_no_cap(device):
    capped = hw.with_caps(device, hw.OperatingPoint(jnp.float32(522.75e6), jnp.float32(np.inf), jnp.float32(1e9)))
    assert float(capped.core_hz[-1]) == pytest.approx(522.75e6)
    assert capped.memory_hz.shape == (9,)
    assert float(capped.host_hz.max()) <= 1e9


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"core_hz": [1e9]}, r"core_hz: expected settings of agx-xavier-gpu \(114.75 .* MHz\), got 1000 MHz"),
        ({"core_hz": [1377e9]}, r"core_hz: expected settings .*, got 1377000 MHz: 1,377 MHz if it was in kHz"),
        ({"core_hz": [1.377e6]}, r"core_hz: expected settings .*, got 1.377 MHz: 1,377 MHz if it was in GHz"),
        ({"memory_hz": [np.nan]}, "memory_hz: expected settings .*, got nan MHz"),
        ({"host_hz": []}, "host_hz: expected at least one setting of agx-xavier-gpu, got none"),
    ],
)
def test_clocks_that_a_device_lacks_are_named(device, asked, message):
    with pytest.raises(ValueError, match=message):
        hw.with_clocks(device, **asked)


def test_a_cap_below_every_setting_is_refused(device):
    with pytest.raises(ValueError, match=r"core_hz: expected a cap of at least 114.75 MHz, the lowest setting"):
        hw.with_caps(device, hw.OperatingPoint(*(jnp.float32(1e8),) * 3))
