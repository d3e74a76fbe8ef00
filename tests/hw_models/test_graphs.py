"""Tests of what networks ask of the hardware, counted from ONNX graphs and from jaxprs."""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnx_networks
import pytest
from onnx import TensorProto, helper
from onnx_networks import MACS, Graph

import hw_models as hw
from hw_models import LayerKind


@pytest.mark.parametrize("build", MACS, ids=lambda build: build.__name__)
def test_macs_of_well_known_networks_are_exact(build):
    layers = hw.onnx_layers(build())
    assert layers.macs == MACS[build]
    assert not layers.unknown
    np.testing.assert_allclose(hw.total_macs(layers.table()), MACS[build], rtol=1e-6)


def test_batch_norm_and_activations_are_folded_and_residuals_are_not():
    layers = hw.onnx_layers(onnx_networks.efficientnet_b0()).layers
    kinds = [layer.kind for layer in layers[:5]]
    # Stem, depthwise, pooled, squeezed, excited: each one kernel, with its norm and its swish of two nodes.
    assert kinds == [LayerKind.DENSE, LayerKind.DEPTHWISE, LayerKind.POOLING, LayerKind.LINEAR, LayerKind.LINEAR]
    assert layers[0].operator == "Conv + BatchNormalization + Sigmoid + Mul"
    assert layers[0].weights == 27 * 32 + 32
    assert sum(layer.operator == "Add" for layer in layers) == 9


def test_the_parameters_of_mobilenet_are_the_published_ones_less_what_folding_saves():
    channels = 17_056  # of all batch norms, whose scales are folded away
    assert hw.onnx_layers(onnx_networks.mobilenet_v2()).weights == 3_504_872 - channels


@pytest.mark.parametrize(("samples", "shape"), [(1, ("n", 8)), (5, (5, 8))], ids=["open batch", "fixed batch"])
def test_counts_are_of_one_sample(samples, shape):
    g = Graph(*shape)
    layers = hw.onnx_layers(g.model(g.gemm("x", 8, 4)))
    assert (layers.macs, layers.weights) == (32, 36)
    assert layers.layers[0].inputs == 8


def test_grouped_and_transposed_convolutions_count_what_they_multiply():
    g = Graph("n", 8, 6, 6)
    x = g.add("Conv", "x", g.weight(12, 2, 3, 3), group=4, kernel_shape=[3, 3], pads=[1] * 4)
    x = g.add("ConvTranspose", x, g.weight(12, 5, 2, 2), kernel_shape=[2, 2], strides=[2, 2])
    layers = hw.onnx_layers(g.model(x)).layers
    assert [layer.macs for layer in layers] == [12 * 36 * 18, 12 * 36 * 20]
    assert [layer.kind for layer in layers] == [LayerKind.DENSE, LayerKind.DENSE]


def test_an_unknown_operator_is_named_and_counted_by_its_bytes():
    g = Graph("n", 8, 4, 4)
    x = g.add("Conv", "x", g.weight(8, 8, 1, 1))
    x = g.add("Det", x)
    layers = hw.onnx_layers(g.model(x))
    assert layers.unknown == ("Det",)
    assert (layers.layers[1].inputs, layers.layers[1].outputs, layers.layers[1].macs) == (128, 8, 0)


def test_where_one_tensor_alone_passes_on_is_a_cut():
    g = Graph("n", 4, 8, 8)
    x = g.conv("x", 3 + 1, 4, 3)
    y = g.conv(x, 4, 4, 3)
    z = g.add("Add", x, y)
    layers = hw.onnx_layers(g.model(_pooled(g, z))).layers
    assert [layer.operator.split(" + ")[0] for layer in layers] == ["Conv", "Conv", "Add", "GlobalAveragePool", "Gemm"]
    assert [layer.is_cut for layer in layers] == [True, False, True, True, True]
    assert [layer.memory for layer in layers[:3]] == [512, 768 - 256, 768]


def _pooled(g, x):
    return g.gemm(g.add("Flatten", g.add("GlobalAveragePool", x)), 4, 3)


def test_an_activation_whose_input_is_needed_elsewhere_is_a_kernel_of_its_own():
    g = Graph("n", 4, 8, 8)
    x = g.conv("x", 4, 4, 3)
    z = g.add("Add", x, g.conv(g.add("Relu", x), 4, 4, 3))
    layers = hw.onnx_layers(g.model(_pooled(g, z))).layers
    assert [layer.operator.split(" + ")[0] for layer in layers[:3]] == ["Conv", "Relu", "Conv"]
    assert not layers[1].is_cut


