"""What the package's programs are when compiled for a TPU, which this machine need not have.

Command:   pip install 'hadas-jax[tpu-compile]'
           python experiments/compile_for_tpu.py -o compile_for_tpu.json
Hardware:  any machine with Linux; the TPU compiler runs on its CPU, and nothing is run on a TPU
Time:      some hours on two cores; `--only search` a quarter of one
Expected:  every program compiles and fits; see docs/gpu.md for the table

libtpu holds the whole compiler. Programs are compiled for one v5e chip, and with `--chips 4` for 2x2 of them.
A sequential step is a trip of a loop, nested ones multiplied: what an accelerator waits for. Trips are read from the
compiled program; a loop that ends when its values say so counts once and is listed apart. Memory is arguments,
results and temporary values of one chip. Exit code 1: a program does not compile, or needs more than 14 GiB.
"""

import dataclasses
import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.console import Console

from hadas_jax.benchmark import Task
from hadas_jax.data import LabelledImages
from hadas_jax.deploy.fine_tune import joint_training
from hadas_jax.deploy.materialise import materialise
from hadas_jax.evaluation import segment_costs
from hadas_jax.evaluation.evaluator import outcomes_given
from hadas_jax.methods import search_exact
from hadas_jax.methods.eh_dnas.bilevel import BilevelState, WeightDescent, bilevel_step
from hadas_jax.runs.workdir import versions, write_text
from hadas_jax.search import load_strategy, run
from hadas_jax.settings import NO_CONSTRAINTS, TrainingSettings
from hadas_jax.spaces import MBConvSpace, load_space
from hadas_jax.spaces.darts_network import DartsNetwork
from hadas_jax.supernet import estimate_batch_stats, initialise
from hadas_jax.supernet.darts.search_network import apply_search, initialise_search
from hadas_jax.training import exit_step, init_state, sandwich_step, sgd
from hw_models import load_device

