"""The layers of an ONNX model: what each node asks of the hardware, from the shapes that onnx infers; extra `onnx`.

Weights are never read, only their shapes, so a file without its external data can be counted. Operators:
https://onnx.ai/onnx/operators/.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hw_models.graphs import GraphLayers, Operator, Role, count_layers, product_kind
from hw_models.layers import LayerKind

# Positions of the sample and of the weights among the inputs.
_CONVOLUTIONS = {"Conv": (0, 1), "FusedConv": (0, 1), "ConvInteger": (0, 1), "QLinearConv": (0, 3)}
_MATMULS = {"MatMul": (0, 1), "FusedMatMul": (0, 1), "MatMulInteger": (0, 1), "QLinearMatMul": (0, 3)}
_POOLS = (
    "MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool ReduceMean ReduceMax ReduceMin ReduceSum "
    "ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare ArgMax ArgMin"
)
_NORMS = (
    "Softmax LogSoftmax Hardmax LayerNormalization InstanceNormalization GroupNormalization RMSNormalization "
    "MeanVarianceNormalization LpNormalization LRN SimplifiedLayerNormalization CumSum"
)
_MAPS = (
    "Abs Acos Acosh Add And Asin Asinh Atan Atanh BatchNormalization BiasGelu Ceil Celu Clip Cos Cosh "
    "DequantizeLinear Div Elu Equal Erf Exp FastGelu Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish IsInf "
    "IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow QuantizeLinear QuickGelu "
    "Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish Tan Tanh "
    "ThresholdedRelu Where Xor"
)
_VIEWS = "Cast CastLike Dropout Flatten Identity Reshape Squeeze Unsqueeze"
_MOVES = (
    "Concat DepthToSpace Expand Gather GatherElements GatherND GridSample Pad Resize ReverseSequence ScatterElements "
    "ScatterND Slice SpaceToDepth Split Tile Transpose Upsample"
)
_ROLES = {
    name: role
    for names, role in (
        (_POOLS, Role.POOL),
        (_NORMS, Role.NORM),
        (_MAPS, Role.MAP),
        (_VIEWS, Role.VIEW),
        (_MOVES, Role.MOVE),
    )
    for name in names.split()
}
_OF_SHAPES = ("Shape", "Size")
_CONTROL = ("If", "Loop", "Scan", "SequenceMap")
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_SMALL = 4096  # elements of constants that are computed beforehand
_Shape = tuple[int, ...]


def onnx_layers(model: Path | str | Any, *, image_size: int | None = None) -> GraphLayers:
    """Returns the layers of an ONNX model for one sample.

    Args:
        model: A file, or an `onnx.ModelProto`.
        image_size: Height and width of images, where the model leaves them open.

    Raises:
        ValueError: One line: the extra is missing, the file is no ONNX model, has control flow, or leaves shapes open.
    """
    source, model = _named(model)
    model = with_shapes(model, source=source, image_size=image_size)
    graph = model.graph
    shapes = known_shapes(model)
    weights = {each.name for each in graph.initializer} | {each.values.name for each in graph.sparse_initializer}
    inputs = [each.name for each in graph.input if each.name not in weights]
    if not inputs:
        raise ValueError(f"{source}: expected a model that takes something, got one without an input")
    samples = shapes[inputs[0]][0] if shapes.get(inputs[0]) else 1
    operators = []
    for number, node in enumerate(graph.node):
        if node.op_type in _CONTROL:
            raise ValueError(
                f"{source}: expected a graph without control flow, got {node.op_type} ({node.name or number}); export "
                "the model with its branches and loops fixed"
            )
        if node.op_type in _OF_SHAPES:
            weights.update(node.output)
            continue
        operators.append(_operator(node, shapes, number, samples))
    _require_shapes(operators, shapes, source)
    return count_layers(
        operators,
        sizes={name: math.prod(shape) for name, shape in shapes.items()},
        weights=weights,
        outputs=[each.name for each in graph.output],
        samples=samples,
    )


def read_onnx(path: Path | str, *, with_weights: bool = True) -> Any:
    """Reads an ONNX file.

    Args:
        path: The file.
        with_weights: Read what lies in files beside it, too.

    Raises:
        ValueError: One line: the extra is missing, or there is no such file, or it is none of ONNX.
    """
    onnx = _onnx()
    if not Path(path).is_file():
        raise ValueError(f"{path}: expected an ONNX file, got none at this path")
    try:
        model = onnx.load(str(path), load_external_data=with_weights)
    except Exception as error:  # protobuf and onnx raise whatever the damage causes
        raise ValueError(f"{path}: expected an ONNX file, cannot read it ({_first_line(error)})") from None
    if not model.graph.node:
        raise ValueError(f"{path}: expected an ONNX model, got one without operators")
    return model


def with_shapes(model: Any, *, source: str, image_size: int | None = None, batch: int = 1) -> Any:
    """Returns a model whose local functions are inlined, whose batch is fixed where it is open, and with all shapes.

    Args:
        model: An `onnx.ModelProto`; left as it is.
        source: Its name, for errors.
        image_size: Height and width of images, where the model leaves them open.
        batch: Samples at once, where the model leaves that open.

    Raises:
        ValueError: One line: an open axis that is none of these, or shapes that contradict each other.
    """
    onnx = _onnx()
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if copy.functions:
        import onnx.inliner

        copy = onnx.inliner.inline_local_functions(copy)
    weights = {each.name for each in copy.graph.initializer}
    for each in copy.graph.input:
        if each.name not in weights:
            _close(each, source=source, image_size=image_size, batch=batch)
    while True:
        del copy.graph.value_info[:]  # inferred anew from the inputs, as are the outputs
        for each in copy.graph.output:
            each.type.tensor_type.ClearField("shape")
        try:
            copy = onnx.shape_inference.infer_shapes(copy, data_prop=True)
        except Exception as error:
            raise ValueError(f"{source}: expected a model of sound shapes, got: {_first_line(error)}") from None
        if not _fold_shapes(copy):
            return copy


def _fold_shapes(model: Any) -> bool:
    """Computes what follows from known shapes and small constants alone, in place; returns whether there was any."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    graph, shapes = model.graph, known_shapes(model)
    values = {each.name: each for each in graph.initializer if _is_small(each)}
    opsets = {each.domain: each.version for each in model.opset_import}
    kept, found = [], []

    def is_constant(node: Any) -> bool:
        is_plain = not (node.domain or node.op_type in (*_CONTROL, *_RANDOM))
        return is_plain and all(name in values for name in node.input if name)

    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in shapes:
            dims = shapes[node.input[0]][slice(_attribute(node, "start", 0), _attribute(node, "end", None))]
            arrays: list[Any] = [np.array(dims, np.int64)]
        elif node.op_type == "Size" and node.input[0] in shapes:
            arrays = [np.array(math.prod(shapes[node.input[0]]), np.int64)]
        elif is_constant(node):
            given = {name: onnx.numpy_helper.to_array(values[name]) for name in node.input if name}
            arrays = list(ReferenceEvaluator(node, opsets=opsets).run(None, given))
        else:
            kept.append(node)
            continue
        for name, array in zip(node.output, arrays, strict=False):
            made = onnx.numpy_helper.from_array(np.asarray(array), name)
            found.append(made)
            if _is_small(made):
                values[name] = made
    if found:
        outputs = {each.name for each in graph.output}
        if outputs & {each.name for each in found}:
            return False
        del graph.node[:]
        graph.node.extend(kept)
        graph.initializer.extend(found)
    return bool(found)


