import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax import loop
from hadas_jax.checkpoints import CheckpointError, Checkpoints
from hadas_jax.loop import DivergenceError

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
