"""Corrections of devices: features of layer tables, where they reach, and what networks then cost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hw_models as hw
from hw_models.catalogue import to_device
from hw_models.correction import (
    BoardPredictor,
    Seen,
    encode_correction,
    layer_features,
    load_board_predictor,
)
from hw_models.reference_networks import mobilenet_v2, resnet50

BOARDS = ("agx-xavier-gpu", "nano-gpu", "tx2-gpu")


def features(layers):
    return jax.tree.map(jnp.sum, layer_features(layers))


@pytest.fixture(scope="module")
def priced():
    return jax.jit(hw.network_cost)


@pytest.mark.parametrize(
    ("network", "counted", "tolerance"),
    [
        # As the table of https://github.com/HalimaBouzidi/perf_prediction counts them at 224 pixels.
        (mobilenet_v2, (304.4e6, 2189760, 68224, 1281000, 21967835, 157, 52, 52, 1, 224), 0.02),
        (resnet50, (3892.6e6, 23481472, 106240, 2049000, 37120212, 177, 53, 53, 1, 224), 0.1),
    ],
)
def test_layer_tables_are_counted_as_the_data_of_the_boards_do(network, counted, tolerance):
    np.testing.assert_allclose(jax.tree.leaves(features(network(224))), counted, rtol=tolerance)


def test_rows_of_padding_count_nothing(mobilenet):
    padded = jax.tree.map(lambda column: jnp.pad(column, (3, 5)), mobilenet)
    np.testing.assert_allclose(jax.tree.leaves(features(padded)), jax.tree.leaves(features(mobilenet)))


@pytest.mark.parametrize("name", BOARDS)
@pytest.mark.parametrize("network", [mobilenet_v2, resnet50])
def test_a_network_like_those_of_the_data_takes_what_the_board_says_and_as_much_more_at_other_clocks(
    name, network, priced
):
    device, layers = hw.load_device(name), network(224)
    bare = dataclasses.replace(device, correction=None)
    expected = jax.jit(BoardPredictor.predict)(load_board_predictor(name), features(layers)).latency.mean
    assert float(device.correction.weight(features(layers))) == 1
    found, ratios = priced(layers, device, hw.default_point(device)), []
    np.testing.assert_allclose(found.latency_s, expected, rtol=0.01)  # by a small network in the ensemble's place
    for indices in ([0, 0, 0], [5, 3, 2]):
        point = hw.operating_point(device, jnp.array(indices))
        corrected, roofline = (priced(layers, each, point) for each in (device, bare))
        ratios += [corrected.latency_s / roofline.latency_s, corrected.energy_j / roofline.energy_j]
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-5)


def test_the_correction_of_a_device_stays_when_its_clocks_and_formats_are_fewer(priced, mobilenet):
    device = hw.load_device("tx2-gpu")
    slow = hw.load_device("tx2-gpu", mode="maxq")
    swapped = dataclasses.replace(slow, formats=(hw.NumberFormat.FP16, *slow.formats))
    point = hw.default_point(slow)
    expected = priced(mobilenet, device, point)
    np.testing.assert_allclose(priced(mobilenet, slow, point).latency_s, expected.latency_s, rtol=1e-6)
    found = jax.jit(hw.network_cost, static_argnames="number_format")(
        mobilenet, swapped, point, number_format=hw.NumberFormat.FP32
    )
    np.testing.assert_allclose(found.latency_s, expected.latency_s, rtol=1e-6)


def test_a_network_unlike_all_of_the_data_takes_what_the_roofline_says(priced):
    tiny = hw.layer_table([0], [1e3], weight_elements=[10], input_elements=[64], output_elements=[64])
    device = hw.load_device("nano-gpu")
    bare = dataclasses.replace(device, correction=None)
    assert float(device.correction.weight(features(tiny))) == 0
    found, expected = (priced(tiny, each, hw.default_point(device)) for each in (device, bare))
    np.testing.assert_allclose(found.latency_s, expected.latency_s, rtol=1e-6)


def test_a_correction_fades_smoothly_from_its_data():
    seen = Seen(jnp.zeros((2, 4)).at[1].set(10.0))
    distance = jnp.linspace(0.0, 3.0, 301)
    weight = np.asarray(jax.vmap(lambda d: seen.weight(jnp.full(4, -d)))(distance))
    assert (weight[:101] == 1).all()
    assert (weight[200:] == 0).all()
    assert (np.diff(weight) <= 0).all()
    assert np.abs(np.diff(weight)).max() < 0.02
    assert seen.weight(jnp.full(4, 10.5)) == 1


def test_gradients_of_a_corrected_cost_are_finite(mobilenet):
    device = hw.load_device("agx-xavier-gpu")
    point = hw.default_point(device)

    @jax.jit
    @jax.grad
    def gradient(counts):
        layers = dataclasses.replace(mobilenet, **counts)
        return hw.network_cost(layers, device, point).latency_s

    names = ("macs", "weight_elements", "input_elements", "output_elements", "active")
    for scale in (1.0, 0.0):
        found = gradient({name: scale * getattr(mobilenet, name) for name in names})
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_every_operating_point_at_once_is_each_by_itself(mobilenet, priced):
    device = hw.load_device("tx2-gpu")
    everywhere = jax.jit(hw.network_cost_everywhere)(mobilenet, device)
    point = jax.tree.map(lambda hz: hz[700], hw.operating_points(device))
    one = priced(mobilenet, device, point)
    np.testing.assert_allclose(everywhere.latency_s[700], one.latency_s, rtol=1e-5)
    np.testing.assert_allclose(everywhere.energy_j[700], one.energy_j, rtol=1e-5)


def test_a_correction_is_read_from_the_device_file_as_it_was_written(mobilenet, priced):
    file = hw.read_device_file("tx2-gpu")
    text = encode_correction(to_device(file).correction)
    own = file.correction.model_copy(update={"board": None, "npz": text})
    device, again = (to_device(file.model_copy(update={"correction": each})) for each in (file.correction, own))
    jax.tree.map(np.testing.assert_array_equal, again.correction, device.correction)
    broken = file.correction.model_copy(update={"board": None, "npz": text[:1000]})
    with pytest.raises(ValueError, match=r"correction: expected one of agx-xavier-gpu, .* or an npz file as base64"):
        to_device(file.model_copy(update={"correction": broken}))
