import json

import pytest

from hadas_jax.runs.workdir import WorkDir


def start(place, settings, *, overwrite=False, **arguments):
    """Begins a run and leaves it."""
    with place.run(settings, resume=False, overwrite=overwrite, **arguments):
        pass


@pytest.fixture
def place(tmp_path):
    return WorkDir(tmp_path / "run")


def test_a_new_run_records_its_settings_and_versions(place):
    start(place, {"seed": 1})
    assert place.settings() == {"seed": 1}
    stored = json.loads((place.path / "config.json").read_text())
    assert {"python", "jax", "hadas-jax"} <= stored["versions"].keys()


def test_a_directory_with_a_run_is_not_started_over_unasked(place):
    start(place, {"seed": 1})
    (place.path / "front.csv").write_text("precious")
    with pytest.raises(ValueError, match="`resume` continues it, `overwrite` replaces it"):
        start(place, {"seed": 2})
    assert (place.path / "front.csv").read_text() == "precious"
    assert place.settings() == {"seed": 1}


def test_overwriting_removes_the_run_and_leaves_other_files(place):
    start(place, {"seed": 1})
    (place.path / "checkpoints" / "supernet").mkdir(parents=True)
    (place.path / "front.csv").write_text("old")
    (place.path / "notes.txt").write_text("mine")
    start(place, {"seed": 2}, overwrite=True)
    assert sorted(path.name for path in place.path.iterdir()) == ["config.json", "notes.txt"]
    assert place.settings() == {"seed": 2}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_with_something_else_is_left_alone(place, overwrite):
    place.path.mkdir()
    (place.path / "thesis.tex").write_text("mine")
    with pytest.raises(ValueError, match=r"got one with thesis\.tex"):
        start(place, {}, overwrite=overwrite)
    assert [path.name for path in place.path.iterdir()] == ["thesis.tex"]


def test_a_supernet_alone_is_no_run_and_stays(place):
    (place.path / "supernet").mkdir(parents=True)
    with pytest.raises(ValueError, match="got one with supernet"):
        start(place, {}, overwrite=True)
    assert (place.path / "supernet").is_dir()


def test_a_run_does_not_replace_the_supernet_that_it_starts_from(place):
    start(place, {})
    (place.path / "supernet").mkdir()
    with pytest.raises(ValueError, match=r"checkpoint .*supernet: expected one outside the work directory"):
        start(place, {}, overwrite=True, reads=str(place.path / "supernet"))
    assert (place.path / "supernet").is_dir()


def test_a_file_is_no_work_directory(place):
    place.path.write_text("")
    with pytest.raises(ValueError, match="expected a directory, got a file"):
        start(place, {})


def test_there_must_be_a_run_to_resume(place):
    with pytest.raises(ValueError, match="expected a run to resume, got none"):
        place.settings()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"settings": {}}', '{"form": "other/1", "settings": {}}'])
def test_a_foreign_config_is_refused(place, content):
    place.path.mkdir()
    (place.path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json: expected"):
        place.settings()


def test_metrics_of_repeated_steps_are_forgotten(place):
    start(place, {})
    for stage, step in (("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1)):
        place.add_metrics(stage, step, {"loss": 0.5})
    with (place.path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "c", "st')
    place.drop_metrics("b", 1)
    left = [json.loads(line) for line in (place.path / "metrics.jsonl").read_text().splitlines()]
    assert [(entry["stage"], entry["step"]) for entry in left] == [("a", 1), ("a", 2), ("b", 1), ("c", 1)]


def test_without_metrics_there_is_nothing_to_forget(place):
    start(place, {})
    place.drop_metrics("a", 0)
    assert not (place.path / "metrics.jsonl").exists()
