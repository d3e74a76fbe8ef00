import io
import json
import shutil

import pytest
from failing_commands import refused
from rich.console import Console

from hadas_jax.commands.networks import export, fine_tune, materialise_network, select_network
from hadas_jax.deploy.architecture import read_architecture
from hadas_jax.deploy.static_network import load_network
from hadas_jax.settings import FineTuneSettings


@pytest.fixture(scope="module")
def workdir(finished, tmp_path_factory):
    """A copy of the finished search with a selected network."""
    place = tmp_path_factory.mktemp("deployed") / "run"
    shutil.copytree(finished, place)
    select_network(place, prefer="accuracy", overwrite=True, console=Console(file=io.StringIO()))
    return place


@pytest.fixture(scope="module")
def materialised(workdir):
    """What is printed when its network is cut out."""
    console = Console(file=io.StringIO(), width=200)
    materialise_network(workdir, console=console)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def tuned(workdir, materialised):
    """Its network trained for an epoch."""
    place = workdir.parent / "tuned"
    settings = FineTuneSettings(network=str(workdir / "network"), epochs=1)
    return place, fine_tune(settings, workdir=place, console=Console(file=io.StringIO()))


def test_a_materialised_network_does_what_the_search_measured(workdir, materialised):
    line = next(line for line in materialised.splitlines() if "Largest difference" in line)
    assert float(line.split(":")[1].split(",")[0]) < 1e-5
    check = export(workdir / "network", format="saved", output=workdir.parent / "saved")
    test = read_architecture(workdir).test
    assert check.accuracy == pytest.approx(test.deployable.accuracy, abs=1e-6)
    assert check.shares == pytest.approx(test.shares, abs=1e-6)


def test_a_fine_tuned_network_has_figures_of_its_own(tuned, workdir):
    place, result = tuned
    before = read_architecture(workdir)
    assert result.before.deployable.error == pytest.approx(before.test.deployable.error, abs=1e-6)
    found = load_network(place / "network")
    assert found.architecture.test == result.after
    assert found.architecture.selection != before.selection
    assert found.architecture.exits == before.exits
    content = json.loads((place / "result.json").read_text())
    assert content["form"] == "hadas_jax.fine-tune/1"
    assert content["after"]["deployable"]["error"] == pytest.approx(result.after.deployable.error)
    assert sum(result.after.shares) == pytest.approx(1)


def test_a_resumed_run_ends_with_the_same_network(tuned):
    place, result = tuned
    again = fine_tune(workdir=place, resume=True, console=Console(file=io.StringIO()))
    assert again.after == result.after
    assert load_network(place / "network").architecture.test == result.after


def test_a_run_that_was_killed_while_it_wrote_its_network_can_be_resumed(tuned):
    place, result = tuned
    (place / "network" / ".partial").mkdir()
    (place / "network" / "network.json").rename(place / "network" / ".partial" / "network.json")
    again = fine_tune(workdir=place, resume=True, console=Console(file=io.StringIO()))
    assert again.after == result.after
    assert load_network(place / "network").architecture.test == result.after


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["materialise", "nowhere"], "nowhere: expected an ARCH.json"),
        (["export", "nowhere"], "nowhere: expected an ARCH.json"),
        (["fine-tune", "nowhere"], "nowhere: expected an ARCH.json"),
        (["fine-tune"], "NETWORK: expected a directory"),
        (["export", "nowhere", "--format", "tflite"], "format"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed, error = refused(arguments, capsys)
    assert message in error
    assert "Cutting" not in printed


def test_a_network_is_fine_tuned_with_batch_norm_and_outside_its_own_folder(workdir, materialised):
    folded = workdir.parent / "folded"
    materialise_network(workdir, output=folded, fold_batch_norm=True, console=Console(file=io.StringIO()))
    with pytest.raises(ValueError, match="expected a network with batch norm, got a folded one"):
        fine_tune(FineTuneSettings(network=str(folded)))
    with pytest.raises(ValueError, match="outside the work directory"):
        fine_tune(FineTuneSettings(network=str(workdir / "network")), workdir=workdir, overwrite=True)
    assert (workdir / "front.json").is_file()
    with pytest.raises(ValueError, match="exit_weights: expected"):
        fine_tune(FineTuneSettings(network=str(workdir / "network"), exit_weights=(1.0,) * 9))
