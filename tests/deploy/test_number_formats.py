"""Networks in int8 and fp16 after a search: exported, run, trained and refused."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from static_networks import cut, static_network

from hadas_jax.deploy import fine_tune
from hadas_jax.deploy.export import check_export, export_network
from hadas_jax.deploy.kit import write_network_kit, write_space_kit
from hadas_jax.deploy.layers import RANGE, fold_batch_norm, run_network
from hadas_jax.deploy.runtime import Runtime
from hadas_jax.deploy.static_network import load_network, predict, save_network
from hadas_jax.supernet import estimate_batch_stats
from hadas_jax.supernet.quantisation import Storage
from hw_models import NumberFormat


@pytest.fixture(scope="module")
def ranged(short, data):
    """The largest network of a small space, with ranges of its activations."""
    space, (params, _) = short
    images = data.take(jnp.arange(data.count))[0]
    stats = estimate_batch_stats(space, params, space.largest(), images[None], storage=Storage(NumberFormat.INT8))
    network = static_network(space, (params, stats))
    return dataclasses.replace(network, weights=cut(space, (params, stats), space.largest_genome, (1, 2))[1])


def in_format(network, name):
    device = network.architecture.device.model_copy(update={"number_format": name})
    return dataclasses.replace(network, architecture=network.architecture.model_copy(update={"device": device}))


@pytest.mark.parametrize("name", ["int8", "fp16"])
def test_an_export_in_a_format_does_on_onnxruntime_what_is_simulated(ranged, data, tmp_path, name):
    pytest.importorskip("onnxruntime")
    network = in_format(ranged, name)
    export_network(tmp_path / "export", network, format="onnx")
    check = check_export(tmp_path / "export", network, data)
    assert check.is_equal
    assert check.difference < (0.1 if name == "int8" else 0.01)
    manifest = json.loads((tmp_path / "export" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["number_format"] == name
    plain = tmp_path / "plain"
    export_network(plain, ranged, format="onnx")
    sizes = [sum(path.stat().st_size for path in place.glob("*.onnx")) for place in (tmp_path / "export", plain)]
    assert sizes[0] < sizes[1]


def test_activations_of_an_export_in_int8_are_bytes_but_its_logits_are_not(ranged, tmp_path):
    onnx = pytest.importorskip("onnx")
    export_network(tmp_path / "export", in_format(ranged, "int8"), format="onnx")
    graph = onnx.load(tmp_path / "export" / "segment0.onnx").graph
    kinds = [node.op_type for node in graph.node]
    convolutions = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    read = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    assert convolutions
    assert all(name in read for node in convolutions for name in node.input)
    assert kinds.count("QuantizeLinear") > len(convolutions)
    last = {node.output[0]: node.op_type for node in graph.node}
    assert last[ranged.segments[0].logits] == "Gemm"


def test_ranges_outlive_writing_folding_and_a_run_in_fp32(ranged, data, tmp_path):
    save_network(tmp_path / "network", in_format(ranged, "int8"))
    read = load_network(tmp_path / "network")
    folded = read.folded()
    kept = {name for name, own in folded.weights.items() if RANGE in own}
    assert {"images", "stem", "stem_act", "block0", "exit1_act", "last_act"} <= kept
    assert not {"logits", "exit1_logits", "exit1_confidence"} & kept
    one, other = (predict(each.segments, each.weights, data)[0] for each in (read, folded))
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_what_is_trained_in_int8_is_what_runs(ranged, data):
    segments, weights = fold_batch_norm(ranged.segments, ranged.weights)
    optimiser = optax.sgd(0.02)
    state, step = fine_tune.joint_training(
        segments, weights, optimiser, exit_weights=(0.5, 0.5), number_format=NumberFormat.INT8
    )
    assert {name for own in state.weights.values() for name in own} == {"kernel", "bias"}
    batch = data.take(jnp.arange(data.count))
    step = jax.jit(step)
    losses = []
    for number in range(12):
        state, metrics = step(state, jax.random.key(number), batch)
        losses.append(float(metrics["loss"]))
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.95 * losses[0]
    tuned = {name: {**own, **state.weights.get(name, {})} for name, own in weights.items()}
    logits, _ = run_network(segments, tuned, batch[0], number_format=NumberFormat.INT8)
    right = float(jnp.mean((jnp.argmax(logits[-1], -1) == batch[1]).astype(jnp.float32)))
    assert right == pytest.approx(float(step(state, jax.random.key(0), batch)[1]["accuracy"]), abs=0.03)


def test_a_kit_has_its_networks_in_their_formats_and_measures_them(ranged, short, tmp_path):
    pytest.importorskip("onnxruntime")
    from hw_models.measuring.measure import find_engine, open_case, read_kit

    write_network_kit(tmp_path / "kit", [("one", in_format(ranged, "int8"))])
    assert [case["format"] for case in read_kit(tmp_path / "kit")["cases"][:2]] == ["int8"] * 2
    write_space_kit(tmp_path / "space", short[0], networks=2, layers=1, number_formats=("fp32", "int8", "fp16"))
    cases = read_kit(tmp_path / "space")["cases"]
    assert sorted({case["format"] for case in cases}) == ["fp16", "fp32", "int8"]
    assert len({case["name"] for case in cases}) == len(cases)
    assert find_engine("onnxruntime").runtime == "onnxruntime"
    for case in cases:
        assert all(seconds > 0 for seconds in open_case(tmp_path / "space", case).run())
    with pytest.raises(ValueError, match="number_formats: expected some of fp32, fp16, int8, got fp8"):
        write_space_kit(tmp_path / "other", short[0], networks=2, number_formats=("fp8",))


def test_what_cannot_run_in_a_format_is_refused_in_one_line(ranged, data, tmp_path):
    int8 = in_format(ranged, "int8")
    with pytest.raises(ValueError, match="format stablehlo: expected a network in fp32, got one in int8"):
        export_network(tmp_path / "export", int8, format="stablehlo")
    infinite = {**ranged.weights, "stem_act": {RANGE: jnp.array([0.0, jnp.inf])}}
    with pytest.raises(ValueError, match="range of stem_act: expected two finite numbers that rise, got 0 and inf"):
        export_network(tmp_path / "export", dataclasses.replace(int8, weights=infinite), format="onnx")
    none = {layer: {n: leaf for n, leaf in own.items() if n != RANGE} for layer, own in ranged.weights.items()}
    with pytest.raises(ValueError, match="ranges: expected those of the activations of a network in int8, got none"):
        export_network(tmp_path / "export", dataclasses.replace(int8, weights=none), format="onnx")
    with pytest.raises(ValueError, match="expected batch norm folded in for int8"):
        run_network(ranged.segments, ranged.weights, data.take(jnp.arange(2))[0], number_format=NumberFormat.INT8)


def test_a_runtime_that_does_not_run_a_format_says_so_in_one_line(ranged, tmp_path):
    pytest.importorskip("onnxruntime")
    import hashlib

    place = tmp_path / "export"
    export_network(place, in_format(ranged, "fp16"), format="onnx")
    manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))

    def write(**changes):
        (place / "manifest.json").write_text(json.dumps(manifest | changes), encoding="utf-8")

    write(number_format="fp8")
    with pytest.raises(ValueError, match="expected a number format of fp32, fp16, int8, got 'fp8'"):
        Runtime(place)
    blob = (place / "segment0.onnx").read_bytes().replace(b"LeakyRelu", b"LeakyRelx")
    (place / "segment0.onnx").write_bytes(blob)
    write(files=manifest["files"] | {"segment0.onnx": hashlib.sha256(blob).hexdigest()})
    with pytest.raises(
        ValueError, match=r"segment0.onnx: expected a network in fp16 that onnxruntime .* runs, got: "
    ) as e:
        Runtime(place)
    assert "\n" not in str(e.value)
