"""Number formats: what int8 costs in accuracy, whether its simulation holds on onnxruntime, and what a search gains.

Command:   python experiments/fashion_mnist_npz.py -o fashion_mnist.npz
           hadas train --workdir runs/fashion --dataset npz:fashion_mnist.npz --space small-images --epochs 4
               --exit-epochs 2 --batch 128 --learning-rate 0.2 --augmentation crop-flip --stats-batches 8 --remat --cut
           python experiments/number_formats.py --dataset npz:fashion_mnist.npz --supernet runs/fashion/supernet
               -o experiments/number_formats.json
Hardware:  any machine with onnxruntime
Time:      an hour on 2 cores

Parts, each of which is skipped where its result is in the work directory already:
ranges    how ranges of int8 are found, by the accuracy on validation images (never test images)
speed     evaluation of backbones in each format, in turn, the best of several
search    a search of fp32 alone and one of all formats, for each seed, with the same supernet and number of generations
network   of the joint searches the most accurate network in int8: simulated against onnxruntime at every exit, and its
          accuracy before and after fine-tuning
device    networks and layers of the space in fp32 and int8 measured on this machine, a device fitted to three of four
          networks, and by it predicted against measured of the others, every exit's path and whole

Fronts are compared by the hypervolume of what they do on the test split when deployed, in the logarithms of latency and
energy and in error, in the box between the best and the worst of both.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console

from hadas_jax.commands.devices import fit_device, profile_machine
from hadas_jax.commands.hadas import search
from hadas_jax.commands.networks import fine_tune
from hadas_jax.data import LabelledImages
from hadas_jax.deploy.architecture import write_architecture
from hadas_jax.deploy.check import Agreement
from hadas_jax.deploy.export import check_export, export_network
from hadas_jax.deploy.fine_tune import read_result
from hadas_jax.deploy.materialise import SubNetwork
from hadas_jax.deploy.runtime import Runtime
from hadas_jax.deploy.select import SearchedSupernet, architecture_of
from hadas_jax.deploy.static_network import StaticNetwork, load_network, predict, save_network
from hadas_jax.evaluation import Evaluator
from hadas_jax.methods.hadas.results import Design, read_search
from hadas_jax.runs.workdir import versions, write_text
from hadas_jax.search.indicators import hypervolume
from hadas_jax.settings import NO_CONSTRAINTS, FineTuneSettings, SearchSettings
from hadas_jax.spaces.design import spread_genomes
from hadas_jax.training.run import TrainingRun, settings_name
from hw_models import NumberFormat, load_device
from hw_models.fitting.device_parameters import predict as predict_costs
from hw_models.fitting.device_parameters import to_measured
from hw_models.measuring.measurements import LAYER, Measurement, read_measurements, write_measurements

FORMATS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class Experiment:
    """Number formats on one data set and one device."""

    dataset: str = "npz:fashion_mnist.npz"
    """Of the supernet."""
    supernet: Path = Path("runs/fashion/supernet")
    """From hadas train."""
    device: str = "agx-xavier-gpu"
    """Of the searches."""
    workdir: Path = Path("runs/number_formats")
    """For searches, networks and measurements."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """JSON file of the result."""
    parts: tuple[str, ...] = ("ranges", "speed", "search", "network", "device")
    """What to do."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the searches."""
    population: int = 16
    """Backbones of a generation."""
    generations: int = 3
    """Of a search."""
    evaluation_images: int = 2000
    """Of validation, calibration and test each, in searches."""
    backbones: int = 8
    """Whose ranges are compared."""
    fine_tune_epochs: int = 2
    """Of the network in int8."""
    networks: int = 24
    """Of the space that are measured for the device, in each format."""


def settings_of(experiment: Experiment, **others: Any) -> SearchSettings:
    """Settings of a search."""
    return SearchSettings.of(
        dataset=str(experiment.dataset),
        checkpoint=str(experiment.supernet),
        device=experiment.device,
        population=experiment.population,
        generations=experiment.generations,
        elite_ratio=0.25,
        batch=128,
        stats_batches=4,
        evaluation_images=experiment.evaluation_images,
        outcomes=str(experiment.workdir / "outcomes"),
        **others,
    )


