"""Networks as graphs of operators, however they are written down, and what they ask of the hardware layer by layer.

A graph is a list of operators in an order in which they can run. Rows of the resulting table stand for kernels as
runtimes run them: batch norm, activations and other element-wise operators are folded into the layer whose output alone
they take, views cost nothing, and what follows from weights alone is computed beforehand. The sample's way through the
graph is kept, so that its articulation points (the places where one tensor alone passes on) and the memory of its
activations are known too. `hw_models.onnx_graphs` and `hw_models.jaxpr_graphs` write such graphs.
Counts are exact whole numbers, for one sample, in elements.
"""

import enum
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hw_models.layers import LayerKind, LayerTable, layer_table


class Role(enum.Enum):
    """What an operator does to its inputs."""

    PRODUCT = enum.auto()
    """Multiplies and accumulates: convolutions and matrix products."""
    POOL = enum.auto()
    """Reduces windows or whole axes."""
    NORM = enum.auto()
    """Maps each element by what it needs of others: softmax, layer norm."""
    MAP = enum.auto()
    """Maps elements one by one; can be folded into what computes them."""
    VIEW = enum.auto()
    """Other dimensions for the same elements."""
    MOVE = enum.auto()
    """Copies elements: transpositions, slices, concatenations."""
    UNKNOWN = enum.auto()
    """Anything else: counted by the bytes that it reads and writes."""


@dataclass(frozen=True)
class Operator:
    """One operator of a graph.

    Attributes:
        name: For people.
        operator: What its language calls it, such as `Conv` or `dot_general`.
        role: What it does.
        inputs: Tensors that it takes.
        outputs: Tensors that it gives.
        kind: Of the layer, for products.
        macs: Multiply-accumulates of a product, for all samples.
        shift: Elements of the bias that is left of a batch norm once it is folded; 0 for other operators.
        times: How often it runs.
    """

    name: str
    operator: str
    role: Role
    inputs: tuple[Hashable, ...]
    outputs: tuple[Hashable, ...]
    kind: LayerKind = LayerKind.ELEMENTWISE
    macs: int = 0
    shift: int = 0
    times: int = 1


@dataclass(frozen=True)
class GraphLayer:
    """One row: an operator with what is folded into it. Counts are for one sample, in elements.

    Attributes:
        name: Of the operator.
        operator: What its language calls it, and what is folded in, `Conv + Relu`.
        kind: Of the layer.
        macs: Multiply-accumulates; operations for pooling and element-wise layers.
        weights: Parameters.
        inputs: Activations read.
        outputs: Activations written.
        kernels: How often it is launched.
        memory: Activations that are in memory while it runs, its own and those that later rows need.
        reads: Tensors that it takes.
        writes: Tensors that it gives.
        is_cut: Whether what it gives is one tensor and alone passes on.
        is_known: Whether the operator is known; otherwise it is counted by its bytes.
    """

    name: str
    operator: str
    kind: LayerKind
    macs: int
    weights: int
    inputs: int
    outputs: int
    kernels: int
    memory: int
    reads: tuple[Hashable, ...]
    writes: tuple[Hashable, ...]
    is_cut: bool
    is_known: bool


@dataclass(frozen=True)
class GraphLayers:
    """The rows of a network in the order in which they run.

    Attributes:
        layers: The rows.
    """

    layers: tuple[GraphLayer, ...]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and matrix products, exact."""
        counted = (layer for layer in self.layers if layer.kind not in (LayerKind.POOLING, LayerKind.ELEMENTWISE))
        return sum(layer.macs for layer in counted)

    @property
    def weights(self) -> int:
        """Parameters, exact."""
        return sum(layer.weights for layer in self.layers)

    @property
    def memory(self) -> int:
        """Peak of the activations in elements."""
        return max(layer.memory for layer in self.layers)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of operators that are not known, each once."""
        return tuple(dict.fromkeys(layer.operator for layer in self.layers if not layer.is_known))

    def table(self) -> LayerTable:
        """Returns the layer table, columns [L]."""
        return table_of(self.layers)


def table_of(layers: Sequence[GraphLayer]) -> LayerTable:
    """Returns the layer table of some rows."""
    return layer_table(
        kind=[int(layer.kind) for layer in layers],
        macs=[float(layer.macs) for layer in layers],
        weight_elements=[float(layer.weights) for layer in layers],
        input_elements=[float(layer.inputs) for layer in layers],
        output_elements=[float(layer.outputs) for layer in layers],
        kernels=[float(layer.kernels) for layer in layers],
    )


def product_kind(*, positions: int, is_pointwise: bool = True, is_depthwise: bool = False) -> LayerKind:
    """Returns the kind of a convolution or matrix product.

    Args:
        positions: Pixels, tokens or other rows of one sample that share the weights.
        is_pointwise: Whether the kernel has one tap.
        is_depthwise: Whether each channel is convolved by itself.
    """
    if is_depthwise:
        return LayerKind.DEPTHWISE
    if not is_pointwise:
        return LayerKind.DENSE
    return LayerKind.LINEAR if positions == 1 else LayerKind.POINTWISE


@dataclass
class _Row:
    """A row in the making; tensors are the roots of their views."""

    first: Operator
    made: list[Hashable]
    reads: list[Hashable] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    weights: int = 0
    bias: int = 0


