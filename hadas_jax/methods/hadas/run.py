"""A whole HADAS run in stages: data, supernet, exit heads, search, thresholds, report.

Training and search keep checkpoints and resume exactly; what follows is computed anew from them. The test
split is read once, at the end, for designs that were chosen without it.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hadas_jax.data import Splits
from hadas_jax.evaluation import CachedEvaluator, pack_bits
from hadas_jax.methods.hadas.archive import Archive, load_backbones, read_evaluated, write_evaluated
from hadas_jax.methods.hadas.constraints import require_reachable
from hadas_jax.methods.hadas.flat import FlatHadas, joint_cardinalities
from hadas_jax.methods.hadas.outer import Hadas, HadasState
from hadas_jax.methods.hadas.results import Result, read_search, write_result
from hadas_jax.methods.hadas.selection import FORMAT_NAMES, choose, measure, set_thresholds
from hadas_jax.methods.hadas.surrogate import SurrogateAcquisition
from hadas_jax.runs.loop import Progress, run_stage
from hadas_jax.runs.names import EVALUATED, SUPERNET
from hadas_jax.runs.workdir import WorkDir, versions
from hadas_jax.search.strategies import check_strategy, load_strategy
from hadas_jax.settings import FormatName, SearchSettings
from hadas_jax.spaces import MBConvSpace
from hadas_jax.spaces.mbconv import MAX_EXITS
from hadas_jax.spaces.workload import require_priced
from hadas_jax.supernet import Parameters
from hadas_jax.supernet.checkpoint import save_supernet
from hadas_jax.training.run import TrainingRun
from hw_models import Device, NumberFormat, read_device_file
from hw_models.catalogue import chosen_device


class Run:
    """One HADAS run: reads its inputs at once, so that mistakes show before any work.

    Args:
        settings: Settings of the run.

    Raises:
        ValueError: An unknown data set, device or space, or files that do not fit.
    """

    def __init__(self, settings: SearchSettings) -> None:
        self.settings = settings
        self.device: Device = chosen_device(settings.device, settings.operating)
        self.training = TrainingRun(settings, fine_tune=False)
        self.splits: Splits = self.training.splits
        self._formats = _formats(settings, self.device)
        numbers = tuple(int(NumberFormat[name.upper()]) for name in self._formats)
        self.space: MBConvSpace = dataclasses.replace(self.training.space, number_formats=numbers)
        require_priced(self.space, self.device)
        if settings.search.inner == "exact" and self.space.num_exits > MAX_EXITS:
            raise ValueError(
                f"inner exact: expected a space of at most {MAX_EXITS} exit positions, got "
                f"{self.space.num_exits} of {self.space.name}; use `inner` auto"
            )
        self._check_strategy()
        self._warm_start = load_backbones(settings.search.warm_start, self.space, record=self.splits.record)
        self.evaluated = None if settings.search.resume_from is None else self._evaluated(settings.search.resume_from)
        require_reachable(settings.constraints, self.space, self.device)
        self._search_key = self.training.search_key

    def _evaluated(self, source: str) -> tuple[np.ndarray, np.ndarray]:
        """What another search evaluated with this supernet."""
        search = read_search(source)
        if not isinstance(search.settings, SearchSettings):
            raise ValueError(f"resume_from {source}: expected a search over a supernet, got a run for a given network")
        mine, its = (each.evaluation.stats_batches for each in (self.settings, search.settings))
        if mine != its:
            raise ValueError(f"resume_from {source}: expected `stats_batches` {its} as that search has, got {mine}")
        if self.settings.supernet.checkpoint != str(search.supernet):
            raise ValueError(
                f"resume_from {source}: expected `checkpoint` {search.supernet}, the supernet of that search, got "
                f"{self.settings.supernet.checkpoint}"
            )
        if search.result.number_formats != self._formats:
            its_formats = " ".join(search.result.number_formats) or "none that it names"
            raise ValueError(
                f"resume_from {source}: expected number formats as that search has ({its_formats}), got "
                f"{' '.join(self._formats)}"
            )
        samples = self.splits.validation.count
        return read_evaluated(search, self.space, record=self.splits.record, samples=samples)

    def _check_strategy(self) -> None:
        settings, cardinalities = self.settings.search, tuple(int(c) for c in self.space.codec.cardinalities)
        check_strategy(settings.strategy)
        name, size = "population", settings.population
        if settings.engine == "flat":
            name, size, cardinalities = "candidates", settings.candidates, joint_cardinalities(self.space, self.device)
            if settings.surrogate:
                raise ValueError("surrogate: expected the engine nested, whose backbones it chooses, got flat")
            if size < settings.population:
                raise ValueError(f"candidates: expected at least `population` {settings.population}, got {size}")
        try:
            strategy = load_strategy(settings.strategy, population_size=size, cardinalities=cardinalities)
        except ValueError as error:
            raise ValueError(f"strategy {settings.strategy}, `{name}` {size}: {error}") from error
        if settings.surrogate and not strategy.accepts_any:
            raise ValueError(
                "surrogate: expected a strategy that learns from any backbone (NSGA2, NSGA3 or RandomSearch), "
                f"got {settings.strategy}, which learns only from those it asked for"
            )

    def execute(self, workdir: WorkDir, progress: Progress) -> Result:
        """Runs all stages that are not done yet, and writes the result into the work directory.

        Raises:
            ValueError: A loss is no longer finite, or a checkpoint cannot be used.
        """
        params = self.training.train(workdir, progress)
        self._keep_supernet(params, workdir)
        evaluate = self.evaluator(params)
        archive = self.search(evaluate, workdir, progress)
        write_evaluated(workdir.path / EVALUATED, archive)
        result = self.deploy(evaluate, archive, progress)
        context = {
            "settings": self.settings.flat(),
            "data": self.splits.record.as_json(),
            "versions": versions(),
        }
        write_result(result, workdir.path, context=context)
        return result

    def _keep_supernet(self, params: Parameters, workdir: WorkDir) -> None:
        """Writes what the run trained, for the commands that follow a search."""
        if not self.training.uses_checkpoint_as_it_is:
            details = {"settings": self.settings.flat()}
            trained = self.training.described(params, details, command="hadas search")
            save_supernet(workdir.path / SUPERNET, trained, overwrite=True)

    def search(self, evaluate: CachedEvaluator, workdir: WorkDir, progress: Progress) -> Archive:
        """Runs the search."""
        engines = self.engines(evaluate)

        def advance(state: HadasState, done: int, retry: int = 0) -> tuple[HadasState, dict[str, Any]]:
            return engines.generation(state, jax.random.fold_in(self._search_key, done))

        state = run_stage(
            "search",
            advance,
            engines.init(self.training.population_key),
            chunks=self.settings.search.generations,
            chunk=1,
            workdir=workdir,
            progress=progress,
        )
        return state.archive

    def engines(self, evaluate: CachedEvaluator) -> Hadas:
        """Returns the search engines over a trained supernet."""
        kind = FlatHadas if self.settings.search.engine == "flat" else Hadas
        return kind(
            space=self.space,
            device=self.device,
            evaluate=lambda genomes: np.asarray(pack_bits(evaluate(genomes, self.splits.validation).correct)),
            samples=self.splits.validation.count,
            settings=self.settings.search,
            elites=self.settings.search.elites,
            constraints=self.settings.constraints,
            warm_start=self._warm_start,
            acquisition=self._acquisition,
            evaluated=self.evaluated,
        )

    def evaluator(self, params: Parameters) -> CachedEvaluator:
        """Returns what gives the outcomes of backbones int32[N, G] on a split, each once."""
        folder = self.settings.outcomes
        return CachedEvaluator(
            self.training.evaluator(params, space=self.space), None if folder is None else Path(folder)
        )

    @property
    def _acquisition(self) -> SurrogateAcquisition | None:
        settings = self.settings.search
        if not settings.surrogate:
            return None
        return SurrogateAcquisition(
            space=self.space,
            device=self.device,
            samples=self.splits.validation.count,
            limits=self.settings.constraints,
            picks=settings.population,
            population=max(256, 2 * settings.population),
            gradient_seeds=settings.gradient_seeds,
        )

    def deploy(self, evaluate: CachedEvaluator, archive: Archive, progress: Progress) -> Result:
        """Sets thresholds on the calibration split, chooses designs, and measures them on the test split."""
        settings, space, constraints = self.settings.deployment, self.space, self.settings.constraints
        genomes = archive.pool(space, self.device, limits=constraints)
        progress.stage("thresholds", 1)
        pool = set_thresholds(
            space,
            self.device,
            genomes,
            splits=self.splits,
            policy=settings.policy,
            evaluate=evaluate,
            limits=constraints,
        )
        choices = choose(
            pool,
            front_size=settings.front_size,
            key=jax.random.fold_in(self._search_key, self.settings.search.generations),
            per_exit_thresholds=settings.per_exit_thresholds,
        )
        progress.update(1, {"backbones": float(len(genomes)), "designs": float(len(choices.designs))})
        progress.stage("test", 1)
        designs, levels = measure(
            pool,
            choices,
            test=self.splits.test,
            evaluate=evaluate,
            accuracy_tolerance=settings.accuracy_tolerance,
        )
        extremes = evaluate(np.stack([space.largest_genome, space.smallest_genome]), self.splits.test)
        largest, smallest = extremes.correct[:, -1].mean(axis=-1).tolist()
        progress.update(1, {"largest_accuracy": largest, "smallest_accuracy": smallest})
        return Result(
            designs=designs,
            levels=levels,
            largest_test_accuracy=largest,
            smallest_test_accuracy=smallest,
            backbones=int(archive.size),
            candidates=int(np.sum(archive.versions, dtype=np.int64)),
            test_images=self.splits.test.count,
            accuracy_tolerance=settings.accuracy_tolerance,
            limits=constraints,
            within_limits=choices.within,
            number_formats=self._formats,
            assumed_formats=tuple(name for name in self._formats if self._is_assumed(name)),
        )

    def _is_assumed(self, name: FormatName) -> bool:
        """Whether nobody measured how fast a format is on the device; the speed of fp32 is the unit."""
        latency = read_device_file(self.settings.device).latency
        speedup = None if latency is None else getattr(latency.format_speedup, name)
        return name != "fp32" and speedup is not None and speedup.provenance == "assumed"


def _formats(settings: SearchSettings, device: Device) -> tuple[FormatName, ...]:
    """Returns the number formats that a search goes through, those of most bytes first.

    Raises:
        ValueError: The device does not run one of them, or one cannot be simulated in the type that is computed in.
    """
    chosen = {NumberFormat[name.upper()] for name in settings.search.number_formats} or {device.formats[0]}
    lacking = sorted(chosen - set(device.formats))
    if lacking:
        runs = ", ".join(form.name.lower() for form in device.formats)
        raise ValueError(
            f"number_formats: expected some that {device.name} runs ({runs}), got {lacking[0].name.lower()}"
        )
    simulated, dtype = sorted(chosen - {NumberFormat.FP32}), settings.training.dtype
    if simulated and dtype != "float32":
        raise ValueError(
            f"dtype {dtype}: expected float32, in which {simulated[0].name.lower()} is simulated, got another type"
        )
    return tuple(FORMAT_NAMES[each] for each in sorted(chosen))
