"""Where the nodes and edges of a cell stand in a picture, whatever draws it.

Points are (x, y), x to the right from -0.7 to 9.5, y up from -2.5 to 2.5. An edge is a quadratic Bezier curve.
"""

from dataclasses import dataclass

import numpy as np

from hadas_jax.spaces.genotypes import CellGraph

Point = tuple[float, float]

LEFT, RIGHT, TOP = -0.7, 9.5, 2.5
# The two inputs, the four nodes and the output.
_PLACES = np.array([(0, 1.9), (0, -1.9), (1.5, 0.1), (3.6, 1.4), (5.2, -1.5), (7.0, 1.0), (8.8, -0.2)])
_BEND = 0.18
# Where on an edge its label may stand, the best place first: nearer to its end, where edges part.
_ALONG = (0.62, 0.5, 0.74, 0.4)
_LABEL, _NODE = np.array([1.7, 0.34]), np.array([1.1, 0.45])  # room of a label beside another one, and beside a node


@dataclass(frozen=True)
class Arrow:
    """An edge of a cell.

    Attributes:
      start: of the curve.
      control: of the curve.
      end: of the curve.
      label: where its operation is written.
      bend: distance of `control` from the middle, in lengths of the edge, to the right of its way.
      operation: empty where nodes are concatenated.
    """

    start: Point
    control: Point
    end: Point
    label: Point
    bend: float
    operation: str

    @property
    def kind(self) -> str:
        """Of the operation: max, avg, skip, sep, dil; empty where there is none."""
        return self.operation.partition("_")[0]


def node_places(graph: CellGraph) -> dict[str, Point]:
    """Returns where each node stands, by its name."""
    return {name: _point(place) for name, place in zip(graph.nodes, _PLACES, strict=True)}


def arrows(graph: CellGraph) -> list[Arrow]:
    """Returns the edges of a cell; they bend to both sides in turn."""
    found: list[Arrow] = []
    for k, (first, last, operation) in enumerate(graph.edges):
        start, end, bend = _PLACES[first], _PLACES[last], _BEND if k % 2 else -_BEND
        side = bend * np.array([end[1] - start[1], start[0] - end[0]])
        places = [start + t * (end - start) + 2 * t * (1 - t) * side for t in _ALONG]
        label = max(places, key=lambda place: _room(place, [arrow.label for arrow in found if arrow.operation]))
        curve = (_point(start), _point((start + end) / 2 + side), _point(end))
        found.append(Arrow(*curve, _point(label), bend, operation))
    return found


def _point(values: np.ndarray) -> Point:
    return float(values[0]), float(values[1])


def _room(place: np.ndarray, labels: list[Point]) -> float:
    """How free a place is of labels and nodes; 1: entirely."""
    near = [np.max(np.abs(place - label) / _LABEL) for label in labels]
    near += [np.max(np.abs(place - node) / _NODE) for node in _PLACES]
    return min(1.0, *near)
