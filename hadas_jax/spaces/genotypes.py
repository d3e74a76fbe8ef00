"""Genotypes: networks of the DARTS space in the textual form that DARTS writes, published ones, and their graphs.

A genotype lists two (operation, input) pairs for each node of a cell, where inputs 0 and 1 are those of the cell and 2
+ i is node i: `Genotype(normal=[('sep_conv_3x3', 0), ...], normal_concat=range(2, 6), reduce=[...], ...)`. DARTS_V1 and
DARTS_V2: Liu et al., 2018, https://arxiv.org/abs/1806.09055; OURS_ACC (generic accelerator) and OURS_PIP (pipeline):
Jiang et al., "EH-DNAS", 2021, https://arxiv.org/abs/2111.12299. `read_architecture` reads a network as users write it:
a published name, a code, a genotype, or a file of one of these.
"""

import ast
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hadas_jax.spaces.darts import CELLS, EDGE_INPUT, EDGE_NODE, EDGES, NODES, OPERATIONS, check_code, parse_code

Edge = tuple[str, int]
_CONCAT = tuple(range(2, 2 + NODES))
_EDGES_PER_CELL = 2 * NODES
_SUFFIXES = (".json", ".txt")
_SHORT = {
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "skip": "skip_connect",
    "sep3": "sep_conv_3x3",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
}
_PUBLISHED = {
    "DARTS_V1": (
        "sep3 1, sep3 0, skip 0, sep3 1, skip 0, sep3 1, sep3 0, skip 2",
        "max 0, max 1, skip 2, max 0, max 0, skip 2, skip 2, avg 0",
    ),
    "DARTS_V2": (
        "sep3 0, sep3 1, sep3 0, sep3 1, sep3 1, skip 0, skip 0, dil3 2",
        "max 0, max 1, skip 2, max 1, max 0, skip 2, skip 2, max 1",
    ),
    "OURS_ACC": (
        "skip 0, dil3 1, skip 0, dil5 2, sep3 0, sep3 1, skip 0, skip 2",
        "max 0, max 1, max 0, skip 2, max 0, skip 2, skip 2, max 0",
    ),
    "OURS_PIP": (
        "sep3 0, dil3 1, skip 0, skip 2, dil5 2, dil3 0, dil3 1, skip 0",
        "max 0, max 1, max 0, max 1, max 0, max 1, skip 2, max 1",
    ),
}
PUBLISHED_GENOTYPES = tuple(_PUBLISHED)
"""The names that `published_genotype` knows."""


@dataclasses.dataclass(frozen=True)
class CellGraph:
    """A cell as a graph.

    Attributes:
        nodes: Names: the outputs of the two cells before, the nodes, the output.
        edges: Source and target, by position in `nodes`, and the operation; empty where nodes are concatenated.
    """

    nodes: tuple[str, ...]
    edges: tuple[tuple[int, int, str], ...]


