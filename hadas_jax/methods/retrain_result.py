"""What a retraining leaves: a trained network, its accuracy and size, and the file that says so."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from hadas_jax.spaces.genotypes import Genotype, code_of
from hadas_jax.trained_derived import TrainedDerived
from hadas_jax.workdir import versions, write_text
from hw_models.accelerator.network import DartsNetwork, network_rows, row_counts

FORM = "hadas_jax.retrained/1"


@dataclass(frozen=True)
class RetrainResult:
    """What a retraining run leaves.

    Attributes:
      trained: the network, also in the work directory.
      validation_accuracy: a share.
      test_accuracy: likewise.
      parameters: of the network, without an auxiliary head.
      macs: multiply-accumulates for one image, of convolutions and classifier.
    """

    trained: TrainedDerived
    validation_accuracy: float
    test_accuracy: float
    parameters: int
    macs: int


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
        "validation_accuracy": result.validation_accuracy,
        "test_accuracy": result.test_accuracy,
        "parameters": result.parameters,
        "macs": result.macs,
        "settings": settings,
        "versions": versions(),
    }
    write_text(path, json.dumps(content, indent=2) + "\n")
