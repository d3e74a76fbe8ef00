"""Networks of the DARTS space in a report: what a search by gradient found, what a retraining made of it.

Accuracies in percent, latency in ms and energy in mJ of one image, clocks in MHz.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.methods.eh_dnas.result import FoundNetwork
from hadas_jax.methods.retrain_result import RetrainedNetwork
from hadas_jax.report.cell_layout import LEFT, RIGHT, TOP, Point, arrows, node_places
from hadas_jax.spaces.darts import CELLS, EDGE_INPUT, EDGE_NODE, OPERATIONS, parse_code
from hadas_jax.spaces.genotypes import CellGraph, Genotype, cell_graph, genotype_of

_SCALE = 64.0  # pixels per unit of the layout
_RADIUS = 17.0  # of a node
_BUDGETS = ("min_fps", "max_latency_ms", "max_energy_mj")
# Columns of the table of networks: heading, and the value in words, where a network has one.
_COLUMNS = (
    ("hardware", "hardware", str),
    ("images/s", "images_per_s", "{:,.1f}".format),
    ("latency, ms", "latency", "{:.4g}".format),
    ("energy, mJ", "energy", "{:.4g}".format),
    ("clocks, MHz", "clocks", lambda clocks: " ".join(f"{mhz:.5g}" for mhz in clocks)),
    ("budgets", "budgets", str),
    ("validation", "validation_accuracy", "{:.2f} %".format),
    ("test", "test_accuracy", "{:.2f} %".format),
    ("weights", "parameters", "{:,}".format),
    ("million MACs", "macs", lambda macs: f"{macs / 1e6:,.2f}"),
)
# Values of a network that a table of numbers has.
NETWORK_VALUES = ("code", "genotype", *(name for _, name, _ in _COLUMNS))


def darts_network(outcome: FoundNetwork | RetrainedNetwork, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns a network as plain values.

    Args:
      outcome: of the run.
      settings: of the run.

    Returns:
      `code`, `genotype`, `cells` with a `drawing` of each, `alpha`: the `shares` of
      all operations on each edge and which `kept` in the network, or None without alpha; and those of hardware,
      images_per_s, latency, energy, clocks, budgets, validation_accuracy, test_accuracy, parameters and macs that are
      known.
    """
    code = parse_code(outcome.code)
    genotype = genotype_of(code)
    network = {"code": outcome.code, "genotype": str(genotype), "cells": _cells(genotype), "alpha": None}
    if isinstance(outcome, RetrainedNetwork):
        shares = {name: 100 * getattr(outcome, name) for name in ("validation_accuracy", "test_accuracy")}
        return network | shares | {"parameters": outcome.parameters, "macs": outcome.macs}
    costs = {
        "hardware": outcome.hardware,
        "images_per_s": outcome.images_per_s,
        "latency": 1e3 / outcome.images_per_s if outcome.images_per_s > 0 else None,
        "energy": outcome.energy_mj,
        "clocks": None if outcome.clocks_mhz is None else list(outcome.clocks_mhz),
        "budgets": None,
    }
    if any(settings.get(name) is not None for name in _BUDGETS):
        costs["budgets"] = "kept" if outcome.within_budgets else "not kept"
    return network | costs | {"alpha": _alpha(outcome, code)}


def network_columns(networks: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Returns the headings and the rows of a table of networks; what none of them has is left out."""
    known = [column for column in _COLUMNS if any(network.get(column[1]) is not None for network in networks)]
    rows = [["" if n.get(name) is None else told(n[name]) for _, name, told in known] for n in networks]
    return [heading for heading, _, _ in known], rows


def _alpha(outcome: FoundNetwork, code: np.ndarray) -> dict[str, Any]:
    shares = np.asarray(jax.nn.softmax(jnp.asarray(outcome.alpha, jnp.float32), axis=-1), np.float64)
    edges = [_edge(int(start), int(node)) for start, node in zip(EDGE_INPUT, EDGE_NODE, strict=True)]
    return {
        "operations": list(OPERATIONS),
        "edges": edges,
        "shares": np.round(shares, 6).reshape(len(CELLS), len(edges), len(OPERATIONS)).tolist(),
        "kept": code.reshape(len(CELLS), len(edges)).tolist(),
    }


def _edge(start: int, node: int) -> str:
    """An edge in words; inputs 0 and 1 are the two cells before, 2 + i is node i."""
    return f"{('k-2', 'k-1', *range(4))[start]} to {node}"


def _cells(genotype: Genotype) -> dict[str, Any]:
    return {cell: {"drawing": _drawing(cell_graph(genotype, cell))} for cell in CELLS}


def _drawing(graph: CellGraph) -> dict[str, Any]:
    """A cell in pixels: its size, paths with the kind of their operation, labels and nodes."""
    paths, labels = [], []
    for edge in arrows(graph):
        start, control, end = map(_pixels, (edge.start, edge.control, edge.end))
        way = end - control
        end = end - _RADIUS * way / np.linalg.norm(way)  # at the rim of the node
        points = [round(float(value), 1) for value in (*start, *control, *end)]
        paths.append({"kind": edge.kind or "joins", "points": points})
        if edge.operation:
            labels.append({"kind": edge.kind, "at": _rounded(edge.label), "text": edge.operation.replace("_", " ")})
    nodes = [{"at": _rounded(place), "name": name.strip("c_{}")} for name, place in node_places(graph).items()]
    size = _pixels((RIGHT, -TOP))
    return {"size": size.tolist(), "paths": paths, "labels": labels, "nodes": nodes, "radius": _RADIUS}


def _pixels(point: Point) -> np.ndarray:
    """From the layout, y up, to a drawing, y down."""
    return _SCALE * np.array([point[0] - LEFT, TOP - point[1]])


def _rounded(point: Point) -> list[float]:
    return [round(float(value), 1) for value in _pixels(point)]
