"""What a search promised beside what its networks take: every exit's path, and the expected latency under the policy.

Networks from across the front are exported with their weights and measured as `hw_models.measuring.measure` measures
kits, each twice independently, which tells how far measurements agree with themselves. On this machine the runtime also
runs them on test images, one at a time, with the exits deciding. Both are counted in runs of the kit's reference
network, taken in turn with what is timed, so that a machine whose speed drifts measures both with one ruler.
Shapes: N networks, K exits of all of them, classifiers included. Units: s, J; in files as their names say.
"""

import dataclasses
import json
import shlex
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.stats import kendalltau

from hadas_jax.data import LabelledImages
from hadas_jax.deploy.architecture import Architecture, write_architecture
from hadas_jax.deploy.export import export_network
from hadas_jax.deploy.given import GivenSegments
from hadas_jax.deploy.kit import AGAIN, layers_by_segment, write_network_kit
from hadas_jax.deploy.materialise import SubNetwork, data_of, network_at
from hadas_jax.deploy.operating_points import ExitCosts
from hadas_jax.deploy.robustness import UnderCorruption
from hadas_jax.deploy.runtime import Runtime
from hadas_jax.deploy.select import SearchedSupernet, architecture_of
from hadas_jax.deploy.static_network import StaticNetwork
from hadas_jax.methods.hadas.results import Design, FinishedSearch
from hadas_jax.runs.checkpoints import read_json, validated
from hadas_jax.runs.names import CHECK_KITS
from hadas_jax.runs.workdir import versions, write_text
from hadas_jax.search.indicators import hypervolume
from hadas_jax.search.pareto import non_dominated_mask
from hadas_jax.settings import NO_CONSTRAINTS, OperatingSettings
from hadas_jax.spaces import GivenNetwork
from hadas_jax.spaces.workload import require_priced
from hw_models import default_point
from hw_models.catalogue import device_of, read_device_file
from hw_models.device import SAME_CLOCK
from hw_models.measuring.measure import (
    Case,
    Machine,
    Reference,
    Step,
    find_engine,
    kit_cases,
    kit_labels,
    profile,
    read_kit,
    row_names,
)
from hw_models.measuring.measurements import (
    LAYER,
    Measurement,
    read_measurements,
    write_measurements,
    yardsticks_ms,
)
from hw_models.schema import DeviceFile

FORM = "hadas_jax.check/1"
_KITS_FORM = "hadas_jax.check_kits/1"
_WARM_UP, _PASSES = 20, 3  # images before times count; how often each round goes through the images
_PER_TURN, _REFERENCE_RUNS = 25, 3  # images, and runs of the reference network, before the other one's turn
_LEAST_YARDSTICKS = 3  # single layers that tell a machine's speed
_BEYOND = 1.1  # the reference point of the hypervolume, in units of the largest objectives


@dataclass(frozen=True)
class CheckedExit:
    """One exit of a network: a sample that stops there.

    Attributes:
        segments: How many segments it runs.
        predicted_s: Latency by the cost model.
        measured_s: Median latency, the mean of two independent measurements.
        difference: Of these two, relative to their mean; None: it was measured once.
        predicted_j: Energy by the cost model.
        measured_j: Measured mean power times latency; None where power was not measured.
    """

    segments: int
    predicted_s: float
    measured_s: float
    difference: float | None
    predicted_j: float
    measured_j: float | None


