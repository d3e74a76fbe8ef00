"""What a training step sends between devices beside what it computes, over 1, 2, 4 and 8 devices, by its compiled code.

Nothing is run: the step of the sandwich rule is compiled for simulated devices, and the collective operations of its
code are counted with their bytes, those in a loop as often as it turns. As compiled code does not tell which blocks a
sub-network skips, every sub-network counts as the largest, in what is sent as in what is computed.

Command:   python experiments/scaling_of_training.py -o experiments/scaling_of_training.json
Hardware:  any
Time:      a quarter of an hour on two cores
"""

import contextlib
import json
import math
import re
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from rich.console import Console
from rich.table import Table

from hadas_jax.runs.workdir import versions, write_text
from hadas_jax.settings import TrainingSettings
from hadas_jax.spaces import MBConvSpace, load_space
from hadas_jax.supernet import initialise
from hadas_jax.training import batch_mesh, init_state, sandwich_step, sgd
from hadas_jax.training.batches import replicated, spread
from hadas_jax.training.supernet import multiply_accumulates

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_SHAPE = re.compile(r"\b(pred|[a-z]+(\d+))\[([\d,]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLED = re.compile(r"(?:body|to_apply|calls)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|true_computation=%?([\w.\-]+), false_computation=%?([\w.\-]+)")


@dataclass(frozen=True)
class Scaling:
    """Communication of a training step beside its computation."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE.json")] = None
    """Results file."""
    spaces: tuple[str, ...] = ("small-images", "attentivenas-native")
    """Spaces of the supernets."""
    resolution: int = 32
    """Height and width of the images, in pixels."""
    batch: int = 256
    """Images of a step, over all devices."""
    devices: tuple[Literal[1, 2, 4, 8], ...] = (1, 2, 4, 8)
    """Numbers of devices."""
    formulas: Literal["accelerator", "cpu"] = "accelerator"
    """What is partitioned: the formulas of accelerators, or those of CPUs."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What networks compute in."""
    sampled: int = 2
    """Random sub-networks besides the largest and the smallest."""


def collectives(text: str) -> tuple[Counter[str], Counter[str]]:
    """Returns how often each collective operation runs in compiled code, and the bytes that all of its runs take.

    Args:
        text: Optimised HLO. Loops count as often as they turn, of branches the one that sends most.
    """
    lines: dict[str, list[str]] = {}
    entry = name = ""
    for line in text.splitlines():
        if (found := _COMPUTATION.match(line)) is not None:
            name = found[2]
            entry = name if found[1] else entry
            lines[name] = []
        elif name:
            lines[name].append(line)
    known: dict[str, tuple[Counter[str], Counter[str]]] = {}

    def of(computation: str) -> tuple[Counter[str], Counter[str]]:
        if computation not in known:
            counts: Counter[str] = Counter()
            sizes: Counter[str] = Counter()
            for line in lines.get(computation, ()):
                for times, (inner, inner_sizes) in called(line):
                    counts.update({kind: times * value for kind, value in inner.items()})
                    sizes.update({kind: times * value for kind, value in inner_sizes.items()})
            known[computation] = counts, sizes
        return known[computation]

    def called(line: str) -> list[tuple[int, tuple[Counter[str], Counter[str]]]]:
        for kind in KINDS:
            if re.search(rf" {kind}(?:-start)?\(", line):
                shapes = line.partition(f" {kind}")[0].partition(" = ")[2]
                return [(1, (Counter({kind: 1}), Counter({kind: _bytes(shapes)})))]
        if (branches := _BRANCHES.search(line)) is not None:
            names = [each.strip(" %") for each in (branches[1] or f"{branches[2]},{branches[3]}").split(",")]
            return [(1, max((of(each) for each in names), key=lambda found: sum(found[1].values())))]
        trips = _TRIPS.search(line)
        return [(int(trips[1]) if trips else 1, of(each)) for each in _CALLED.findall(line)]

    return of(entry)


def _bytes(shapes: str) -> int:
    """Returns the bytes of a shape such as f32[8,3], or of a tuple of shapes."""
    total = 0
    for kind, bits, sizes in _SHAPE.findall(shapes):
        width = 1 if kind == "pred" else int(bits) // 8
        total += width * math.prod(int(size) for size in sizes.split(",") if size)
    return total


def _formulas(kind: str) -> contextlib.AbstractContextManager[Any]:
    """Has code that is lowered for a CPU take the formulas of other platforms, where these are asked for."""
    if kind != "accelerator":
        return contextlib.nullcontext()
    return mock.patch.object(jax.lax, "platform_dependent", lambda *args, default, **_: default(*args))


def step_of(space: MBConvSpace, how: Scaling, devices: int) -> dict[str, Any]:
    """Compiles the step for so many devices and returns what it sends and computes."""
    optimiser = sgd(optax.constant_schedule(0.1), weight_decay=1e-5, clip=optax.clip(1.0))
    mesh = batch_mesh(jax.devices()[:devices])
    step = spread(
        sandwich_step(space, optimiser, settings=TrainingSettings(sampled=how.sampled, dtype=how.dtype)), mesh
    )

    def fresh() -> Any:
        return init_state(initialise(space, jax.random.key(0)).backbone, optimiser)

    on_all = replicated(mesh)
    place = partial(jax.tree.map, lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=on_all))
    size = (how.batch, how.resolution, how.resolution, space.in_channels)
    batch = (jax.ShapeDtypeStruct(size, jnp.float32), jax.ShapeDtypeStruct(size[:1], jnp.int32))
    key = jax.eval_shape(lambda: jax.random.key(0))
    options = {"xla_backend_optimization_level": 0}
    with _formulas(how.formulas):
        lowered = jax.jit(step, compiler_options=options).lower(place(jax.eval_shape(fresh)), key, place(batch))
    compiled = lowered.compile()
    memory = compiled.memory_analysis()
    counts, sizes = collectives(compiled.as_text() or "")
    weights = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(fresh).weights))
    networks = how.sampled + 2
    macs = float(multiply_accumulates(space, space.largest()))
    return {
        "devices": devices,
        "collectives": dict(counts),
        "bytes": dict(sizes),
        # A device of a ring sends and receives 2 (n - 1) / n times what is reduced.
        "sent_bytes_per_device": 2 * (devices - 1) / devices * sum(sizes.values()),
        "flops_per_device": 6 * macs * networks * how.batch / devices,
        "weight_bytes": 4 * weights,
        "temporary_bytes_per_device": memory and memory.temp_size_in_bytes,
    }


def main(how: Scaling) -> None:
    """Compiles, prints a table and writes the results."""
    chex.set_n_cpu_devices(max(how.devices))
    results: dict[str, list[dict[str, Any]]] = {}
    headings = ("devices", "collectives", "MB reduced", "MB sent by a device", "GFLOP of a device", "FLOP for a byte")
    table = Table("space", *headings)
    for name in how.spaces:
        space = load_space(name).adapt(in_channels=3, classes=100, image_size=how.resolution)
        results[name] = []
        for devices in how.devices:
            found = step_of(space, how, devices)
            results[name].append(found)
            Console(stderr=True).print(name, found)
            sent, flops = found["sent_bytes_per_device"], found["flops_per_device"]
            row = (devices, sum(found["collectives"].values()), sum(found["bytes"].values()) / 1e6, sent / 1e6)
            intensity = flops / sent if sent else np.inf
            table.add_row(name, *(f"{value:,.4g}" for value in (*row, flops / 1e9, intensity)))
    Console().print(table)
    if how.output:
        settings = {**asdict(how), "output": None}
        content = {"settings": settings, "versions": versions(), "results": results}
        write_text(how.output, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Scaling))
