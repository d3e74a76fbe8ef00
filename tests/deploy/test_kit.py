"""Tests of kits: what lies in the folder, what layers its segments have, and that its networks really run."""

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from hadas_jax.commands.devices import fit_device
from hadas_jax.deploy.kit import AGAIN, cases_digest, layers_by_segment, write_network_kit, write_space_kit
from hadas_jax.deploy.operating_points import ExitCosts
from hadas_jax.spaces.design import space_to_profile, spread_genomes
from hw_models import default_point, load_device, network_cost
from hw_models.measuring import Measurement, read_measurements
from hw_models.measuring.measurements import layer_tables

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def space(short):
    return short[0]


@pytest.fixture(scope="module")
def folder(space, tmp_path_factory):
    """A kit of four networks and two sizes of layers."""
    folder = tmp_path_factory.mktemp("kits") / "kit"
    write_space_kit(folder, space, networks=4, layers=2, seed=3)
    return folder


@pytest.fixture(scope="module")
def content(folder):
    return json.loads((folder / "cases.json").read_text())


def run(folder, case):
    """Runs a case on random inputs; returns the standard deviation of each segment's logits."""
    from onnxruntime import InferenceSession

    ((_, shape),) = case["inputs"].items()
    x, found = np.random.default_rng(0).standard_normal(shape, np.float32), []
    for segment in case["segments"]:
        session = InferenceSession(folder / segment["file"], providers=["CPUExecutionProvider"])
        names = segment["outputs"]
        outputs = dict(zip(names, session.run(list(names.values()), {segment["input"]: x}), strict=True))
        assert all(np.all(np.isfinite(value)) and len(value) == shape[0] for value in outputs.values())
        found.append(float(np.std(outputs["logits"])))
        x = outputs.get("features")
    return found


def test_every_file_is_listed_with_its_digest_and_nothing_else_lies_there(folder, content):
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    del files["cases.json"]
    assert content["files"] == files
    assert "measure.py" in files
    assert content["form"] == "hadas_jax.kit/1"
    assert content["digest"] == cases_digest(content["cases"])
    models = {segment["file"]: segment["sha256"] for case in content["cases"] for segment in case["segments"]}
    assert models == {name: digest for name, digest in files.items() if name.endswith(".onnx")}


def test_networks_are_there_as_paths_of_one_to_three_exits_and_whole(content):
    cases = content["cases"]
    paths = [case for case in cases if case["kind"] == "path"]
    assert len(paths) == 4
    assert {len(case["segments"]) for case in paths} == {2, 3}  # the largest has two exits
    assert [case["name"] for case in cases if case["kind"] == "whole"] == [f"{case['name']}-whole" for case in paths]
    assert len({case["name"] for case in cases}) == len(cases) == 4 + 4 + 12
    assert content["reference"] == "short-9-3-001-whole"
    for case in paths:
        assert case["images"] == {"shape": [9, 9, 1], "mean": [0.5], "deviation": [0.25]}
        *exits, last = case["segments"]
        assert set(last["outputs"]) == {"logits"}
        assert all(set(segment["outputs"]) == {"features", "logits", "confidence"} for segment in exits)


def test_every_case_runs_and_its_activations_neither_vanish_nor_overflow(folder, content):
    for case in content["cases"]:
        for std in run(folder, case):
            assert 1e-3 < std < 1e3


def test_the_layers_of_a_path_cost_what_a_search_charges(space, content):
    device = load_device("tx2-gpu")
    genomes = spread_genomes(space, 4, seed=3)
    paths = [case for case in content["cases"] if case["kind"] == "path"]
    for genome, case in zip(genomes, paths, strict=True):
        blocks = [int(segment["outputs"]["logits"].split("_")[0][4:]) for segment in case["segments"][:-1]]
        (costs,) = ExitCosts.of_networks([(genome, blocks)], space=space, device=device)
        texts = [segment["layers"] for segment in case["segments"]]
        assert tuple(texts) == layers_by_segment(space, genome, blocks)
        prefixes = [";".join(texts[: end + 1]) for end in range(len(texts))]
        tables = layer_tables([Measurement(network="n", layers=text, latency_ms=1) for text in prefixes])
        for k, expected in enumerate(costs.latency_s[:, -1]):
            layers = type(tables)(**{name: column[k] for name, column in vars(tables).items()})
            found = network_cost(layers, device, default_point(device)).latency_s
            assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_kit_of_another_seed_or_size_has_another_digest(space, content, tmp_path):
    for number, options in enumerate(({"seed": 4}, {"seed": 3, "batch": 2})):
        made = write_space_kit(tmp_path / str(number), space, networks=2, layers=1, **options)
        assert made.digest != content["digest"]
        assert made.cases == 2 + 2 + 6
        case = json.loads((made.folder / "cases.json").read_text())["cases"][-1]
        assert case["inputs"] == {"x": [options.get("batch", 1), 16]}
        run(made.folder, case)