@dataclass(frozen=True)
class CheckedNetwork:
    """One network of the front.

    Attributes:
        name: Of its rows.
        genome: Genes of the backbone.
        blocks: The blocks that its exits follow.
        test_error: As deployed.
        exits: In their order, the classifier last.
        predicted_s: Expected latency by the cost model and the shares of the test split.
        measured_s: Expected latency on test images, end to end, counted in runs of the reference network as those of
            paths are; None: only its paths were measured.
        paths_s: Expected latency by the measured paths and the same shares.
        clock_s: As `measured_s`, by the clock alone: with the speed that the machine had at that time.
        corruptions: What it does on corrupted test images, at measured costs where they were measured; empty: nobody
            asked.
    """

    name: str
    genome: tuple[int, ...]
    blocks: tuple[int, ...]
    test_error: float
    exits: tuple[CheckedExit, ...]
    predicted_s: float
    measured_s: float | None
    paths_s: float
    clock_s: float | None = None
    corruptions: tuple[UnderCorruption, ...] = ()

    @property
    def expected_s(self) -> float:
        """The measured expected latency: end to end where it was, else by its paths."""
        return self.paths_s if self.measured_s is None else self.measured_s


@dataclass(frozen=True)
class Agreement:
    """Predictions beside measurements.

    Attributes:
        count: How many.
        error: Mean absolute error, relative to what was measured.
        bias: Geometric mean of predicted over measured, less 1.
        unbiased: The error that is left without this common factor, as of a machine that is busier than it was.
        tau: Kendall's; None for fewer than two.
        ordered: Share of pairs in the right order; None for fewer than two.
        ordered_apart: Likewise of pairs that were measured farther apart than twice the noise floor; None: there are
            none, or the noise is not known.
    """

    count: int
    error: float
    bias: float
    unbiased: float
    tau: float | None
    ordered: float | None
    ordered_apart: float | None = None

    @classmethod
    def of(cls, predicted: Sequence[float], measured: Sequence[float], *, noise: float | None = None) -> "Agreement":
        """Compares, pair by pair; `noise` is the mean relative difference of two measurements of the same."""
        x, y = np.asarray(predicted, np.float64), np.asarray(measured, np.float64)
        first, second = np.triu_indices(len(x), 1)
        told = np.sign(y[first] - y[second]) != 0
        right = np.sign(x[first] - x[second])[told] == np.sign(y[first] - y[second])[told]
        apart = right[np.abs(np.log(y[first] / y[second]))[told] > 2 * noise] if noise is not None else right[:0]
        factor = np.exp(np.mean(np.log(x / y)))
        return cls(
            count=len(x),
            error=float(np.mean(np.abs(x - y) / y)),
            bias=float(factor - 1),
            unbiased=float(np.mean(np.abs(x / factor - y) / y)),
            tau=float(kendalltau(x, y).statistic) if len(right) else None,
            ordered=float(np.mean(right)) if len(right) else None,
            ordered_apart=float(np.mean(apart)) if len(apart) else None,
        )


@dataclass(frozen=True)
class Check:
    """A front beside measurements.

    Attributes:
        protocol: Device, machine, runtime, rounds, images and so on, in words and numbers.
        networks: By rising predicted latency.
        exits: Latencies of all exits' paths.
        expected: Expected latencies under the policy.
        by_clock: The same, of latencies end to end by the clock alone; None: they were not measured.
        energy: Energies of all exits' paths; None where power was not measured.
        noise: Mean relative difference of two measurements of the same path; None: each was measured once.
        front: Names on the front of test error and predicted expected latency.
        measured_front: Names on the front of test error and measured expected latency.
        hypervolume: Of the measured front over that of the predicted one; both at the speed of the device's
            measurement, where `speed` is known.
        tolerance: Of the errors of `exits` and `expected`.
        left_out: Names of networks whose measurements were disturbed.
        speed: How long single layers took, relative to when the device was measured, as the geometric mean of those
            that both know; None: the clocks were held, or the device does not know them.
        exits_at_speed: As `exits`, had the machine been as fast as then; None: `speed` is not known.
        expected_at_speed: As `expected`, likewise.
    """

    protocol: dict[str, Any]
    networks: tuple[CheckedNetwork, ...]
    exits: Agreement
    expected: Agreement
    energy: Agreement | None
    noise: float | None
    front: tuple[str, ...]
    measured_front: tuple[str, ...]
    hypervolume: float
    tolerance: float
    left_out: tuple[str, ...] = ()
    by_clock: Agreement | None = None
    speed: float | None = None
    exits_at_speed: Agreement | None = None
    expected_at_speed: Agreement | None = None

    @property
    def is_within(self) -> bool:
        """Whether both errors are within the tolerance, at the speed of the device's measurement where it is known."""
        exits, expected = self.exits_at_speed or self.exits, self.expected_at_speed or self.expected
        return max(exits.error, expected.error) <= self.tolerance

    @property
    def exit_code(self) -> int:
        """Of a command: 1 beyond the tolerance."""
        return 0 if self.is_within else 1

    def as_json(self) -> dict[str, Any]:
        """Returns what `check.json` holds."""
        return {"form": FORM, "is_within": self.is_within, **dataclasses.asdict(self)}


