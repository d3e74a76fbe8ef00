import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.training import batch_mesh
from hadas_jax.training.batches import replicate, shard_batch

DEVICES = 8  # as many as the script simulates


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the same steps gave on one device and on eight simulated ones."""
    output = tmp_path_factory.mktemp("steps") / "found.npz"
    here = Path(__file__).parent
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(here / "parallel_steps.py"), str(output)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    with np.load(output) as arrays:
        return dict(arrays)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sandwich", "exits"])
def test_a_step_on_eight_devices_is_that_on_one(found, kind):
    one = {name: value for name, value in found.items() if name.startswith(f"one/{kind}/")}
    compared = [name for name in one if "/weights/" in name or "/metrics/" in name]
    assert len(compared) > 8
    for name in compared:
        np.testing.assert_allclose(found[name.replace("one/", "all/", 1)], one[name], rtol=1e-3, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sandwich", "exits"])
def test_the_work_is_really_split_and_the_weights_are_everywhere(found, kind):
    assert found["shards"].tolist() == [[32 // DEVICES, 9, 9, 1]] * DEVICES
    assert found[f"one/{kind}/devices"] == 1
    assert found[f"all/{kind}/devices"] == DEVICES
    assert found[f"all/{kind}/memory"] < 0.5 * found[f"one/{kind}/memory"]  # of one device


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stream", "arrays"])
def test_batches_are_spread_by_a_step_that_is_compiled_once_for_all_chunks(found, kind):
    rng = np.random.default_rng(1)
    mean = rng.integers(0, 256, (32, 9, 9, 1), dtype=np.uint8).mean() / 255
    expected = 1 - 6 * 0.1 * mean * np.mean(np.arange(32) % 3)
    np.testing.assert_allclose(found[f"{kind}/x"], expected, rtol=1e-4)
    assert found[f"{kind}/devices"] == DEVICES
    assert found[f"{kind}/compiled"] == 0
    assert found["stream/listened"] > 0


def test_a_batch_that_the_devices_do_not_share_evenly_is_named():
    mesh = jax.sharding.AbstractMesh((8,), ("batch",))
    with pytest.raises(ValueError, match="batch: expected a multiple of the 8 devices, got 30"):
        shard_batch(jnp.zeros((30, 2)), mesh)


def test_one_device_is_a_mesh_too_and_none_changes_nothing():
    mesh, batch = batch_mesh(), jnp.arange(4.0)
    assert dict(mesh.shape) == {"batch": len(jax.devices())}
    assert shard_batch(batch, None) is batch
    assert replicate(batch, None) is batch
    np.testing.assert_array_equal(jax.jit(lambda x: replicate(shard_batch(x, mesh), mesh))(batch), batch)
