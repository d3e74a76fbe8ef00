"""Segments of a static network as ONNX, one node or a few for each layer; needs the extra `onnx`.

Written from the layers, not traced: every convolution is one `Conv` node, whatever JAX makes of it on this machine.
Inside, images are [B, C, H, W] as ONNX has them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from hadas_jax.deploy.layers import Layer, Segment, Shapes, Weights

_OPSET, _IR_VERSION = 13, 7  # what onnxruntime 1.10 and TensorRT 8.2 read, the last ones of JetPack 4
_EPSILON = 1e-5
_SIMPLE: dict[str, tuple[str, dict[str, float]]] = {
    "relu": ("Relu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.01}),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "add": ("Add", {}),
}


# An array that is a weight -> the file beside the model that holds its values, and the first of its bytes there.
Elsewhere = Callable[[np.ndarray], tuple[str, int]]


def segment_as_onnx(
    segment: Segment,
    weights: Weights,
    *,
    shapes: Shapes,
    batch: int | None = None,
    elsewhere: Elsewhere | None = None,
) -> bytes:
    """Returns an ONNX model of a segment, with its weights; inputs and outputs have the names of the segment.

    Args:
        segment: The segment.
        weights: The weights of its layers, or of all.
        shapes: The shapes of all outputs, from `output_shapes`.
        batch: Images at once; None: any number.
        elsewhere: Where the values of weights are, which then are no part of the model; None: in the model.
    """
    import onnx
    from onnx import TensorProto, helper

    nodes = _Nodes(weights, shapes, elsewhere)
    for layer in segment.layers:
        nodes.add(layer)

    def value_info(name: str) -> Any:
        shape = shapes[name]
        first = (shape[2], *shape[:2]) if len(shape) == 3 else shape
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ("B" if batch is None else batch, *first))

    graph = helper.make_graph(
        nodes.nodes,
        "segment",
        [value_info(segment.takes)],
        [value_info(name) for name in segment.outputs.values()],
        initializer=nodes.arrays,
    )
    opset = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="hadas_jax")
    if elsewhere is None:
        onnx.checker.check_model(model, full_check=True)
    else:  # the checker wants the files to be there already
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    return model.SerializeToString()


class _Nodes:
    """Collects the nodes and constants of a graph."""

    def __init__(self, weights: Weights, shapes: Shapes, elsewhere: Elsewhere | None) -> None:
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []
        self._weights, self._shapes, self._elsewhere = weights, shapes, elsewhere

    def add(self, layer: Layer) -> None:
        """Adds the nodes of a layer."""
        name, inputs = layer.name, layer.inputs
        arrays = {part: np.asarray(leaf) for part, leaf in self._weights.get(name, {}).items()}
        match layer.kind:
            case "conv" | "depthwise":
                self._convolution(layer, arrays)
            case "linear" if len(self._shapes[name]) == 3:
                self._convolution(layer, {**arrays, "kernel": arrays["kernel"][None, None]})
            case "linear":
                self._node("Gemm", (*inputs, *self._constants(name, arrays, "kernel", "bias")), name)
            case "batch_norm":
                constants = self._constants(name, arrays, "scale", "bias", "mean", "var")
                self._node("BatchNormalization", (*inputs, *constants), name, epsilon=_EPSILON)
            case "swish":
                self._node("Mul", (*inputs, self._node("Sigmoid", inputs, f"{name}/sigmoid")), name)
            case "half":
                odd = [size % 2 for size in self._shapes[inputs[0]][:2]]
                two = {"kernel_shape": [2, 2], "strides": [2, 2]}
                self._node("AveragePool", inputs, name, **two, pads=[*odd, *odd], count_include_pad=1)
            case "mean":
                self._node("Flatten", (self._node("GlobalAveragePool", inputs, f"{name}/pixel"),), name)
            case "gate":
                axes = self._array(f"{name}/axes", np.array([2, 3], np.int64))
                factor = self._node("Unsqueeze", (inputs[1], axes), f"{name}/factor")
                self._node("Mul", (inputs[0], factor), name)
            case "resize":
                down = self._node("MatMul", (self._array(f"{name}/rows", arrays["rows"]), *inputs), f"{name}/down")
                self._node("MatMul", (down, self._array(f"{name}/columns", arrays["rows"].T)), name)
            case kind:
                operator, attributes = _SIMPLE[kind]
                self._node(operator, inputs, name, **attributes)

    def _convolution(self, layer: Layer, arrays: dict[str, np.ndarray]) -> None:
        kernel, groups = arrays["kernel"], 1
        if layer.kind == "depthwise":
            kernel, groups = kernel[:, :, None], kernel.shape[-1]
        parts = arrays | {"kernel": kernel.transpose(3, 2, 0, 1)}
        constants = self._constants(layer.name, parts, "kernel", "bias")
        self._node(
            "Conv",
            (*layer.inputs, *constants),
            layer.name,
            kernel_shape=list(kernel.shape[:2]),
            strides=[layer.stride] * 2,
            pads=[layer.padding] * 4,
            group=groups,
        )

    def _node(self, operator: str, inputs: tuple[str, ...], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def _constants(self, layer: str, arrays: dict[str, np.ndarray], *names: str) -> list[str]:
        """Adds those of a layer's arrays that it has, in this order."""
        return [self._array(f"{layer}/{name}", arrays[name]) for name in names if name in arrays]

    def _array(self, name: str, values: np.ndarray) -> str:
        from onnx import TensorProto, numpy_helper

        if self._elsewhere is None or values.dtype != np.float32:
            self.arrays.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
            return name
        file, start = self._elsewhere(values)
        array = TensorProto(name=name, dims=values.shape, data_type=TensorProto.FLOAT)
        array.data_location = TensorProto.EXTERNAL
        for key, value in (("location", file), ("offset", start), ("length", values.nbytes)):
            array.external_data.add(key=key, value=str(value))
        self.arrays.append(array)
        return name