def in_format(run: TrainingRun, form: NumberFormat, ranges: str = "mse") -> Evaluator:
    """What evaluates backbones of a supernet in one format."""
    space = dataclasses.replace(run.space, number_formats=(int(form),))
    batches, evaluation = run.calibration_batches(), run.settings.evaluation
    return Evaluator(space, run.initial_parameters(), batches, evaluation, ranges=ranges)  # type: ignore[arg-type]


def compare_ranges(experiment: Experiment) -> dict[str, Any]:
    """Mean accuracy over backbones on validation images, by exit at first, middle and last, and of the classifier."""
    run = TrainingRun(settings_of(experiment), fine_tune=False)
    genomes = spread_genomes(run.space, experiment.backbones, seed=0)
    found: dict[str, Any] = {"images": run.splits.validation.count, "backbones": len(genomes)}
    for name, form, ranges in [
        ("fp32", NumberFormat.FP32, "mse"),
        ("fp16", NumberFormat.FP16, "mse"),
        *((f"int8, {each}", NumberFormat.INT8, each) for each in ("minmax", "percentile", "mse")),
    ]:
        outcomes = in_format(run, form, ranges)(genomes, run.splits.validation)
        accuracy = np.asarray(outcomes.correct, np.float64).mean(axis=-1)
        exits = accuracy[:, :-1][accuracy[:, :-1] > 0]  # those that a backbone has
        found[name] = {"exits": float(exits.mean()), "classifier": float(accuracy[:, -1].mean())}
    return found


def compare_speed(experiment: Experiment) -> dict[str, Any]:
    """Seconds of evaluating backbones, statistics included and apart, the least of three in turn."""
    run = TrainingRun(settings_of(experiment), fine_tune=False)
    genomes, data = spread_genomes(run.space, 4, seed=1), run.splits.validation
    forms = {name: in_format(run, NumberFormat[name.upper()]) for name in FORMATS}
    kept: dict[str, list[tuple[float, float]]] = {name: [] for name in forms}
    for number in range(4):
        for name, evaluator in forms.items():
            begin = time.perf_counter()
            found = evaluator.statistics(genomes)
            middle = time.perf_counter()
            evaluator(genomes, data, statistics=found)
            if number:  # the first compiles
                kept[name].append((middle - begin, time.perf_counter() - middle))
    least = {name: [min(column) for column in zip(*times, strict=True)] for name, times in kept.items()}
    return {
        "images": data.count,
        "backbones": len(genomes),
        "seconds": {name: {"statistics": a, "outcomes": b} for name, (a, b) in least.items()},
        "speed against fp32": {name: sum(least["fp32"]) / sum(each) for name, each in least.items()},
    }


def front_of(designs: Sequence[Design]) -> np.ndarray:
    """Error, log latency and log energy on the test split when deployed, float64[M, 3]."""
    tests = [design.test["deployable"] for design in designs]
    return np.array([(each.error, np.log(each.latency_s), np.log(each.energy_j)) for each in tests])


def compare_searches(experiment: Experiment) -> list[dict[str, Any]]:
    """For each seed the hypervolumes of the fronts of fp32 alone and of all formats."""
    found = []
    for seed in experiment.seeds:
        fronts, about = {}, {}
        for name, formats in (("fp32", ("fp32",)), ("joint", FORMATS)):
            place = experiment.workdir / f"search-{name}-{seed}"
            if not (place / "front.json").exists():
                settings = settings_of(experiment, seed=seed, number_formats=formats)
                search(settings, workdir=place, resume=place.exists())
            result = read_search(place).result
            designs = result.front("deployable")
            fronts[name] = front_of(designs)
            counts = {form: sum(design.number_format == form for design in designs) for form in formats}
            best = min(designs, key=lambda design: design.test["deployable"].error)
            about[name] = {
                "designs by format": counts,
                "evaluated": result.backbones,
                "most accurate": dataclasses.asdict(best.test["deployable"]) | {"format": best.number_format},
                "speed assumed": list(result.assumed_formats),
            }
        every = np.concatenate(list(fronts.values()))
        low, span = every.min(axis=0), np.ptp(every, axis=0)
        volumes = {
            name: float(hypervolume(jnp.asarray((front - low) / span, jnp.float32), jnp.full(3, 1.1)))
            for name, front in fronts.items()
        }
        found.append({"seed": seed, "hypervolume": volumes, **about})
    return found


