"""Tests of `hadas dnas sample`, `fit-predictor`, `import-predictor` and `price`: what a user sees, and each mistake."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from failing_commands import fails
from rich.console import Console

from hadas_jax.commands import dnas_costs as dnas_data_commands
from hadas_jax.commands import dnas_costs as dnas_predictor_commands
from hadas_jax.commands import dnas_costs as dnas_price_commands
from hadas_jax.spaces import darts_workload
from hadas_jax.spaces.darts import DARTS_CODES, is_valid
from hadas_jax.spaces.darts_costs import PricedNetworks
from hadas_jax.spaces.darts_network import DartsNetwork
from hadas_jax.spaces.genotypes import code_of, published_genotype
from hw_models import default_point, load_device, network_cost
from hw_models.predictors import predict_throughput, read_predictor


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "kept")
    monkeypatch.setattr(dnas_data_commands, "_CHUNK", 1000)


@pytest.fixture
def data(elsewhere):
    """A data set of 2,500 networks."""
    written(dnas_data_commands.sample, "d.npz", count=2500)
    return "d.npz"


def written(call, *arguments, **settings):
    """What a call returns and prints, on a wide console."""
    console = Console(file=io.StringIO(), width=200)
    found = call(*arguments, console=console, **settings)
    return found, console.file.getvalue()


def test_a_sample_holds_networks_and_their_throughput(data, tmp_path):
    priced, text = written(dnas_data_commands.sample, "again.npz", count=1500, paradigm="pipeline")
    more = PricedNetworks.read(data)
    assert len(more.codes) == 2500
    assert np.asarray(is_valid(jnp.asarray(more.codes))).all()
    assert len(np.unique(more.codes, axis=0)) > 2490
    assert 700 < more.throughputs["generic"].mean() < 900
    assert 9_000 < more.throughputs["pipeline"].mean() < 12_000
    np.testing.assert_array_equal(priced.codes, more.codes[:1500])
    np.testing.assert_array_equal(priced.throughputs["pipeline"], more.throughputs["pipeline"][:1500])
    assert list(priced.throughputs) == ["pipeline"]
    assert "1,500 networks on ku115" in text
    assert "hadas dnas fit-predictor again.npz --paradigm pipeline" in text


def test_operations_of_a_sample_are_those_asked_for():
    settings = {"count": 300, "operations": (1, 3, 7), "different": True, "paradigm": "generic", "seed": 4}
    priced, _ = written(dnas_data_commands.sample, "d.npz", **settings)
    assert set(np.unique(priced.codes)) == {0, 1, 3, 7}
    assert priced.details["operations"] == [1, 3, 7]
    first = priced.codes[:, :2]
    assert (first[:, 0] != first[:, 1]).all()


def test_a_predictor_is_fitted_to_a_data_set(data, tmp_path):
    fitted, text = written(
        dnas_predictor_commands.fit, data, "p.npz", paradigm="generic", kind="lookup", members=2, batch=100, epochs=20
    )
    again = read_predictor("p.npz", layout=DARTS_CODES)
    assert again.members == 2
    assert again.notes == fitted.predictor.notes
    assert (again.notes.paradigm, again.notes.fpga, again.notes.network) == ("generic", "ku115", DartsNetwork().sizes)
    assert again.notes.source.startswith("d.npz, published table, seed 0, hadas-jax ")
    assert f"{fitted.held_out.mean:.3%}" in text
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert "20 of 20, loss" in text


def test_networks_that_do_not_fit_are_left_out_of_a_fit():
    priced, _ = written(dnas_data_commands.sample, "d.npz", count=1000, paradigm="pipeline", fpga="zc706")
    fits = int(np.sum(priced.throughputs["pipeline"] > 0))
    assert 2 < fits < 500
    fitted, text = written(dnas_predictor_commands.fit, "d.npz", "p.npz", kind="lookup", batch=5, held_out=1)
    assert f"Left out: {1000 - fits:,} of 1,000 networks, which do not fit zc706" in text
    assert fitted.predictor.notes.networks == fits - 1


def test_a_price_is_that_of_tables_predictors_and_devices(data, tmp_path):
    fit = {"paradigm": "generic", "kind": "lookup", "batch": 100}
    fitted, _ = written(dnas_predictor_commands.fit, data, "p.npz", members=2, **fit)
    (generic, pipeline, predicted, device), text = written(
        dnas_price_commands.price, "DARTS_V2", predictors=["p.npz"], devices=["agx-xavier-gpu"], rows=3, plot="v2.png"
    )
    assert generic.throughput == pytest.approx(776.8, abs=0.1)
    assert pipeline.throughput == pytest.approx(10_681.1, abs=0.1)
    assert pipeline.latency_s > 10 / pipeline.throughput
    code = jnp.asarray(code_of(published_genotype("DARTS_V2")))
    asked = predict_throughput(fitted.predictor, code)
    assert predicted.throughput == pytest.approx(float(asked.throughput), rel=1e-5)
    assert predicted.spread == pytest.approx(float(asked.spread), rel=1e-2)
    assert device.latency_s > 0
    assert device.energy_j > 0
    assert (tmp_path / "v2.png").read_bytes().startswith(b"\x89PNG")
    for words in ("generic on ku115, published table", "p.npz: lookup of generic ku115", "±", "is slowest", "at 1377"):
        assert words in text


def test_lower_clocks_take_longer():
    settings = {"paradigm": "generic", "devices": ["agx-xavier-gpu"]}
    (_, fast), _ = written(dnas_price_commands.price, "DARTS_V2", **settings)
    (_, slow), _ = written(dnas_price_commands.price, "DARTS_V2", core_mhz=318.75, **settings)
    assert slow.latency_s > 1.15 * fast.latency_s
    device = load_device("agx-xavier-gpu")
    layers = darts_workload(DartsNetwork(), jnp.asarray(code_of(published_genotype("DARTS_V2"))))
    assert fast.latency_s == pytest.approx(
        float(network_cost(layers, device, default_point(device)).latency_s), rel=1e-5
    )


def test_a_paradigm_that_does_not_fit_is_said_beside_the_other(capsys):
    found, text = written(dnas_price_commands.price, "DARTS_V2", fpga="zc706")
    assert [row.model for row in found] == ["generic on zc706, fitted table"]
    assert "pipeline: zc706: expected at least" in text
    assert "usable DSPs" in fails(["dnas", "price", "DARTS_V2", "--fpga", "zc706", "--paradigm", "pipeline"], capsys)


def test_a_published_predictor_is_imported(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {
        "table": (28, 8, 10),
        "a": (200, 280),
        "b": (200,),
        "c": (100, 200),
        "d": (100,),
        "e": (1, 100),
        "f": (1,),
    }
    np.savez(tmp_path / "weights.npz", **{name: rng.normal(0, 0.01, shape) for name, shape in shapes.items()})
    predictor, text = written(dnas_predictor_commands.import_published, "weights.npz", "p.npz", paradigm="generic")
    assert "799.28 + 147.87 z images/s" in text
    assert read_predictor("p.npz", layout=DARTS_CODES).notes == predictor.notes
    (_, predicted), _ = written(dnas_price_commands.price, "DARTS_V2", paradigm="generic", predictors=["p.npz"])
    assert 600 < predicted.throughput < 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("dnas sample -o d.npz", "d.npz: expected a new file, got one that exists; --overwrite replaces it"),
        ("dnas sample -o d.csv", "d.csv: expected a file that ends in .npz, got '.csv'"),
        ("dnas sample -o none/d.npz", "none/d.npz: expected a folder that exists, got none"),
        ("dnas sample -o e.npz --count 0", "--count: expected at least 1, got 0"),
        ("dnas sample -o e.npz --operations 8", "operations: expected digits from 1 to 7, got 8"),
        ("dnas sample -o e.npz --operations 3 --different", "operations: expected at least 2 different digits"),
        ("dnas sample -o e.npz --fpga moon", "moon"),
        ("dnas sample -o e.npz --network-channels 3", "channels: expected an even number, got 3"),
        (
            "dnas sample -o e.npz --table published --fpga zc706",
            "table published: expected the default network on ku115",
        ),
        ("dnas sample -o e.npz --paradigm serial", "--paradigm"),
        ("dnas fit-predictor d.npz -o p.npz", "--paradigm: expected generic or pipeline as the data set has, got none"),
        ("dnas fit-predictor none.npz -o p.npz", "none.npz: expected a data set of hadas dnas sample, got no file"),
        ("dnas fit-predictor d.npz -o p.npz --paradigm generic --epochs 0", "epochs: expected at least 1, got 0"),
        (
            "dnas fit-predictor d.npz -o p.npz --paradigm generic --held-out 9",
            "--held-out: expected 1 to 5 of 6 networks",
        ),
        ("dnas import-predictor none.pt -o p.npz --paradigm generic", "checkpoint none.pt: expected a file, got none"),
        ("dnas price DARTS_V9", "ARCHITECTURE: expected one of DARTS_V1, DARTS_V2"),
        (
            "dnas price DARTS_V2 --predictor d.npz",
            "d.npz: expected a predictor (hw_models.predictor/1), cannot read it",
        ),
        ("dnas price DARTS_V2 --rows 0", "--rows: expected at least 1, got 0"),
        ("dnas price DARTS_V2 --device toaster", "expected one of agx-orin-gpu"),
        ("dnas price DARTS_V2 --plot d.npz", "d.npz: expected a file that ends in .png"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, message, capsys):
    written(dnas_data_commands.sample, "d.npz", count=6)
    assert message in fails(arguments.split(), capsys)


def test_a_predictor_of_other_networks_is_refused(data, capsys):
    written(dnas_predictor_commands.fit, data, "p.npz", paradigm="generic", kind="lookup", epochs=1)
    error = fails(["dnas", "price", "DARTS_V2", "--predictor", "p.npz", "--network-channels", "18"], capsys)
    assert "p.npz: expected a predictor of network DartsNetwork(channels=18" in error
