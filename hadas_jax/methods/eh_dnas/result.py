"""What an EH-DNAS search ends with: a network, what it costs, and the file that other commands read it from.

DARTS derives a network by the strongest edges and operations alone. Where that network violates a constraint, one node
after another gets the choice of edges and operations that gives up the least probability for what it takes off the
violation, until all constraints are kept.
Shapes: N codes; 28 edges, 8 operations.
"""

import itertools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.data import SplitRecord
from hadas_jax.runs.checkpoints import read_json, validated
from hadas_jax.runs.workdir import versions, write_text
from hadas_jax.spaces import darts
from hadas_jax.spaces.genotypes import Genotype

GENOTYPE = "genotype.json"
FORM = "hadas_jax.genotype/1"
# Code int[28] -> float32[], the largest violation of a constraint, 0 where all are kept.
Violation = Callable[[jax.Array], jax.Array]
_CHUNK = 128
_TINY = 1e-30


@dataclass(frozen=True)
class DnasResult:
    """The network of a search, as genotype.json has it.

    Attributes:
        code: 28 digits.
        hardware: That the costs are of.
        images_per_s: At the clocks chosen; 0 where the network does not fit.
        energy_mj: Of an image; None where the hardware has no model of it.
        clocks_mhz: Core, memory and host clock of a device.
        within_budgets: Whether the network keeps those of the search.
        code_without_budgets: What alpha stands for without budgets.
        alpha: 28 edges of 8 operations.
        data: The data set that it was found on and its division; None: unknown.
    """

    code: str
    hardware: str
    images_per_s: float
    energy_mj: float | None
    clocks_mhz: tuple[float, ...] | None
    within_budgets: bool
    code_without_budgets: str
    alpha: tuple[tuple[float, ...], ...]
    data: SplitRecord | None = None

    def __post_init__(self) -> None:
        darts.parse_code(self.code)
        if np.shape(self.alpha) != (28, 8):
            raise ValueError(f"alpha: expected 28 edges of 8 operations, got {len(self.alpha)} edges")


def derive_feasible(alpha: jax.Array, violation: Violation) -> np.ndarray:
    """Returns the network of alpha, changed as little as the constraints ask for.

    Args:
        alpha: float32[28, 8].
        violation: Of a network.

    Returns:
        int32[28]. Where no change of a single node lowers the violation any more, the constraints are not kept.

    Raises:
        ValueError: `alpha` has another shape.
    """
    code = np.asarray(darts.derive_code(alpha))
    log_likelihood = np.log(np.maximum(np.asarray(darts.relaxed_code(alpha), np.float64), _TINY))

    @jax.jit
    def violations(codes: jax.Array) -> jax.Array:
        return jax.lax.map(violation, codes, batch_size=_CHUNK)

    least = float(violations(jnp.asarray(code)[None])[0])
    while least > 0:
        near = _neighbours(code)
        of_near = np.asarray(violations(jnp.asarray(near)), np.float64)
        lost = _log_probability(log_likelihood, code[None]) - _log_probability(log_likelihood, near)
        lost = np.maximum(lost, _TINY)
        if np.any(of_near <= 0):
            best = int(np.argmin(np.where(of_near <= 0, lost, np.inf)))
        elif np.any(of_near < least):
            # Where nothing fits, the violation is infinite and any finite one is better.
            gained = np.where(of_near < least, np.minimum(least, 1e6) - of_near, 0.0)
            best = int(np.argmax(gained / lost))
        else:
            break
        code, least = near[best], float(of_near[best])
    return code


def write_genotype(result: DnasResult, directory: Path, *, settings: dict[str, Any]) -> None:
    """Writes genotype.json: the network, its costs, alpha, settings and versions.

    Args:
        result: Result of the search.
        directory: The folder to write to.
        settings: Settings of the run by name.
    """
    genotype = str(Genotype.of(darts.parse_code(result.code)))
    content = {"form": FORM, "genotype": genotype, **asdict(result), "settings": settings, "versions": versions()}
    write_text(directory / GENOTYPE, json.dumps(content, indent=2) + "\n")


def read_genotype(path: Path) -> DnasResult:
    """Reads what `write_genotype` wrote.

    Raises:
        ValueError: One line: it cannot be read, or is of another form.
    """
    return validated(DnasResult, read_json(path, FORM, what="the network of hadas dnas search"), path=path)


def _neighbours(code: np.ndarray) -> np.ndarray:
    """Returns all networks that differ from a network at one node, int32[N, 28]."""
    changed = []
    for cell, node in itertools.product(range(len(darts.CELLS)), range(darts.NODES)):
        edges = cell * darts.EDGES + np.flatnonzero(node == darts.EDGE_NODE)
        for pair in itertools.combinations(edges, 2):
            for digits in itertools.product(range(1, len(darts.OPERATIONS)), repeat=2):
                other = code.copy()
                other[edges] = 0
                other[list(pair)] = digits
                changed.append(other)
    every = np.stack(changed)
    return every[np.any(every != code, axis=1)]


def _log_probability(log_likelihood: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return log_likelihood[np.arange(codes.shape[1]), codes].sum(axis=1)
