"""Counts of the reference networks against those of the common implementations."""

import numpy as np
import pytest

import hw_models as hw
from hw_models.reference_networks import mobilenet_v2, resnet50

NETWORKS = (mobilenet_v2, resnet50)
# Parameters of the common implementations, less one per channel of batch norm, as its scale is folded into the weights.
PARAMETERS = {mobilenet_v2: 3_504_872 - 17_056, resnet50: 25_557_032 - 26_560}
MACS = {mobilenet_v2: 300_774_272, resnet50: 4_089_184_256}
KERNELS = {mobilenet_v2: 52 + 1 + 10 + 1, resnet50: 53 + 1 + 16 + 2}


@pytest.mark.parametrize("network", NETWORKS)
def test_macs_and_parameters_are_those_of_the_common_implementation(network):
    layers = network(224)
    assert float(hw.total_macs(layers)) == pytest.approx(MACS[network], rel=1e-6)
    assert np.asarray(layers.weight_elements, np.float64).sum() == PARAMETERS[network]


@pytest.mark.parametrize("network", NETWORKS)
def test_there_is_one_row_for_each_fused_layer(network):
    assert network().kind.shape == (KERNELS[network],)
    assert float(network().kernels.sum()) == KERNELS[network]


@pytest.mark.parametrize("network", NETWORKS)
def test_each_convolution_reads_what_a_layer_before_it_wrote(network):
    layers = network(160)
    written = {3 * 160**2, *np.asarray(layers.output_elements).tolist()}
    reads = np.asarray(layers.input_elements)[np.asarray(layers.kind) != hw.LayerKind.ELEMENTWISE]
    assert set(reads.tolist()) <= written


def test_mobilenet_v2_is_the_network_of_the_other_tests(mobilenet):
    ours, theirs = mobilenet_v2(224), mobilenet
    for name in ("kind", "macs", "input_elements", "output_elements"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize("network", NETWORKS)
def test_convolutions_cost_a_quarter_at_half_the_resolution(network):
    full, half = (float(hw.total_macs(network(resolution))) for resolution in (448, 224))
    assert 0.25 < half / full < 0.255


@pytest.mark.parametrize("network", NETWORKS)
def test_an_odd_resolution_is_rounded_up_at_each_stride(network):
    layers = network(33)
    last_map = np.asarray(layers.input_elements)[-2] / np.asarray(layers.output_elements)[-2]
    assert last_map == 2 * 2


@pytest.mark.parametrize("network", NETWORKS)
def test_a_resolution_of_no_pixels_is_refused(network):
    with pytest.raises(ValueError, match=r"^resolution: expected a positive number of pixels, got 0$"):
        network(0)
