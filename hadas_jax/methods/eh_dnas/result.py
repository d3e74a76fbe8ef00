"""What an EH-DNAS search ends with: a network, what it costs, and the file that other commands read it from."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hadas_jax.methods.eh_dnas.hardware import Costs
from hadas_jax.methods.eh_dnas.objective import Budget
from hadas_jax.spaces.darts import format_code
from hadas_jax.spaces.genotypes import genotype_of
from hadas_jax.workdir import versions, write_text

GENOTYPE = "genotype.json"
FORM = "hadas_jax.genotype/1"


@dataclass(frozen=True)
class DnasResult:
    """The network of a search.

    Attributes:
      code: int32[28].
      plain_code: int32[28], what alpha stands for without budgets.
      alpha: float32[28, 8].
      hardware: that the costs are of.
      costs: of the network at the clocks chosen, floats.
      clocks_mhz: core, memory and host clock of a device.
      budgets: that the search had.
      is_within: whether the network keeps them.
    """

    code: np.ndarray
    plain_code: np.ndarray
    alpha: np.ndarray
    hardware: str
    costs: Costs
    clocks_mhz: tuple[float, ...] | None
    budgets: tuple[Budget, ...]
    is_within: bool


def write_genotype(result: DnasResult, directory: Path, *, settings: dict[str, Any]) -> None:
    """Writes genotype.json: the network, its costs, alpha, settings and versions.

    Args:
      result: of the search.
      directory: where to.
      settings: of the run.
    """
    costs = result.costs
    content = {
        "form": FORM,
        "code": format_code(result.code),
        "genotype": str(genotype_of(result.code)),
        "hardware": result.hardware,
        "images_per_s": 1.0 / float(costs.image_s),
        "energy_mj": None if costs.energy_j is None else 1e3 * float(costs.energy_j),
        "clocks_mhz": result.clocks_mhz,
        "within_budgets": result.is_within,
        "code_without_budgets": format_code(result.plain_code),
        "alpha": np.round(result.alpha.astype(float), 6).tolist(),
        "settings": settings,
        "versions": versions(),
    }
    write_text(directory / GENOTYPE, json.dumps(content, indent=2) + "\n")