class EndToEnd(NamedTuple):
    """Expected latency of a network on images, exits deciding.

    Attributes:
        paced_s: Counted in runs of the reference network, which is taken to have run as fast as its row says.
        clock_s: By the clock alone.
    """

    paced_s: float
    clock_s: float


@dataclass(frozen=True)
class Chosen:
    """A network of the front that is checked.

    Attributes:
        name: Of its rows.
        design: What the search found.
    """

    name: str
    design: Design


def choose(search: FinishedSearch, networks: int) -> list[Chosen]:
    """Chooses networks across the deployable front, of different backbones as far as there are, then of other exits.

    Args:
        search: A finished search.
        networks: At most so many; less where the front has less.

    Raises:
        ValueError: The number is below 1, or the front is empty.
    """
    if networks < 1:
        raise ValueError(f"networks: expected 1 or more, got {networks}")
    front = sorted(search.result.front("deployable"), key=lambda design: design.test["deployable"].latency_s)
    if not front:
        raise ValueError(f"{search.path}: expected a search with deployable designs, got none")
    different = list({(design.genome, design.exits): design for design in front}.values())
    first = {design.genome: design for design in reversed(different)}
    others = [design for design in different if first[design.genome] is not design]
    chosen = _spread([design for design in different if first[design.genome] is design], networks)
    chosen += _spread(others, networks - len(chosen))
    chosen.sort(key=different.index)
    return [Chosen(f"front-{number:03d}", design) for number, design in enumerate(chosen)]


def _spread(designs: Sequence[Design], most: int) -> list[Design]:
    rows = np.unique(np.linspace(0, len(designs) - 1, min(len(designs), most)).round().astype(int))
    return [designs[row] for row in rows]


def cut_out(
    search: FinishedSearch,
    chosen: Sequence[Chosen],
    folder: Path,
    *,
    dataset: str | None = None,
    data_dir: str | None = None,
) -> tuple[list[tuple[str, StaticNetwork | GivenSegments]], LabelledImages]:
    """Cuts networks out of the supernet of their search, or a given one after the exits of each.

    Args:
        search: The search.
        chosen: Networks that it found.
        folder: For a file on the way.
        dataset: Where the images of the search are now; None: where they were.
        data_dir: Likewise.

    Returns:
        The networks by their names, and the test split.

    Raises:
        ValueError: The supernet or the data set is not there any more, or another one.
    """
    supernet = SearchedSupernet.of(search)

    def described(one: Chosen) -> Architecture:
        about: dict[str, Any] = {"parameters": 1, "limits": NO_CONSTRAINTS, "prefer": "knee"}
        return architecture_of(search, one.design, supernet=supernet, folder=folder, **about)

    architectures, names = [described(one) for one in chosen], [one.name for one in chosen]
    write_architecture(folder / "first.json", architectures[0])
    if isinstance(supernet.space, GivenNetwork):
        given = network_at(folder / "first.json", dataset=dataset, data_dir=data_dir)
        test = data_of(given.architecture).test
        parts = [dataclasses.replace(given, architecture=architecture) for architecture in architectures]
        return list(zip(names, parts, strict=True)), test
    first = SubNetwork(folder / "first.json", dataset=dataset, data_dir=data_dir)
    cut = [first.sibling(architecture).cut_out(folder) for architecture in architectures]
    return list(zip(names, cut, strict=True)), first.splits.test


