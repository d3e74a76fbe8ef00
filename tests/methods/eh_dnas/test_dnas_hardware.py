import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.methods.eh_dnas.hardware import accelerator_hardware, device_hardware
from hadas_jax.spaces.darts import DARTS_CODES, sample_codes, sampled_codes
from hadas_jax.spaces.darts_costs import darts_counts, darts_workload, published_generic_table, throughput_table
from hadas_jax.spaces.darts_network import DartsNetwork
from hw_models import default_point, load_device, network_cost, operating_points
from hw_models.accelerator import load_fpga
from hw_models.predictors import fit_predictor, predict_throughput, predict_throughputs, recipe_of

KEY = jax.random.key(7)
NETWORK = DartsNetwork()
CODE = sample_codes(jax.random.key(0), 1)[0].astype(jnp.int32)


@pytest.fixture(scope="module", params=["agx-xavier-gpu", "raspberry-pi-4", "coral-edge-tpu"])
def priced(request):
    """A device, and what prices networks on it."""
    device = load_device(request.param)
    return device, device_hardware(device, NETWORK)


def test_a_device_prices_a_network_as_the_roofline_model_does(priced):
    device, hardware = priced
    costs = jax.jit(hardware.exact)(CODE)
    points = operating_points(device)
    assert costs.image_s.shape == points.core_hz.shape
    fastest = int(np.argmin(costs.image_s))
    fewer = jax.tree.map(lambda leaf: leaf[fastest], points)
    expected = jax.jit(lambda: network_cost(darts_workload(NETWORK, CODE), device, fewer))()
    np.testing.assert_allclose(costs.image_s[fastest], expected.latency_s, rtol=1e-5)
    np.testing.assert_allclose(costs.energy_j[fastest], expected.energy_j, rtol=1e-5)
    assert float(hardware.points.core_hz[fastest]) == float(default_point(device).core_hz)


def test_expected_cost_at_a_one_hot_alpha_is_the_networks_and_its_gradient_pays_for_convolutions(priced):
    _, hardware = priced

    def cost(alpha):
        costs = hardware.relaxed(alpha, KEY)
        return jnp.sum(jnp.log(costs.image_s)), costs

    slope = jax.jit(jax.grad(cost, has_aux=True))
    exact, (_, relaxed) = jax.jit(hardware.exact)(CODE), slope(80.0 * jax.nn.one_hot(CODE, 8))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), exact, relaxed)
    gradient, _ = slope(0.1 * jax.random.normal(jax.random.key(3), (28, 8)))
    assert np.isfinite(gradient).all()
    by_operation = np.asarray(gradient).sum(axis=0)
    assert by_operation[5] > by_operation[3]  # sep_conv_5x5 and skip_connect


@pytest.fixture(scope="module")
def predicted():
    """The pipeline accelerator with a predictor of it."""
    fpga = load_fpga("ku115")
    codes = jax.jit(sample_codes, static_argnums=1)(jax.random.key(1), 3000)
    throughputs = throughput_table("pipeline", NETWORK, fpga=fpga)(codes)
    recipe = dataclasses.replace(recipe_of("mlp"), hidden=(32,), epochs=10, batch=100)
    predictor = fit_predictor(jax.random.key(2), codes, throughputs, layout=DARTS_CODES, recipe=recipe).predictor
    return predictor, accelerator_hardware("pipeline", NETWORK, fpga=fpga, predictor=predictor)


def test_an_accelerators_expected_cost_at_a_one_hot_alpha_is_its_predictors_for_the_network(predicted):
    predictor, hardware = predicted
    relaxed = jax.jit(hardware.relaxed)(80.0 * jax.nn.one_hot(CODE, 8), KEY)
    np.testing.assert_allclose(relaxed.image_s[0], 1 / predict_throughput(predictor, CODE).throughput, rtol=1e-4)


def test_an_accelerators_expected_cost_is_the_mean_over_networks(predicted):
    predictor, hardware = predicted
    alpha = 0.5 * jax.random.normal(jax.random.key(3), (28, 8))
    sampled = jax.jit(sampled_codes, static_argnums=2)(jax.random.key(4), alpha, 4000)
    codes = jnp.argmax(sampled, axis=-1).astype(jnp.int32)
    expected = -jnp.mean(jnp.log(predict_throughputs(predictor, codes).throughput))
    relaxed = jax.jit(hardware.relaxed)
    found = [jnp.log(relaxed(alpha, jax.random.key(seed)).image_s[0]) for seed in range(5)]
    np.testing.assert_allclose(jnp.mean(jnp.stack(found)), expected, atol=0.05)


def test_gradient_of_a_pipeline_pays_for_what_makes_its_slowest_stage(predicted):
    _, hardware = predicted
    slope = jax.jit(jax.grad(lambda alpha, key: jnp.log(hardware.relaxed(alpha, key).image_s[0])))
    keys = jax.random.split(KEY, 8)
    by_operation = np.mean([np.asarray(slope(jnp.zeros((28, 8)), key)) for key in keys], axis=0).sum(axis=0)
    assert np.isfinite(by_operation).all()
    assert by_operation[5] > by_operation[3]  # sep_conv_5x5 and skip_connect


def test_the_generic_accelerator_is_priced_by_its_published_table():
    hardware = accelerator_hardware("generic", NETWORK, fpga=load_fpga("ku115"), predictor=None)
    expected = 1 / published_generic_table().cost(darts_counts(CODE)).throughput
    np.testing.assert_allclose(hardware.exact(CODE).image_s, expected, rtol=1e-6)
    assert hardware.exact(CODE).energy_j is None
    with pytest.raises(ValueError, match="predictor: expected one"):
        hardware.relaxed(jnp.zeros((28, 8)), KEY)
