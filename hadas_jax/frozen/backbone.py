"""An ONNX model as a frozen backbone: where exits may be, its parts, and heads as further nodes; extra `onnx`.

An exit may follow a tensor that alone passes on, an articulation point of the graph: then the graph falls into a
segment that gives this tensor and one that takes it. Of all such places those are kept that divide the latency evenly.
Images are [B, C, H, W] at the input, whatever the model itself takes.
Shapes: E places, B batch, C channels, T tokens, D features, K classes.
"""

import abc
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hadas_jax.frozen.heads import FEATURES, Head
from hw_models import Device, GraphLayers, LayerKind, cost, default_point, onnx_layers
from hw_models.graphs import GraphLayer
from hw_models.onnx_graphs import known_shapes, read_onnx, with_shapes

IMAGES = "images"
"""The input of every prepared model."""
LAYOUTS = ("nchw", "nhwc")
_ERRORS = 3  # what onnxruntime logs; its warnings are of constants that it folds itself
_FIRST, _LAST = 0.05, 0.95  # shares of the latency between which exits are placed
_CHANNELS_LAST = ("MatMul", "LayerNormalization", "Gemm")  # what takes maps with their channels behind


@dataclass(frozen=True)
class Place:
    """A tensor that an exit may follow.

    Attributes:
        tensor: Its name.
        shape: Without the batch: [C, H, W], [H, W, C], [T, D] or [D].
        row: The row of the layers that gives it.
        channels: Axis of the channels in `shape`.
    """

    tensor: str
    shape: tuple[int, ...]
    row: int
    channels: int

    @property
    def width(self) -> int:
        """D, the features that are left when it is pooled."""
        return self.shape[self.channels]

    @property
    def pools(self) -> tuple[str, ...]:
        """The ways in which it can be pooled: over pixels, over tokens, or not at all."""
        ways = {3: ("mean", "max"), 2: ("mean", "first")}.get(len(self.shape), ("mean",))
        return ways if int(np.prod(self.shape)) > self.width else ways[:1]


class Backbone(abc.ABC):
    """A network whose weights stay as they are, however it is written down.

    Attributes:
        source: Its name, for errors.
        layers: What it asks of the hardware.
        channels: Of the images.
        image_size: Their height and width.
        classes: K.
        batch: Images at once; None: any number.
    """

    source: str
    layers: GraphLayers
    channels: int
    image_size: int
    classes: int
    batch: int | None

    @property
    @abc.abstractmethod
    def places(self) -> tuple[Place, ...]:
        """All places where one tensor alone passes on, in the order of the network."""

    @property
    @abc.abstractmethod
    def digest(self) -> str:
        """What tells it from other networks."""

    @abc.abstractmethod
    def runner(self, places: Sequence[Place], *, with_logits: bool) -> Callable[[np.ndarray], Sequence[np.ndarray]]:
        """Returns a function from images float32[B, C, H, W] to pooled features of some places, then the logits."""

    @property
    def penultimate(self) -> Place:
        """The place before the last product, where a new classifier goes.

        Raises:
            ValueError: More than one tensor goes on there.
        """
        rows, plain = self.layers.layers, (LayerKind.POOLING, LayerKind.ELEMENTWISE)
        last = max((row for row, layer in enumerate(rows) if layer.kind not in plain), default=0)
        before = [place for place in self.places if place.row < last]
        if not before or not self._takes(last, before[-1]):
            raise ValueError(
                f"{self.source}: expected a classifier that takes one tensor, to put a new one in its place, got none"
            )
        return before[-1]

    def _takes(self, row: int, place: Place) -> bool:
        return place.tensor in {str(tensor) for tensor in self.layers.layers[row].reads}

    def useful_places(self, device: Device, most: int, *, before: int | None = None) -> tuple[Place, ...]:
        """Returns at most so many places, those nearest to even steps of the latency at the highest clocks.

        Args:
            device: Whose latency counts.
            most: How many.
            before: Row that they come before, of a new classifier; None: the last one.
        """
        steps = np.asarray(cost(self.layers.table(), device, default_point(device)).latency_s, np.float64)
        share = np.cumsum(steps) / steps.sum()
        end = len(steps) if before is None else before
        possible = [each for each in self.places if each.row < end and _FIRST <= share[each.row] <= _LAST]
        kept: dict[int, Place] = {}
        for wanted in (np.arange(most) + 1) / (most + 1):
            left = [each for each in possible if each.row not in kept]
            if left:
                nearest = min(left, key=lambda each: abs(share[each.row] - wanted))
                kept[nearest.row] = nearest
        return tuple(kept[row] for row in sorted(kept))

    def rows_between(self, places: Sequence[Place]) -> list[list[GraphLayer]]:
        """Returns the layers up to each place and up to the end, or to the last place where that is all."""
        ends = [place.row + 1 for place in places]
        starts = [0, *ends]
        return [list(self.layers.layers[a:b]) for a, b in zip(starts, [*ends, len(self.layers.layers)], strict=True)]