def remember_kit(workdir: Path, digest: str, chosen: Sequence[Chosen]) -> None:
    """Writes into a work directory which networks a kit has, for the day when its measurements come back."""
    known = _known_kits(workdir) | {digest: [[one.name, one.design.genome, one.design.exits] for one in chosen]}
    write_text(workdir / CHECK_KITS, json.dumps({"form": _KITS_FORM, "kits": known}, indent=1) + "\n")


def recall_kit(search: FinishedSearch, rows: Sequence[Measurement], *, source: str) -> list[Chosen]:
    """Returns the networks of the kit that measurements are of.

    Args:
        search: The search that the kit was written from.
        rows: Measurements.
        source: Their file, for messages.

    Raises:
        ValueError: They are of no kit, of several, or of one that was not written from this search as it is now.
    """
    digests = {row.kit or "none" for row in rows}
    known = _known_kits(search.path)
    again = f"hadas devices check {shlex.quote(str(search.path))} --kit DIR writes one"
    if len(digests) != 1:
        names = ", ".join(sorted(digests))
        raise ValueError(f"{source}: expected measurements of one kit (column kit), got {names}; {again}")
    (digest,) = digests
    if digest not in known:
        wanted = " or ".join(known) or "none yet"
        raise ValueError(f"{source}: expected measurements of a kit of {search.path} ({wanted}), got {digest}; {again}")
    found = {(design.genome, design.exits): design for design in search.result.front("deployable")}
    try:
        return [Chosen(name, found[tuple(genome), tuple(exits)]) for name, genome, exits in known[digest]]
    except KeyError:
        raise ValueError(
            f"{source}: expected measurements of networks on the front of {search.path}, got those of an earlier "
            f"front; {again}"
        ) from None


def _known_kits(workdir: Path) -> dict[str, list[Any]]:
    path = workdir / CHECK_KITS
    return read_json(path, _KITS_FORM, what="a list of kits")["kits"] if path.is_file() else {}


def measure_here(
    networks: Sequence[tuple[str, StaticNetwork | GivenSegments]],
    images: np.ndarray,
    folder: Path,
    *,
    rounds: int,
    threads: int = 1,
    on_step: Callable[[Step], None] | None = None,
) -> tuple[list[Measurement], dict[str, EndToEnd]]:
    """Measures every exit's path, each network twice, and then networks end to end, see `run_on_images`.

    Args:
        networks: Names and networks.
        images: [N, H, W, C] as they are stored.
        folder: For exports.
        rounds: Measurements of each network.
        threads: Of onnxruntime.
        on_step: Called after every measurement of paths.

    Returns:
        Rows of all paths, and the expected latencies by name.

    Raises:
        ValueError: onnx or onnxruntime is not installed.
    """
    engine, kit = find_engine("onnxruntime"), folder / "kit"
    machine = Machine(engine.processor)
    write_network_kit(kit, networks)
    content = read_kit(kit)
    cases = kit_cases(kit, content, engine, threads=threads)
    profile(
        cases,
        folder / "check.csv",
        machine=machine,
        meter=machine.meter(),
        rounds=rounds,
        reference=content["reference"],
        labels=kit_labels(content, engine),
        on_step=on_step,
    )
    rows = read_measurements(folder / "check.csv")
    reference = _reference(next(case for case in cases if case.name == content["reference"]), rows)
    return rows, run_on_images(networks, images, folder, rounds=rounds, threads=threads, reference=reference)


