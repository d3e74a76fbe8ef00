"""Both paradigms against what is published of E2E-Perf: single networks and distributions."""

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kendalltau

from hadas_jax.spaces.darts import sample_codes
from hw_models.accelerator import (
    generic_table_throughputs,
    pipeline_table,
    pipeline_table_throughputs,
    published_generic_table,
)

COUNT = 200_000


@pytest.fixture(scope="module")
def excerpt() -> tuple[jax.Array, np.ndarray, np.ndarray]:
    """Codes of 80 networks and their throughput by the published predictors, generic and pipeline."""
    lines = Path(__file__).with_name("e2e_perf_excerpt.csv").read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    codes = jnp.asarray([[int(digit) for digit in row["code"]] for row in rows], jnp.int8)
    return codes, *(np.array([float(row[name]) for row in rows]) for name in ("generic", "pipeline"))


@pytest.fixture(scope="module")
def random_codes() -> jax.Array:
    """Networks drawn as those of the published data sets: no dil_conv_5x5, operations of a node differ."""
    draw = jax.jit(sample_codes, static_argnums=1, static_argnames=("operations", "different"))
    return draw(jax.random.key(0), COUNT, operations=(1, 2, 3, 4, 5, 6), different=True)


@pytest.fixture(scope="module")
def pipeline(network, ku115):
    table = pipeline_table(network, ku115)
    price = jax.jit(pipeline_table_throughputs)
    return lambda codes: np.asarray(price(table, codes), float)


def test_the_generic_table_orders_networks_as_the_published_predictor_does(excerpt):
    codes, published, _ = excerpt
    found = np.asarray(generic_table_throughputs(published_generic_table(), codes))
    assert kendalltau(found, published).statistic > 0.87


def test_the_pipeline_orders_networks_as_the_published_predictor_does(excerpt, pipeline):
    codes, _, published = excerpt
    found = pipeline(codes)
    assert kendalltau(found, published).statistic > 0.76
    assert found.mean() == pytest.approx(published.mean(), rel=0.1)


def test_random_networks_on_the_generic_engine_have_the_published_mean_and_spread(random_codes):
    found = np.asarray(generic_table_throughputs(published_generic_table(), random_codes), float)
    assert found.mean() == pytest.approx(799.0, rel=0.005)
    assert found.std() == pytest.approx(147.9, rel=0.01)
    # 442 to 1867 is published; the ends of other draws are as far from these.
    assert 400 < found.min() < 470
    assert 1700 < found.max() < 2000


def test_without_its_stem_the_published_table_alone_has_the_published_mean_and_spread(random_codes):
    found = np.asarray(generic_table_throughputs(published_generic_table(run_saves_cycles=3080), random_codes), float)
    assert found.mean() == pytest.approx(799.0, rel=0.005)
    assert found.std() == pytest.approx(147.9, rel=0.01)


def test_random_networks_in_a_pipeline_have_the_published_mean_and_spread(random_codes, pipeline):
    found = pipeline(random_codes)
    assert found.mean() == pytest.approx(10_687, rel=0.01)
    assert found.std() == pytest.approx(2_756, rel=0.02)
    # 5,086 to 36,621 is published.
    assert 4_000 < found.min() < 5_100
    assert 30_000 < found.max() < 37_000
