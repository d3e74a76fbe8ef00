"""A whole EH-DNAS search in stages: data, predictor, bilevel search, derivation.

The search keeps checkpoints and resumes exactly. Test images are not read: the network that a search ends with is
evaluated after it was trained from scratch, see `hadas_jax.methods.eh_dnas.retrain`.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hadas_jax.backend import is_first, memory_named
from hadas_jax.data import LabelledImages, Splits, Stream, load
from hadas_jax.methods.eh_dnas.bilevel import WeightDescent, resident_pair
from hadas_jax.methods.eh_dnas.hardware import Hardware, Objective, accelerator_hardware, device_hardware
from hadas_jax.methods.eh_dnas.result import DnasResult, derive_feasible, write_genotype
from hadas_jax.methods.eh_dnas.search import SearchState, search_step
from hadas_jax.runs.loop import Guard, Progress, run_stage, scanned
from hadas_jax.runs.workdir import WorkDir
from hadas_jax.settings import DnasSettings
from hadas_jax.spaces.darts import DARTS_CODES, derive_code, format_code, sample_codes
from hadas_jax.spaces.darts_costs import read_darts_predictor, throughput_table
from hadas_jax.spaces.darts_network import DartsNetwork
from hadas_jax.supernet.darts import apply_search, initialise_search
from hadas_jax.training import augmentation
from hadas_jax.training.batches import Schedule
from hadas_jax.training.optimisers import lower_rate
from hw_models import default_point, with_clocks
from hw_models.accelerator import load_fpga
from hw_models.catalogue import chosen_device, read_device_file
from hw_models.predictors import PredictorNotes, ThroughputPredictor, fit_predictor, write_predictor

PREDICTOR = "predictor.npz"
_LAST_RATE = 0.001  # of the weights' cosine, as in DARTS
_ALPHA_SCALE = 1e-3  # of the first alpha, likewise


class DnasRun:
    """One EH-DNAS search: reads its inputs at once, so that mistakes show before any work.

    Args:
        settings: Of the run.

    Raises:
        ValueError: An unknown data set, device or FPGA, or files that do not fit.
    """

    def __init__(self, settings: DnasSettings) -> None:
        self.settings = settings
        self.splits: Splits = load(settings.data, stream_seed=settings.seed)
        splits = self.splits
        if isinstance(splits.train, Stream):
            raise ValueError(
                f"dataset {settings.data.dataset}: expected training images that fit into memory, got a stream; "
                "give a smaller `image_size`"
            )
        keys = jax.random.split(jax.random.key(settings.seed), 7)
        self._weights_key, self._alpha_key, self._halves_key, self._search_key, self._predictor_key = keys[:5]
        self._order_keys = (keys[5], keys[6])
        self.halves = _halved(splits.train, self._halves_key)
        self._schedule = Schedule.of(min(half.count for half in self.halves), batch=settings.training.batch)
        self.network = DartsNetwork(
            channels=settings.channels,
            cells=settings.cells,
            classes=splits.classes,
            image_size=splits.image_size,
            in_channels=splits.channels,
        )
        self.priced = DartsNetwork() if settings.priced == "e2e-perf" else self.network
        self._fpga = load_fpga(settings.accelerator.fpga) if settings.is_accelerator else None
        self._device = None if settings.is_accelerator else chosen_device(settings.hardware, settings.operating)
        if self._device is not None:
            read_device_file(settings.hardware).roofline()  # a table of blocks has none for these networks
        if self._device is not None and not settings.search_clocks:
            point = default_point(self._device)
            self._device = with_clocks(
                self._device,
                core_hz=[float(point.core_hz)],
                memory_hz=[float(point.memory_hz)],
                host_hz=[float(point.host_hz)],
            )

    def execute(self, workdir: WorkDir, progress: Progress) -> DnasResult:
        """Runs all stages that are not done yet, and writes the result into the work directory.

        Raises:
            ValueError: A loss is no longer finite, or a checkpoint cannot be used.
        """
        settings, hardware = self.settings.training, self.hardware(workdir, progress)
        objective = self.objective(hardware)
        # DARTS's optimiser of alpha: Adam on the gradient and an L2 penalty.
        optimiser = optax.chain(
            optax.add_decayed_weights(settings.alpha_weight_decay),
            optax.adam(settings.alpha_learning_rate, b1=0.5, b2=0.999),
        )
        weights = initialise_search(self.network, self._weights_key)
        multipliers = jnp.zeros(len(objective.constraints), jnp.float32) if objective.constraints else None
        state = SearchState.start(weights, self.initial_alpha(), optimiser, multipliers=multipliers)
        step = search_step(
            partial(apply_search, self.network, dtype=settings.dtype, remat=settings.remat),
            hardware,
            objective,
            descent=self.descent(),
            optimiser=optimiser,
            second_order=settings.order == "second",
            temperature=self._temperature(),
        )
        run = resident_pair(step, batch=self._schedule.batch, augment=augmentation(settings.augmentation))
        with memory_named("batch", self._schedule.batch, "images"):
            state = run_stage(
                "architecture",
                scanned(run, data=(*self.halves, self._order_keys), key=self._search_key, chunk=self._schedule.chunk),
                state,
                chunks=self.steps // self._schedule.chunk,
                chunk=self._schedule.chunk,
                workdir=workdir,
                progress=progress,
                guard=Guard(lower=lower_rate),
            )
        result = self.result(hardware, objective, state.architecture)
        write_genotype(result, workdir.path, settings=self.settings.flat())
        return result

    @property
    def steps(self) -> int:
        """Steps of the search."""
        return self.settings.training.epochs * self._schedule.steps_per_epoch

    def initial_alpha(self) -> jax.Array:
        """Returns the first alpha, float32[28, 8], next to uniform."""
        return _ALPHA_SCALE * jax.random.normal(self._alpha_key, (28, 8))

    def hardware(self, workdir: WorkDir, progress: Progress) -> Hardware:
        """Returns what prices networks; fits a predictor first where the search needs one and has none."""
        if self._device is not None:
            return device_hardware(self._device, self.priced)
        assert self._fpga is not None
        predictor = None if Objective(self.settings.loss).is_blind else self._predictor(workdir, progress)
        return accelerator_hardware(self.settings.hardware, self.priced, fpga=self._fpga, predictor=predictor)

    def descent(self) -> WeightDescent:
        """Returns how the weights descend."""
        settings = self.settings.training
        last = min(_LAST_RATE / settings.learning_rate, 1.0)
        schedule = optax.cosine_decay_schedule(settings.learning_rate, self.steps, alpha=last)
        return WeightDescent(schedule=schedule, weight_decay=settings.weight_decay)

    def _temperature(self) -> optax.Schedule | None:
        """Returns the temperature by step where operations are sampled."""
        first, last = self.settings.training.temperature
        if self.settings.training.relaxation != "gumbel":
            return None
        return optax.exponential_decay(first, self.steps, last / first)

    def objective(self, hardware: Hardware) -> Objective:
        """Returns what is asked of networks; a relative cost is one beside that of a flat alpha."""
        loss, reference = self.settings.loss, 1.0
        if loss.weight > 0:
            costs = hardware.relaxed(jnp.zeros((28, 8)), self._alpha_key)
            reference = float(jnp.min(costs.metric(loss.minimise)))
        return Objective(loss, reference)

    def result(self, hardware: Hardware, objective: Objective, alpha: jax.Array) -> DnasResult:
        """Derives the network of a finished search, within the constraints where that can be."""

        def violation(code: jax.Array) -> jax.Array:
            return jnp.max(objective.violations(hardware.exact(code)), initial=0.0)

        code = derive_feasible(alpha, violation)
        costs = hardware.exact(jnp.asarray(code))
        point = int(objective.chosen_point(costs))
        chosen, clocks = costs.at(point), jax.tree.leaves(hardware.points)
        return DnasResult(
            code=format_code(code),
            hardware=hardware.name,
            images_per_s=1.0 / float(chosen.image_s),
            energy_mj=None if chosen.energy_j is None else 1e3 * float(chosen.energy_j),
            clocks_mhz=tuple(float(clock[point]) / 1e6 for clock in clocks) or None,
            within_budgets=float(violation(jnp.asarray(code))) <= 0,
            code_without_budgets=format_code(np.asarray(derive_code(alpha))),
            alpha=tuple(map(tuple, np.round(np.asarray(alpha, float), 6).tolist())),
            data=self.splits.record,
        )

    def _predictor(self, workdir: WorkDir, progress: Progress) -> ThroughputPredictor:
        """Returns the predictor of a run on an accelerator: the user's, or one fitted at first and kept.

        Raises:
            ValueError: A predictor that cannot be read, or one of other hardware or networks; no random network fits.
        """
        assert self._fpga is not None
        settings, network, fpga = self.settings.accelerator, self.priced, self._fpga
        paradigm, kept = self.settings.hardware, workdir.path / PREDICTOR
        if settings.predictor is not None:
            return read_darts_predictor(settings.predictor, network, paradigm=paradigm, fpga=fpga.name)
        if kept.is_file():
            return read_darts_predictor(kept, network)
        draw_key, fit_key = jax.random.split(self._predictor_key)
        codes = jax.jit(lambda key: sample_codes(key, settings.predictor_samples))(draw_key)
        throughputs = np.asarray(throughput_table(paradigm, network, fpga=fpga)(codes))
        fits = throughputs > 0
        if np.sum(fits) < 2:
            raise ValueError(
                f"fpga {settings.fpga}: expected one that holds networks of {network.channels} channels and "
                f"{network.cells} cells, got one that holds none of {len(fits)} drawn at random"
            )

        def on_epoch(done: int, total: int, loss: float) -> None:
            if done == 1:
                progress.stage("predictor", total)
            workdir.add_metrics("predictor", done, {"loss": loss})
            progress.update(done, {"loss": loss})

        workdir.drop_metrics("predictor", 0)
        predictor = fit_predictor(
            fit_key,
            jnp.asarray(codes)[fits],
            throughputs[fits],
            layout=DARTS_CODES,
            kind=settings.predictor_kind,
            notes=PredictorNotes(paradigm, fpga.name, network.sizes),
            on_epoch=on_epoch,
        ).predictor
        if is_first():
            write_predictor(predictor, kept)
        return predictor


def _halved(images: LabelledImages, key: jax.Array) -> tuple[LabelledImages, LabelledImages]:
    """Divides images at random into two halves, of weights and of architecture."""
    rows = jax.random.permutation(key, images.count)
    parts = rows[: images.count // 2], rows[images.count // 2 :]
    first, second = (
        dataclasses.replace(images, images=images.images[part], labels=images.labels[part]) for part in parts
    )
    return first, second
