"""Tests of exits for a network that is given as JAX functions: a whole run, its export, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from hadas_jax import commands
from hadas_jax.deploy.materialise import data_of, network_at
from hadas_jax.frozen.stages import StagedNetwork
from hadas_jax.methods.hadas.results import read_search
from hadas_jax.report.console import new_console
from hadas_jax.settings import ExitsSettings

QUIET = new_console(quiet=True)


class Network(nn.Module):
    """Two convolutions and a classifier, of drawn weights."""

    def setup(self):
        self.first, self.second, self.last = nn.Conv(16, (3, 3)), nn.Conv(32, (3, 3), (2, 2)), nn.Dense(10)

    def stem(self, x):
        return nn.relu(self.first(x))

    def body(self, x):
        return nn.relu(self.second(x))

    def head(self, x):
        return self.last(x.mean((1, 2)))

    def __call__(self, x):
        return self.head(self.body(self.stem(x)))


@pytest.fixture(scope="module")
def stages():
    module, images = Network(), jnp.zeros((1, 8, 8, 1))
    weights = module.init(jax.random.key(0), images)
    return [lambda x, name=name: module.apply(weights, x, method=name) for name in ("stem", "body", "head")]


@pytest.fixture(scope="module")
def finished(stages, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "staged"
    about = {"dataset": "digits", "device": "raspberry-pi-4", "new_classifier": True, "head_epochs": 8, "front_size": 8}
    commands.exits_of_stages(stages, ExitsSettings.of(places=1, **about), workdir=workdir, console=QUIET)
    commands.select_network(workdir, prefer="energy", console=QUIET)
    return workdir


def test_stages_of_linen_and_nnx_are_counted_as_their_sum(stages):
    network = StagedNetwork(stages, image_size=8, channels=1)
    macs = 64 * 9 * 16 + 16 * 9 * 16 * 32 + 32 * 10
    assert network.layers.macs == macs
    assert [place.shape for place in network.places] == [(8, 8, 16), (4, 4, 32)]
    rngs = nnx.Rngs(0)
    modules = [nnx.Linear(8, 4, rngs=rngs), lambda x: nnx.relu(x).mean((1, 2)), nnx.Linear(4, 10, rngs=rngs)]
    assert StagedNetwork(modules, image_size=8, channels=8).layers.macs == 64 * 32 + 40


def test_a_run_over_stages_ends_with_a_network_that_needs_none_of_their_code(finished):
    result = read_search(finished).result
    assert result.front("deployable")
    found = network_at(finished)
    check = commands.export(finished, console=QUIET)
    assert check.is_equal
    assert check.accuracy == pytest.approx(found.architecture.test.deployable.accuracy, abs=1e-6)
    logits, _ = found.predict(data_of(found.architecture).test)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda stages: stages[:1], "expected two stages or more"),
        (lambda stages: [stages[0], stages[2], stages[2]], r"stage 1: expected to take float32\[1, 8, 8, 16\]"),
        (lambda stages: stages[:2], "expected logits"),
        (lambda stages: [lambda x: (x, x), *stages], "stage 0: expected one array"),
    ],
    ids=["one", "other shapes", "no logits", "two arrays"],
)
def test_stages_that_do_not_fit_are_refused_in_one_line(make, message, stages):
    with pytest.raises(ValueError, match=message):
        StagedNetwork(make(stages), image_size=8, channels=1)


def test_an_export_in_another_format_is_refused(finished):
    with pytest.raises(ValueError, match="format: expected stablehlo for a network that was given as JAX functions"):
        commands.export(finished, format="onnx", output=finished / "other", console=QUIET)
