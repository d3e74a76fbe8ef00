"""How many images per second populations of AttentiveNAS backbones are judged on, beside extracted PyTorch networks.

Command:   pip install 'hadas-jax[torch]'
           python experiments/benchmark_supernet.py -o benchmark_supernet.json
Hardware:  any; the figures below are of 2 virtual cores of an AMD EPYC with AVX-512 (133 G multiply-accumulates per
           second in one large matrix product), jax 0.10.2, PyTorch 2.13, in one run, alternating
Time:      a quarter of an hour
Expected:  backbone-images per second, ours with all exits / ours without / PyTorch's extracted networks without
           exits at its better number of threads: 16 random backbones at 32 pixels 2,553 / 3,289 / 616, the largest
           1,624 / 1,915 / 264; 8 random backbones at 224 pixels 50 / 65 / 28, the largest 24 / 35 / 16. The first
           call of a process takes 19.8 s, 7.4 s where another process has compiled before. On an H100 (jax 0.11.2,
           PyTorch 2.11, `--resolutions 32 --groups 4 --no-first-call`, four minutes, benchmark_supernet_h100.json) 16
           random backbones at 32 pixels 199,866 / 225,918 / 23,054, the largest 137,918 / 194,209 / 17,012; 174,222
           with 4 backbones side by side instead of 16.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from hadas_jax.backend import on_cpu
from hadas_jax.data import LabelledImages
from hadas_jax.evaluation import Evaluator
from hadas_jax.evaluation.evaluator import images_at_once, outcomes_given
from hadas_jax.runs.workdir import versions, write_text
from hadas_jax.settings import EvaluationSettings
from hadas_jax.spaces import ATTENTIVENAS, Backbone, MBConvSpace
from hadas_jax.supernet import BatchStats, Parameters, estimate_batch_stats, initialise, run_trunk
from hadas_jax.training.supernet import multiply_accumulates

CLASSES = 100
CASES = {32: (16, 2048), 224: (8, 64)}  # resolution: backbones, images


@dataclass(frozen=True)
class Benchmark:
    """Images per second of populations of AttentiveNAS backbones."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE.json")] = None
    """Results file."""
    rounds: int = 3
    """Measurements of each, in turn with the peer's; the median counts."""
    groups: tuple[int, ...] = ()
    """Also try these numbers of backbones side by side; by default 1 and 4 on an accelerator."""
    batches: tuple[int, ...] = ()
    """Also try these numbers of images at once."""
    peer: tyro.conf.FlagCreatePairsOff[bool] = True
    """Measure PyTorch's extracted networks, where PyTorch is installed."""
    first_call: bool = True
    """Measure the first call in a process without and with compiled code from before."""
    resolutions: tuple[int, ...] = tuple(CASES)
    """Of 32 and 224 pixels."""


def population(resolution: int, count: int) -> tuple[MBConvSpace, np.ndarray]:
    """Returns the space at a resolution and random genomes int32[count, G], always the same."""
    space = dataclasses.replace(ATTENTIVENAS, resolution=(resolution,), classes=CLASSES)
    drawn = np.random.default_rng(0).integers(0, space.codec.cardinalities, (count, len(space.codec.names)))
    return space, drawn.astype(np.int32)


def images_of(resolution: int, count: int) -> LabelledImages:
    """Returns random images and labels."""
    rng = np.random.default_rng(1)
    images = rng.normal(size=(count, resolution, resolution, 3)).astype(np.float32)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    return LabelledImages(images=jnp.asarray(images), labels=jnp.asarray(labels))


