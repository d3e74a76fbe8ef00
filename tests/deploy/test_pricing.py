"""Tests of what any network costs: the project's own networks as ONNX and as JAX functions, and the command."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx_networks import mobilenet_v2

import hw_models as hw
from hadas_jax import commands
from hadas_jax.deploy.kit import layers_by_segment
from hadas_jax.deploy.layers import output_shapes, run_segment
from hadas_jax.deploy.onnx import segment_as_onnx
from hadas_jax.deploy.pricing import price_network


def _rows(text):
    return [[kind, *map(float, numbers)] for kind, *numbers in (row.split() for row in text.split(";"))]


@pytest.fixture(scope="module")
def segments(network):
    """A network of the project, the shapes of its tensors, and the rows of its space's own layer table by segment."""
    architecture, network = network.architecture, network.folded()
    texts = layers_by_segment(architecture.space, architecture.genome, architecture.exits)
    shapes = output_shapes(network.segments, network.weights, image_size=9, channels=1)
    return network, shapes, [_rows(text) for text in texts]


def _macs(rows):
    return sum(int(row[1]) for row in rows if row[0].lower() not in ("pooling", "elementwise"))


def test_an_exported_network_counts_as_the_layer_table_of_its_space(segments):
    network, shapes, tables = segments
    for segment, rows in zip(network.segments, tables, strict=True):
        model = onnx.ModelProto.FromString(segment_as_onnx(segment, network.weights, shapes=shapes))
        layers = hw.onnx_layers(model)
        assert layers.macs == _macs(rows)
        assert layers.weights == sum(int(row[2]) for row in rows)


def test_the_same_network_as_a_jax_function_counts_the_same(segments):
    network, shapes, tables = segments
    for segment, rows in zip(network.segments, tables, strict=True):
        run = partial(run_segment, segment)
        outputs = tuple(segment.outputs.values())

        def of(weights, x, run=run, outputs=outputs):
            values = run(weights, x)
            return [values[name] for name in outputs]

        x = jax.ShapeDtypeStruct((1, *shapes[segment.takes]), jnp.float32)
        weights = {layer.name: network.weights[layer.name] for layer in segment.layers if layer.name in network.weights}
        assert hw.layers_of(of, weights, x).macs == _macs(rows)


def test_points_keep_what_is_asked_and_layers_add_up():
    device = dataclasses.replace(hw.load_device("tx2-gpu"), correction=None)
    price = price_network(hw.onnx_layers(mobilenet_v2()), device, max_latency_s=[0.02], max_power_w=[5.0])
    highest, least, within, below = price.points
    assert within.latency_s <= 0.02
    assert below.power_w <= 5.0
    assert least.energy_j <= min(point.energy_j for point in price.points)
    run = hw.run_cost(device, hw.default_point(device))
    np.testing.assert_allclose(highest.layers_s.sum() + float(run.latency_s), highest.latency_s, rtol=1e-5)
    with pytest.raises(ValueError, match=r"within 0.001 ms: expected clocks of tx2-gpu that keep it, got none"):
        price_network(price.layers, device, max_latency_s=[1e-6])


def test_the_command_prints_and_writes_every_layer(tmp_path, capsys):
    onnx.save(mobilenet_v2(), tmp_path / "model.onnx")
    commands.price(tmp_path / "model.onnx", device="tx2-gpu", max_latency_ms=[20], output=tmp_path / "price.json")
    shown = capsys.readouterr().out
    assert "300,774,272 MACs" in shown
    written = json.loads((tmp_path / "price.json").read_text(encoding="utf-8"))
    assert len(written["layers"]) == 64
    assert sum(layer["macs"] for layer in written["layers"] if "Conv" in layer["operator"]) == 299_494_272
    assert [point["asked"] for point in written["points"]] == ["highest clocks", "least energy", "within 20 ms"]
