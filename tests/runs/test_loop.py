import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fuzzing import DRAWS
from hypothesis import given
from hypothesis import settings as drawn
from hypothesis import strategies as st

from hadas_jax.runs import loop
from hadas_jax.runs.checkpoints import Checkpoints
from hadas_jax.runs.loop import DivergenceError, Guard

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
    with pytest.raises(ValueError, match="is another run's"):
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


def test_the_repeated_chunk_starts_from_the_last_good_state_and_draws_others():
    state = guarded(fragile({4: 0.5}), chunks=2)
    keys = [KEY] * 3 + [loop.retry_key(KEY, 1)] * 3
    steps = [1.0 + float(jax.random.uniform(jax.random.fold_in(key, i))) for i, key in enumerate(keys)]
    assert float(state["x"]) == pytest.approx(1 + sum(steps[:3]) + 0.5 * sum(steps[3:]), rel=1e-6)


def test_a_loss_far_above_the_lowest_is_divergence_too():
    guard = Guard(lower, rollbacks=1, ratio=2.0, window=3)
    assert float(guarded(fragile({4: 0.5}, 3.0), guard=guard)["rate"]) == 1.0  # the window's mean is below 2
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


def replayed(losses, *, chunk, guard=None, kept=None, upto=None):
    """Goes over losses [retries + 1, steps] in place of a training; returns what was reported, or the message."""
    tries, reports = np.atleast_2d(losses), []

    def advance(state, done, retry):
        row = tries[min(retry, len(tries) - 1)]
        return {"rate": state["rate"]}, {"loss": row[done : done + chunk]}

    try:
        loop.run(
            advance,
            {"rate": np.float32(1)},
            chunks=(upto or tries.shape[1]) // chunk,
            chunk=chunk,
            guard=guard or Guard(lower),
            checkpoints=kept,
            report=lambda done, metrics: reports.append((done, *metrics["loss"].tolist(), *metrics["rollbacks"])),
        )
    except DivergenceError as error:
        return str(error)
    return reports


class Kept:
    """Checkpoints in memory."""

    def __init__(self):
        self.states = {}

    def newest(self):
        return max(self.states, default=None)

    def save(self, step, state):
        self.states = {step: jax.tree.map(np.copy, state)}

    def restore(self, step, like):
        assert jax.tree.structure(like) == jax.tree.structure(self.states[step])
        return self.states[step]


def noisy(seed, steps, level, spread=0.3):
    return level * np.random.default_rng(seed).uniform(1 - spread, 1 + spread, steps)


seeds, chunks_of, levels = st.integers(0, 2**32 - 1), st.integers(1, 5), st.floats(0.15, 8)
factors = st.floats(1, 1e6)


def spike_is_no_divergence(seed, chunk, level, at, height):
    losses = noisy(seed, 120, level)
    losses[at] *= height
    assert len(replayed(losses, chunk=chunk, guard=Guard(lower, rollbacks=0))) == 120 // chunk


def rise_is_divergence(seed, chunk, level, at, height):
    losses = noisy(seed, 400, level, spread=0.1)
    losses[at:] *= height
    message = replayed(losses, chunk=chunk)
    assert "with none of 3 rollbacks left; the last good checkpoint is kept: lower the learning rate" in message
    assert at < int(re.search(r"in steps \d+ to (\d+)", message)[1]) <= at + 150


def resumes_alike(seed, chunk, stop, bad):
    """A run with rollbacks, ended after any chunk or right after a rollback, and resumed."""
    losses = np.stack([noisy(seed + row, 60, 1.0) for row in range(4)])
    for row, at in enumerate(bad):
        losses[row, at] = np.nan
    expected = replayed(losses, chunk=chunk)
    kept = Kept()
    first = replayed(losses, chunk=chunk, kept=kept, upto=max(chunk, stop // chunk * chunk))
    second = replayed(losses, chunk=chunk, kept=kept)
    if isinstance(expected, str):
        assert second == expected
    else:
        assert first + second == expected


def window_is_a_mean(seed, chunk, level, steps):
    """Of at most 50 steps; what is kept after chunks is that of their steps one by one."""
    losses = noisy(seed, steps * chunk, level).astype(np.float32)
    kept, lowest = Kept(), np.inf
    for end in range(chunk, len(losses) + 1, chunk):
        replayed(losses, chunk=chunk, kept=kept, upto=end)
        _, record = kept.states[end]
        np.testing.assert_array_equal(record.losses[50 - record.seen :], losses[max(0, end - 50) : end])
        if end >= 10:
            lowest = min(lowest, np.float32(np.mean(losses[max(0, end - 50) : end], dtype=np.float64)))
        assert record.lowest == lowest
    again = replayed(np.r_[losses, np.full(chunk, min(lowest, 1.0), np.float32)], chunk=chunk, kept=kept)
    assert [done for done, *_ in again] == [len(losses) + chunk]


SUITES = {
    spike_is_no_divergence: (seeds, chunks_of, levels, st.integers(0, 119), factors),
    rise_is_divergence: (seeds, chunks_of, levels, st.integers(15, 150), st.floats(5, 1e6)),
    resumes_alike: (seeds, chunks_of, st.integers(1, 59), st.lists(st.integers(0, 59), min_size=1, max_size=4)),
    window_is_a_mean: (seeds, chunks_of, levels, st.integers(1, 40)),
}


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.__name__)
def test_the_guard_keeps_its_laws_over_tiny_epochs(suite):
    drawn(max_examples=30)(given(*SUITES[suite])(suite))()


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.__name__)
def test_the_guard_keeps_its_laws_over_many_tiny_epochs(suite):
    drawn(max_examples=DRAWS)(given(*SUITES[suite])(suite))()


def test_hard_batches_of_a_tiny_epoch_do_not_end_a_training():
    """Two steps an epoch, label smoothing that keeps losses at 0.2 and above, and batches three times as hard."""
    losses = np.tile([0.2188, 0.23], 200)
    losses[54:56] = 0.67, 0.67
    losses[100:400:25] = 0.7
    assert len(replayed(losses, chunk=2, guard=Guard(lower, rollbacks=0))) == 200


def test_a_try_that_settles_after_a_rollback_goes_on_at_half_the_rate():
    risen_once = np.stack([np.r_[np.ones(40), np.full(160, 9.0)], np.ones(200)])
    reports = replayed(risen_once, chunk=2)
    assert [rollbacks for *_, rollbacks in reports] == [0] * 26 + [1] * 74


def test_the_line_says_which_steps_rose_to_what():
    losses = np.r_[np.ones(60), np.full(60, 20.0)]
    message = replayed(losses, chunk=5, guard=Guard(lower, rollbacks=0))
    assert message.startswith("loop: loss rose to 4.8 in steps 21 to 70, above 3 with none of 0 rollbacks left;")
