"""The stages of `hadas_paper`, part by part, with their results on disk: what is there is not computed again."""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from hadas_jax.commands import train
from hadas_jax.commands.run import settings_of_run
from hadas_jax.methods import TrainingRun
from hadas_jax.runs.workdir import WorkDir, write_text
from hadas_jax.settings import SupernetRunSettings, TrainSettings
from hadas_jax.supernet.checkpoint import load_supernet
from hadas_paper import ablations, scores, stages
from hadas_paper.lab import Lab
from hadas_paper.settings import Experiment
from hadas_paper.stages import Baselines, Searched
from hw_models import load_device

OWN_HEADS = ("smallest", "largest")  # backbones that get exits of their own


class Laboratory:
    """The stages of one experiment, with their results on disk."""

    def __init__(self, experiment: Experiment, console: Console) -> None:
        self.experiment, self.console = experiment, console
        self.lab = self._lab(self._trained(), experiment.judging)
        self._baselines: dict[str, Baselines] = {}

    def _trained(self) -> str:
        """Trains the supernet unless there is one, and returns its directory."""
        experiment = self.experiment
        if experiment.checkpoint is None:
            self._run_training(experiment.training, experiment.out / "supernet")
        return experiment.supernet

    def _run_training(self, settings: TrainSettings, workdir: Path) -> None:
        started = WorkDir(workdir).holds_run
        if started:
            settings_of_run(settings, TrainSettings, workdir=workdir, resume=True, overwrite=False)
        if not (workdir / "exits.png").is_file():
            start = time.perf_counter()
            train(settings, workdir=workdir, resume=started, console=self.console)
            if not started:
                write_text(workdir.with_name(f"{workdir.name}_s.json"), f"{time.perf_counter() - start:.1f}\n")

    def _lab(self, supernet: str, settings: SupernetRunSettings) -> Lab:
        training = TrainingRun(settings.replace(checkpoint=supernet), fine_tune=False)
        outcomes = self.experiment.outcomes or self.experiment.out / "outcomes"
        return Lab(training, load_supernet(supernet).params, outcomes)

    def _kept(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Returns the results of a part, computed and written unless they are there."""
        path = self.experiment.out / "parts" / f"{name}.json"
        if not path.is_file():
            start, before, judged = time.perf_counter(), self.lab.evaluating_s, self.lab.evaluate.evaluated
            found = compute()
            seconds = {
                "all_s": round(time.perf_counter() - start, 2),
                "judging_s": round(self.lab.evaluating_s - before, 2),
                "judged_anew": self.lab.evaluate.evaluated - judged,
            }
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(found | {"seconds": seconds}, indent=1) + "\n")
            self.console.print(f"{name}: {seconds}", highlight=False)
        return json.loads(path.read_text(encoding="utf-8"))

    def searched(self, device: str, seed: int, kind: str = "joint", **engines: Any) -> Searched:
        """Returns what a search evaluated; it is run unless it was before."""
        path = self.experiment.out / "searches" / f"{device}-{kind}-seed{seed}.npz"
        if not path.is_file():
            start, before = time.perf_counter(), self.lab.evaluating_s
            archive = self.lab.search(load_device(device), seed=seed, **self.experiment.budget | engines)
            seconds = time.perf_counter() - start - (self.lab.evaluating_s - before)
            size = int(archive.size)
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(
                path,
                genomes=archive.genomes[:size],
                static=archive.static[:size],
                examined=archive.examined[:size],
                versions=np.sum(archive.versions, dtype=np.int64),
                seconds=seconds,
            )
        with np.load(path) as file:
            return Searched(
                genomes=file["genomes"],
                static=file["static"],
                examined=file["examined"],
                versions=int(file["versions"]),
                seconds=float(file["seconds"]),
            )

    def baselines(self, device: str) -> Baselines:
        """Returns the hand-made backbones on a device."""
        if device not in self._baselines:
            self._baselines[device] = stages.baselines(self.lab, load_device(device))
        return self._baselines[device]

    def motivation(self) -> dict[str, Any]:
        """Stage 1, with the search of the first seed."""
        return {device: self._motivation(device, self.experiment.seeds[0]) for device in self.experiment.devices}

    def _motivation(self, device: str, seed: int) -> dict[str, Any]:
        def compute() -> dict[str, Any]:
            given = (self.lab, load_device(device), self.baselines(device))
            return stages.motivation(*given, self.searched(device, seed))

        return self._kept(f"motivation-{device}-seed{seed}", compute)

    def inner(self) -> dict[str, Any]:
        """Stage 2."""
        return {device: self._inner(device) for device in self.experiment.devices}

    def _inner(self, device: str) -> dict[str, Any]:
        return self._kept(f"inner-{device}", lambda: stages.inner(self.baselines(device)))

    def hadas(self) -> dict[str, Any]:
        """Stage 3, by device and seed."""
        seeds = self.experiment.seeds
        return {device: {str(s): self._hadas(device, s) for s in seeds} for device in self.experiment.devices}

    def _hadas(self, device: str, seed: int) -> dict[str, Any]:
        def compute() -> dict[str, Any]:
            given = (self.lab, load_device(device), self.baselines(device))
            return stages.hadas(*given, self.searched(device, seed))

        return self._kept(f"hadas-{device}-seed{seed}", compute)

    def ablations(self) -> dict[str, Any]:
        """Stage 4 on the first device, by seed, and exits of one backbone."""
        device, chosen = self.experiment.devices[0], self.experiment.ablations
        found: dict[str, Any] = {"device": device}
        for seed in self.experiment.seeds:
            found[str(seed)] = {name: self._ablation(name, seed) for name in chosen if name != "heads"}
        if "heads" in chosen:
            kept = {name: self._kept(f"heads-{name}-{device}", partial(self._heads, name)) for name in OWN_HEADS}
            found["heads"] = kept
        return found

    def _ablation(self, name: str, seed: int) -> dict[str, Any]:
        device = self.experiment.devices[0]

        def search(**engines: Any) -> Searched:
            kind = "-".join(f"{key}{value}" for key, value in engines.items()) or "joint"
            return self.searched(device, seed, kind, **engines)

        def compute() -> dict[str, Any]:
            given = (self.lab, load_device(device), self.baselines(device))
            if name == "dissimilarity":
                return ablations.dissimilarity(*given, search)
            if name == "elites":
                return ablations.elites(*given, search, self.experiment.budget["population"])
            if name == "scores":
                joint = search()
                return scores.preferences(*given[:2], joint.genomes[joint.examined])
            if name == "parts":
                return ablations.parts(*given, search())
            return ablations.sequential(*given, search(), search)

        return self._kept(f"{name}-{device}-seed{seed}", compute)

    def _heads(self, backbone: str) -> dict[str, Any]:
        """Trains the exits of one backbone alone, for as long as the shared ones were, and compares them."""
        experiment, device = self.experiment, self.experiment.devices[0]
        workdir = experiment.out / f"exits_{backbone}"
        shared = load_supernet(experiment.supernet).details.get("settings", {})
        settings = experiment.training.replace(
            space=None,
            checkpoint=experiment.supernet,
            exits_for=backbone,
            epochs=0,
            exit_epochs=shared.get("exit_epochs", experiment.training.training.exit_epochs),
        )
        self._run_training(settings, workdir)
        own = self._lab(str(workdir / "supernet"), experiment.judging)
        genome = np.asarray(getattr(self.lab.space, f"{backbone}_genome"))
        return ablations.heads(self.lab, own, load_device(device), self.baselines(device), genome)

    def training_seconds(self) -> dict[str, float]:
        """Returns how long the supernet trained here, and the exits of one backbone; nothing of what was resumed."""
        found = {}
        for path in self.experiment.out.glob("*_s.json"):
            found[path.name.removesuffix("_s.json")] = json.loads(path.read_text(encoding="utf-8"))
        return found
