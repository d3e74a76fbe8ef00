"""From search to silicon: does a front hold on the machine that it was searched for?

Command:   python experiments/search_to_silicon.py --output experiments/search_to_silicon_digits.json
           python experiments/search_to_silicon.py --space small-images --resolution 32 --dataset npz:IMAGES.npz
               --epochs 2 --exit-epochs 1 --output experiments/search_to_silicon_small_images.json
Hardware:  any machine with onnxruntime
Time:      10 and 20 minutes on 2 cores that are otherwise idle

Four commands, one after the other: `hadas devices profile` (networks of the space with random weights, whole and as
segments, and single layers), `hadas devices fit`, `hadas search` for the fitted device, `hadas devices check`. The
networks that are checked are of the front, with their trained weights; none of them was measured for the fit. Each is
measured twice independently, which gives the noise floor, and run on test images one at a time, exits deciding.
What is there already in the work directory is not made anew.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console

from hadas_jax.commands.check import check_front
from hadas_jax.commands.devices import fit_device, profile_machine
from hadas_jax.commands.hadas import search
from hadas_jax.settings import SearchSettings
from hadas_jax.training.run import settings_name

_PLACES = ("output", "workdir")  # of files, on one machine


@dataclass(frozen=True)
class Experiment:
    """Measures this machine, searches for it, and measures what was found."""

    output: Path | None = None
    """JSON file of the result."""
    space: str = "digits"
    """Space of the networks."""
    resolution: int | None = None
    """Pixels of the networks that are measured for the fit; None: the least that the space has."""
    dataset: str = "digits"
    """Images of the search, of that resolution."""
    base: str = "x86-cpu"
    """Device that the fit starts from."""
    networks: int = 60
    """Measured for the fit."""
    checked: int = 20
    """Networks of the front that are measured."""
    rounds: int = 3
    """Measurements of each."""
    epochs: int = 28
    """Of the supernet."""
    exit_epochs: int = 16
    """Of the exits."""
    workdir: Path = Path("runs/search_to_silicon")
    """For measurements, device, search and check."""


def main(experiment: Experiment) -> None:
    """Runs the loop and writes its figures."""
    place = experiment.workdir / experiment.space
    place.mkdir(parents=True, exist_ok=True)
    measurements, device, run = place / "measurements.csv", place / "this-machine.yaml", place / "search"
    if not device.exists():
        profile_machine(
            measurements,
            space=experiment.space,
            resolution=experiment.resolution,
            networks=experiment.networks,
            rounds=experiment.rounds,
            runtime="onnxruntime",
            resume=measurements.exists(),
        )
        calibration = fit_device(measurements, device, base=experiment.base)
        fit = {each.left_out: {"error": each.latency_error, "tau": each.latency_tau} for each in calibration.held_out}
        (place / "fit.json").write_text(json.dumps(fit), encoding="utf-8")
    if not (run / "front.json").exists():
        settings = SearchSettings.of(
            space=experiment.space,
            dataset=experiment.dataset,
            device=str(device),
            epochs=experiment.epochs,
            exit_epochs=experiment.exit_epochs,
        )
        search(settings, workdir=run, resume=run.exists())
    check_front(run, networks=experiment.checked, rounds=experiment.rounds)
    about = {name: str(value) for name, value in dataclasses.asdict(experiment).items() if name not in _PLACES}
    found = {
        "experiment": about | {"dataset": settings_name(experiment.dataset)},
        "fit, held out": json.loads((place / "fit.json").read_text(encoding="utf-8")),
        "check": json.loads((run / "check.json").read_text(encoding="utf-8")),
    }
    text = json.dumps(found, indent=1) + "\n"
    if experiment.output is None:
        Console().print(text)
    else:
        experiment.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Experiment, description=__doc__))
