"""Strict JAX, repeatable hypothesis, and a small space with a drawn supernet that several suites share."""

import dataclasses
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import XLA_FLAGS
from tiny_search import SETTINGS, listed

from hadas_jax.commands.hadas import search
from hadas_jax.data import LabelledImages
from hadas_jax.methods import Result
from hadas_jax.spaces import MBConvSpace, Stage
from hadas_jax.supernet import BatchStats, Parameters, estimate_batch_stats, initialise

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_compilation_cache_dir", str(Path(__file__).parents[1] / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

hypothesis.settings.register_profile("repeatable", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Lets a cache entry that another process is still writing be compiled anew instead of failing a test."""
    for direction in ("reading", "writing"):
        config.addinivalue_line("filterwarnings", f"ignore:Error {direction} persistent compilation cache entry")
    _compile_quickly()


def _compile_quickly() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", f"{XLA_FLAGS} {os.environ.get('XLA_FLAGS', '')}")
        jax.block_until_ready(jax.jit(jnp.square)(1.0))  # the first compilation reads the flags


@pytest.fixture(scope="module", autouse=True)
def _compiled_code_of_one_module():
    """Frees what a module compiled: kept for all modules, it takes gigabytes. What is needed again is in the cache."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def listed_space():
    """Lists the tiny space of `tiny_search` for a module."""
    with listed():
        yield


@pytest.fixture(scope="session")
def small_space() -> MBConvSpace:
    """Two stages on maps of 5x5, 3x3 and 2x2 pixels, with every kind of block; quick to compile."""
    return MBConvSpace(
        name="small",
        resolution=(9,),
        stem_width=(8, 16),
        stem_stride=2,
        stages=(
            Stage((8, 16), (1, 2), (3, 5), (2, 3), stride=2),
            Stage((16, 24), (1, 2, 3), (3, 5), (2, 4), stride=2, se=True),
        ),
        last_width=(16, 24),
        head_expand=2,
        first_exit=1,
        exit_width=8,
        in_channels=1,
        classes=3,
    )


@pytest.fixture(scope="session")
def tiny_space(small_space) -> MBConvSpace:
    """One stage, for what compiles gradients of several backbones at once."""
    stage = Stage((8, 16), (1, 2, 3), (3, 5), (2, 3), stride=2, se=True)
    return dataclasses.replace(small_space, name="tiny", stages=(stage,))


def draw_network(space: MBConvSpace, seed: int) -> tuple[Parameters, BatchStats]:
    """Weights, batch-norm parameters and statistics that are all random, drawn without compiling anything."""
    rng = np.random.default_rng(seed)
    size = max(space.resolution)
    images = jax.ShapeDtypeStruct((1, 2, size, size, space.in_channels), jnp.float32)
    params = jax.eval_shape(lambda: initialise(space, jax.random.key(0)))
    stats = jax.eval_shape(lambda p, i: estimate_batch_stats(space, p, space.largest(), i), params, images)

    def draw(path, leaf) -> jax.Array:
        names = [entry.key for entry in path if hasattr(entry, "key")]
        if names[-1] in ("scale", "var"):
            values = rng.uniform(0.5, 1.5, leaf.shape)
        elif names[-1] in ("bias", "mean"):
            values = rng.normal(0, 0.3, leaf.shape)
        else:
            taps = 9 if names[-1] == "conv" or "stem" in names else 25
            fan_in = taps if "depthwise" in names else leaf.shape[-2] * (taps if taps == 9 else 1)
            values = rng.normal(0, fan_in**-0.5, leaf.shape)
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, (params, stats))


@pytest.fixture(scope="session")
def draw():
    """The function above: space, seed -> parameters, statistics."""
    return draw_network


@pytest.fixture(scope="session")
def small_network(small_space):
    """Parameters and statistics of the small space."""
    return draw_network(small_space, 0)


@pytest.fixture(scope="session")
def fresh(tiny_space) -> Parameters:
    """Initial parameters of the tiny space."""
    return jax.jit(initialise, static_argnums=0)(tiny_space, jax.random.key(0))


@pytest.fixture(scope="session")
def spots() -> LabelledImages:
    """90 noisy images of 9x9 pixels in three classes, by the row of a bright bar."""
    rng = np.random.default_rng(3)
    labels = np.arange(90) % 3
    images = rng.normal(0, 0.3, (90, 9, 9, 1))
    for image, label in zip(images, labels, strict=True):
        image[3 * label : 3 * label + 2] += 2.0
    return LabelledImages(images=jnp.asarray(images, jnp.float32), labels=jnp.asarray(labels, jnp.int32))


@pytest.fixture(scope="session")
def finished_search(tmp_path_factory) -> tuple[Path, Result]:
    """The work directory of a whole search of `tiny_search`, which tests leave as it is, and what it found."""
    workdir = tmp_path_factory.mktemp("run") / "finished"
    with listed():
        return workdir, search(SETTINGS, workdir=workdir)