class Ours:
    """A compiled population evaluation, statistics re-estimation aside.

    Args:
      resolution: of the images.
      genomes: int32[P, G].
      data: the images.
      how: batch and group.
      exits: with every exit; otherwise the final classifier alone.
    """

    def __init__(
        self, resolution: int, genomes: np.ndarray, data: LabelledImages, how: EvaluationSettings, *, exits: bool = True
    ) -> None:
        self.space, _ = population(resolution, 1)
        self.data, self.count = data, len(genomes)
        params = initialise(self.space, jax.random.key(0))
        backbones = jax.vmap(self.space.decode)(jnp.asarray(genomes))
        shapes = jax.eval_shape(
            partial(estimate_batch_stats, self.space), params, self.space.largest(), data.images[None, :2]
        )
        stats = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
        batch, group = images_at_once(how, resolution), how.group or (1 if on_cpu() else 16)
        one = partial(self._judge, batch=batch, dtype="float32", exits=exits, skip="all" if group == 1 else "nothing")

        def run(params: Parameters, stats: BatchStats, backbones: Backbone, data: LabelledImages) -> jax.Array:
            judge = partial(one, params, stats, data=data)
            return jax.lax.map(judge, backbones, batch_size=group if group > 1 else None)

        self._arguments = (params, stats, backbones, data)
        self._run = jax.jit(run).lower(*self._arguments).compile()

    def _judge(
        self,
        params: Parameters,
        stats: BatchStats,
        backbone: Backbone,
        *,
        data: LabelledImages,
        batch: int,
        dtype: str,
        exits: bool,
        skip: Any,
    ) -> jax.Array:
        if exits:
            found = outcomes_given(self.space, params, stats, backbone, data=data, batch=batch, dtype=dtype, skip=skip)
            return jnp.sum(found.confidence) + jnp.sum(found.entropy) + jnp.sum(found.correct)

        def logits(start: jax.Array) -> jax.Array:
            images, _ = data.take(start + jnp.arange(batch))
            images = images.astype(jnp.dtype(dtype))
            return run_trunk(self.space, params.backbone, backbone, images, stats=stats.backbone, skip=skip)[1]

        return jnp.sum(jax.lax.map(logits, batch * jnp.arange(data.count // batch)))

    def seconds(self) -> float:
        """Runs once."""
        start = time.perf_counter()
        jax.block_until_ready(self._run(*self._arguments))
        return time.perf_counter() - start

    @property
    def work(self) -> int:
        """Backbone-images of a run."""
        return self.count * self.data.count


class Peer:
    """PyTorch's extracted networks, one after the other; on the GPU where both JAX and PyTorch have one.

    Args:
      resolution: of the images.
      genomes: int32[P, G].
      images: per network.
      batch: images at once.
      threads: of PyTorch.
    """

    def __init__(self, resolution: int, genomes: np.ndarray, *, images: int, batch: int, threads: int) -> None:
        import torch
        from pytorch_network import extracted

        space, _ = population(resolution, 1)
        decoded = [jax.tree.map(np.asarray, space.decode(jnp.asarray(genome))) for genome in genomes]
        self._torch, self._threads = torch, threads
        self._on_gpu = on_gpu()
        where = "cuda" if self._on_gpu else "cpu"
        torch.backends.cuda.matmul.allow_tf32 = True  # as JAX does, and as PyTorch does in convolutions
        self._networks = [extracted(space, backbone).to(where) for backbone in decoded]
        shape = (batch, 3, resolution, resolution)
        self._batches = [torch.randn(shape, device=where) for _ in range(max(images // batch, 1))]
        self.work = len(genomes) * batch * len(self._batches)

    def seconds(self) -> float:
        """Runs once."""
        self._torch.set_num_threads(self._threads)
        start = time.perf_counter()
        with self._torch.inference_mode():
            for network in self._networks:
                for images in self._batches:
                    network(images)
        if self._on_gpu:
            self._torch.cuda.synchronize()
        return time.perf_counter() - start


def rates(contestants: dict[str, Any], rounds: int) -> dict[str, float]:
    """Returns backbone-images per second of each, medians of alternating rounds after one to warm up."""
    for each in contestants.values():
        each.seconds()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, each in contestants.items():
            times[name].append(each.seconds())
    return {name: contestants[name].work / statistics.median(found) for name, found in times.items()}


def matmul_ceiling(dtype: str = "float32", size: int = 2048) -> float:
    """Returns multiply-accumulates per second of one large matrix product, the best of five."""
    a = jnp.ones((size, size), dtype)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    best = min(_timed(lambda: product(a).block_until_ready()) for _ in range(5))
    return size**3 / best


def macs_of(space: MBConvSpace, genomes: np.ndarray) -> float:
    """Returns the mean multiply-accumulates of an image, without exits."""
    count = jax.jit(jax.vmap(lambda genome: multiply_accumulates(space, space.decode(genome))))
    return float(jnp.mean(count(jnp.asarray(genomes))))


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def first_calls() -> dict[str, float]:
    """Returns the seconds of the first call of `Evaluator` in a new process, without and with compiled code on disk."""
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        }
        for name in ("nothing compiled before", "compiled by another process"):
            command = [sys.executable, __file__, "first-call"]
            printed = subprocess.run(command, env=environment, check=True, capture_output=True, encoding="utf-8").stdout
            found[name] = float(printed.split()[-1])
    return found


def first_call() -> None:
    """Prints the seconds of one judgement of 16 backbones on 128 images, compilation included."""
    space, genomes = population(32, 16)
    data = images_of(32, 128)
    params = initialise(space, jax.random.key(0))
    jax.block_until_ready(params)
    calibration = data.images.reshape(2, 64, 32, 32, 3)
    print(_timed(lambda: Evaluator(space, params, calibration)(genomes, data)))


def main(benchmark: Benchmark) -> None:
    """Measures and prints."""
    console = Console()
    found: dict[str, Any] = {"versions": versions(), "device": str(jax.devices()[0].device_kind), "cases": []}
    table = Table(title="Backbone-images per second, batch-norm statistics given")
    for heading in ("resolution", "what", "per second", "share of the matrix product"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    on_cpu = jax.default_backend() == "cpu"
    groups = benchmark.groups or (() if on_cpu else (1, 4))
    ceiling = matmul_ceiling()
    found["matmul_macs_per_second"] = ceiling
    console.print(f"Matrix product: {ceiling / 1e9:.0f} GMAC/s in float32", highlight=False)
    for resolution in benchmark.resolutions:
        count, images = CASES[resolution]
        space, genomes = population(resolution, count)
        data = images_of(resolution, images)
        largest = np.repeat(space.largest_genome[None], 2, axis=0)
        default = EvaluationSettings()
        contestants: dict[str, Any] = {
            "ours, all exits": Ours(resolution, genomes, data, default),
            "ours, classifier alone": Ours(resolution, genomes, data, default, exits=False),
            "ours, largest, all exits": Ours(resolution, largest, data, default),
            "ours, largest, classifier alone": Ours(resolution, largest, data, default, exits=False),
        }
        for group in groups:
            how = EvaluationSettings(group=group)
            contestants[f"ours, all exits, {group} side by side"] = Ours(resolution, genomes, data, how)
        for batch in benchmark.batches:
            how = EvaluationSettings(eval_batch=batch)
            contestants[f"ours, all exits, {batch} images at once"] = Ours(resolution, genomes, data, how)
        if benchmark.peer and _has_torch():
            batch = 256 if resolution <= 64 else 32
            peer_on_gpu = on_gpu()
            few = {"images": images if peer_on_gpu else min(images, 2 * batch), "batch": batch}
            for threads in (1,) if peer_on_gpu else (1, 2):
                where = "GPU" if peer_on_gpu else f"{threads} threads"
                name = f"PyTorch, classifier alone, {where}"
                contestants[name] = Peer(resolution, genomes, threads=threads, **few)
                contestants[name.replace("PyTorch,", "PyTorch, largest,")] = Peer(
                    resolution, largest[:1], threads=threads, **few
                )
        measured = rates(contestants, benchmark.rounds)
        console.print(f"{resolution} pixels: measured", highlight=False)
        shares = {}
        for name, rate in measured.items():
            if "classifier alone" in name:
                shares[name] = rate * macs_of(space, largest if "largest" in name else genomes) / ceiling
            table.add_row(str(resolution), name, f"{rate:,.0f}", f"{shares[name]:.0%}" if name in shares else "")
        table.add_section()
        found["cases"].append(
            {
                "resolution": resolution,
                "backbones": count,
                "images": images,
                "backbone_images_per_second": measured,
                "share_of_matrix_product": shares,
            }
        )
    console.print(table)
    if benchmark.first_call:
        found["first_call_seconds"] = first_calls()
        for name, seconds in found["first_call_seconds"].items():
            console.print(f"First call, {name}: {seconds:.1f} s", highlight=False)
    if benchmark.output is not None:
        write_text(benchmark.output, json.dumps(found, indent=1) + "\n")


def on_gpu() -> bool:
    """Whether JAX and PyTorch both compute on a GPU."""
    import torch

    return jax.default_backend() == "gpu" and torch.cuda.is_available()


def _has_torch() -> bool:
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    if sys.argv[1:] == ["first-call"]:
        first_call()
    else:
        main(tyro.cli(Benchmark))
