"""Seconds of a supernet's training step beside a PyTorch supernet's step of the same networks.

Both train the largest network, the smallest and two random ones, the same ones, on a batch in memory. Kinds alternate
in fresh processes, and medians count.

Command:   pip install 'hadas-jax[torch]'
           python experiments/benchmark_training.py -o experiments/benchmark_training.json
Hardware:  any
Time:      half an hour on two cores
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

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
from hadas_jax.training import init_state, sandwich_backbones, sandwich_step, sgd

CLASSES, SAMPLED, KEY_SEED = 100, 2, 0
OURS = {
    "ours": {},
    "ours, remat": {"remat": True},
    "ours, remat and cut": {"remat": True, "cut": True},
}


@dataclass(frozen=True)
class Benchmark:
    """Seconds of a supernet's training step."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE.json")] = None
    """Results file."""
    spaces: tuple[str, ...] = ("small-images", "attentivenas-native")
    """Spaces of the supernets."""
    batches: tuple[int, ...] = (64, 128)
    """Images of a step."""
    resolution: int = 32
    """Height and width of the images, in pixels."""
    kinds: tuple[str, ...] = (*OURS, "PyTorch", "PyTorch, channels last")
    """What to measure: ours, with remat, with remat and cut; PyTorch in either memory format."""
    rounds: int = 3
    """Fresh processes of each kind, in turn; medians count."""
    steps: int = 5
    """Steps of a process after its first two; the median counts."""


def space_of(name: str, how: Benchmark) -> MBConvSpace:
    """Returns a space for the images."""
    return load_space(name).adapt(in_channels=3, classes=CLASSES, image_size=how.resolution)


def draw_batch(batch: int, how: Benchmark) -> tuple[np.ndarray, np.ndarray]:
    """Returns images float32[B, H, W, 3] and labels int32[B]."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, how.resolution, how.resolution, 3)).astype(np.float32)
    return images, rng.integers(0, CLASSES, batch).astype(np.int32)


def our_step(space: MBConvSpace, batch: tuple[np.ndarray, np.ndarray], **settings: Any) -> Callable[[], Any]:
    """Returns a step of ours."""
    optimiser = sgd(optax.constant_schedule(0.01), weight_decay=1e-5, clip=optax.clip(1.0))
    step = jax.jit(
        sandwich_step(space, optimiser, settings=TrainingSettings(sampled=SAMPLED, **settings)), donate_argnums=0
    )
    params = jax.jit(initialise, static_argnums=0)(space, jax.random.key(1))
    state, data = init_state(params.backbone, optimiser), jax.tree.map(jnp.asarray, batch)

    def run() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(step(state, jax.random.key(KEY_SEED), data))

    return run


def peer_step(space: MBConvSpace, batch: tuple[np.ndarray, np.ndarray], *, channels_last: bool) -> Callable[[], Any]:
    """Returns a step of PyTorch's on the same networks."""
    import torch
    from pytorch_supernet import Supernet
    from pytorch_supernet import sandwich_step as peer

    stacked = sandwich_backbones(space, jax.random.split(jax.random.key(KEY_SEED))[0], SAMPLED)
    backbones = [jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), stacked) for i in range(SAMPLED + 2)]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    form = torch.channels_last if channels_last else torch.contiguous_format
    supernet = Supernet(space)
    for parameter in supernet.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=form)
    optimiser = torch.optim.SGD(supernet.parameters(), 0.01, momentum=0.9, nesterov=True, weight_decay=1e-5)
    images = torch.from_numpy(batch[0]).permute(0, 3, 1, 2).contiguous(memory_format=form)
    data = images, torch.from_numpy(batch[1]).long()
    return lambda: peer(supernet, optimiser, data, backbones)


def measure(how: Benchmark, space_name: str, batch: int, kind: str) -> dict[str, float]:
    """Measures in this process."""
    space, data = space_of(space_name, how), draw_batch(batch, how)
    if kind in OURS:
        run = our_step(space, data, **OURS[kind])
    else:
        run = peer_step(space, data, channels_last=kind.endswith("last"))
    first, _ = _timed(run), _timed(run)
    seconds = [_timed(run) for _ in range(how.steps)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {"step_s": statistics.median(seconds), "first_call_s": first, "peak_gb": peak}


def _timed(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure_apart(how: Benchmark, space: str, batch: int, kind: str, cache: str) -> dict[str, float]:
    """Measures in a fresh process, which keeps compiled code in `cache`."""
    call = json.dumps([{**asdict(how), "output": None}, space, batch, kind])
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
    found = subprocess.run(
        [sys.executable, __file__, call], env=environment, check=True, capture_output=True, encoding="utf-8"
    )
    return json.loads(found.stdout.splitlines()[-1])


def main(how: Benchmark) -> None:
    """Measures, prints a table and writes the results."""
    results: dict[str, Any] = {}
    table = Table("space", "batch", "what", "s per step", "peak GB", "first call s")
    with tempfile.TemporaryDirectory() as cache:
        for space in how.spaces:
            for batch in how.batches:
                found: dict[str, list[dict[str, float]]] = {kind: [] for kind in how.kinds}
                for _ in range(how.rounds):
                    for kind in how.kinds:
                        found[kind].append(measure_apart(how, space, batch, kind, cache))
                for kind, each in found.items():
                    medians = {name: statistics.median(one[name] for one in each) for name in each[0]}
                    results[f"{space}, batch {batch}, {kind}"] = medians
                    row = (medians[name] for name in ("step_s", "peak_gb", "first_call_s"))
                    table.add_row(space, str(batch), kind, *(f"{value:.2f}" for value in row))
    Console().print(table)
    if how.output:
        settings = {**asdict(how), "output": None}
        write_text(how.output, json.dumps({"settings": settings, "versions": versions(), "results": results}, indent=1))


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("["):
        given, *case = json.loads(sys.argv[1])
        print(json.dumps(measure(Benchmark(**given), *case)))
    else:
        main(tyro.cli(Benchmark))