def count_layers(
    operators: Sequence[Operator],
    *,
    sizes: Mapping[Hashable, int],
    weights: Iterable[Hashable],
    outputs: Iterable[Hashable],
    samples: int = 1,
) -> GraphLayers:
    """Counts a graph.

    Args:
        operators: In an order in which they can run.
        sizes: Elements of every tensor, for all samples.
        weights: Tensors that are parameters or follow from nothing but shapes.
        outputs: Tensors that leave the graph.
        samples: How many samples the graph takes at once.

    Returns:
        The rows; operators that no output needs are left out.
    """
    live = _needed(operators, outputs)
    fixed = set(weights)
    root: dict[Hashable, Hashable] = {}
    running: list[Operator] = []
    for each in live:
        if all(tensor in fixed for tensor in each.inputs):
            fixed.update(each.outputs)
        elif each.role is Role.VIEW:
            source = next(tensor for tensor in each.inputs if tensor not in fixed)
            root |= dict.fromkeys(each.outputs, root.get(source, source))
        else:
            running.append(each)
    rows = _fold(running, fixed, root, sizes)
    ends = {root.get(tensor, tensor) for tensor in outputs} - fixed
    return GraphLayers(tuple(_finished(rows, sizes, ends, samples)))


def _needed(operators: Sequence[Operator], outputs: Iterable[Hashable]) -> list[Operator]:
    needed, kept = set(outputs), []
    for each in reversed(operators):
        if needed.intersection(each.outputs):
            needed.update(each.inputs)
            kept.append(each)
    return kept[::-1]


def _fold(
    running: Sequence[Operator],
    fixed: set[Hashable],
    root: Mapping[Hashable, Hashable],
    sizes: Mapping[Hashable, int],
) -> list[_Row]:
    """Makes rows of operators, those that map the output of one row alone folded into it."""
    taken = {id(each): [root.get(t, t) for t in each.inputs if t not in fixed] for each in running}
    takers: dict[Hashable, list[Operator]] = {}
    for each in running:
        for tensor in taken[id(each)]:
            takers.setdefault(tensor, []).append(each)
    giver = {tensor: each for each in running for tensor in each.outputs}
    row_of: dict[Hashable, _Row] = {}
    rows: list[_Row] = []

    def is_of(other: Operator, row: _Row) -> bool:
        """Whether an operator maps nothing but what a row gives, at once or by other such operators."""
        if other.role is not Role.MAP or other.times != row.first.times:
            return False
        return all(
            row_of[tensor] is row if tensor in row_of else tensor in giver and is_of(giver[tensor], row)
            for tensor in taken[id(other)]
        )

    for each in running:
        tensors = list(dict.fromkeys(taken[id(each)]))
        constants = [sizes[tensor] for tensor in each.inputs if tensor in fixed]
        row = row_of.get(tensors[0])
        if (
            row is not None
            and row.first.role not in (Role.UNKNOWN, Role.MOVE)
            and sizes[each.outputs[0]] == sizes[row.made[0]]
            and is_of(each, row)
            and all(is_of(other, row) for tensor in tensors for other in takers[tensor])
        ):
            row.names.append(each.operator)
            row.made += each.outputs
            if each.shift:
                row.bias = max(row.bias, each.shift)
            else:
                row.weights += sum(size for size in constants if size > 1)
        else:
            row = _Row(each, list(each.outputs), tensors, [each.operator])
            if each.role is Role.PRODUCT:
                row.weights, row.bias = sum(constants[:1]), sum(constants[1:])
            elif each.role is not Role.MOVE:
                row.weights = sum(size for size in constants if size > 1)
            rows.append(row)
        row_of |= dict.fromkeys(each.outputs, row)
    return rows


def _finished(
    rows: Sequence[_Row], sizes: Mapping[Hashable, int], outputs: set[Hashable], samples: int
) -> Iterable[GraphLayer]:
    last: dict[Hashable, int] = {}
    for number, row in enumerate(rows):
        last |= dict.fromkeys(row.reads, number)
    last |= dict.fromkeys(outputs, len(rows))
    made = {tensor for row in rows for tensor in row.made}
    in_memory = {tensor for row in rows for tensor in row.reads if tensor not in made}
    for number, row in enumerate(rows):
        first, times = row.first, row.first.times
        given = tuple(tensor for tensor in row.made if tensor in last)
        in_memory.update(given)
        held = sum(sizes[tensor] for tensor in in_memory)
        in_memory = {tensor for tensor in in_memory if last.get(tensor, -1) > number}
        reads, writes = (sum(sizes[tensor] for tensor in tensors) for tensors in (row.reads, given))
        if first.role in (Role.MOVE, Role.UNKNOWN):
            reads = min(reads, writes) if first.role is Role.MOVE else reads
        macs = {Role.PRODUCT: first.macs, Role.MOVE: 0, Role.UNKNOWN: 0}.get(first.role, reads)
        kind = LayerKind.POOLING if first.role is Role.POOL else first.kind
        yield GraphLayer(
            name=first.name,
            operator=" + ".join(row.names),
            kind=kind,
            macs=_share(macs * times, samples),
            weights=row.weights + row.bias,
            inputs=_share(reads * times, samples),
            outputs=_share(writes * times, samples),
            kernels=times,
            memory=_share(held, samples),
            reads=tuple(row.reads),
            writes=given,
            is_cut=len(given) == 1 and in_memory == set(given),
            is_known=first.role is not Role.UNKNOWN,
        )


def _share(count: int, samples: int) -> int:
    """A count for one sample, rounded up where samples share something."""
    return -(-count // samples)