def _is_small(tensor: Any) -> bool:
    return tensor.data_location == 0 and math.prod(tensor.dims) <= _SMALL


def known_shapes(model: Any) -> dict[str, _Shape]:
    """Returns the shapes of all tensors of a model that are known."""
    graph = model.graph
    shapes = {each.name: tuple(each.dims) for each in graph.initializer}
    for each in (*graph.input, *graph.value_info, *graph.output):
        kind = each.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            shapes[each.name] = tuple(dim.dim_value for dim in kind.shape.dim)
    for node in graph.node:
        if node.op_type == "Constant":
            value = next((each for each in node.attribute if each.name == "value"), None)
            shapes.setdefault(node.output[0], tuple(value.t.dims) if value is not None else ())
    return shapes


def _named(model: Path | str | Any) -> tuple[str, Any]:
    if isinstance(model, str | Path):
        return str(model), read_onnx(model, with_weights=False)
    return model.graph.name or "model", model


def _onnx() -> Any:
    try:
        import onnx
    except ImportError:
        raise ValueError("onnx: expected the extra onnx, got none; pip install 'hadas-jax[onnx]'") from None
    return onnx


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _close(value: Any, *, source: str, image_size: int | None, batch: int) -> None:
    """Fixes the open axes of an input: the first is the batch, and the last or second and third are of the image."""
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        raise ValueError(f"{source}: expected inputs of known rank, got {value.name} without a shape")
    dims = kind.shape.dim
    for axis, dim in enumerate(dims):
        if dim.HasField("dim_value") and dim.dim_value > 0:
            continue
        size = batch if axis == 0 else image_size if len(dims) == 4 else None
        if size is None:
            known = ", ".join(str(each.dim_value or each.dim_param or "?") for each in dims)
            raise ValueError(
                f"{source}: expected sizes of the input {value.name}, got [{known}]; `image_size` fixes height and "
                "width of images, other axes need an export of fixed sizes"
            )
        dim.ClearField("dim_param")
        dim.dim_value = size


def _require_shapes(operators: list[Operator], shapes: dict[str, _Shape], source: str) -> None:
    for each in operators:
        missing = [str(name) for name in (*each.inputs, *each.outputs) if name not in shapes]
        if missing:
            raise ValueError(
                f"{source}: expected shapes of all tensors, onnx infers none of {missing[0]} at {each.operator} "
                f"({each.name}); export the model with fixed sizes"
            )


