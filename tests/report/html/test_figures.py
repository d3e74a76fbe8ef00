import csv

import pytest
from matplotlib.figure import Figure

from hadas_jax.report.html.content import starting_network
from hadas_jax.report.html.pictures import plot_tables, write_figures
from hadas_jax.report.pictures import write_ticks_in_full


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_figure_is_a_table_and_a_picture(overlay, tmp_path):
    tables = plot_tables(overlay)
    assert list(tables) == ["front", "gains", "exit_usage", "clocks", "progress", "exits"]
    pictures = write_figures(tables, tmp_path)
    assert {path.stem for path in pictures} == {*tables, "front_3d", "parallel_coordinates"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    assert {path.stem for path in tmp_path.glob("*.csv")} == set(tables)


def test_a_run_may_have_a_name_that_reads_as_a_formula(overlay, tmp_path):
    rows = [row | {"run": r"a$\frac$b"} for row in plot_tables(overlay)["progress"]]
    assert [path.name for path in write_figures({"progress": rows}, tmp_path)] == ["progress.png"]


def test_the_table_of_the_front_holds_figures_and_lists_as_words(content, tmp_path):
    write_figures({"front": plot_tables(content)["front"]}, tmp_path)
    rows = rows_of(tmp_path / "front.csv")
    assert len(rows) == 10
    assert rows[2]["kind"] == "deployable"
    assert float(rows[2]["energy"]) == pytest.approx(1.5)
    assert float(rows[2]["energy_saved_dvfs"]) == pytest.approx(75.0)
    assert (rows[2]["exits"], rows[2]["thresholds"]) == ("2 3", "0.75 inf")


def test_the_shares_of_a_network_are_a_whole(content):
    rows = plot_tables(content)["exit_usage"]
    assert {row["stops_at"] for row in rows} == {2, 3, "classifier"}
    for network in {row["network"] for row in rows}:
        assert sum(row["share"] for row in rows if row["network"] == network) == pytest.approx(100)


def test_one_point_of_the_clocks_is_the_design_s_own(content):
    chosen = [row for row in plot_tables(content)["clocks"] if row["is_chosen"]]
    assert [(row["core_mhz"], row["memory_mhz"], row["energy"]) for row in chosen] == [(1000.0, 800.0, 3.0)]


def test_the_first_network_is_the_cheapest_near_the_best_accuracy(content):
    found = starting_network(content["runs"][0]["networks"])
    assert (found["kind"], found["accuracy"], found["energy"]) == (
        "deployable",
        pytest.approx(90.0),
        pytest.approx(1.5),
    )


def test_the_first_network_does_not_depend_on_the_test_split(content):
    networks = content["runs"][0]["networks"]
    found = starting_network(networks)
    assert content["start"] == f"0.{next(k for k, row in enumerate(networks) if row is found)}"
    lucky = [row | {"accuracy": 0.0 if row is found else 100.0, "energy": 1e-3} for row in networks]
    assert starting_network(lucky)["genome"] == found["genome"]
    better = [row | {"selection": row["selection"] | {"accuracy": 100.0}} if row["exits"] else row for row in networks]
    better[networks.index(found)] = found
    assert starting_network(better)["genome"] != found["genome"]


def test_networks_of_the_darts_space_have_tables_and_pictures(architectures, tmp_path):
    tables = plot_tables(architectures)
    pictures = write_figures({name: tables[name] for name in ("networks", "alpha")}, tmp_path)
    assert {path.stem for path in pictures} == {"cells", "alpha"}
    rows = rows_of(tmp_path / "networks.csv")
    assert [row["run"] for row in rows] == ["device", "accelerator", "retrained"]
    assert [row["latency"] for row in rows] == ["0.8", "", ""]
    assert (rows[0]["clocks"], rows[2]["test_accuracy"]) == ("1300.5 1866 2035.2", "87.5")
    alpha = rows_of(tmp_path / "alpha.csv")
    assert len(alpha) == 2 * 28 * 8
    assert sum(row["is_kept"] == "True" for row in alpha) == 2 * 16
    shares = [float(row["share"]) for row in alpha]
    for edge in range(56):
        assert sum(shares[8 * edge : 8 * edge + 8]) == pytest.approx(100, abs=1e-3)
    assert all(row["operation"] != "none" for row in alpha if row["is_kept"] == "True")


def test_a_training_alone_has_its_curves_alone(overlay):
    assert list(plot_tables({"runs": overlay["runs"][2:]})) == ["progress", "exits"]


def test_ticks_of_logarithmic_axes_are_plain_numbers():
    figure = Figure()
    axis = figure.subplots()
    axis.plot([1, 2], [0.8, 2.3])
    axis.set_yscale("log")
    write_ticks_in_full(axis.yaxis)
    figure.canvas.draw()
    labels = [label.get_text() for label in axis.yaxis.get_ticklabels(which="both")]
    assert {"1", "2"} <= set(labels)
    assert not [label for label in labels if "$" in label]