LIMIT_GIB = 14.0  # of the 16 of a v5e chip
_GIB = 2**30
_ENVIRONMENT = {"TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}
_SIDE_BY_SIDE = 16  # backbones
_SAMPLES = 2000


@dataclass(frozen=True)
class Settings:
    """Compiles the package's programs for TPUs."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE.json")] = None
    """Results file; programs that it has already are not compiled again."""
    topology: str = "v5e:2x2"
    """Chips to compile for."""
    chips: tuple[int, ...] = (1, 4)
    """How many of them a program is spread over."""
    only: tuple[str, ...] = ()
    """Programs whose names hold one of these words; by default all."""
    list: bool = False
    """Print the names of the programs and stop."""


@dataclass(frozen=True)
class Program:
    """A function to compile.

    Attributes:
        function: Traceable.
        rows: Arguments whose leading axis is spread over the chips, as shapes.
        shared: Arguments that every chip has.
    """

    function: Callable[..., Any]
    rows: Any
    shared: Any = ()


def programs() -> dict[str, Callable[[], Program]]:
    """Returns what builds each program, by name."""
    found: dict[str, Callable[[], Program]] = {}
    for population in (1024, 8192, 65536):
        for name in ("NSGA2", "NSGA3"):
            for part in ("ask", "tell", "search of 10 generations"):
                found[f"{name} {part}, {population:,}"] = partial(_strategy, name, part, population)
        found[f"cost model, {population:,}"] = partial(_cost_model, population)
    found["DifferentialEvolution search of 10 generations, 8,192"] = partial(
        _strategy, "DifferentialEvolution", "search of 10 generations", 8192
    )
    for exits in (12, 16):
        found[f"exact inner search, {exits} exits"] = partial(_inner, exits - 12)
    for space, size in (("small-images", 32), ("attentivenas-native", 32), ("attentivenas", 224)):
        for dtype in ("float32", "bfloat16"):
            place = f"{space} {size} {dtype}"
            batch = max(2**19 // size**2, 1)
            found[f"outcomes, {place}"] = partial(_outcomes, space, size, dtype, batch)
            found[f"statistics, {place}"] = partial(_statistics, space, size, dtype)
            found[f"training step, {place}"] = partial(_training, space, size, dtype, 128 if size == 32 else 64)
    found["step of the exits, small-images 32 float32"] = partial(_exits, "small-images", 32, "float32", 128)
    for dtype in ("float32", "bfloat16"):
        found[f"DARTS search step, second order {dtype}"] = partial(_darts, dtype)
    found["fine-tuning step, small-images 32"] = partial(_fine_tuning, "small-images", 32, 128)
    return found


def _shapes(function: Callable[..., Any], *arguments: Any) -> Any:
    return jax.eval_shape(function, *arguments)


def _key() -> Any:
    return _shapes(lambda: jax.random.key(0))


def _strategy(name: str, part: str, population: int) -> Program:
    """A part of a search of the joint space of `hadas bench`: 31 genes, three objectives."""
    task = Task(load_device("agx-xavier-gpu"), population)
    strategy = load_strategy(name, population_size=population, cardinalities=task.cardinalities)
    params = strategy.default_params
    genomes = jax.ShapeDtypeStruct((population, len(task.cardinalities)), jnp.int32)
    fitness = jax.ShapeDtypeStruct((population, 3), jnp.float32)
    if part.startswith("search"):
        evaluate = task.evaluate

        def search(first: jax.Array, key: jax.Array) -> Any:
            return run(strategy, evaluate, key, 10, population=first)[0]

        return Program(search, (genomes,), (_key(),))
    state = _shapes(lambda key, *told: strategy.init(key, told[0], told[1], params), _key(), genomes, fitness)
    if part == "ask":
        return Program(lambda state, key: strategy.ask(key, state, params), (), (state, _key()))

    def tell(genomes: jax.Array, fitness: jax.Array, state: Any, key: jax.Array) -> Any:
        return strategy.tell(key, genomes, fitness, state, params)

    return Program(tell, (genomes, fitness), (state, _key()))


def _cost_model(population: int) -> Program:
    task = Task(load_device("agx-xavier-gpu"), population)
    return Program(task.evaluate, (jax.ShapeDtypeStruct((population, len(task.cardinalities)), jnp.int32),))


def _inner(deeper: int) -> Program:
    """The exact search of a backbone with 12 exits and some more, 3,654 operating points and 2,000 samples."""
    space, device = load_space("attentivenas").adapt(in_channels=3, classes=100, image_size=224), "agx-xavier-gpu"
    genome = jax.ShapeDtypeStruct(space.largest_genome.shape, jnp.int32)
    correct = jax.ShapeDtypeStruct((space.num_exits + 1, -(-_SAMPLES // 32)), jnp.uint32)
    model = load_device(device)
    if not deeper:  # 12 exits in as many slots: a product of 4,096 configurations
        space = dataclasses.replace(space, first_exit=space.first_exit + space.num_exits - 12)
        correct = jax.ShapeDtypeStruct((13, -(-_SAMPLES // 32)), jnp.uint32)
    costs = _shapes(lambda genome: segment_costs(space, space.decode(genome), model), genome)
    limits, reference = jnp.asarray(NO_CONSTRAINTS.objectives), jnp.ones(3, jnp.float32)
    search = partial(search_exact, space, samples=_SAMPLES, limits=limits, gamma=jnp.float32(1), reference=reference)
    return Program(search, (), (genome, correct, costs))


def _adapted(space: str, size: int) -> MBConvSpace:
    """The space at one resolution, for 100 classes."""
    found = load_space(space)
    if len(found.resolution) > 1:
        found = dataclasses.replace(found, resolution=(size,))
    return found.adapt(in_channels=3, classes=100, image_size=size)


def _backbones(space: MBConvSpace, count: int) -> Any:
    genomes = jax.ShapeDtypeStruct((count, len(space.codec.choices)), jnp.int32)
    return _shapes(jax.vmap(space.decode), genomes)


def _images(count: int, size: int) -> tuple[Any, Any]:
    return jax.ShapeDtypeStruct((count, size, size, 3), jnp.float32), jax.ShapeDtypeStruct((count,), jnp.int32)


def _stats(space: MBConvSpace, params: Any, size: int, dtype: str) -> Any:
    images = jax.ShapeDtypeStruct((1, 2, size, size, 3), jnp.float32)
    return _shapes(partial(estimate_batch_stats, space, dtype=dtype), params, space.largest(), images)


def _outcomes(name: str, size: int, dtype: str, batch: int) -> Program:
    """What the evaluator computes for 16 backbones side by side on two batches of images."""
    space = _adapted(name, size)
    params = _shapes(partial(initialise, space), _key())
    stats = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((_SIDE_BY_SIDE, *leaf.shape), leaf.dtype), _stats(space, params, size, dtype)
    )
    data = LabelledImages(*_images(2 * batch, size))

    def outcomes(backbones: Any, stats: Any, params: Any, data: LabelledImages) -> Any:
        one = partial(outcomes_given, space, params, data=data, batch=batch, dtype=dtype)
        return jax.vmap(one)(stats, backbones)

    return Program(outcomes, (_backbones(space, _SIDE_BY_SIDE), stats), (params, data))


def _statistics(name: str, size: int, dtype: str) -> Program:
    """Batch-norm statistics of 16 backbones side by side, from 8 batches of 64 images."""
    space = _adapted(name, size)
    params = _shapes(partial(initialise, space), _key())
    calibration = jax.ShapeDtypeStruct((8, 64, size, size, 3), jnp.float32)

    def statistics(backbones: Any, params: Any, calibration: jax.Array) -> Any:
        one = partial(estimate_batch_stats, space, params, dtype=dtype)
        return jax.vmap(lambda backbone: one(backbone, calibration))(backbones)

    return Program(statistics, (_backbones(space, _SIDE_BY_SIDE),), (params, calibration))


def _optimiser() -> Any:
    return sgd(optax.cosine_decay_schedule(0.1, 1000), weight_decay=1e-5, clip=optax.clip_by_global_norm(1.0))


def _training(name: str, size: int, dtype: str, batch: int) -> Program:
    """A step of the sandwich rule: the largest, the smallest and two random backbones."""
    space, optimiser = _adapted(name, size), _optimiser()
    weights = _shapes(partial(initialise, space), _key()).backbone
    step = sandwich_step(space, optimiser, settings=TrainingSettings(dtype=cast(Any, dtype), batch=batch))
    state = _shapes(lambda weights: init_state(weights, optimiser), weights)
    return Program(
        lambda *data_and: step(data_and[2], data_and[3], data_and[:2]), _images(batch, size), (state, _key())
    )


def _exits(name: str, size: int, dtype: str, batch: int) -> Program:
    space, optimiser = _adapted(name, size), _optimiser()
    params = _shapes(partial(initialise, space), _key())
    step = exit_step(space, optimiser, dtype=dtype)
    state = _shapes(lambda weights: init_state(weights, optimiser), params.heads)

    def run(images: jax.Array, labels: jax.Array, state: Any, key: jax.Array, frozen: Any) -> Any:
        return step(state, key, ((images, labels), frozen))

    return Program(run, _images(batch, size), (state, _key(), params.backbone))


def _darts(dtype: str) -> Program:
    """A step of the search of DARTS: 16 channels, 8 cells, batch 64 of 32 pixels."""
    network, optimiser = DartsNetwork(16, 8, 10, 32), optax.adam(3e-4, b1=0.5)

    def loss(weights: Any, alpha: jax.Array, batch: Any, key: jax.Array) -> Any:
        del key
        logits = apply_search(network, weights, jax.nn.softmax(alpha), batch[0], dtype=dtype)
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch[1])), {}

    descent = WeightDescent(optax.constant_schedule(0.025))
    step = bilevel_step(loss, descent=descent, optimiser=optimiser, second_order=True)
    weights = _shapes(partial(initialise_search, network), _key())
    state = _shapes(lambda weights: BilevelState.start(weights, jnp.zeros((28, 8)), optimiser), weights)

    def run(train: Any, search: Any, state: Any, key: jax.Array) -> Any:
        return step(state, key, (train, search))

    return Program(run, (_images(64, 32), _images(64, 32)), (state, _key()))


def _fine_tuning(name: str, size: int, batch: int) -> Program:
    """A step of the largest network with all of its exits."""
    space = _adapted(name, size)
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), _shapes(partial(initialise, space), _key()))
    stats = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), _stats(space, params, size, "float32"))
    exits = tuple(range(space.num_exits))
    segments, weights = materialise(space, params, stats, backbone=space.largest(), exits=exits, image_size=size)
    state, step = joint_training(segments, weights, _optimiser(), exit_weights=[1.0] * len(exits))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)

    def run(images: jax.Array, labels: jax.Array, state: Any, key: jax.Array) -> Any:
        return step(state, key, (images, labels))

    return Program(run, _images(batch, size), (shapes, _key()))


def sequential_steps(text: str) -> tuple[int, tuple[str, ...]]:
    """Counts the trips of the loops of a compiled program, nested ones multiplied.

    Args:
        text: Of `as_text()` of the compiled program.

    Returns:
        The trips, where a loop whose number of trips depends on values counts once; and the names of those loops.
    """
    computations, entry = _computations(text)
    unknown: list[str] = []
    counts: dict[str, int] = {}

    def steps(name: str) -> int:
        if name not in counts:
            counts[name] = sum(map(of_line, computations.get(name, ())))
        return counts[name]

    def of_line(line: str) -> int:
        if " while(" not in line:
            called = re.findall(r"(?:calls|to_apply|true_computation|false_computation)=%?([\w.\-]+)", line)
            branches = re.search(r"branch_computations=\{([^}]*)\}", line)
            most = (
                max((steps(each.strip().lstrip("%")) for each in branches[1].split(",")), default=0) if branches else 0
            )
            return sum(map(steps, called)) + most
        body, condition = (re.search(rf"\b{part}=%?([\w.\-]+)", line) for part in ("body", "condition"))
        trips = _trips(computations[condition[1]]) if condition else None
        if trips is None:
            where = re.search(r'op_name="([^"]*)"', line)
            unknown.append(where[1] if where else line.split("=")[0].strip())
        return (1 if trips is None else trips) * max(1, steps(body[1]) if body else 0)

    return steps(entry), tuple(unknown)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """The lines of every computation by its name, and the name of the first one to run."""
    computations: dict[str, list[str]] = {}
    name = entry = ""
    for line in text.splitlines():
        if header := re.match(r"^(ENTRY )?%?([\w.\-]+) .*\{$", line):
            name = header[2]
            entry = name if header[1] else entry
            computations[name] = []
        elif name:
            computations[name].append(line)
    return computations, entry


def _trips(condition: list[str]) -> int | None:
    """The constant that a loop's counter is compared with; None where the loop has another end."""
    root = next(line for line in condition if "ROOT" in line)
    if found := re.search(r"compare\(%?[\w.\-]+, %?([\w.\-]+)\), direction=LT", root):
        for line in condition:
            if constant := re.match(rf"\s*%?{re.escape(found[1])} = .*constant\((\d+)\)", line):
                return int(constant[1])
    return None


def compile_for(program: Program, devices: list[Any]) -> dict[str, Any]:
    """Compiles a program spread over some chips, and returns what it is."""
    mesh = Mesh(np.array(devices), ("rows",))

    def placed(tree: Any, *axes: str) -> Any:
        sharding = NamedSharding(mesh, PartitionSpec(*axes))
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)

    start = time.perf_counter()
    lowered = jax.jit(program.function).lower(*placed(program.rows, "rows"), *placed(program.shared))
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    costs, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()
    assert memory is not None
    steps, open_ended = sequential_steps(compiled.as_text() or "")
    sizes = (memory.argument_size_in_bytes, memory.output_size_in_bytes, memory.temp_size_in_bytes)
    return {
        "compile_s": round(seconds, 1),
        "flops": costs.get("flops", 0.0),
        "bytes": costs.get("bytes accessed", 0.0),
        "argument_gib": sizes[0] / _GIB,
        "output_gib": sizes[1] / _GIB,
        "temporary_gib": sizes[2] / _GIB,
        "memory_gib": (sum(sizes) - memory.alias_size_in_bytes) / _GIB,
        "sequential_steps": steps,
        "open_ended_loops": open_ended,
    }


