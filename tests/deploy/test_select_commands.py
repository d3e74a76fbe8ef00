import json
import shutil

import pytest
from failing_commands import refused

from hadas_jax.cli import main
from hadas_jax.commands import list_runs, operating_points, select_network, show_network
from hadas_jax.deploy.architecture import read_architecture
from hadas_jax.report.console import milli
from hadas_jax.settings import Constraints

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_a_network_is_selected_shown_and_tabulated(workdir, capsys):
    main(["select", str(workdir), "--prefer", "energy"])
    printed = capsys.readouterr().out
    assert "chosen" in printed
    assert "its static backbone" in printed
    assert "Written: " in printed
    network = read_architecture(workdir)
    main(["show", str(workdir), "--plot", "network.png"])
    printed = capsys.readouterr().out
    assert f"{network.weights:,} weights" in printed
    assert printed.count("exit after block") == len(network.exits)
    mean = next(line for line in printed.splitlines() if line.split()[:1] == ["mean"])
    deployed = network.selection.deployable
    assert mean.split()[1:] == [
        milli(deployed.latency_s),
        milli(deployed.energy_j),
    ]
    with open("network.png", "rb") as file:
        assert file.read(4) == b"\x89PNG"
    main(["operating-points", str(workdir), "--deadlines-ms", "0.001", "1000", "-o", "points.json"])
    assert "none" in capsys.readouterr().out
    with open("points.json") as file:
        answers = json.load(file)["asked"]["deadlines"]
    assert answers[0]["point"] is None
    assert answers[1]["point"]["energy_j"] > 0


def test_no_word_of_a_selection_is_cut_off_on_eighty_columns(workdir, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    main(["select", str(workdir), "--max-energy-mj", "1e6"])
    printed = capsys.readouterr().out
    assert "accurate" in printed
    assert "highest" in printed
    assert "…" not in printed


def test_limits_are_kept_and_what_each_costs_is_told(workdir, found, capsys):
    free = select_network(workdir, prefer="accuracy")
    limit = 1e3 * free.selection.deployable.energy_j * 0.999
    main(["select", str(workdir), "--prefer", "accuracy", "--max-energy-mj", str(limit), "-o", "less.json"])
    less = read_architecture("less.json")
    assert less.selection.deployable.energy_j * 1e3 <= limit
    assert less.origin.limits == Constraints(max_energy_mj=limit)
    assert f"energy ≤ {limit:g} mJ" in capsys.readouterr().out
    assert less.supernet.path == "run/supernet"


def test_an_ideal_network_is_judged_by_the_ideal_mapping(workdir):
    network = select_network(workdir, policy="ideal", prefer="accuracy")
    assert network.found_by == "ideal"
    assert (
        network.selection.ideal.error
        <= select_network(workdir, prefer="accuracy", output="other.json").selection.deployable.error
    )


def test_where_nothing_keeps_the_limits_the_nearest_is_shown(workdir, capsys):
    printed, error = refused(["select", str(workdir), "--max-latency-ms", "0.001"], capsys)
    assert "nearest" in printed
    assert "expected a deployable design with latency ≤ 0.001 ms, got none; the nearest is" in error
    assert not (workdir / "architecture.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("select none", "none: expected the work directory of a search, got none (no config.json)"),
        ("select run --min-accuracy 95", "--min-accuracy: expected a number of at least 0 and of at most 1, got 95"),
        ("select run --prefer luck", "--prefer"),
        ("select run -o none/a.json", "expected a folder that exists"),
        ("show run", "run/architecture.json: expected an ARCH.json as hadas select writes, got none; hadas select"),
        ("show run/front.json", "expected form hadas_jax.architecture/1, got 'hadas_jax.front/2'"),
        ("operating-points run --deadlines-ms 0", "--deadlines-ms: expected a number above 0, got 0"),
        ("operating-points run --power-caps-w -1", "--power-caps-w"),
        ("runs none", "none: expected a work directory or a folder of them, got none"),
    ],
)
def test_mistakes_are_one_line(workdir, arguments, message, capsys):
    _, error = refused(arguments.split(), capsys)
    assert message in error


def test_a_network_is_not_replaced_unasked(workdir, capsys):
    select_network(workdir)
    before = (workdir / "architecture.json").read_bytes()
    _, error = refused(["select", str(workdir), "--prefer", "energy"], capsys)
    assert "--overwrite replaces it" in error
    assert (workdir / "architecture.json").read_bytes() == before
    select_network(workdir, prefer="energy", overwrite=True)
    assert read_architecture(workdir).origin.prefer == "energy"


@pytest.mark.parametrize("left", ["unfinished", "old", "damaged", "without its supernet"])
def test_a_search_that_lacks_something_is_told_how_to_go_on(workdir, left, capsys):
    front = workdir / "front.json"
    if left == "unfinished":
        front.unlink()
    elif left == "old":
        content = json.loads(front.read_text())
        del content["designs"][0]["selection_shares"]
        front.write_text(json.dumps(content))
    elif left == "damaged":
        front.write_text(front.read_text()[:-100])
    else:
        shutil.rmtree(workdir / "supernet")
    _, error = refused(["select", str(workdir)], capsys)
    assert f"hadas search --resume --workdir {workdir}" in error


def test_the_work_directory_of_another_command_is_refused(workdir, capsys):
    config = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps(config | {"form": "hadas_jax.train/1"}))
    _, error = refused(["select", str(workdir)], capsys)
    assert "got 'hadas_jax.train/1', a run of hadas train" in error


def test_library_calls_return_what_they_print(workdir, capsys):
    network = select_network(workdir)
    assert show_network(workdir) == network
    table = operating_points(workdir, deadline_of="longest")
    assert table.selected.longest_s >= table.selected.latency_s
    runs = list_runs([workdir.parent])
    assert [run.path.name for run in runs] == ["run"]
    assert "finished" in capsys.readouterr().out


def test_without_runs_the_list_says_so(capsys):
    assert list_runs() == []
    assert "No work directory in runs" in capsys.readouterr().out
