"""What an EH-DNAS search ends with: a network, what it costs, and the file that other commands read it from."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hadas_jax.data import SplitRecord
from hadas_jax.descriptions import read_described, validated
from hadas_jax.methods.eh_dnas.hardware import Costs
from hadas_jax.methods.eh_dnas.objective import Budget
from hadas_jax.spaces.darts import format_code, parse_code
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


@dataclass(frozen=True)
class FoundNetwork:
    """The network of a search as genotype.json has it.

    Attributes:
      code: 28 digits.
      hardware: that the costs are of.
      images_per_s: at the clocks chosen; 0 where the network does not fit.
      energy_mj: of an image; None where the hardware has no model of it.
      clocks_mhz: core, memory and host clock of a device.
      within_budgets: whether the network keeps those of the search.
      code_without_budgets: what alpha stands for without budgets.
      alpha: 28 edges of 8 operations.
      data: the data set that it was found on and its division; None: unknown.
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


def write_genotype(result: DnasResult, directory: Path, *, settings: dict[str, Any], data: SplitRecord) -> None:
    """Writes genotype.json: the network, its costs, alpha, settings and versions.

    Args:
      result: of the search.
      directory: where to.
      settings: of the run.
      data: of the run.
    """
    costs = result.costs
    found = FoundNetwork(
        code=format_code(result.code),
        hardware=result.hardware,
        images_per_s=1.0 / float(costs.image_s),
        energy_mj=None if costs.energy_j is None else 1e3 * float(costs.energy_j),
        clocks_mhz=result.clocks_mhz,
        within_budgets=result.is_within,
        code_without_budgets=format_code(result.plain_code),
        alpha=tuple(map(tuple, np.round(result.alpha.astype(float), 6).tolist())),
        data=data,
    )
    genotype = str(genotype_of(result.code))
    content = {"form": FORM, "genotype": genotype, **asdict(found), "settings": settings, "versions": versions()}
    write_text(directory / GENOTYPE, json.dumps(content, indent=2) + "\n")


def read_genotype(path: Path) -> FoundNetwork:
    """Reads what `write_genotype` wrote.

    Raises:
      ValueError: one line: it cannot be read, or is of another form.
    """
    return validated(FoundNetwork, read_described(path, FORM, what="the network of hadas dnas search"), path=path)
