"""All that is to be measured when a GPU is at hand, in eight minutes, into one JSON file.

Command:   pip install '.[cuda13,torch,test]' evox
           python experiments/on_a_gpu.py -o on_a_gpu.json
Hardware:  one NVIDIA GPU and its host; `--small` runs all of it in small anywhere, to see that it does
Time:      at most 8 minutes: each part has a limit, and one that reaches it is cut off and says so
Expected:  NSGA-II 100 times as fast as pymoo at 65,536 and ahead of EvoX; docs/gpu.md has what was measured

Parts: NSGA-II at 1,024 to 65,536 beside EvoX on the same GPU and pymoo on its host; the parts of a search; the
evaluator beside PyTorch, with large batches too; a training step over batch sizes; and tests, which hold the ways that
accelerators compute to those of CPUs.
"""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax
import tyro
from rich.console import Console

from hadas_jax.runs.workdir import versions, write_text
from hadas_jax.settings import TrainingSettings
from hadas_jax.spaces import load_space
from hadas_jax.supernet import initialise
from hadas_jax.training import init_state, sandwich_step, sgd

HERE = Path(__file__).parent
TESTS = ("test_sorted_ranks.py", "test_nsga2.py", "test_run.py", "test_product_front.py")


@dataclass(frozen=True)
class Settings:
    """Measures what a GPU changes."""

    output: Annotated[Path, tyro.conf.arg(aliases=["-o"], metavar="FILE.json")]
    """Results file."""
    small: bool = False
    """Small sizes, for a machine without a GPU."""
    training: bool = False
    """The part that measures a training step alone, which the others start."""


def parts(folder: Path, *, small: bool) -> dict[str, tuple[int, list[str]]]:
    """Returns the limit in seconds and the command of each part, which writes FOLDER/<part>.json."""
    python = sys.executable
    sizes = ["64"] if small else ["1024", "8192", "65536"]

    def script(name: str, *arguments: str) -> list[str]:
        return [python, str(HERE / name), *arguments]

    def out(part: str) -> list[str]:
        return ["-o", str(folder / f"{part}.json")]

    nsga2 = ["--populations", *sizes, "--objectives", "3", "--rounds", "2", "--steps", "1", "--unique-limit", "0"]
    nsga2 += ["--pairs-limit", "65536", "--libraries", "ours", "pymoo", "evox"]
    bench = ["--populations", *(["64"] if small else ["4096", "65536"]), "--rounds", "3", "--peer-limit", "0"]
    batches = ["16"] if small else ["2048"]
    evaluator = ["--resolutions", "32", "--batches", *batches, "--rounds", "2", "--no-first-call"]
    tests = [str(HERE.parent / "tests" / "search" / name) for name in (TESTS[:1] if small else TESTS)]
    return {
        "nsga2": (150, script("benchmark_nsga2.py", *out("nsga2"), *nsga2)),
        "search": (60, [python, "-m", "hadas_jax", "bench", *bench, *out("search")]),
        "evaluator": (110, script("benchmark_supernet.py", *out("evaluator"), *evaluator)),
        "training": (70, script("on_a_gpu.py", "--training", *out("training"), *(["--small"] if small else []))),
        "tests": (90, [python, "-m", "pytest", "-n", "0", *tests]),
    }


def training_steps(*, small: bool) -> list[dict[str, float]]:
    """Returns the median milliseconds of a step of `hadas train` on `small-images` at 32 pixels, by batch size."""
    space, optimiser = load_space("small-images").adapt(in_channels=3, classes=10, image_size=32), _optimiser()
    rows = []
    for batch in (8,) if small else (64, 128, 256, 512, 1024):
        step = jax.jit(sandwich_step(space, optimiser, settings=TrainingSettings(batch=batch)), donate_argnums=0)
        state = init_state(initialise(space, jax.random.key(0)).backbone, optimiser)
        data = jax.random.normal(jax.random.key(1), (batch, 32, 32, 3)), jnp.arange(batch, dtype=jnp.int32) % 10
        times = []
        for number in range(3 if small else 12):
            start = time.perf_counter()
            state, metrics = step(state, jax.random.key(number), data)
            jax.block_until_ready(metrics)
            times.append(time.perf_counter() - start)
        rows.append({"batch": batch, "first_s": times[0], "step_ms": 1e3 * statistics.median(times[1:])})
    return rows


def _optimiser() -> Any:
    return sgd(optax.constant_schedule(0.1), weight_decay=1e-5, clip=optax.clip(1.0))


def run_part(name: str, limit: int, command: list[str], folder: Path, *, platforms: str) -> dict[str, Any]:
    """Runs a part within its limit on JAX's platforms, and returns how it ended and what it wrote."""
    environment = {**os.environ, "JAX_PLATFORMS": platforms}
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=limit, env=environment)
        ended, tail = f"exit code {done.returncode}", (done.stdout + done.stderr)[-1500:]
    except subprocess.TimeoutExpired as error:
        ended, tail = f"cut off after {limit} s", _text(error.stdout)[-1500:]
    file = folder / f"{name}.json"
    results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    return {"seconds": time.perf_counter() - start, "ended": ended, "tail": tail, "results": results}


def _text(output: Any) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def verdict(parts: dict[str, Any]) -> list[str]:
    """Says how NSGA-II does beside its goals."""
    rows = ((parts["nsga2"]["results"] or {}).get("rows")) or []
    lines = []
    for row in rows:
        mine = row["seconds"].get("ours")
        others = {name: seconds / mine for name, seconds in row["seconds"].items() if mine and name != "ours"}
        told = ", ".join(f"{ratio:.1f} times {name}" for name, ratio in others.items())
        lines.append(f"NSGA-II, population {row['population']:,}: {1e3 * mine:.1f} ms a generation; {told}")
    return lines


def main(settings: Settings) -> None:
    """Runs all parts, prints a line for each and writes the results."""
    if settings.training:
        write_text(settings.output, json.dumps(training_steps(small=settings.small)) + "\n")
        return
    console, found = Console(soft_wrap=True), {}
    platforms = "cpu" if settings.small else "cuda,cpu"
    with tempfile.TemporaryDirectory() as folder:
        for name, (limit, command) in parts(Path(folder), small=settings.small).items():
            found[name] = run_part(name, limit, command, Path(folder), platforms=platforms)
            console.print(f"{name}: {found[name]['ended']}, {found[name]['seconds']:.0f} s")
            content = {"versions": versions(), "parts": found, "torch": importlib.util.find_spec("torch") is not None}
            write_text(settings.output, json.dumps(content, indent=1) + "\n")
    for line in verdict(found):
        console.print(line)
    # Asked last: a process that holds the GPU leaves the parts no memory.
    content["device"] = [device.device_kind for device in jax.devices()]
    write_text(settings.output, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Settings))