def chips(topology: str) -> list[Any]:
    """Returns the devices of a topology.

    Raises:
        ValueError: There is no TPU compiler, or it knows no such topology.
    """
    jax.config.update("jax_platforms", "cpu")  # whatever is not compiled for chips runs here
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except Exception as error:  # the plugin raises what it likes
        lines = str(error).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise ValueError(
            f"topology: expected one that libtpu compiles for, such as v5e:2x2, got {topology} ({reason}); the extra "
            "tpu-compile has libtpu"
        ) from error


def main(settings: Settings) -> int:
    """Compiles, prints a line for each program, and returns the exit code."""
    console = Console(soft_wrap=True)
    chosen = {name: build for name, build in programs().items() if _is_chosen(name, settings.only)}
    if settings.list or not chosen:
        console.print("\n".join(programs()))
        return 0 if settings.list else 2
    devices = chips(settings.topology)
    rows: dict[str, Any] = {}
    if settings.output is not None and settings.output.is_file():
        rows = json.loads(settings.output.read_text(encoding="utf-8"))["programs"]
    for name, build in chosen.items():
        for count in settings.chips:
            place = f"{name} on {count} of {settings.topology}"
            if place not in rows or "error" in rows[place]:
                rows[place] = _row(build, devices[:count])
                _write(settings, rows)
            console.print(f"{place}: {_line(rows[place])}", markup=False)
    failed = [place for place, row in rows.items() if "error" in row or row["memory_gib"] > LIMIT_GIB]
    for place in failed:
        console.print(f"does not compile, or not fit {LIMIT_GIB:g} GiB: {place}", markup=False)
    return 1 if failed else 0


def _is_chosen(name: str, words: tuple[str, ...]) -> bool:
    return not words or any(word in name for word in words)


def _row(build: Callable[[], Program], devices: list[Any]) -> dict[str, Any]:
    try:
        return compile_for(build(), devices)
    except jax.errors.JaxRuntimeError as error:
        return {"error": str(error).strip().splitlines()[0][:500]}


def _line(row: dict[str, Any]) -> str:
    if "error" in row:
        return row["error"]
    open_ended = f" and {len(row['open_ended_loops'])} open-ended" if row["open_ended_loops"] else ""
    return (
        f"{row['compile_s']:.0f} s, {row['flops']:.3g} flops, {row['bytes']:.3g} bytes, {row['memory_gib']:.2f} GiB, "
        f"{row['sequential_steps']:,} steps{open_ended}"
    )


def _write(settings: Settings, rows: dict[str, Any]) -> None:
    if settings.output is not None:
        content = {"topology": settings.topology, "limit_gib": LIMIT_GIB, "versions": versions(), "programs": rows}
        write_text(settings.output, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    try:
        sys.exit(main(tyro.cli(Settings)))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
