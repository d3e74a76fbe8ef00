"""What fine-tuning leaves: a network, what it did on the test split before and after, and the file that says so."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from hadas_jax.deploy.architecture import OnSplit
from hadas_jax.deploy.fine_tune_settings import FineTuneSettings
from hadas_jax.deploy.static_network import StaticNetwork
from hadas_jax.descriptions import read_described, validated
from hadas_jax.workdir import write_text

FORM = "hadas_jax.fine-tune/1"


@dataclass(frozen=True)
class TunedFigures:
    """What a network does on the test split.

    Attributes:
      before: as it was.
      after: with its new weights and thresholds.
    """

    before: OnSplit
    after: OnSplit


@dataclass(frozen=True, kw_only=True)
class FineTuneResult(TunedFigures):
    """What a fine-tuning run leaves.

    Attributes:
      network: with its new weights, thresholds and figures.
    """

    network: StaticNetwork


def write_result(path: Path, result: FineTuneResult, settings: FineTuneSettings) -> None:
    """Writes the figures of both networks, and the settings, as JSON."""
    figures = {name: getattr(result, name).model_dump(mode="json") for name in ("before", "after")}
    write_text(path, json.dumps({"form": FORM, **figures, "settings": dataclasses.asdict(settings)}, indent=1) + "\n")


def read_result(path: Path) -> TunedFigures:
    """Reads what `write_result` wrote.

    Raises:
      ValueError: one line: it cannot be read, or is of another form.
    """
    return validated(TunedFigures, read_described(path, FORM, what="the result of hadas fine-tune"), path=path)