def test_control_flow_and_open_sizes_are_refused_in_one_line(tmp_path):
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "branch", [], [y])
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    model = helper.make_model(helper.make_graph([node], "both", [condition, x], [y]))
    with pytest.raises(ValueError, match="expected a graph without control flow, got If"):
        hw.onnx_layers(model)
    g = Graph("n", 3, "h", "w")
    model = g.model(_pooled(g, g.conv("x", 3, 4, 3)))
    with pytest.raises(ValueError, match=r"expected sizes of the input x, got \[1, 3, h, w\]; `image_size` fixes"):
        hw.onnx_layers(model)
    assert hw.onnx_layers(model, image_size=8).macs == 4 * 27 * 64 + 12
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ValueError, match="expected an ONNX file, cannot read it"):
        hw.onnx_layers(tmp_path / "text.onnx")


def test_a_graph_of_two_inputs_and_local_functions_is_counted():
    body = [helper.make_node("MatMul", ["a", "b"], ["c"])]
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    function = helper.make_function("own", "Product", ["a", "b"], ["c"], body, opset[:1])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 4]) for name in "xyz"]
    node = helper.make_node("Product", ["x", "y"], ["z"], domain="own")
    graph = helper.make_graph([node], "two", ends[:2], ends[2:])
    layers = hw.onnx_layers(helper.make_model(graph, functions=[function], opset_imports=opset))
    assert (layers.macs, layers.weights) == (64, 0)


def _shapes(*dims):
    return jax.ShapeDtypeStruct(dims, jnp.float32)


def test_a_scanned_network_counts_every_turn_and_each_weight_once():
    def network(weights, x):
        return jax.lax.scan(lambda a, w: (jnp.tanh(a @ w) + a, None), x, weights)[0]

    layers = hw.layers_of(network, _shapes(3, 8, 8), _shapes(2, 8), batch=2)
    assert (layers.macs, layers.weights) == (3 * 64, 3 * 64)
    assert [(layer.operator, layer.kernels) for layer in layers.layers] == [("dot_general + tanh", 3), ("add", 3)]

    def looped(weights, x):
        return jax.lax.fori_loop(0, 3, lambda i, a: jnp.tanh(a @ weights[i]), x)

    layers = hw.layers_of(looped, _shapes(3, 8, 8), _shapes(2, 8), batch=2)
    assert (layers.macs, layers.weights) == (3 * 64, 3 * 64)


def test_of_two_branches_the_dearer_one_counts():
    def network(weights, x):
        return jax.lax.cond(jnp.sum(x) > 0, lambda a: a @ weights, lambda a: a, x)

    assert hw.layers_of(network, _shapes(8, 8), _shapes(1, 8)).macs == 64


def test_a_batched_function_counts_as_its_loop_and_calls_are_seen_through():
    @jax.jit
    def one(weights, x):
        return jax.nn.relu(jax.checkpoint(lambda a: a @ weights)(x))

    layers = hw.layers_of(jax.vmap(one, in_axes=(None, 0)), _shapes(8, 4), _shapes(5, 8), batch=5)
    assert (layers.macs, layers.weights) == (32, 32)
    assert layers.layers[0].kind == LayerKind.LINEAR
    assert len(layers.layers) == 1


def test_attention_and_convolutions_of_all_groupings_are_exact():
    def attend(q):
        return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, q)), q)

    assert hw.layers_of(attend, _shapes(2, 5, 3, 4), batch=2).macs == 2 * 3 * 25 * 4

    def convolve(kernel, x, **options):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=layout, **options)

    for kernel, groups, kind in (((3, 3, 1, 8), 4, LayerKind.DEPTHWISE), ((3, 3, 2, 6), 2, LayerKind.DENSE)):
        layers = hw.layers_of(
            lambda k, x, g=groups: convolve(k, x, feature_group_count=g), _shapes(*kernel), _shapes(1, 8, 8, 4)
        )
        assert (layers.macs, layers.layers[0].kind) == (16 * int(np.prod(kernel)), kind)

    def transposed(kernel, x):
        return jax.lax.conv_transpose(x, kernel, (2, 2), "VALID")

    assert hw.layers_of(transposed, _shapes(2, 2, 4, 6), _shapes(1, 5, 5, 4)).macs == 25 * 4 * 6 * 4


def test_a_loop_of_unknown_length_is_refused_in_one_line():
    def network(x):
        return jax.lax.while_loop(lambda a: jnp.sum(a) < 9, lambda a: a + 1, x)

    with pytest.raises(ValueError, match="expected loops of known length, got a while loop"):
        hw.layers_of(network, _shapes(1, 8))


def test_counting_needs_no_values_and_leaves_the_model_as_it_is():
    model = onnx_networks.vit_s16()
    before = model.SerializeToString(deterministic=True)
    hw.onnx_layers(model)
    assert model.SerializeToString(deterministic=True) == before
    assert onnx.ModelProto.FromString(before).graph.node[1].op_type == "Shape"
