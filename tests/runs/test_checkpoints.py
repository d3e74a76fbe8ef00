import gc
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from hadas_jax.runs.checkpoints import Checkpoints


@struct.dataclass
class Pair:
    weights: dict
    step: jax.Array


def draw_state(size=300, seed=0, name="kernel"):
    values = np.random.default_rng(seed).normal(size=(size, 7))
    return Pair({name: jnp.asarray(values, jnp.float32), "flags": jnp.array([True, False])}, jnp.int32(3))


@pytest.fixture
def saved(tmp_path):
    """A directory with the checkpoint of step 40."""
    Checkpoints(tmp_path / "run").save(40, draw_state())
    return tmp_path / "run"


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_a_state_comes_back_bit_for_bit(saved):
    checkpoints = Checkpoints(saved)
    assert checkpoints.newest() == 40
    assert_same(checkpoints.restore(40, jax.tree.map(jnp.zeros_like, draw_state())), draw_state())


def test_an_empty_directory_has_no_newest_step(tmp_path):
    assert Checkpoints(tmp_path / "new" / "run").newest() is None


def test_only_the_newest_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(step, draw_state(seed=step))
    assert checkpoints.newest() == 3
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.name.isdigit()) == ["3"]
    assert_same(checkpoints.restore(3, draw_state()), draw_state(seed=3))


@pytest.mark.parametrize(
    "like",
    [draw_state(size=301), draw_state(name="other"), draw_state().replace(step=jnp.float32(3)), {"a": jnp.int32(1)}],
    ids=["another shape", "another name", "another dtype", "another tree"],
)
def test_another_runs_checkpoint_is_refused_in_one_line(saved, like):
    with pytest.raises(ValueError, match=r"checkpoint .*40 is another run's") as caught:
        Checkpoints(saved).restore(40, like)
    assert "\n" not in str(caught.value)


def restored_or_refused(directory):
    """The state, or the message that restoring ends with."""
    try:
        return Checkpoints(directory).restore(40, draw_state()), ""
    except ValueError as error:
        return None, str(error)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_every_truncated_file_is_refused_in_one_line_or_does_no_harm(saved, tmp_path):
    """Each file in turn is cut to half; Orbax's threads may still speak of the one that holds the data."""
    files = [path.relative_to(saved) for path in sorted((saved / "40").rglob("*")) if path.is_file()]
    refused = []
    for number, name in enumerate(files):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(saved, copy)
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content[: len(content) // 2])
        state, message = restored_or_refused(copy)
        if state is None:
            assert "is damaged and cannot be read" in message
            assert "\n" not in message
            refused.append(name)
        else:
            assert_same(state, draw_state())
    gc.collect()
    largest = max(files, key=lambda name: (saved / name).stat().st_size)
    assert largest in refused


def test_a_missing_data_folder_is_refused(saved):
    for entry in (saved / "40").iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
    with pytest.raises(ValueError, match="is damaged and cannot be read"):
        Checkpoints(saved).restore(40, draw_state())


def test_what_a_killed_write_leaves_behind_does_not_hurt(saved):
    leftover = saved / "50.orbax-checkpoint-tmp-1234"
    shutil.copytree(saved / "40", leftover)
    checkpoints = Checkpoints(saved)
    assert checkpoints.newest() == 40
    assert_same(checkpoints.restore(40, draw_state()), draw_state())
    checkpoints.save(50, draw_state(seed=1))
    again = Checkpoints(saved)
    assert again.newest() == 50
    assert_same(again.restore(50, draw_state()), draw_state(seed=1))
