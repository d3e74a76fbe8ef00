"""What a retraining leaves: a trained network, its accuracy and size, and the file that says so."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from hadas_jax.descriptions import read_described, validated
from hadas_jax.spaces.darts import parse_code
from hadas_jax.spaces.genotypes import Genotype, code_of
from hadas_jax.trained_derived import TrainedDerived
from hadas_jax.workdir import versions, write_text
from hw_models.accelerator.network import DartsNetwork, network_rows, row_counts

FORM = "hadas_jax.retrained/1"


@dataclass(frozen=True)
class RetrainFigures:
    """What a retraining says of its network.

    Attributes:
      validation_accuracy: a share.
      test_accuracy: likewise.
      parameters: of the network, without an auxiliary head.
      macs: multiply-accumulates for one image, of convolutions and classifier.
    """

    validation_accuracy: float
    test_accuracy: float
    parameters: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class RetrainResult(RetrainFigures):
    """What a retraining run leaves.

    Attributes:
      trained: the network, also in the work directory.
    """

    trained: TrainedDerived


@dataclass(frozen=True, kw_only=True)
class RetrainedNetwork(RetrainFigures):
    """What a retraining run leaves, as its result.json has it.

    Attributes:
      code: of the network, 28 digits.
    """

    code: str

    def __post_init__(self) -> None:
        parse_code(self.code)


def network_macs(network: DartsNetwork, genotype: Genotype) -> int:
    """Counts the multiply-accumulates of convolutions and classifier for one image."""
    rows = network_rows(network)
    layers = np.asarray(row_counts(network, jnp.asarray(code_of(genotype))), np.float64)
    return round(float(np.sum((layers * rows.macs)[rows.is_weighted])))


def write_result(path: Path, result: RetrainResult, *, settings: dict[str, Any]) -> None:
    """Writes accuracies, sizes, genotype, settings and versions as JSON."""
    trained = result.trained
    content = {
        "form": FORM,
        "code": trained.code,
        "genotype": str(trained.genotype),
        "network": asdict(trained.network),
        **{field.name: getattr(result, field.name) for field in fields(RetrainFigures)},
        "settings": settings,
        "versions": versions(),
    }
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_result(path: Path) -> RetrainedNetwork:
    """Reads what `write_result` wrote.

    Raises:
      ValueError: one line: it cannot be read, or is of another form.
    """
    return validated(RetrainedNetwork, read_described(path, FORM, what="the result of hadas dnas retrain"), path=path)
