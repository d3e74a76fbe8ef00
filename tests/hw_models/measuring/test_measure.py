"""Tests of measure.py as a board has it: kits, runtimes, the command, and that it stands alone."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hadas_jax.deploy import runtime
from hw_models.measuring import measure
from hw_models.measuring.measurements import read_measurements

MEASURE = Path(measure.__file__)
IMAGES = {"shape": [4, 5, 3], "mean": [0.4, 0.5, 0.6], "deviation": [0.2, 0.3, 0.4]}
CLASSES = 4


def segment(folder, name, *, first, last, score="confidence"):
    """Writes a segment by hand: features are a pooled image's, logits a linear function of them."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(len(name) + first + 2 * last)
    weights = {"w": rng.standard_normal((3, CLASSES)), "c": rng.standard_normal((3, 1))}
    nodes = [
        helper.make_node("Relu", ["x"], ["features"]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        helper.make_node("MatMul", ["flat", "c"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["confidence"]),
    ]
    shapes = {"features": ["B", 3, 4, 5], "logits": ["B", CLASSES], "confidence": ["B", 1]}
    outputs = ["logits"] if last else list(shapes)
    graph = helper.make_graph(
        nodes,
        "segment",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shapes["features"])],
        [helper.make_tensor_value_info(each, TensorProto.FLOAT, shapes[each]) for each in outputs],
        [numpy_helper.from_array(value.astype(np.float32), each) for each, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    content = model.SerializeToString()
    onnx.checker.check_model(model)
    (folder / name).write_bytes(content)
    return {
        "file": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "input": "x",
        "outputs": {each: each for each in outputs},
        "score": score,
        "layers": f"dense {1000 + len(name)} 10 20 30 1",
    }


def write_cases(folder, cases, **changes):
    text = json.dumps(cases, sort_keys=True, separators=(",", ":"))
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.onnx")}
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    content = {"form": "hadas_jax.kit/1", "digest": digest, "reference": "whole", "cases": cases, "files": files}
    (folder / "cases.json").write_text(json.dumps({**content, **changes}))


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    """A path of three segments, one network and one layer."""
    folder = tmp_path_factory.mktemp("kit")
    shape = {"x": [2, 3, 4, 5]}
    common = {"family": "n", "batch": 2, "format": "fp32"}
    own = [segment(folder, f"n{i}.onnx", first=i == 0, last=i == 2, score="learned") for i in range(3)]
    own[1]["score"], own[2]["score"] = "entropy", "confidence"
    cases = [
        {"name": "n", "kind": "path", "images": IMAGES, "inputs": shape, "segments": own, **common},
        {"name": "whole", "kind": "whole", "images": IMAGES, "inputs": shape, **common},
        {"name": "layer", "kind": "layer", "images": None, "inputs": shape, **common},
    ]
    cases[1]["segments"] = [segment(folder, "whole.onnx", first=True, last=True)]
    cases[2]["segments"] = [{**segment(folder, "layer.onnx", first=True, last=True), "score": None}]
    write_cases(folder, cases)
    return folder


@pytest.fixture
def copy(kit, tmp_path):
    return Path(shutil.copytree(kit, tmp_path / "kit"))


def call(*arguments, path=None):
    """Runs a copy of the file as a board does, far from the package; returns exit code and lines."""
    environment = {**os.environ, "PYTHONPATH": "", **({} if path is None else {"PATH": str(path)})}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False
    )
    return done.returncode, (done.stdout + done.stderr).strip().splitlines()


def refusal(capsys, *arguments):
    assert measure.main([str(each) for each in arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_file_needs_python_3_6_at_most():
    pytest.importorskip("vermin")
    command = [sys.executable, "-c", "from vermin import main; main()", "-t=3.6-", "--no-tips", MEASURE]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_the_file_imports_numpy_and_the_standard_library_alone():
    lines = [line.split() for line in MEASURE.read_text().splitlines()]
    names = {words[1].partition(".")[0] for words in lines if words[:1] in (["import"], ["from"])}
    assert names - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}


def test_a_kit_is_measured_by_the_file_alone(copy):
    pytest.importorskip("onnxruntime")
    shutil.copy(MEASURE, copy)
    code, lines = call(copy / "measure.py", "-o", copy / "m.csv", "--seconds", "0.1", "--rounds", "2")
    assert code == 0, lines
    rows = {row.network: row for row in read_measurements(copy / "m.csv")}
    assert sorted(rows) == ["layer", "n/1", "n/2", "n/3", "whole"]
    assert [rows[f"n/{i}"].segments for i in (1, 2, 3)] == [1, 2, 3]
    assert rows["n/1"].latency_ms < rows["n/2"].latency_ms < rows["n/3"].latency_ms
    assert rows["n/3"].latency_ms <= (rows["n/3"].p95_ms or 1e9)  # a slow machine has too few runs for it
    digest = json.loads((copy / "cases.json").read_text())["digest"]
    assert {(row.runtime, row.provider, row.kit, row.batch) for row in rows.values()} == {
        ("onnxruntime", "CPU", digest, 2)
    }
    assert f"Written: {copy / 'm.csv'}, 5 rows" in lines
    assert "0 disturbed measurements left out" in lines
    assert not (copy / "m.csv.rounds").exists()


def test_a_dry_run_lists_and_writes_nothing(copy, capsys):
    pytest.importorskip("onnxruntime")
    before = sorted(copy.rglob("*"))
    assert measure.main([str(copy), "-o", str(copy / "m.csv"), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "Case: n, path, 3 segments, batch 2, fp32" in text
    assert "Runtime: onnxruntime " in text
    assert "Operating point: clocks are left as they are" in text
    assert "9 measurements, about 1 minutes; nothing was done or written" in text
    assert sorted(copy.rglob("*")) == before


def test_scores_and_images_are_those_of_the_runtime(kit):
    pytest.importorskip("onnxruntime")
    path = measure.read_kit(kit)["cases"][0]
    case = measure.open_case(kit, path)
    deployed = runtime.Runtime.__new__(runtime.Runtime)
    deployed._segments, deployed._sessions = [{**each, "threshold": 2.0} for each in path["segments"]], case._sessions
    deployed.manifest = {"batch": None, "input": {**IMAGES, "dtype": "uint8", "range": [0, 1]}}
    x = deployed.standardise(case.images)
    np.testing.assert_array_equal(measure.standardised(case.images, IMAGES), x)
    for number, (outputs, score) in enumerate(case.steps()):
        expected = deployed.run_segment(number, x)
        assert list(outputs) == list(expected)
        for kind, values in expected.items():
            np.testing.assert_array_equal(outputs[kind], values)
        policy = path["segments"][number]["score"]
        wanted = runtime.exit_score(expected["logits"], expected.get("confidence"), policy)
        np.testing.assert_array_equal(score, wanted)
        x = expected.get("features")
    assert len(case.run()) == 3


@pytest.mark.parametrize("policy", ["confidence", "entropy", "learned"])
def test_every_score_is_that_of_the_runtime(policy):
    rng = np.random.default_rng(0)
    logits, confidence = rng.standard_normal((5, 7)).astype(np.float32), rng.random((5, 1)).astype(np.float32)
    np.testing.assert_array_equal(
        measure.exit_score(logits, confidence, policy), runtime.exit_score(logits, confidence, policy)
    )


def test_a_kit_without_its_files_is_refused(copy, capsys, tmp_path):
    assert refusal(capsys, tmp_path / "none") == (
        f"measure: error: {tmp_path}/none: expected a kit as `hadas devices kit` writes, got none (no cases.json)"
    )
    (copy / "n1.onnx").write_bytes(b"damaged")
    assert "n1.onnx: expected the file that cases.json describes, it is damaged; copy the kit" in refusal(capsys, copy)
    (copy / "n1.onnx").unlink()
    assert "n1.onnx: expected the file that cases.json describes, it is missing" in refusal(capsys, copy)


def test_cases_that_were_changed_or_are_of_another_form_are_refused(copy, capsys):
    content = json.loads((copy / "cases.json").read_text())
    (copy / "cases.json").write_text(json.dumps({**content, "form": "hadas_jax.kit/2"}))
    assert "expected a kit of form hadas_jax.kit/1, got 'hadas_jax.kit/2'" in refusal(capsys, copy)
    content["cases"][0]["batch"] = 3
    (copy / "cases.json").write_text(json.dumps(content))
    assert "cases.json: expected cases of the digest that it names, it is damaged" in refusal(capsys, copy)
    (copy / "cases.json").write_text("{")
    assert "cases.json: expected what a kit holds, cannot read it" in refusal(capsys, copy)


def test_a_network_that_cannot_be_loaded_is_named(copy, capsys):
    pytest.importorskip("onnxruntime")
    (copy / "layer.onnx").write_bytes(b"no network")
    cases = json.loads((copy / "cases.json").read_text())["cases"]
    cases[2]["segments"][0]["sha256"] = hashlib.sha256(b"no network").hexdigest()
    write_cases(copy, cases)
    line = refusal(capsys, copy, "-o", copy / "m.csv", "--seconds", "0.001", "--rounds", "1")
    assert "layer.onnx: expected a network that onnxruntime runs, got: " in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runtime", "tensorrt"], "expected trtexec of TensorRT on PATH, got none: pip install onnxruntime, or"),
        (["--provider", "CUDA"], "provider: expected one that this onnxruntime has (.*CPU), got CUDA: its package for"),
        (["--seconds", "0"], "expected --seconds above 0 and --threads from 1, got 0.0 and 1"),
        (["--power-log", "none.log"], "none.log: expected a log of tegrastats or jtop, got: No such file"),
        (["--resume"], "m.csv: expected measurements to continue, got no such file"),
        (["--core-mhz", "77"], "core_mhz: expected a clock that can be set on this machine"),
        (["-o", "no/m.csv"], "no/m.csv: expected a folder that exists, got no"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(arguments, message, kit, capsys, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(measure, "_ROOT", tmp_path)
    line = refusal(capsys, kit, "-o", "m.csv", *arguments)
    assert message.replace(".*", "") in line or all(part in line for part in message.split(".*"))
    assert list(tmp_path.iterdir()) == []


def test_without_any_runtime_the_package_to_install_is_named(kit, capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    expected = "runtime: expected onnxruntime or trtexec, got none: pip install onnxruntime, or install TensorRT"
    assert expected in refusal(capsys, kit, "-o", tmp_path / "m.csv")
    assert "runtime: expected the package onnxruntime, got none: pip install onnxruntime" in refusal(
        capsys, kit, "-o", tmp_path / "m.csv", "--runtime", "onnxruntime"
    )


def test_rows_of_another_kit_are_refused(copy, capsys):
    pytest.importorskip("onnxruntime")
    quick = [copy, "-o", copy / "m.csv", "--seconds", "0.001", "--rounds", "1"]
    assert measure.main([str(each) for each in quick]) == 0
    cases = json.loads((copy / "cases.json").read_text())["cases"]
    write_cases(copy, cases[:2])
    capsys.readouterr()
    assert "m.csv: expected rows of kit " in refusal(capsys, *quick, "--resume")


def test_a_machine_that_throttles_is_inconclusive(kit, capsys, monkeypatch, tmp_path):
    pytest.importorskip("onnxruntime")
    events = iter(range(1000))
    state = measure.Machine.state
    monkeypatch.setattr(measure.Machine, "state", lambda machine: state(machine)._replace(throttled=next(events)))
    output = tmp_path / "m.csv"
    assert measure.main([str(kit), "-o", str(output), "--seconds", "0.001", "--rounds", "1"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "INCONCLUSIVE: n has no row: its reference could not be measured" in lines
    assert "INCONCLUSIVE: whole has no row: the machine throttled (1 times)" in lines
    assert lines[-1] == "INCONCLUSIVE: 3 of 3 cases have no row; --resume measures them again"
    assert not output.exists()


TRTEXEC = """#!{python}
import json, os, pathlib, sys
flags = dict(word[2:].partition("=")[::2] for word in sys.argv[1:])
print("&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec", flush=True)
if "help" in flags:
    sys.exit(0)
with open(os.environ["TRTEXEC_CALLS"], "a") as log:
    print(json.dumps(flags), file=log)
if "onnx" in flags:
    if "broken" in flags["onnx"]:
        print("[E] Could not parse the network")
        sys.exit(1)
    pathlib.Path(flags["saveEngine"]).write_text("engine")
else:
    assert pathlib.Path(flags["loadEngine"]).read_text() == "engine"
print("[I] Starting inference", flush=True)
runs = [{{"startInMs": 0.0, "computeMs": 0.9, "latencyMs": ms}} for ms in [1.0, 2.0, 9.0] * 40]
pathlib.Path(flags["exportTimes"]).write_text(json.dumps(runs))
print("[I] Timing trace has 120 queries over 3 s", flush=True)
"""


@pytest.fixture
def trtexec(tmp_path, monkeypatch):
    """A script that stands for it; returns its calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "trtexec").write_text(TRTEXEC.format(python=sys.executable))
    (folder / "trtexec").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("TRTEXEC_CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr(measure, "_TRTEXEC_WARM_S", 0.0)
    return lambda: [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]


def test_engines_are_built_once_and_the_medians_of_segments_add_up(copy, trtexec, capsys):
    output = copy / "m.csv"
    assert measure.main([str(copy), "-o", str(output), "--runtime", "tensorrt", "--rounds", "2"]) == 0
    rows = {row.network: row for row in read_measurements(output)}
    assert [rows[f"n/{i}"].latency_ms for i in (1, 2, 3)] == [2.0, 4.0, 6.0]
    assert [rows[f"n/{i}"].p95_ms for i in (1, 2, 3)] == [9.0, None, None]
    assert rows["n/2"].spread_ms == pytest.approx(2**0.5, rel=1e-5)
    labels = {(row.runtime, row.runtime_version, row.provider, row.runs) for row in rows.values()}
    assert labels == {("tensorrt", "8.5.2", "GPU", 240)}
    calls = trtexec()
    assert sorted(Path(call["onnx"]).name for call in calls if "onnx" in call) == [
        *("layer.onnx", "n0.onnx", "n1.onnx", "n2.onnx", "whole.onnx")
    ]
    assert len(calls) == 10
    assert not (copy / "m.csv.engines").exists()
    assert "TensorRT" not in capsys.readouterr().err


def test_an_engine_of_half_precision_is_asked_for_where_the_case_says_so(copy, trtexec):
    case = measure.read_kit(copy)["cases"][1]
    measure.open_case(copy, {**case, "format": "fp16"}, runtime="tensorrt").timing(
        0.1, None, 1.0, measure.Machine().state
    )
    assert "fp16" in trtexec()[0]


def test_an_engine_that_cannot_be_built_is_named(copy, trtexec):
    case = measure.read_kit(copy)["cases"][1]
    broken = {**case, "segments": [{**case["segments"][0], "file": "broken.onnx"}]}
    with pytest.raises(ValueError, match=r"broken.onnx: expected times .*exit code 1 and: \[E\] Could not parse the"):
        measure.open_case(copy, broken, runtime="tensorrt").timing(0.1, None, 1.0, measure.Machine().state)


def test_power_is_read_while_trtexec_infers(copy, trtexec, tmp_path):
    rail = tmp_path / "sys/class/hwmon/hwmon0"
    rail.mkdir(parents=True)
    for name, text in {"name": "ina3221", "in1_label": "VDD_IN", "in1_input": "5000", "curr1_input": "1200"}.items():
        (rail / name).write_text(text)
    machine = measure.Machine("gpu", tmp_path)
    case = measure.open_case(copy, measure.read_kit(copy)["cases"][0], runtime="tensorrt")
    assert case.timing(0.1, machine.meter(), 1.0, machine.state).power_w == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("said", "version"), [("v8502", "8.5.2"), ("v7103", "7.1.3"), ("v8601", "8.6.1"), ("v100300", "10.3.0"), ("", None)]
)
def test_the_version_of_tensorrt_is_read_from_its_banner(said, version, trtexec, tmp_path):
    script = tmp_path / "bin/trtexec"
    script.write_text(script.read_text().replace("v8502", said))
    assert measure.find_engine("tensorrt") == measure.Engine("tensorrt", version, "GPU")
