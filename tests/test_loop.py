import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax import loop
from hadas_jax.checkpoints import CheckpointError, Checkpoints
from hadas_jax.loop import DivergenceError, Guard

KEY = jax.random.key(5)
START = {"x": jnp.zeros(4, jnp.float32), "step": jnp.int32(0)}
DATA = jnp.arange(4, dtype=jnp.float32)


def wander(state, key, data):
    """A random walk that depends on every number it is given."""
    x = 0.9 * state["x"] + jax.random.normal(key, (4,)) + data
    return {"x": x, "step": state["step"] + 1}, {"loss": jnp.sum(x), "step": state["step"]}


def run(step, state, *, data, key, chunk, **settings):
    return loop.run(loop.scanned(step, data=data, key=key, chunk=chunk), state, chunk=chunk, **settings)


def diverge_at(step):
    def function(state, key, data):
        state, metrics = wander(state, key, data)
        return state, metrics | {"loss": jnp.where(state["step"] == step, jnp.nan, metrics["loss"])}

    return function


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_run_that_is_interrupted_and_resumed_is_the_undisturbed_one_bit_for_bit(tmp_path):
    whole = run(wander, START, data=DATA, key=KEY, chunks=6, chunk=3)
    run(wander, START, data=DATA, key=KEY, chunks=3, chunk=3, checkpoints=Checkpoints(tmp_path))
    elsewhere = jax.tree.map(jnp.ones_like, START)
    reports = []
    resumed = run(
        wander,
        elsewhere,
        data=DATA,
        key=KEY,
        chunks=6,
        chunk=3,
        checkpoints=Checkpoints(tmp_path),
        report=lambda done, metrics: reports.append((done, metrics["step"].tolist())),
    )
    assert_same(resumed, whole)
    assert int(whole["step"]) == 18
    assert reports == [(12, [9, 10, 11]), (15, [12, 13, 14]), (18, [15, 16, 17])]


def test_chunks_of_any_size_do_the_same_steps():
    assert_same(
        run(wander, START, data=DATA, key=KEY, chunks=2, chunk=6),
        run(wander, START, data=DATA, key=KEY, chunks=12, chunk=1),
    )


def test_a_finished_run_is_not_run_again(tmp_path):
    settings = {"data": DATA, "key": KEY, "chunks": 2, "chunk": 3}
    first = run(wander, START, **settings, checkpoints=Checkpoints(tmp_path))
    reports = []
    again = run(wander, START, **settings, checkpoints=Checkpoints(tmp_path), report=lambda *seen: reports.append(seen))
    assert_same(first, again)
    assert not reports


def test_divergence_names_loop_metric_and_step_and_keeps_the_last_good_checkpoint(tmp_path):
    message = r"^training: loss became nan at step 8; the last good checkpoint is kept"
    with pytest.raises(DivergenceError, match=message) as caught:
        run(
            diverge_at(8),
            START,
            data=DATA,
            key=KEY,
            chunks=4,
            chunk=3,
            name="training",
            checkpoints=Checkpoints(tmp_path),
        )
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)
    kept = Checkpoints(tmp_path)
    assert kept.newest() == 6
    assert_same(kept.restore(6, START), run(wander, START, data=DATA, key=KEY, chunks=2, chunk=3))


def test_a_metric_that_overflows_is_divergence_too():
    def overflow(state, key, data):
        return state, {"gain": jnp.float32(jnp.inf)}

    with pytest.raises(DivergenceError, match="loop: gain became inf at step 1;"):
        run(overflow, START, data=DATA, key=KEY, chunks=1, chunk=2)


def test_another_runs_checkpoint_stops_the_loop(tmp_path):
    Checkpoints(tmp_path).save(3, {"x": jnp.zeros(5, jnp.float32), "step": jnp.int32(3)})
    with pytest.raises(CheckpointError, match="is another run's"):
        run(wander, START, data=DATA, key=KEY, chunks=2, chunk=3, checkpoints=Checkpoints(tmp_path))


def lower(state, factor):
    return state | {"rate": np.float32(state["rate"] * factor)}