def _reference(case: Case, rows: Sequence[Measurement]) -> Reference:
    """What paced the paths, with the latency that all of it has in their rows."""
    found = [row.latency_ms for row in rows if row.network == row_names(case)[-1]]
    if not found:
        raise ValueError(f"{case.name}: expected a measurement of the reference network, it was disturbed; run again")
    return Reference(case.start().run, 1e-3 * found[0])


def run_on_images(
    networks: Sequence[tuple[str, StaticNetwork | GivenSegments]],
    images: np.ndarray,
    folder: Path,
    *,
    rounds: int,
    threads: int = 1,
    reference: Reference,
) -> dict[str, EndToEnd]:
    """Measures networks end to end: the runtime on images, one at a time, exits deciding.

    Args:
        networks: Names and networks.
        images: [N, H, W, C] as they are stored.
        folder: For exports.
        rounds: In each of them every network sees every image three times, in turn with the others.
        threads: Of onnxruntime.
        reference: What some images run in turn with, as paths do.

    Returns:
        By name the latency: of each image the median over its runs, of which the mean over the images. So what
        disturbs the machine for a moment disturbs no image's time.
    """
    taken: dict[str, list[np.ndarray]] = {name: [] for name, _ in networks}
    deployed = {}
    for name, network in networks:
        export_network(folder / name, network, format="onnx", batch=1)
        deployed[name] = Runtime(folder / name, threads=threads)
    for number in range(rounds * _PASSES):
        for name in np.random.default_rng(number).permutation(list(deployed)):
            taken[name].append(_times(deployed[name], images, reference))
    means = {name: np.mean(np.median(times, axis=0), axis=-1) for name, times in taken.items()}
    return {name: EndToEnd(*mean.tolist()) for name, mean in means.items()}


def _times(network: Runtime, images: np.ndarray, reference: Reference) -> np.ndarray:
    """Seconds that each image takes, [2, N]: counted in runs of the reference, and by the clock."""
    for image in images[:_WARM_UP]:
        network(image[None])
    seconds, paces = np.zeros(len(images)), np.zeros(len(images))
    for start in range(0, len(images), _PER_TURN):
        turn = slice(start, start + _PER_TURN)
        reference.run()  # the first run of either is not timed, as the other one has just emptied the caches
        paces[turn] = reference.latency_s / statistics.median(reference.run()[-1] for _ in range(_REFERENCE_RUNS))
        network(images[start : start + 1])
        stamps = [time.perf_counter()]
        for row in range(len(images))[turn]:
            network(images[row : row + 1])
            stamps.append(time.perf_counter())
        seconds[turn] = np.diff(stamps)
    return np.stack([seconds * paces, seconds])