def int8_network(experiment: Experiment) -> StaticNetwork:
    """Cuts the most accurate network in int8 with exits out of the joint searches, by the selection samples."""
    place = experiment.workdir / "network"
    if not place.exists():
        best: tuple[float, Path, Design] | None = None
        for seed in experiment.seeds:
            path = experiment.workdir / f"search-joint-{seed}"
            for design in read_search(path).result.front("deployable"):
                error = design.selection["deployable"].error
                if design.number_format == "int8" and len(design.exits) >= 2 and (best is None or error < best[0]):
                    best = error, path, design
        if best is None:
            raise ValueError("searches: expected a design in int8 with two exits or more, got none")
        _, path, design = best
        found = read_search(path)
        supernet = SearchedSupernet.of(found)
        content = architecture_of(
            found,
            design,
            supernet=supernet,
            parameters=1,
            folder=place.parent,
            limits=NO_CONSTRAINTS,
            prefer="accuracy",
        )
        write_architecture(experiment.workdir / "architecture.json", content, overwrite=True)
        save_network(place, SubNetwork(experiment.workdir / "architecture.json").cut_out(place))
    return load_network(place)


def exits_on_onnxruntime(folder: Path, data: LabelledImages) -> np.ndarray:
    """Logits float32[e + 1, N, K] of an export."""
    runtime, parts = Runtime(folder), []
    images = np.asarray(data.take(jnp.arange(data.count))[0]).transpose(0, 3, 1, 2)
    for start in range(0, len(images), 250):
        x, logits = np.ascontiguousarray(images[start : start + 250]), []
        for number in range(runtime.exits + 1):
            outputs = runtime.run_segment(number, x)
            logits.append(outputs["logits"])
            x = outputs.get("features", x)
        parts.append(np.stack(logits))
    return np.concatenate(parts, axis=1)


def compare_export(experiment: Experiment, network: StaticNetwork, name: str, data: LabelledImages) -> dict[str, Any]:
    """Simulated against exported at every exit."""
    folder = experiment.workdir / f"export-{name}"
    export_network(folder, network, format="onnx", overwrite=folder.exists())
    form, labels = network.architecture.number_format, np.asarray(data.labels)
    simulated = predict(network.segments, network.weights, data, number_format=form)[0].argmax(axis=-1)
    exported = exits_on_onnxruntime(folder, data).argmax(axis=-1)
    check = check_export(folder, network, data)
    return {
        "images": data.count,
        "exits": [
            {
                "exit": exit_name,
                "simulated accuracy": float(np.mean(a == labels)),
                "exported accuracy": float(np.mean(b == labels)),
                "images of another class": float(np.mean(a != b)),
            }
            for exit_name, a, b in zip(network.architecture.exit_names, simulated, exported, strict=True)
        ],
        "deployed": {
            "simulated": check.expected_accuracy,
            "exported": check.accuracy,
            "other exits": check.other_exits,
        },
    }


def accuracy_at_exits(network: StaticNetwork, data: LabelledImages, form: NumberFormat) -> list[float]:
    """Accuracy at every exit, the classifier last."""
    logits = predict(network.segments, network.weights, data, number_format=form)[0]
    return (logits.argmax(axis=-1) == np.asarray(data.labels)).mean(axis=-1).tolist()


