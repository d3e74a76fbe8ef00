"""The flat engine: candidates of backbone, exits and clocks in one genome."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.commands.hadas import search
from hadas_jax.evaluation import pack_bits, segment_costs
from hadas_jax.methods import Run
from hadas_jax.methods.hadas.flat import FlatHadas
from hadas_jax.methods.hadas.fronts import exact_front
from hadas_jax.search import hypervolume
from hadas_jax.settings import Constraints, NestedSearchSettings
from hadas_jax.spaces import available_exits
from hw_models import load_device, with_clocks

SAMPLES, POPULATION, CANDIDATES, GENERATIONS = 50, 4, 64, 3
SETTINGS = NestedSearchSettings(engine="flat", population=POPULATION, generations=GENERATIONS, candidates=CANDIDATES)


@pytest.fixture(scope="module")
def device():
    full = load_device("agx-xavier-gpu")
    core_hz, host_hz = ([float(hz) for hz in table] for table in (full.core_hz[::4], full.host_hz[::14]))
    return with_clocks(full, core_hz=core_hz, memory_hz=[float(full.memory_hz[-1])], host_hz=host_hz)


@pytest.fixture(scope="module")
def make(small_space, device):
    def make(seen=None, **settings):
        constraints = settings.pop("constraints", Constraints())

        def evaluate(genomes):
            if seen is not None:
                seen.extend(map(tuple, genomes.tolist()))
            difficulty = np.random.default_rng(0).random((small_space.num_exits + 1, SAMPLES)) * 0.4
            difficulty += np.linspace(0, 1, SAMPLES)[None]
            depth = np.linspace(0.4, 0.9, small_space.num_exits + 1)
            size = 0.3 * (genomes / (small_space.codec.cardinalities - 1)).mean(axis=1)
            return np.asarray(pack_bits(jnp.asarray(difficulty[None] < (depth[None] + size[:, None])[..., None])))

        chosen = dataclasses.replace(SETTINGS, **settings)
        return FlatHadas(small_space, device, evaluate, SAMPLES, settings=chosen, elites=2, constraints=constraints)

    return make


def run(engine, generations=GENERATIONS, state=None, done=0):
    state, metrics = state or engine.init(jax.random.key(0)), []
    for number in range(done, generations):
        state, found = engine.generation(state, jax.random.fold_in(jax.random.key(1), number))
        metrics.append({name: float(value[0]) for name, value in found.items()})
    return state, metrics


@pytest.fixture(scope="module")
def whole(make):
    seen = []
    engine = make(seen)
    return engine, seen, *run(engine)


def test_no_backbone_is_evaluated_twice_and_no_more_than_the_nested_engine_takes(whole):
    _, seen, state, metrics = whole
    assert len(set(seen)) == len(seen) == POPULATION * GENERATIONS
    assert [each["evaluated"] for each in metrics] == [POPULATION, 2 * POPULATION, 3 * POPULATION]
    assert [tuple(genome) for genome in state.archive.genomes.tolist()] == seen
    assert metrics[-1]["candidates"] == state.archive.versions.sum() == GENERATIONS * 16 * CANDIDATES
    assert all(0 < each["examined"] <= 2 * (number + 1) for number, each in enumerate(metrics))


def test_survivors_cost_what_exact_search_says_and_the_front_nears_the_exact_one(whole, small_space, device):
    engine, _, state, metrics = whole
    archive, outer = state.archive, state.outer
    G, E = archive.genomes.shape[1], small_space.num_exits
    costs_of = jax.jit(lambda genome: segment_costs(small_space, small_space.decode(genome), device))
    exact = [
        exact_front(small_space, jnp.asarray(genome), jnp.asarray(correct), costs_of(genome), samples=SAMPLES)
        for genome, correct in zip(archive.genomes, archive.correct, strict=True)
    ]
    reached = np.concatenate([front.objectives for front in exact])
    for genome, fitness in zip(outer.population, outer.fitness, strict=True):
        assert tuple(genome[:G]) in set(map(tuple, archive.genomes.tolist()))
        available = np.asarray(available_exits(small_space, small_space.decode(jnp.asarray(genome[:G]))))
        assert (genome[G : G + E] <= available).all()
        assert (reached <= fitness * (1 + 1e-5)).all(axis=1).any()
    found, best = (
        float(hypervolume(jnp.asarray(each), jnp.asarray(engine.reference))) for each in (outer.fitness, reached)
    )
    assert 0.9 * best < found <= best * (1 + 1e-5)
    assert metrics[0]["hypervolume"] <= metrics[-1]["hypervolume"] <= 1


def test_a_search_that_goes_on_from_a_state_is_the_same(whole, make):
    _, _, expected, _ = whole
    half, _ = run(make(), 1)
    found, _ = run(make(), state=half, done=1)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.slow
def test_limits_are_kept_where_they_can_be(whole, make):
    _, _, free, _ = whole
    limit = float(np.median(free.outer.fitness[:, 1]))
    found, _ = run(make(constraints=Constraints(max_latency_ms=1e3 * limit, max_p99_latency_ms=2e3 * limit)), 2)
    best = found.outer.violation == 0
    assert best.any()
    assert (found.outer.fitness[best, 1] <= limit * (1 + 1e-6)).all()


@pytest.mark.slow
def test_strategies_that_learn_only_from_what_they_asked_for_can_be_used(make):
    engine = make(strategy="DifferentialEvolution")
    _, metrics = run(engine, 2)
    assert metrics[1]["evaluated"] <= 2 * POPULATION
    assert metrics[0]["hypervolume"] <= metrics[1]["hypervolume"]


@pytest.mark.slow
@pytest.mark.usefixtures("listed_space")
def test_a_whole_run_leaves_the_same_files_and_resumes_to_the_same_front(finished, settings, tmp_path):
    workdir, _ = finished
    flat = settings.replace(checkpoint=str(workdir / "supernet"), engine="flat", candidates=32)
    search(flat, workdir=tmp_path / "flat")
    names = {path.name for path in (tmp_path / "flat").iterdir()}
    assert names == {path.name for path in workdir.iterdir()} - {"supernet"}
    entries = [json.loads(line) for line in (tmp_path / "flat" / "metrics.jsonl").read_text().splitlines()]
    assert [entry["evaluated"] for entry in entries if entry["stage"] == "search"] == [4, 8]
    front = (tmp_path / "flat" / "front.csv").read_bytes()
    shutil.rmtree(tmp_path / "flat" / "checkpoints" / "search" / "2")
    search(workdir=tmp_path / "flat", resume=True)
    assert (tmp_path / "flat" / "front.csv").read_bytes() == front


@pytest.mark.usefixtures("listed_space")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"candidates": 3}, "candidates: expected at least `population` 4, got 3"),
        ({"surrogate": True}, "surrogate: expected the engine nested, whose backbones it chooses, got flat"),
        ({"candidates": 13, "strategy": "CMA_ES"}, "strategy CMA_ES, `candidates` 13: population_size: expected W x p"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, given, message):
    with pytest.raises(ValueError, match=message):
        Run(settings.replace(engine="flat", **given))