def compare(
    search: FinishedSearch,
    chosen: Sequence[Chosen],
    rows: Sequence[Measurement],
    *,
    device: str | Path,
    end_to_end: Mapping[str, EndToEnd] | None = None,
    corruptions: Mapping[str, Sequence[UnderCorruption]] | None = None,
    tolerance: float = 0.1,
    protocol: dict[str, Any],
) -> Check:
    """Sets what a device model says beside measurements.

    Args:
        search: The search.
        chosen: The networks.
        rows: Measurements of every exit's path, named `NAME/1`, `NAME/2`, ..., and of a second time `NAME-again/1`.
        device: The device model: a name or a path.
        end_to_end: By name, measured expected latency on images; None: not measured.
        corruptions: What some of the networks do on corrupted test images, by name.
        tolerance: Of the mean errors.
        protocol: How was measured.

    Raises:
        ValueError: The device does not fit, or rows are missing.
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance: expected a number above 0, got {tolerance:g}")
    space, layers_ms = SearchedSupernet.of(search).space, yardsticks_ms(rows)
    rows = [row for row in rows if not row.network.startswith(LAYER)]
    by_name = {row.network: row for row in rows}
    formats = {row.format for row in rows} - {None}
    use = OperatingSettings(number_format=next(iter(formats), None))  # at all clocks, whatever was searched
    file = read_device_file(device)
    model = device_of(file, use)
    require_priced(space, model)
    pairs = [(one.design.genome, one.design.exits) for one in chosen]
    costs = ExitCosts.of_networks(pairs, space=space, device=model)
    highest = default_point(model)
    clocks = tuple(float(getattr(highest, f"{name}_hz")) / 1e6 for name in ("core", "memory", "host"))
    networks = []
    for one, cost in zip(chosen, costs, strict=True):
        texts = layers_by_segment(space, one.design.genome, one.design.exits)
        layers = [";".join(texts[: k + 1]) for k in range(len(texts))]
        names = [[f"{one.name}{again}/{k + 1}" for again in ("", AGAIN)] for k in range(len(texts))]
        found = [[by_name[name] for name in both if name in by_name] for both in names]
        if not all(found):  # measurements were disturbed
            continue
        if any(row.layers != text for both, text in zip(found, layers, strict=True) for row in both):
            raise ValueError(f"{one.name}: expected the layers of this network of the front, got others")
        exits = tuple(_checked_exit(k, both, cost, _point(both[0], cost, clocks)) for k, both in enumerate(found))
        shares = np.asarray(one.design.test_shares)
        latencies_s = [each.measured_s for each in exits]
        energies_j = [each.predicted_j if each.measured_j is None else each.measured_j for each in exits]
        networks.append(
            CheckedNetwork(
                name=one.name,
                genome=one.design.genome,
                blocks=one.design.exits,
                test_error=one.design.test["deployable"].error,
                exits=exits,
                predicted_s=float(shares @ [each.predicted_s for each in exits]),
                measured_s=None if end_to_end is None else end_to_end[one.name].paced_s,
                clock_s=None if end_to_end is None else end_to_end[one.name].clock_s,
                paths_s=float(shares @ latencies_s),
                corruptions=tuple(
                    each.at_measured(latencies_s, energies_j) for each in (corruptions or {}).get(one.name, ())
                ),
            )
        )
    if not networks:
        raise ValueError(f"measurements: expected rows of {chosen[0].name}/1 and so on, got none of any network")
    about = {
        "device": model.name,
        "split": "test",
        **{name: _only(rows, name) for name in ("machine", "runtime", "runtime_version", "provider", "kit", "format")},
        "versions": versions(),
    }
    left_out = tuple(one.name for one in chosen if one.name not in {network.name for network in networks})
    speed = _speed(layers_ms, file) if file.runtime is not None and file.runtime.name == rows[0].runtime else None
    return dataclasses.replace(_check(networks, tolerance, speed, about | protocol), left_out=left_out)


def _speed(now: Mapping[str, float], device: DeviceFile) -> float | None:
    """How long single layers took relative to when a device was measured; None where too few are known."""
    then = device.yardsticks_ms or {}
    both = sorted(set(then) & set(now))
    if len(both) < _LEAST_YARDSTICKS:
        return None
    return float(np.exp(np.mean([np.log(now[name] / then[name]) for name in both])))


def _only(rows: Sequence[Measurement], name: str) -> str | None:
    """What rows say in a column, several values side by side; None: nothing."""
    return ", ".join(dict.fromkeys(value for row in rows if (value := getattr(row, name)))) or None


def _point(row: Measurement, cost: ExitCosts, highest: Sequence[float]) -> int:
    """The operating point of a row; an empty clock is the highest."""
    given = (row.core_mhz, row.memory_mhz, row.host_mhz)
    clocks = [best if mhz is None else mhz for mhz, best in zip(given, highest, strict=True)]
    off = np.abs(cost.clocks_mhz / np.asarray(clocks) - 1).max(axis=1)
    nearest = int(off.argmin())
    if off[nearest] > SAME_CLOCK:
        asked = " ".join(f"{clock:g}" for clock in clocks)
        raise ValueError(f"{row.network}: clocks: expected an operating point of the device, got {asked} MHz")
    return nearest


def _checked_exit(number: int, rows: Sequence[Measurement], cost: ExitCosts, point: int) -> CheckedExit:
    latencies = [1e-3 * each.latency_ms for each in rows]
    powers = [each.power_w for each in rows if each.power_w is not None]
    mean = statistics.mean(latencies)
    return CheckedExit(
        segments=number + 1,
        predicted_s=float(cost.latency_s[number, point]),
        measured_s=mean,
        difference=abs(latencies[0] - latencies[1]) / mean if len(rows) > 1 else None,
        predicted_j=float(cost.energy_j[number, point]),
        measured_j=mean * statistics.mean(powers) if powers else None,
    )


def _check(
    networks: Sequence[CheckedNetwork], tolerance: float, speed: float | None, protocol: dict[str, Any]
) -> Check:
    exits = [found for network in networks for found in network.exits]
    differences = [found.difference for found in exits if found.difference is not None]
    noise = statistics.mean(differences) if differences else None
    powered = [found for found in exits if found.measured_j is not None]
    timed = [each for each in networks if each.clock_s is not None]

    def agreement(predicted: Sequence[float], measured: Sequence[float]) -> Agreement:
        return Agreement.of(predicted, measured, noise=noise)

    def of_exits(by: float) -> Agreement:
        return agreement([found.predicted_s for found in exits], [found.measured_s / by for found in exits])

    def of_networks(by: float) -> Agreement:
        return agreement([each.predicted_s for each in networks], [each.expected_s / by for each in networks])

    predicted = np.array([(network.test_error, network.predicted_s) for network in networks])
    measured = np.array([(network.test_error, network.expected_s / (speed or 1.0)) for network in networks])
    reference = _BEYOND * np.maximum(predicted.max(axis=0), measured.max(axis=0))
    volumes = [float(hypervolume(_unit(points, reference), jnp.ones(2))) for points in (predicted, measured)]

    def names(points: np.ndarray) -> tuple[str, ...]:
        on_front = np.asarray(non_dominated_mask(_unit(points, reference)))
        return tuple(network.name for network, is_on in zip(networks, on_front, strict=True) if is_on)

    return Check(
        protocol=protocol,
        networks=tuple(networks),
        exits=of_exits(1.0),
        expected=of_networks(1.0),
        by_clock=agreement([each.predicted_s for each in timed], [each.clock_s or 0.0 for each in timed])
        if timed
        else None,
        energy=agreement([found.predicted_j for found in powered], [found.measured_j or 0.0 for found in powered])
        if powered
        else None,
        noise=noise,
        front=names(predicted),
        measured_front=names(measured),
        hypervolume=volumes[1] / volumes[0],
        tolerance=tolerance,
        speed=speed,
        exits_at_speed=None if speed is None else of_exits(speed),
        expected_at_speed=None if speed is None else of_networks(speed),
    )


def _unit(points: np.ndarray, reference: np.ndarray) -> jnp.ndarray:
    """Objectives in units of the reference point, where a perfect network has an error of zero."""
    return jnp.asarray(points / np.where(reference > 0, reference, 1.0), jnp.float32)


def write_check(path: Path, check: Check, rows: Sequence[Measurement]) -> None:
    """Writes a check.json, and its rows beside it as CSV; both are replaced where they exist.

    Raises:
        ValueError: A file cannot be written.
    """
    table = path.with_suffix(".csv")
    table.unlink(missing_ok=True)
    write_measurements(table, rows)
    write_text(path, json.dumps(check.as_json(), indent=1) + "\n")


def read_check(path: Path) -> Check:
    """Reads a check.json.

    Raises:
        ValueError: It is of another form, or none.
    """
    return validated(Check, read_json(path, FORM, what="a check as hadas devices check writes"), path=path)