class FrozenNetwork(Backbone):
    """An ONNX classifier whose weights stay as they are.

    Args:
        path: The file.
        layout: How the model takes images: `nchw` or `nhwc`.
        image_size: Height and width of images, where the model leaves them open.

    Attributes:
        model: The model with one input, images [B, C, H, W].
        batch: Images at once; None: any number.
        layers: What it asks of the hardware.

    Raises:
        ValueError: One line: what cannot be used of it, and why.
    """

    def __init__(self, path: Path | str, *, layout: str = "nchw", image_size: int | None = None) -> None:
        self.source = str(path)
        model = read_onnx(path)
        self._require_classifier(model)
        _take_images(model, layout)
        self.layers: GraphLayers = onnx_layers(model, image_size=image_size)
        fixed = with_shapes(model, source=self.source, image_size=image_size)
        self._shapes = known_shapes(fixed)
        first = self._shapes[IMAGES]
        if len(first) != 4 or first[1] not in (1, 3) or first[2] != first[3]:
            wanted = "square images [B, C, H, W] of 1 or 3 channels; `layout` nhwc takes [B, H, W, C]"
            raise ValueError(f"{path}: expected a model that takes {wanted}, got {list(first)}")
        self.channels, self.image_size = first[1], first[2]
        is_open = _is_open(model) and not any(node.op_type in ("Shape", "Size") for node in model.graph.node)
        self.model = _for_any_batch(model, fixed) if is_open else fixed
        self.batch: int | None = None if is_open else first[0]
        twice = with_shapes(model, source=self.source, image_size=image_size, batch=2) if is_open else fixed
        self._twice = known_shapes(twice)
        end = self.model.graph.output[0].name
        shape = self._shapes.get(end, ())
        if len(shape) < 2 or int(np.prod(shape[1:])) != max(shape[1:]):
            raise ValueError(
                f"{path}: expected a classifier that gives logits [B, K], got {end} of shape {list(shape)}"
            )
        self.end, self.classes = end, max(shape[1:])

    def _require_classifier(self, model: Any) -> None:
        graph = model.graph
        weights = {each.name for each in graph.initializer}
        inputs = [each.name for each in graph.input if each.name not in weights]
        if len(inputs) != 1:
            raise ValueError(
                f"{self.source}: expected a model with one input, its images, got {len(inputs)}: {', '.join(inputs)}; "
                "fix the others in the export, or make them constants"
            )
        if len(graph.output) != 1:
            names = ", ".join(each.name for each in graph.output)
            raise ValueError(f"{self.source}: expected a model with one output, its logits, got {names}")

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """All places where one tensor alone passes on, in the order of the network."""
        takers: dict[str, list[str]] = {}
        for node in self.model.graph.node:
            for name in node.input:
                takers.setdefault(name, []).append(node.op_type)
        found = []
        for row, layer in enumerate(self.layers.layers[:-1]):
            tensor = str(layer.writes[0]) if layer.writes else ""
            if not layer.is_cut or layer.operator == "Pad" or not self._has_batch(tensor):
                continue  # runtimes pad within the convolution behind
            shape = self._shapes[tensor][1:]
            behind = len(shape) != 3 or any(each in _CHANNELS_LAST for each in takers.get(tensor, []))
            found.append(Place(tensor, shape, row, len(shape) - 1 if behind else 0))
        return tuple(found)

    def _has_batch(self, tensor: str) -> bool:
        """Whether the first axis of a tensor, and no other one, is the batch."""
        shape, twice = self._shapes.get(tensor, ()), self._twice.get(tensor, ())
        wanted = (2 if self.batch is None else shape[0], *shape[1:]) if shape else ()
        return 2 <= len(shape) <= 4 and twice == wanted and shape[0] == self._shapes[IMAGES][0]

    @property
    def digest(self) -> str:
        """Of the model."""
        return hashlib.sha256(self.model.SerializeToString(deterministic=True)).hexdigest()

    def runner(self, places: Sequence[Place], *, with_logits: bool) -> Callable[[np.ndarray], Sequence[np.ndarray]]:
        """Returns a function that runs the model on onnxruntime, see `Backbone`."""
        model, names = self.pooled_model(places, with_logits=with_logits)
        return self.session(model, names)

    def session(
        self, model: Any, outputs: Sequence[str], *, takes: str = IMAGES
    ) -> Callable[[np.ndarray], Sequence[np.ndarray]]:
        """Returns a function from images float32[B, C, H, W] to outputs of a model that was made of this one.

        Args:
            model: Of the methods below.
            outputs: Names.
            takes: Name of its input, of a segment the tensor before.

        Raises:
            ValueError: onnxruntime is missing, or refuses the model.
        """
        try:
            import onnxruntime
        except ImportError:
            raise ValueError("onnxruntime: expected the extra onnx, got none; pip install 'hadas-jax[onnx]'") from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _ERRORS
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises whatever it does not know
            line = str(error).strip().splitlines()[0][:200]
            raise ValueError(f"{self.source}: expected a model that onnxruntime runs, got: {line}") from None
        return lambda images: session.run(list(outputs), {takes: images})

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Returns the shape of a tensor without the batch."""
        return self._shapes[tensor][1:]

    def pooled_model(self, places: Sequence[Place], *, with_logits: bool) -> tuple[Any, list[str]]:
        """Returns the whole model with the pooled features of some places as outputs, and the names of these."""
        graph = _GraphWriter(self.model.opset_import)
        names = [tuple(graph.pool(place, each) for each in place.pools) for place in places]
        outputs = [name for group in names for name in group] + ([self.end] if with_logits else [])
        pairs = zip(places, names, strict=True)
        widths: dict[str, tuple[int, ...]] = {name: (place.width,) for place, group in pairs for name in group}
        return self._model([IMAGES], outputs, graph, widths), outputs

    def segment(
        self, takes: str, *, features: str | None, head: tuple[Place, Head] | None, learned: bool
    ) -> tuple[Any, dict[str, str]]:
        """Returns one segment as a model, and its outputs by kind: `features`, `logits`, `confidence`.

        Args:
            takes: The tensor that it takes.
            features: The tensor that goes on; None: it is the last segment.
            head: What gives its logits, and from where; None: the model's own classifier.
            learned: Whether the head's own confidence is an output.
        """
        graph = _GraphWriter(self.model.opset_import)
        shapes: dict[str, tuple[int, ...]] = {}
        outputs = {} if features is None else {"features": features}
        if head is None:
            outputs["logits"] = graph.flat(self.end, len(self._shapes[self.end]))
            shapes[outputs["logits"]] = (self.classes,)
        else:
            place, one = head
            outputs |= graph.head(place, one, learned=learned)
            shapes |= {outputs["logits"]: (one.classes,), outputs.get("confidence", ""): (1,)}
        return self._model([takes], list(outputs.values()), graph, shapes), outputs

    def whole(
        self, heads: Sequence[tuple[Place, Head]], classifier: tuple[Place, Head] | None
    ) -> tuple[Any, list[str]]:
        """Returns the whole model, uncut: logits of some heads and of a classifier, then the heads' own confidence.

        Args:
            heads: Where they are, and what they are.
            classifier: Likewise; None: the model's own.
        """
        graph, logits, confidence = _GraphWriter(self.model.opset_import), [], []
        shapes: dict[str, tuple[int, ...]] = {}
        for place, head in heads:
            outputs = graph.head(place, head, learned=True)
            logits.append(outputs["logits"])
            confidence.append(outputs["confidence"])
            shapes |= {outputs["logits"]: (head.classes,), outputs["confidence"]: (1,)}
        if classifier is None:
            logits.append(self.end)
        else:
            place, head = classifier
            logits.append(graph.head(place, head, learned=False)["logits"])
            shapes[logits[-1]] = (head.classes,)
        names = [*logits, *confidence]
        return self._model([IMAGES], names, graph, shapes), names

    def _model(
        self, inputs: Sequence[str], outputs: Sequence[str], more: "_GraphWriter", shapes: dict[str, tuple[int, ...]]
    ) -> Any:
        """Returns what lies between some tensors, with further nodes behind it."""
        from onnx import TensorProto, helper

        graph, needed, kept = self.model.graph, set(outputs), []
        for node in reversed([*graph.node, *more.nodes]):
            if needed.intersection(node.output) and not set(node.output) <= set(inputs):
                needed.update(name for name in node.input if name not in inputs)
                kept.append(node)

        def value(name: str) -> Any:
            shape = shapes[name] if name in shapes else self.shape(name)
            first = "B" if self.batch is None else self.batch
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, (first, *shape))

        arrays = [each for each in (*graph.initializer, *more.arrays) if each.name in needed]
        part = helper.make_graph(kept[::-1], "segment", [value(n) for n in inputs], [value(n) for n in outputs], arrays)
        about = {"ir_version": self.model.ir_version, "producer_name": "hadas_jax"}
        return helper.make_model(part, opset_imports=self.model.opset_import, **about)


def _take_images(model: Any, layout: str) -> None:
    """Names the input `images`, [B, C, H, W]; a transposition behind it gives the model another layout."""
    from onnx import helper

    if layout not in LAYOUTS:
        raise ValueError(f"layout: expected one of {', '.join(LAYOUTS)}, got {layout!r}")
    graph = model.graph
    weights = {each.name for each in graph.initializer}
    image = next(each for each in graph.input if each.name not in weights)
    for each in [each for each in graph.input if each.name in weights]:
        graph.input.remove(each)  # weights that could be replaced by a caller
    old = image.name
    if layout == "nhwc":
        dims = image.type.tensor_type.shape.dim
        if len(dims) == 4:
            order = [dims[0].SerializeToString(), *(dims[axis].SerializeToString() for axis in (3, 1, 2))]
            for dim, text in zip(dims, order, strict=True):
                dim.ParseFromString(text)
        graph.node.insert(0, helper.make_node("Transpose", [IMAGES], [f"{old}/nhwc"], perm=[0, 2, 3, 1]))
        new = f"{old}/nhwc"
    else:
        new = IMAGES
    for node in list(graph.node)[1 if layout == "nhwc" else 0 :]:
        for position, name in enumerate(node.input):
            if name == old:
                node.input[position] = new
    image.name = IMAGES


def _is_open(model: Any) -> bool:
    """Whether the model takes any number of images."""
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    return not (dim.HasField("dim_value") and dim.dim_value > 0)


def _for_any_batch(model: Any, fixed: Any) -> Any:
    """The model with the other axes of its input fixed."""
    if model.functions:
        import onnx.inliner

        model = onnx.inliner.inline_local_functions(model)
    dims, known = (each.graph.input[0].type.tensor_type.shape.dim for each in (model, fixed))
    for dim, other in list(zip(dims, known, strict=True))[1:]:
        dim.dim_value = other.dim_value
    return model


class _GraphWriter:
    """Collects nodes and constants that are put behind a model; operators are the same in all versions of ONNX."""

    def __init__(self, opsets: Any) -> None:
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []
        self._opsets = opsets

    def _node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def _array(self, name: str, values: np.ndarray) -> str:
        from onnx import numpy_helper

        self.arrays.append(numpy_helper.from_array(np.array(values, order="C"), name))
        return name

    def flat(self, tensor: str, rank: int) -> str:
        """Drops axes of one element."""
        return tensor if rank == 2 else self._node("Flatten", [tensor], f"hadas/{tensor}/flat", axis=1)

    def pool(self, place: Place, how: Literal["mean", "max", "first"] | str) -> str:
        """Pools a place to [B, D]."""
        name, tensor = f"hadas/{place.tensor}/{how}", place.tensor
        if len(place.shape) == 1:
            return self._node("Identity", [tensor], name)
        if how == "first":
            row = self._array(f"{name}/row", np.array(0, np.int64))
            return self._node("Gather", [tensor, row], name, axis=1)
        if place.channels:  # channels behind the pixels or tokens
            perm = [0, len(place.shape), *range(1, len(place.shape))]
            tensor = self._node("Transpose", [tensor], f"{name}/channels", perm=perm)
        operator = {"mean": "GlobalAveragePool", "max": "GlobalMaxPool"}[how]
        return self._node("Flatten", [self._node(operator, [tensor], f"{name}/pixel")], name, axis=1)

    def head(self, place: Place, head: Head, *, learned: bool) -> dict[str, str]:
        """Adds a head behind a place, and returns its outputs by kind."""
        prefix = f"hadas/{place.tensor}"
        parts = [self.pool(place, how) for how in head.pools]
        x = parts[0] if len(parts) == 1 else self._node("Concat", parts, f"{prefix}/{FEATURES}", axis=1)
        for number, (kernel, bias) in enumerate(head.hidden):
            x = self._gemm(x, kernel, bias, f"{prefix}/hidden{number}")
            x = self._node("Relu", [x], f"{x}/relu")
        kernel, bias = head.last
        outputs = {"logits": self._gemm(x, kernel[:, :-1], bias[:-1], f"{prefix}/logits")}
        if learned:
            outputs["confidence"] = self._gemm(x, kernel[:, -1:], bias[-1:], f"{prefix}/confidence")
        return outputs

    def _gemm(self, x: str, kernel: np.ndarray, bias: np.ndarray, name: str) -> str:
        return self._node("Gemm", [x, self._array(f"{name}/kernel", kernel), self._array(f"{name}/bias", bias)], name)