@dataclasses.dataclass(frozen=True)
class Genotype:
    """A network of the DARTS space.

    Attributes:
        normal: Operation and input of the two edges to each node, 8 in all.
        reduce: Likewise.
    """

    normal: tuple[Edge, ...]
    reduce: tuple[Edge, ...]

    def __post_init__(self) -> None:
        """Raises `ValueError` where the edges make no cell."""
        for cell in CELLS:
            _digits(getattr(self, cell), cell)

    @classmethod
    def parse(cls, text: str) -> "Genotype":
        """Reads DARTS's textual form; nothing in it is run.

        Args:
            text: `Genotype(normal=[...], normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6))`; concats
                may be lists or missing, and `genotype = ` may stand before it.

        Returns:
            The genotype.

        Raises:
            ValueError: The text is no genotype, or one of no network of this space; the message says where.
        """
        start = text.find("Genotype(")
        try:
            call = ast.parse(text[max(start, 0) :].strip(), mode="eval").body
        except (SyntaxError, ValueError) as error:
            raise ValueError(f"genotype: expected Genotype(normal=[...], reduce=[...]), got {_cut(text)}") from error
        if start < 0 or not isinstance(call, ast.Call) or call.args:
            raise ValueError(f"genotype: expected Genotype(normal=[...], reduce=[...]), got {_cut(text)}")
        fields = {str(keyword.arg): keyword.value for keyword in call.keywords}
        allowed = [name for cell in CELLS for name in (cell, f"{cell}_concat")]
        for name in fields:
            if name not in allowed:
                raise ValueError(f"genotype: expected fields {', '.join(allowed)}, got {name}")
        for cell in CELLS:
            concat = _concat(fields.get(f"{cell}_concat"))
            if concat is not None and sorted(concat) != list(_CONCAT):
                raise ValueError(f"genotype: {cell}_concat: expected range(2, 6), as codes have it, got {concat}")
        return cls(*(_edges(fields.get(cell), cell) for cell in CELLS))

    @classmethod
    def of(cls, code: Sequence[int] | np.ndarray) -> "Genotype":
        """Returns the genotype of a code int[28]; raises `ValueError` as `hadas_jax.spaces.darts.check_code`."""
        cells = check_code(code).reshape(len(CELLS), EDGES)
        return cls(*(tuple((OPERATIONS[d], int(EDGE_INPUT[e])) for e, d in enumerate(cell) if d) for cell in cells))

    def graph(self, cell: str) -> CellGraph:
        """Returns a cell, `normal` or `reduce`, as a graph, for drawing.

        Raises:
            ValueError: There is no such cell.
        """
        if cell not in CELLS:
            raise ValueError(f"cell: expected one of {', '.join(CELLS)}, got {cell!r}")
        nodes = ("c_{k-2}", "c_{k-1}", *map(str, range(NODES)), "c_{k}")
        edges = [(start, 2 + i // 2, operation) for i, (operation, start) in enumerate(getattr(self, cell))]
        return CellGraph(nodes, (*edges, *((node, len(nodes) - 1, "") for node in _CONCAT)))

    def __str__(self) -> str:
        """DARTS's textual form."""
        concat = f"range({_CONCAT[0]}, {_CONCAT[-1] + 1})"
        cells = (f"{cell}={list(getattr(self, cell))!r}, {cell}_concat={concat}" for cell in CELLS)
        return f"Genotype({', '.join(cells)})"


def code_of(genotype: Genotype) -> np.ndarray:
    """Returns the code of a genotype, int32[28]; the order of a node's edges does not matter."""
    return np.concatenate([_digits(getattr(genotype, cell), cell) for cell in CELLS])


def read_architecture(text: str) -> np.ndarray:
    """Reads a network.

    Args:
        text: A published name (`DARTS_V2`), 28 digits with spaces where you like, `Genotype(normal=[...], ...)`, or
            the path of a file of one of these; a .json file has it under `genotype`, as `hadas dnas search` writes.

    Returns:
        The code, int32[28].

    Raises:
        ValueError: It is none of these; the message says what is wrong.
    """
    text = text.strip()
    if text in PUBLISHED_GENOTYPES:
        return code_of(published_genotype(text))
    if "Genotype(" in text:
        return code_of(Genotype.parse(text))
    if text.endswith(_SUFFIXES) or Path(text).is_file():
        return _read_file(Path(text))
    if text and not set(text) - set("0123456789 "):
        return parse_code(text)
    raise ValueError(
        f"architecture: expected one of {', '.join(PUBLISHED_GENOTYPES)}, 28 digits, Genotype(...) or a file, "
        f"got {text if len(text) < 60 else text[:57] + '...'!r}"
    )


def published_genotype(name: str) -> Genotype:
    """Returns a published genotype by name.

    Raises:
        ValueError: No genotype has this name; the valid ones are listed.
    """
    if name not in _PUBLISHED:
        raise ValueError(f"genotype: expected one of {', '.join(_PUBLISHED)}, got {name!r}")
    cells = ([edge.split() for edge in cell.split(", ")] for cell in _PUBLISHED[name])
    return Genotype(*(tuple((_SHORT[short], int(start)) for short, start in cell) for cell in cells))


def _digits(edges: tuple[Edge, ...], cell: str) -> np.ndarray:
    if len(edges) != _EDGES_PER_CELL:
        raise ValueError(f"genotype: {cell}: expected {_EDGES_PER_CELL} edges, got {len(edges)}")
    digits = np.zeros(EDGES, np.int32)
    for i, (operation, start) in enumerate(edges):
        node = i // 2
        if operation not in OPERATIONS[1:]:
            raise ValueError(f"genotype: {cell}: expected one of {', '.join(OPERATIONS[1:])}, got {operation!r}")
        edge = np.flatnonzero((node == EDGE_NODE) & (start == EDGE_INPUT))
        if not len(edge):
            raise ValueError(f"genotype: {cell}: node {node}: expected an input from 0 to {1 + node}, got {start!r}")
        if digits[edge[0]]:
            raise ValueError(f"genotype: {cell}: node {node}: expected two different inputs, got {start} twice")
        digits[edge[0]] = OPERATIONS.index(operation)
    return digits


def _edges(value: ast.expr | None, cell: str) -> tuple[Edge, ...]:
    try:
        pairs = None if value is None else ast.literal_eval(value)
        return tuple((operation, start) for operation, start in pairs)  # type: ignore[union-attr]
    except (ValueError, TypeError):
        got = "nothing" if value is None else _cut(ast.unparse(value))
        raise ValueError(f"genotype: {cell}: expected a list of (operation, input) pairs, got {got}") from None


def _concat(value: ast.expr | None) -> list[int] | None:
    if value is None:
        return None
    try:
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "range":
            return list(range(*(ast.literal_eval(argument) for argument in value.args)))
        return list(ast.literal_eval(value))
    except (ValueError, TypeError):
        raise ValueError(f"genotype: expected a concat such as range(2, 6), got {_cut(ast.unparse(value))}") from None


def _cut(text: str, limit: int = 60) -> str:
    return repr(text if len(text) <= limit else text[: limit - 3] + "...")


def _read_file(path: Path) -> np.ndarray:
    try:
        text = path.read_text(encoding="utf-8")
        written = json.loads(text)["genotype"] if path.suffix == ".json" else text
    except OSError as error:
        raise ValueError(f"{path}: expected a file of an architecture, got: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected an architecture under genotype, cannot read it") from error
    if not isinstance(written, str) or Path(written.strip()[:200]).is_file():
        raise ValueError(f"{path}: expected the text of an architecture, got another content")
    try:
        return read_architecture(written)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
