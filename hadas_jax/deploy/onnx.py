"""Segments of a static network as ONNX, one node or a few for each layer; needs the extra `onnx`.

Written from the layers, not traced: every convolution is one `Conv` node, whatever JAX makes of it on this machine.
Inside, images are [B, C, H, W] as ONNX has them. Inputs and outputs are float32 in every number format. Within, int8
stands as QuantizeLinear and DequantizeLinear around float nodes, which runtimes fuse into integer kernels: with the
very scales, and at the very places, that `hadas_jax.deploy.layers` simulates. onnxruntime's own quantiser would find
ranges once more, and store logits in 8 bit. fp16 stands as tensors of that type between two casts.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hadas_jax.deploy.layers import RANGE, Layer, Segment, Shapes, Weights
from hadas_jax.supernet.quantisation import UNIT, activation_scale, kernel_scale
from hw_models import NumberFormat

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
    number_format: NumberFormat = NumberFormat.FP32,
) -> bytes:
    """Returns an ONNX model of a segment, with its weights; inputs and outputs have the names of the segment.

    Args:
        segment: The segment.
        weights: The weights of its layers, or of all.
        shapes: The shapes of all outputs, from `output_shapes`.
        batch: Images at once; None: any number.
        elsewhere: Where the values of float32 weights are, which then are no part of the model; None: in the model.
        number_format: What weights and activations are stored in; another one than fp32 takes batch norm folded in.

    Raises:
        ValueError: Ranges or biases do not fit into 8 and 32 bit.
    """
    import onnx
    from onnx import TensorProto, helper

    nodes = _Nodes(weights, shapes, elsewhere, number_format)
    nodes.add_segment(segment)

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

    def __init__(
        self, weights: Weights, shapes: Shapes, elsewhere: Elsewhere | None, number_format: NumberFormat
    ) -> None:
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []
        self._weights, self._shapes, self._elsewhere = weights, shapes, elsewhere
        self._format = number_format
        self._stored: dict[str, str] = {}  # what nodes read of an activation that is stored

    def add_segment(self, segment: Segment) -> None:
        """Adds the nodes of a segment, what is stored of its input, and its outputs in float32."""
        if segment.layers[0].kind != "resize":
            self._store(segment.takes, segment.takes, f"{segment.takes}/stored")
        for layer in segment.layers:
            self.add(layer)
        for name in segment.outputs.values():
            if self._stored.get(name, name) != name:
                self._cast(self._stored[name], name, "FLOAT")

    def add(self, layer: Layer) -> None:
        """Adds the nodes of a layer."""
        inputs = tuple(self._stored.get(name, name) for name in layer.inputs)
        raw = self._raw(layer.name)
        arrays = {part: np.asarray(leaf) for part, leaf in self._weights.get(layer.name, {}).items() if part != RANGE}
        match layer.kind:
            case "conv" | "depthwise":
                self._convolution(layer, inputs, raw, arrays)
            case "linear" if len(self._shapes[layer.name]) == 3:
                self._convolution(layer, inputs, raw, {**arrays, "kernel": arrays["kernel"][None, None]})
            case "linear":
                self._node("Gemm", (*inputs, *self._kernel(layer, arrays["kernel"], arrays.get("bias"), 1)), raw)
            case "batch_norm":
                constants = [self._array(f"{layer.name}/{n}", arrays[n]) for n in ("scale", "bias", "mean", "var")]
                self._node("BatchNormalization", (*inputs, *constants), raw, epsilon=_EPSILON)
            case "swish":
                sigmoid = self._node("Sigmoid", inputs, f"{layer.name}/sigmoid")
                self._node("Mul", (*inputs, self._in_8_bit(sigmoid, UNIT)), raw)
            case "half":
                odd = [size % 2 for size in self._shapes[layer.inputs[0]][:2]]
                two = {"kernel_shape": [2, 2], "strides": [2, 2]}
                self._node("AveragePool", inputs, raw, **two, pads=[*odd, *odd], count_include_pad=1)
            case "mean":
                pixel = self._node("GlobalAveragePool", inputs, f"{layer.name}/pixel")
                self._node("Flatten", (self._in_8_bit(pixel, self._range(layer.name)),), raw)
            case "gate":
                axes = self._array(f"{layer.name}/axes", np.array([2, 3], np.int64))
                factor = self._node("Unsqueeze", (inputs[1], axes), f"{layer.name}/factor")
                self._node("Mul", (inputs[0], self._in_8_bit(factor, UNIT)), raw)
            case "resize":
                down = self._node(
                    "MatMul", (self._array(f"{layer.name}/rows", arrays["rows"]), *inputs), f"{layer.name}/down"
                )
                self._node("MatMul", (down, self._array(f"{layer.name}/columns", arrays["rows"].T)), raw)
            case "relu" if self._range(layer.name) is not None:
                raw = inputs[0]  # a range from 0 up cuts off what is below
            case kind:
                operator, attributes = _SIMPLE[kind]
                self._node(operator, inputs, raw, **attributes)
        self._store(layer.name, raw, layer.name)

    def _raw(self, name: str) -> str:
        """What the output of a layer is called before it is stored."""
        is_plain = self._format == NumberFormat.FP32 or (
            self._format == NumberFormat.INT8 and self._range(name) is None
        )
        return name if is_plain else f"{name}/raw"

    def _store(self, name: str, raw: str, stored: str) -> None:
        """Stores an activation; nodes read it as `stored` from then on."""
        if self._format == NumberFormat.FP16:
            is_float = raw == name or "rows" in self._weights.get(name, {})
            self._stored[name] = self._cast(raw, f"{name}/half", "FLOAT16") if is_float else raw
        elif self._range(name) is not None:
            self._stored[name] = self._in_8_bit(raw, self._range(name), stored)

    def _range(self, name: str) -> np.ndarray | None:
        """The range of an activation that is stored in 8 bit, else None."""
        found = self._weights.get(name, {}).get(RANGE) if self._format == NumberFormat.INT8 else None
        return None if found is None else np.asarray(found)

    def _in_8_bit(self, raw: str, range: np.ndarray | None, stored: str | None = None) -> str:
        """Stores an activation in 8 bit where that is the format, and returns what is read back."""
        if self._format != NumberFormat.INT8 or range is None:
            return raw
        stored = stored or f"{raw}/read"
        scale, zero = (np.asarray(each) for each in activation_scale(range))
        read = self._array(f"{stored}/scale", scale, is_scale=True)
        how = (read, self._array(f"{stored}/zero", zero.astype(np.uint8)))
        stored_bytes = self._node("QuantizeLinear", (raw, *how), f"{stored}/bytes")
        return self._node("DequantizeLinear", (stored_bytes, *how), stored)

    def _cast(self, raw: str, name: str, to: str) -> str:
        from onnx import TensorProto

        return self._node("Cast", (raw,), name, to=getattr(TensorProto, to))

    def _kernel(self, layer: Layer, kernel: np.ndarray, bias: np.ndarray | None, axis: int) -> list[str]:
        """Adds the kernel of a layer, whose output channels are an axis, and its bias if it has one."""
        arrays = {"kernel": kernel} if bias is None else {"kernel": kernel, "bias": bias}
        if self._format == NumberFormat.FP16:
            arrays = {name: values.astype(np.float16) for name, values in arrays.items()}
        if self._format != NumberFormat.INT8:
            return [self._array(f"{layer.name}/{name}", values) for name, values in arrays.items()]
        scale = np.asarray(kernel_scale(np.moveaxis(kernel, axis, -1)))
        shape = [1] * kernel.ndim
        shape[axis] = -1
        whole = np.clip(np.round(kernel / scale.reshape(shape)), -127, 127)
        read = [self._dequantised(f"{layer.name}/kernel", whole.astype(np.int8), scale, axis)]
        if bias is not None:
            by = np.asarray(activation_scale(self._weights[layer.inputs[0]][RANGE])[0]) * scale
            sums = np.round(bias / by)
            if not np.abs(sums).max(initial=0) < 2**31:
                raise ValueError(f"{layer.name}: expected finite weights and biases that fit into 32 bit, got others")
            read.append(self._dequantised(f"{layer.name}/bias", sums.astype(np.int32), by, 0))
        return read

    def _dequantised(self, name: str, whole: np.ndarray, scale: np.ndarray, axis: int) -> str:
        zero = np.zeros(len(scale), whole.dtype)
        by = self._array(f"{name}/scale", scale.astype(np.float32), is_scale=True)
        constants = [self._array(name, whole), by]
        return self._node(
            "DequantizeLinear", (*constants, self._array(f"{name}/zero", zero)), f"{name}/read", axis=axis
        )

    def _convolution(self, layer: Layer, inputs: Sequence[str], raw: str, arrays: dict[str, np.ndarray]) -> None:
        kernel, groups = arrays["kernel"], 1
        if layer.kind == "depthwise":
            kernel, groups = kernel[:, :, None], kernel.shape[-1]
        self._node(
            "Conv",
            (*inputs, *self._kernel(layer, kernel.transpose(3, 2, 0, 1), arrays.get("bias"), 0)),
            raw,
            kernel_shape=list(kernel.shape[:2]),
            strides=[layer.stride] * 2,
            pads=[layer.padding] * 4,
            group=groups,
        )

    def _node(self, operator: str, inputs: tuple[str, ...], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def _array(self, name: str, values: np.ndarray, *, is_scale: bool = False) -> str:
        from onnx import TensorProto, numpy_helper

        if self._elsewhere is None or values.dtype != np.float32 or is_scale:
            self.arrays.append(numpy_helper.from_array(np.asarray(values, order="C"), name))
            return name
        file, start = self._elsewhere(values)
        array = TensorProto(name=name, dims=values.shape, data_type=TensorProto.FLOAT)
        array.data_location = TensorProto.EXTERNAL
        for key, value in (("location", file), ("offset", start), ("length", values.nbytes)):
            array.external_data.add(key=key, value=str(value))
        self.arrays.append(array)
        return name