def examine_network(experiment: Experiment) -> dict[str, Any]:
    """One network in int8: export, and accuracy before and after fine-tuning."""
    network, tuned_at = int8_network(experiment), experiment.workdir / "fine-tune"
    data = TrainingRun(settings_of(experiment), fine_tune=False).splits.test
    if not (tuned_at / "result.json").exists():
        settings = FineTuneSettings.of(
            network=str(experiment.workdir / "network"),
            epochs=experiment.fine_tune_epochs,
            batch=128,
            learning_rate=0.003,
            augmentation="none",
        )
        fine_tune(settings, workdir=tuned_at, resume=tuned_at.exists())
    tuned, result = load_network(tuned_at / "network"), read_result(tuned_at / "result.json")
    accuracies = {
        "fp32": accuracy_at_exits(network, data, NumberFormat.FP32),
        "int8": accuracy_at_exits(network, data, NumberFormat.INT8),
        "int8 after fine-tuning": accuracy_at_exits(tuned, data, NumberFormat.INT8),
    }
    return {
        "exits": network.architecture.exit_names,
        "test accuracy at every exit": accuracies,
        "deployed": {"before": result.before.deployable.accuracy, "after": result.after.deployable.accuracy},
        "export": compare_export(experiment, network, "before", data),
        "export after fine-tuning": compare_export(experiment, tuned, "after", data),
    }


def examine_device(experiment: Experiment) -> dict[str, Any]:
    """Predicted against measured in fp32 and int8 on this machine, of every fourth network, which no fit has seen."""
    rows, known = experiment.workdir / "measurements.csv", experiment.workdir / "known.csv"
    device = experiment.workdir / "this-machine.yaml"
    if not device.exists():
        profile_machine(
            rows,
            space="small-images",
            resolution=28,
            networks=experiment.networks,
            number_formats=("fp32", "int8"),
            runtime="onnxruntime",
            resume=rows.exists(),
        )
    every = read_measurements(rows)
    held = held_out(every)
    if not device.exists():
        write_measurements(known, [row for row in every if row.family not in held])
        fit_device(known, device, base="x86-cpu")
    model, found = load_device(device), {}
    for form in ("fp32", "int8"):
        tried = [row for row in every if row.format == form and row.family in held]
        measured = to_measured(tried, model)
        predicted = np.asarray(predict_costs(measured, model)[0])
        agreement = Agreement.of(predicted.tolist(), np.asarray(measured.latency_s).tolist())
        found[form] = {"networks": len(held), **dataclasses.asdict(agreement)}
    return found


def held_out(rows: Sequence[Measurement]) -> set[str | None]:
    """Every fourth network of a kit."""
    return set(sorted({str(row.family) for row in rows if not row.network.startswith(LAYER)})[::4])


PARTS: dict[str, Callable[[Experiment], Any]] = {
    "ranges": compare_ranges,
    "speed": compare_speed,
    "search": compare_searches,
    "network": examine_network,
    "device": examine_device,
}


def main(experiment: Experiment) -> None:
    """Does the parts and writes what they found."""
    experiment.workdir.mkdir(parents=True, exist_ok=True)
    protocol = {name: str(value) for name, value in dataclasses.asdict(experiment).items()}
    protocol |= {"dataset": settings_name(experiment.dataset), "supernet": "", "workdir": "", "output": ""}
    found: dict[str, Any] = {"protocol": protocol, "versions": versions()}
    for name, part in PARTS.items():
        kept = experiment.workdir / f"{name}.json"
        if not kept.exists() and name in experiment.parts:
            write_text(kept, json.dumps(part(experiment)))
        if kept.exists():
            found[name] = json.loads(kept.read_text(encoding="utf-8"))
    text = json.dumps(found, indent=1) + "\n"
    if experiment.output is None:
        Console().print(text)
    else:
        write_text(experiment.output, text)


if __name__ == "__main__":
    main(tyro.cli(Experiment, description=__doc__))