GUARD = Guard(lower)
SETTLED = {"x": jnp.float32(1.0), "rate": jnp.float32(1.0), "step": jnp.int32(0)}


def fragile(breaking, value=jnp.nan):
    """A walk whose loss breaks at some steps unless its rate has been lowered: {step: highest rate that it bears}."""

    def step(state, key, data):
        x = state["x"] + state["rate"] * (1 + jax.random.uniform(key))
        broken = jnp.bool_(False)
        for at, rate in breaking.items():
            broken |= (state["step"] == at) & (state["rate"] > rate)
        loss = jnp.where(broken, value, 1.0 + 0.01 * jnp.sin(x))
        return state | {"x": x, "step": state["step"] + 1}, {"loss": loss}

    return step


def guarded(step, *, guard=GUARD, chunks=4, **settings):
    return run(step, SETTLED, data=None, key=KEY, chunks=chunks, chunk=3, guard=guard, **settings)


def test_a_diverged_chunk_is_done_again_at_a_lower_rate_and_reported():
    reports = []
    state = guarded(
        fragile({4: 0.4, 10: 0.1}),
        guard=Guard(lower, rollbacks=4),
        report=lambda done, metrics: reports.append((done, metrics["rollbacks"].tolist())),
    )
    assert reports == [(3, [0]), (6, [2]), (9, [2]), (12, [4])]
    assert float(state["rate"]) == 0.0625
    assert int(state["step"]) == 12


def test_the_repeated_chunk_starts_from_the_last_good_state_and_draws_the_same():
    state = guarded(fragile({4: 0.5}), chunks=2)
    steps = [1.0 + float(jax.random.uniform(jax.random.fold_in(KEY, i))) for i in range(6)]
    assert float(state["x"]) == pytest.approx(1 + sum(steps[:3]) + 0.5 * sum(steps[3:]), rel=1e-6)


def test_a_loss_far_above_the_lowest_is_divergence_too():
    guard = Guard(lower, rollbacks=1, ratio=2.0)
    assert float(guarded(fragile({4: 0.5}, 3.0), guard=guard)["rate"]) == 1.0  # the chunk's mean is below 2
    assert float(guarded(fragile({4: 0.5}, 9.0), guard=guard)["rate"]) == 0.5
    message = r"^net: loss rose to 3\.6\d+ in steps 4 to 6, above \d\.\d+ with none of 1 rollbacks left;"
    with pytest.raises(DivergenceError, match=message):
        guarded(fragile({4: 0.0}, 9.0), guard=guard, name="net")


def test_small_losses_may_rise_below_the_floor():
    def step(state, key, data):
        return state | {"step": state["step"] + 1}, {"loss": jnp.where(state["step"] < 3, 0.001, 0.02)}

    assert float(guarded(step)["rate"]) == 1.0


def test_after_so_many_rollbacks_it_says_so_in_one_line_and_keeps_the_last_good_checkpoint(tmp_path):
    message = r"^net: loss became nan at step 8 with none of 2 rollbacks left; the last good checkpoint is kept: lower"
    with pytest.raises(DivergenceError, match=message) as caught:
        guarded(fragile({7: 0.0}), guard=Guard(lower, rollbacks=2), name="net", checkpoints=Checkpoints(tmp_path))
    assert "\n" not in str(caught.value)
    assert Checkpoints(tmp_path).newest() == 6


@pytest.mark.parametrize("interrupted_after", [1, 2, 3])
def test_a_guarded_run_resumes_exactly_also_around_a_rollback(tmp_path, interrupted_after):
    step, guard = fragile({4: 0.5, 7: 0.25}), Guard(lower, rollbacks=2)
    whole, resumed = [], []

    def note(into):
        return lambda done, metrics: into.append((done, metrics["loss"].tolist(), metrics["rollbacks"].tolist()))

    expected = guarded(step, guard=guard, report=note(whole))
    guarded(step, guard=guard, chunks=interrupted_after, checkpoints=Checkpoints(tmp_path), report=note(resumed))
    found = guarded(step, guard=guard, checkpoints=Checkpoints(tmp_path), report=note(resumed))
    assert_same(found, expected)
    assert resumed == whole
