import csv
import dataclasses
import json
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.commands.hadas import search
from hadas_jax.evaluation import Evaluator
from hadas_jax.methods import Run, TrainingRun
from hadas_jax.runs.loop import DivergenceError
from hadas_jax.spaces import catalogue
from hadas_jax.supernet.checkpoint import load_supernet

pytestmark = pytest.mark.usefixtures("listed_space")


def read_rows(workdir):
    with (workdir / "front.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_what_it_promises_and_nothing_else(finished):
    workdir, result = finished
    names = {path.name for path in workdir.iterdir()}
    promised = {
        "config.json",
        "evaluated.npz",
        "front.csv",
        "front.json",
        "front.png",
        "levels.csv",
        "metrics.jsonl",
        "checkpoints",
        "supernet",
    }
    assert names == promised
    assert (workdir / "front.png").read_bytes().startswith(b"\x89PNG")
    rows = read_rows(workdir)
    assert len(rows) == len(result.designs)
    stored = json.loads((workdir / "front.json").read_text())
    assert stored["settings"]["space"] == "tiny"
    assert stored["versions"]["jax"]
    assert len(stored["designs"]) == len(rows)


def test_the_csv_holds_the_designs_numbers(finished):
    workdir, result = finished
    for row, design in zip(read_rows(workdir), result.designs, strict=True):
        assert row["genome"] == " ".join(map(str, design.genome))
        found = design.test["deployable"]
        assert float(row["deployable_test_error"]) == pytest.approx(found.error, rel=1e-8)
        assert float(row["deployable_test_energy_mj"]) == pytest.approx(1e3 * found.energy_j, rel=1e-8)
        assert float(row["static_test_latency_ms"]) == pytest.approx(1e3 * design.static_test.latency_s, rel=1e-8)


def test_metrics_follow_the_stages_in_order(finished):
    workdir, _ = finished
    entries = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [entry["stage"] for entry in entries] == ["supernet"] * 2 + ["exits"] * 2 + ["search"] * 2
    assert all(np.isfinite(value) for entry in entries for value in entry.values() if not isinstance(value, str))


def test_the_supernet_that_a_run_trained_can_be_searched_by_another_which_keeps_how_backbones_did(
    finished, settings, tmp_path, monkeypatch
):
    workdir, _ = finished
    trained = load_supernet(workdir / "supernet")
    assert trained.source == "hadas search on digits"
    assert trained.details["settings"]["space"] == "tiny"
    other = settings.replace(checkpoint=str(workdir / "supernet"), outcomes=str(tmp_path / "outcomes"))
    search(other, workdir=tmp_path / "first")
    assert (tmp_path / "first" / "front.csv").read_bytes() == (workdir / "front.csv").read_bytes()
    assert not (tmp_path / "first" / "supernet").exists()

    def refuse(self, genomes, data):
        raise AssertionError("a backbone is judged again")

    monkeypatch.setattr(Evaluator, "__call__", refuse)
    search(other, workdir=tmp_path / "second")
    assert (tmp_path / "second" / "front.csv").read_bytes() == (workdir / "front.csv").read_bytes()


def test_a_run_that_lost_stages_repeats_them_to_the_same_front(finished, tmp_path, capsys):
    workdir, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    for stage in ("exits", "search"):
        shutil.rmtree(copy / "checkpoints" / stage)
    (copy / "front.csv").unlink()
    search(workdir=copy, resume=True)
    assert (copy / "front.csv").read_bytes() == (workdir / "front.csv").read_bytes()
    assert (copy / "metrics.jsonl").read_bytes() == (workdir / "metrics.jsonl").read_bytes()
    assert f"hadas report {copy}; one network of the front: hadas select {copy}" in capsys.readouterr().out


def test_resuming_with_other_settings_is_refused(finished, settings):
    workdir, _ = finished
    with pytest.raises(ValueError, match="got population 5 instead of 4"):
        search(settings.replace(population=5), workdir=workdir, resume=True)


def test_a_truncated_checkpoint_is_named(finished, tmp_path):
    workdir, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    for path in (copy / "checkpoints" / "supernet").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(ValueError, match=r"supernet.*damaged") as caught:
        search(workdir=copy, resume=True)
    assert "\n" not in str(caught.value)


def test_a_foreign_checkpoint_is_refused(finished, tmp_path):
    workdir, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    shutil.rmtree(copy / "checkpoints" / "supernet")
    shutil.copytree(copy / "checkpoints" / "exits", copy / "checkpoints" / "supernet")
    with pytest.raises(ValueError, match="another run's"):
        search(workdir=copy, resume=True)


def test_a_diverging_loss_stops_the_run_and_names_the_step(settings, tmp_path, monkeypatch):
    initial = TrainingRun.initial_parameters
    infinite = partial(jax.tree.map, lambda leaf: leaf + jnp.inf)
    monkeypatch.setattr(TrainingRun, "initial_parameters", lambda run: infinite(initial(run)))
    with pytest.raises(DivergenceError, match=r"supernet: .* at step \d+"):
        search(settings, workdir=tmp_path / "wild")


def test_the_splits_share_no_image(settings):
    splits = Run(settings).splits
    parts = [splits.train, splits.validation, splits.calibration, splits.test]
    assert sum(len(part.labels) for part in parts) == 1797
    images = [image.tobytes() for part in parts for image in np.asarray(part.images)]
    assert len(set(images)) == len(images)


def test_only_an_exact_search_refuses_many_exit_positions(settings, small_space, monkeypatch):
    first, second = small_space.stages
    stages = (first, dataclasses.replace(second, depth=(1, 16)))
    deep = dataclasses.replace(small_space, name="deep", resolution=(), stages=stages)
    monkeypatch.setitem(catalogue.SPACES, "deep", deep)
    assert Run(settings.replace(space="deep")).space.num_exits == 17
    with pytest.raises(ValueError, match="inner exact: expected a space of at most 16 exit positions, got 17 of deep"):
        Run(settings.replace(space="deep", inner="exact"))