def test_a_network_is_there_twice_with_its_own_weights(network, tmp_path):
    made = write_network_kit(tmp_path / "kit", [("one", network)])
    content = json.loads((tmp_path / "kit" / "cases.json").read_text())
    assert made.cases == 2 + 6
    assert [case["name"] for case in content["cases"][:2]] == ["one", f"one{AGAIN}"]
    assert content["reference"] == "one"
    assert content["cases"][0]["segments"] == content["cases"][1]["segments"]
    assert content["cases"][0]["family"] == content["cases"][1]["family"] == "one"
    assert content["cases"][0]["images"] == {"shape": [9, 9, 1], "mean": [0.25], "deviation": [0.5]}
    assert [segment["score"] for segment in content["cases"][0]["segments"]] == ["confidence"] * 3
    assert not list((tmp_path / "kit").glob("weights*"))
    run(tmp_path / "kit", content["cases"][0])


def test_single_layers_of_all_kits_are_the_same(space, network, tmp_path):
    """By them a check knows how fast a machine is beside when its device was measured."""
    write_network_kit(tmp_path / "own", [("one", network)])
    write_space_kit(tmp_path / "space", space, networks=2)
    own, others = (
        {case["name"]: case["segments"][0]["layers"] for case in json.loads(path.read_text())["cases"]}
        for path in (tmp_path / "own" / "cases.json", tmp_path / "space" / "cases.json")
    )
    layers = [name for name in own if name.startswith("layer-")]
    assert len(layers) == 6
    assert {name: own[name] for name in layers} == {name: others[name] for name in layers}


def test_a_kit_is_replaced_only_if_told_and_other_files_never_are(space, folder, tmp_path):
    with pytest.raises(ValueError, match="`overwrite` replaces it"):
        write_space_kit(folder, space, networks=2)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("unsaved")
    with pytest.raises(ValueError, match=r"got one with thesis\.txt"):
        write_space_kit(tmp_path / "mine", space, networks=2, overwrite=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"networks": 0}, "networks: expected 1 to [0-9]+, got 0"),
        ({"layers": 5}, "layers: expected 0 to 4 sizes of each kind, got 5"),
        ({"batch": 0}, "batch: expected 1 or more, got 0"),
    ],
)
def test_a_number_that_cannot_be_is_refused_and_nothing_is_written(space, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_space_kit(tmp_path / "kit", space, **options)
    assert not (tmp_path / "kit").exists()


def test_without_the_extra_the_package_to_install_is_named(space, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ValueError, match=r"expected the extra onnx, got none; pip install 'hadas-jax\[onnx\]'"):
        write_space_kit(tmp_path / "kit", space, networks=2)


@pytest.mark.slow
def test_a_large_network_without_weights_of_its_own_has_logits_of_ordinary_size(tmp_path):
    made = write_space_kit(tmp_path / "kit", space_to_profile("attentivenas"), networks=4, layers=0)
    assert made.bytes < 30e6
    for case in json.loads((made.folder / "cases.json").read_text())["cases"]:
        for std in run(made.folder, case):
            assert 1e-3 < std < 1e3


_ALONE = """import runpy, sys
sys.path.append({packages!r})
sys.argv = {words!r}
runpy.run_path(sys.argv[0], run_name="__main__")"""


@pytest.mark.slow
def test_a_kit_is_measured_where_there_are_numpy_and_onnxruntime_alone_and_its_rows_fit(tmp_path):
    import numpy
    import onnxruntime

    made = write_space_kit(tmp_path / "kit", space_to_profile("digits"), networks=6, layers=1)
    packages = tmp_path / "packages"
    packages.mkdir()
    for module in (numpy, onnxruntime):
        place = Path(module.__file__).parent
        for path in (place, *place.parent.glob(f"{place.name}.libs")):
            (packages / path.name).symlink_to(path)
    words = [str(made.folder / "measure.py"), "-o", str(tmp_path / "m.csv"), "--rounds", "1", "--seconds", "0.02"]
    code = _ALONE.format(packages=str(packages), words=words)
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = read_measurements(tmp_path / "m.csv")
    assert {row.kit for row in rows} == {made.digest}
    assert {row.segments for row in rows} >= {1, 2, 3}
    found = fit_device(tmp_path / "m.csv", tmp_path / "mine.yaml", base="x86-cpu", console=Console(file=io.StringIO()))
    assert found.latency_error < 1
