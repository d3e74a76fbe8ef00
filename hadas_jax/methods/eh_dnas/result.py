"""What an EH-DNAS search ends with: a network, what it costs, and the file that other commands read it from.

The network that a search ends with: the one alpha stands for, or the most likely one nearby that keeps the budgets.

DARTS derives a network by the strongest edges and operations alone. Where that network is over a budget, one node
after another gets the choice of edges and operations that gives up the least probability for what it brings closer
to the budget, until all budgets are kept.
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
from hadas_jax.spaces.darts import CELLS, derive_code, parse_code, relaxed_code
from hadas_jax.spaces.genotypes import genotype_of
from hw_models.accelerator.network import EDGE_NODE, EDGES, NODES, OPERATIONS

_CHUNK = 128
_TINY = 1e-30
# Codes int[28] -> float32[], how far the network is beyond the budgets, 0 within.
Excess = Callable[[jax.Array], jax.Array]


def derive_within(alpha: jax.Array, excess: Excess) -> np.ndarray:
    """Returns the network of alpha, changed as little as the budgets ask for.

    Args:
        alpha: float32[28, 8].
        excess: Of a network.

    Returns:
        int32[28]. Where no change of a single node comes closer to the budgets any more, they are not kept.

    Raises:
        ValueError: `alpha` has another shape.
    """
    code = np.asarray(derive_code(alpha))
    likelihood = np.log(np.maximum(np.asarray(relaxed_code(alpha), np.float64), _TINY))

    @jax.jit
    def excesses(codes: jax.Array) -> jax.Array:
        return jax.lax.map(excess, codes, batch_size=_CHUNK)

    over = float(excesses(jnp.asarray(code)[None])[0])
    while over > 0:
        near = neighbours(code)
        found = np.asarray(excesses(jnp.asarray(near)), np.float64)
        lost = np.maximum(_log_probability(likelihood, code[None]) - _log_probability(likelihood, near), _TINY)
        if np.any(found <= 0):
            best = int(np.argmin(np.where(found <= 0, lost, np.inf)))
        elif np.any(found < over):
            # Where nothing fits, excess is infinite and any finite one is better.
            gained = np.where(found < over, np.minimum(over, 1e6) - found, 0.0)
            best = int(np.argmax(gained / lost))
        else:
            break
        code, over = near[best], float(found[best])
    return code


def neighbours(code: np.ndarray) -> np.ndarray:
    """Returns all networks that differ from a network at one node, int32[N, 28]."""
    changed = []
    for cell, node in itertools.product(range(len(CELLS)), range(NODES)):
        edges = cell * EDGES + np.flatnonzero(node == EDGE_NODE)
        for pair in itertools.combinations(edges, 2):
            for digits in itertools.product(range(1, len(OPERATIONS)), repeat=2):
                other = code.copy()
                other[edges] = 0
                other[list(pair)] = digits
                changed.append(other)
    found = np.stack(changed)
    return found[np.any(found != code, axis=1)]


def _log_probability(likelihood: np.ndarray, codes: np.ndarray) -> np.ndarray:
    return likelihood[np.arange(codes.shape[1]), codes].sum(axis=1)


GENOTYPE = "genotype.json"
FORM = "hadas_jax.genotype/1"


@dataclass(frozen=True)
class DnasResult:
    """The network of a search, as genotype.json has it.

    Attributes:
        code: 28 digits.
        hardware: The hardware that the costs are of.
        images_per_s: At the clocks chosen; 0 where the network does not fit.
        energy_mj: Energy of an image; None where the hardware has no model of it.
        clocks_mhz: Core, memory and host clock of a device.
        within_budgets: Whether the network keeps the budgets of the search.
        code_without_budgets: The network that alpha stands for without budgets.
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
        parse_code(self.code)
        if np.shape(self.alpha) != (28, 8):
            raise ValueError(f"alpha: expected 28 edges of 8 operations, got {len(self.alpha)} edges")


def write_genotype(result: DnasResult, directory: Path, *, settings: dict[str, Any]) -> None:
    """Writes genotype.json: the network, its costs, alpha, settings and versions.

    Args:
        result: Result of the search.
        directory: The folder to write to.
        settings: Settings of the run by name.
    """
    genotype = str(genotype_of(parse_code(result.code)))
    content = {"form": FORM, "genotype": genotype, **asdict(result), "settings": settings, "versions": versions()}
    write_text(directory / GENOTYPE, json.dumps(content, indent=2) + "\n")


def read_genotype(path: Path) -> DnasResult:
    """Reads what `write_genotype` wrote.

    Raises:
        ValueError: One line: it cannot be read, or is of another form.
    """
    return validated(DnasResult, read_json(path, FORM, what="the network of hadas dnas search"), path=path)