def _operator(node: Any, shapes: dict[str, _Shape], number: int, samples: int) -> Operator:
    name, operator = node.name or f"{node.op_type}_{number}", node.op_type
    inputs = tuple(each for each in node.input if each)
    outputs = tuple(each for each in node.output if each in shapes or operator not in _ROLES)
    role = _ROLES.get(operator, Role.UNKNOWN)
    counted = _PRODUCTS.get(operator)
    if counted is not None and all(each in shapes for each in (*inputs, *outputs)):
        found = counted(node, [shapes.get(each, ()) for each in node.input], shapes[node.output[0]], samples)
        if found is not None:
            kind, macs = found
            return Operator(name, operator, Role.PRODUCT, _weights_first(node), outputs, kind, macs)
    shift = 0
    if operator == "BatchNormalization":
        outputs, shift = outputs[:1], math.prod(shapes[node.input[1]])
    if operator in ("MaxPool", "Dropout", "LayerNormalization"):
        outputs = outputs[:1]
    return Operator(name, operator, role, inputs, outputs, shift=shift)


def _weights_first(node: Any) -> tuple[str, ...]:
    """The inputs of a product, its weights before its bias."""
    pairs = {**_CONVOLUTIONS, **_MATMULS}
    _, position = pairs.get(node.op_type, (0, 1))
    names = list(node.input)
    if node.op_type.startswith("Q"):  # scales and zero points are no weights
        names = [names[0], names[position], *names[8:9]]
    elif node.op_type.endswith("Integer"):
        names = names[:2]
    return tuple(each for each in names if each)


def _attribute(node: Any, name: str, default: Any) -> Any:
    import onnx

    found = next((each for each in node.attribute if each.name == name), None)
    return default if found is None else onnx.helper.get_attribute_value(found)


def _convolution(node: Any, shapes: list[_Shape], out: _Shape, samples: int) -> tuple[LayerKind, int]:
    kernel, groups = shapes[_CONVOLUTIONS[node.op_type][1]], _attribute(node, "group", 1)
    return _convolution_kind(kernel, groups, out), math.prod(out) * math.prod(kernel[1:])


def _transposed(node: Any, shapes: list[_Shape], out: _Shape, samples: int) -> tuple[LayerKind, int]:
    kernel, groups = shapes[1], _attribute(node, "group", 1)
    swapped = (kernel[0], kernel[0] // groups, *kernel[2:])
    return _convolution_kind(swapped, groups, shapes[0]), math.prod(shapes[0]) * math.prod(kernel[1:])


def _convolution_kind(kernel: _Shape, groups: int, out: _Shape) -> LayerKind:
    is_depthwise = groups > 1 and kernel[1] == 1
    return product_kind(
        positions=math.prod(out[2:]), is_pointwise=math.prod(kernel[2:]) == 1, is_depthwise=is_depthwise
    )


def _gemm(node: Any, shapes: list[_Shape], out: _Shape, samples: int) -> tuple[LayerKind, int]:
    inner = shapes[0][0 if _attribute(node, "transA", 0) else 1]
    return LayerKind.LINEAR, math.prod(out) * inner


def _matmul(node: Any, shapes: list[_Shape], out: _Shape, samples: int) -> tuple[LayerKind, int]:
    first, second = (shapes[position] for position in _MATMULS[node.op_type])
    positions = math.prod(out) // (second[-1] * samples)
    return product_kind(positions=positions), math.prod(out) * first[-1]


def _einsum(node: Any, shapes: list[_Shape], out: _Shape, samples: int) -> tuple[LayerKind, int] | None:
    equation = _attribute(node, "equation", b"").decode().replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    if len(terms) != 2 or "." in equation or any(len(t) != len(s) for t, s in zip(terms, shapes, strict=True)):
        return None
    sizes = {
        letter: size
        for term, shape in zip(terms, shapes, strict=True)
        for letter, size in zip(term, shape, strict=True)
    }
    return product_kind(positions=math.prod(out[:-1]) // samples), math.prod(sizes.values())


def _attention(node: Any, shapes: list[_Shape], out: _Shape, samples: int) -> tuple[LayerKind, int] | None:
    query, key, value = shapes[:3]
    if len(shapes) > 4 and shapes[4]:  # keys of earlier calls
        return None
    if len(query) == 4:
        batch, heads, length, width = query
        return LayerKind.POINTWISE, batch * heads * length * key[2] * (width + value[3])
    ratio = _attribute(node, "q_num_heads", 1) // _attribute(node, "kv_num_heads", 1)
    batch, length, width = query
    return LayerKind.POINTWISE, batch * length * key[1] * (width + ratio * value[2])


_PRODUCTS: dict[str, Callable[[Any, list[_Shape], _Shape, int], tuple[LayerKind, int] | None]] = {
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    **dict.fromkeys(_MATMULS, _matmul),
    "ConvTranspose": _transposed,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "Attention": _attention,
}
