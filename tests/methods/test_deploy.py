"""Designs judged against a simulation that walks sample by sample."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.data import LabelledImages, Splits
from hadas_jax.evaluation import Outcomes
from hadas_jax.methods.deploy import Deployment
from hadas_jax.methods.designs import RISK_LEVELS, every_plan, expected, front_of, spread
from hadas_jax.search import sample
from hadas_jax.spaces import available_exits
from hw_models import load_device

SAMPLES = 300


@pytest.fixture(scope="module")
def space(listed_space):
    from hadas_jax.spaces import load_space

    return load_space("tiny").adapt(in_channels=1, classes=10, image_size=8)


@pytest.fixture(scope="module")
def deployment(space):
    """Backbones whose outcomes are drawn: later exits are right more often and surer."""
    genomes = np.asarray(sample(jax.random.key(0), jnp.asarray(space.codec.cardinalities), size=4))
    genomes = np.unique(genomes, axis=0)
    nothing = LabelledImages(images=jnp.zeros((0, 8, 8, 1)), labels=jnp.zeros(0, jnp.int32))
    splits = Splits(nothing, nothing, nothing, nothing, classes=10, mean=0.0, deviation=1.0)
    draws = iter(range(100))

    def evaluate(genomes, data):
        return [_outcomes(space.num_exits, next(draws)) for _ in genomes]

    return Deployment(
        space,
        load_device("agx-xavier-gpu"),
        genomes=genomes,
        splits=splits,
        policy="confidence",
        evaluate=evaluate,
    )


def _outcomes(exits, seed):
    rng = np.random.default_rng(seed)
    difficulty = rng.uniform(size=SAMPLES)
    correct = np.stack([rng.uniform(size=SAMPLES) > difficulty * (0.5 - 0.1 * e) for e in range(exits + 1)])
    confidence = np.clip(correct * 0.3 + rng.uniform(0.2, 0.7, size=correct.shape), 0, 1).astype(np.float32)
    return Outcomes(correct=correct, confidence=confidence, entropy=-confidence, learned=confidence)


def _simulate(correct, confidence, cost, *, subset, thresholds, point, exits):
    """Walks every sample through the network; thresholds None: it stops wherever the exit is right."""
    wrong, latency, energy = 0, 0.0, 0.0
    for n in range(correct.shape[1]):
        run = [0]
        right = correct[-1, n]
        for e in range(exits):
            if e:
                run.append(e)
            if subset >> e & 1:
                run.append(exits + 1 + e)
                if correct[e, n] if thresholds is None else confidence[e, n] >= thresholds[e]:
                    right = correct[e, n]
                    break
        else:
            run.append(exits)
        wrong += not right
        latency += cost.latency_s[run, point].astype(np.float64).sum()
        energy += cost.energy_j[run, point].astype(np.float64).sum()
    samples = correct.shape[1]
    return wrong / samples, latency / samples, energy / samples


def test_expected_costs_are_what_a_walk_through_the_samples_costs(deployment, space):
    exits, subsets = space.num_exits, 2**space.num_exits
    for backbone, judged in enumerate(deployment.selection):
        outcomes, cost = deployment._outcomes[backbone], deployment.costs[backbone]
        available = np.asarray(available_exits(space, space.decode(jnp.asarray(deployment.genomes[backbone]))))
        for subset in range(subsets):
            if any(subset >> e & 1 and not available[e] for e in range(exits)):
                assert np.isinf(judged.ideal.error[subset])
                continue
            for level in (None, 0, len(RISK_LEVELS) - 1):
                thresholds = None if level is None else deployment.thresholds[backbone][level]
                stats = judged.ideal if level is None else judged.deployable
                plan = subset if level is None else level * subsets + subset
                walked = _simulate(
                    outcomes.correct,
                    outcomes.confidence,
                    cost,
                    subset=subset,
                    thresholds=thresholds,
                    point=1000,
                    exits=exits,
                )
                np.testing.assert_allclose(expected(stats, cost, plan, 1000), walked, rtol=2e-6)


def test_fronts_hold_no_dominated_design_and_miss_none(deployment):
    stats = [judged.ideal for judged in deployment.selection]
    costs = [jax.tree.map(lambda c: c[:, ::200], cost) for cost in deployment.costs]
    front = front_of(stats, costs)
    points = costs[0].latency_s.shape[1]
    every = np.concatenate([every_plan(stats, costs, p).objectives for p in range(points)])
    every = every[np.isfinite(every).all(axis=1)]
    kept = front.objectives.astype(np.float64)
    weakly = (every[None] <= kept[:, None] * (1 - 1e-6)).all(axis=2)
    assert not weakly.any(), "a kept design is dominated"
    covered = (kept[None] <= every[:, None] * (1 + 1e-6)).all(axis=2).any(axis=1)
    assert covered.all(), "a design is missing"


def test_levels_take_the_cheapest_network_that_is_good_enough(deployment, space):
    _, levels = deployment.choices(8)
    default = deployment.costs[0].latency_s.shape[1] - 1
    plans = every_plan([judged.deployable for judged in deployment.selection], deployment.costs, default)
    assert [accuracy for accuracy, _ in levels] == sorted((accuracy for accuracy, _ in levels), reverse=True)
    for accuracy, picks in levels:
        enough = plans.objectives[:, 0] <= 1 - accuracy + 1e-6
        choice = picks["deployable exits"]
        judged, cost = deployment.selection[choice.backbone], deployment.costs[choice.backbone]
        plan = choice.level * 2**space.num_exits + choice.subset
        error, _, energy = expected(judged.deployable, cost, plan, choice.point)
        assert error <= 1 - accuracy + 1e-6
        assert energy == pytest.approx(plans.objectives[enough, 2].min(), rel=1e-5)
        assert choice.point == default
        static, clocked = picks["static"], picks["deployable exits_and_clocks"]
        assert static.subset == 0
        clocked_judged, clocked_cost = deployment.selection[clocked.backbone], deployment.costs[clocked.backbone]
        clocked_plan = clocked.level * 2**space.num_exits + clocked.subset
        assert expected(clocked_judged.deployable, clocked_cost, clocked_plan, clocked.point)[2] <= energy * (1 + 1e-6)


def test_measured_designs_name_their_exits_thresholds_and_shares(deployment, space):
    designs, levels = deployment.measure(*deployment.choices(8))
    assert levels
    for design in designs:
        assert len(design.exits) == len(design.thresholds) == len(design.test_shares) - 1
        assert sum(design.test_shares) == pytest.approx(1, abs=1e-6)
        assert min(design.test_shares) >= 0
        blocks = sum(design.backbone["depth"])
        assert all(space.first_exit <= block < blocks for block in design.exits)
        assert design.test["ideal"].error <= design.static_test.error + 1e-9


def test_a_spread_keeps_the_ends_of_the_front_and_its_size():
    rng = np.random.default_rng(0)
    objectives = rng.uniform(0.1, 1, size=(50, 3)).astype(np.float32)
    rows = spread(objectives, 10)
    assert len(rows) == 10
    assert set(np.argmin(objectives, axis=0)) <= set(rows.tolist())
    np.testing.assert_array_equal(spread(objectives[:4], 10), np.arange(4))
