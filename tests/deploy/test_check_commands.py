"""Tests of `hadas devices check` and of the kit that it writes: files, exit codes, and one line for each mistake."""

import contextlib
import json
import shutil
import sys
from pathlib import Path

import pytest
from failing_commands import fails

from hadas_jax.cli import main
from hadas_jax.deploy import check
from hadas_jax.deploy.kit import layers_by_segment
from hadas_jax.deploy.operating_points import ExitCosts
from hw_models import load_device
from hw_models.measuring import Measurement, read_measurements, write_measurements

pytestmark = pytest.mark.usefixtures("elsewhere")


def rows_of(networks, *, factor, kit="0123456789ab"):
    """Rows as the search's device says, longer by a factor."""
    rows, device = [], load_device("tx2-gpu")
    for name, network in networks:
        architecture = network.architecture
        pair = (architecture.genome, architecture.exits)
        (cost,) = ExitCosts.of_networks([pair], space=architecture.space, device=device)
        texts = layers_by_segment(architecture.space, *pair)
        rows += [
            Measurement(
                network=f"{name}/{k + 1}",
                layers=";".join(texts[: k + 1]),
                segments=k + 1,
                latency_ms=1e3 * factor * latency,
                kit=kit,
            )
            for k, latency in enumerate(cost.latency_s[:, -1])
        ]
    return rows


@pytest.fixture
def timed(monkeypatch):
    """Times that this machine is told to take: in units of those of the search's device."""

    def fake(factor):
        def measured(networks, images, folder, **options):
            rows = rows_of(networks, factor=factor)
            last = {row.network.partition("/")[0]: check.EndToEnd(*[1e-3 * row.latency_ms] * 2) for row in rows}
            return rows, last

        monkeypatch.setattr(check, "measure_here", measured)

    return fake


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (1.5, 1)])
def test_a_check_writes_its_files_and_ends_by_the_tolerance(workdir, timed, factor, code, capsys):
    timed(factor)
    with pytest.raises(SystemExit) if code else contextlib.nullcontext() as stop:
        main(["devices", "check", str(workdir), "--networks", "3", "--tolerance", "0.4" if code == 0 else "0.1"])
    assert code == 0 or stop.value.code == 1
    printed = capsys.readouterr().out
    assert f"{'Both' if code == 0 else 'Not both'} mean errors are within the tolerance" in printed
    content = json.loads((workdir / "check.json").read_text())
    assert content["form"] == "hadas_jax.check/1"
    assert len(content["networks"]) == 3
    assert len(read_measurements(workdir / "check.csv")) == content["exits"]["count"]
    assert (workdir / "check.png").read_bytes().startswith(b"\x89PNG")
    again = ["devices", "check", str(workdir), "--measurements", str(workdir / "check.csv"), "-o", "again.json"]
    main([*again, "--tolerance", "1", "--corruptions", "1", "--networks", "3"])
    other = json.loads(Path("again.json").read_text())
    assert other["exits"] == content["exits"]
    (corrupted,) = [each for each in other["networks"] if each["corruptions"]]
    assert len(corrupted["corruptions"]) == 13
    assert corrupted["corruptions"][0]["latency_s"] == pytest.approx(corrupted["paths_s"], rel=0.2)
    assert "the test split under corruption, as deployed" in capsys.readouterr().out
    main(["report", str(workdir)])
    assert "Predicted and measured" in (workdir / "report.html").read_text()


@pytest.mark.slow
def test_a_boards_rows_come_back_by_the_digest_of_its_kit(workdir, capsys):
    pytest.importorskip("onnxruntime")
    main(["devices", "check", str(workdir), "--networks", "2", "--kit", "kit"])
    printed = capsys.readouterr().out
    assert f"hadas devices check {workdir} --measurements measurements.csv" in printed
    kit = json.loads(Path("kit/cases.json").read_text())
    rows = [
        Measurement(
            network=f"{case['name']}/{k + 1}",
            layers=";".join(segment["layers"] for segment in case["segments"][: k + 1]),
            latency_ms=k + 1,
            kit=kit["digest"],
        )
        for case in kit["cases"]
        for k in range(len(case["segments"]))
    ]
    write_measurements("m.csv", rows)
    main(["devices", "check", str(workdir), "--measurements", "m.csv", "--tolerance", "1e9", "-o", "mine.json"])
    assert json.loads(Path("mine.json").read_text())["protocol"]["kit"] == kit["digest"]
    write_measurements("other.csv", [row.model_copy(update={"kit": "ffffffffffff"}) for row in rows])
    message = fails(f"devices check {workdir} --measurements other.csv", capsys)
    assert f"other.csv: expected measurements of a kit of {workdir} ({kit['digest']}), got ffffffffffff" in message
    assert "mine.json: expected a new check" in fails(f"devices check {workdir} -o mine.json", capsys)
    assert "`overwrite`" not in fails(f"devices check {workdir} --kit kit", capsys)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--tolerance 0", "--tolerance: expected a number above 0, got 0"),
        ("--rounds 0", "--rounds: expected 1 or more, got 0"),
        ("--networks 0", "--networks: expected 1 or more, got 0"),
        ("--corruptions 21", "--corruptions: expected 0 to 20, the number of networks, got 21"),
        ("--kit k --measurements m.csv", "--kit and --measurements: expected one of them"),
        ("--measurements none.csv", "none.csv: expected a readable CSV file"),
        ("-o none/check.json", "none/check.json: expected a folder that exists, got none"),
    ],
)
def test_a_mistake_ends_with_one_line_and_nothing_is_written(workdir, flags, message, capsys):
    before = sorted(path.name for path in workdir.iterdir())
    assert message in fails(f"devices check {workdir} {flags}", capsys)
    assert sorted(path.name for path in workdir.iterdir()) == before


def test_a_front_whose_weights_are_gone_is_refused(workdir, capsys):
    shutil.rmtree(workdir / "supernet")
    assert "expected the supernet of the search in supernet/, got none" in fails(f"devices check {workdir}", capsys)


@pytest.mark.parametrize(("package", "hint"), [("onnx", "hadas-jax[onnx]"), ("onnxruntime", "pip install onnxruntime")])
def test_a_missing_package_is_named_before_anything_is_cut_out(workdir, package, hint, capsys, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setitem(sys.modules, package, None)
    assert hint in fails(f"devices check {workdir}", capsys)


def test_an_unfinished_search_is_refused(workdir, capsys):
    (workdir / "front.json").unlink()
    assert "expected a finished search, got one without front.json" in fails(f"devices check {workdir}", capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--networks 0", "--networks: expected 1 to 512, got 0"),
        ("--layers 5", "--layers: expected 0 to 4 sizes of each kind, got 5"),
        ("--batch 0", "--batch: expected 1 or more, got 0"),
        ("--space outer", "unknown space 'outer'"),
    ],
)
def test_a_kit_that_cannot_be_is_refused(arguments, message, capsys, tmp_path):
    pytest.importorskip("onnxruntime")
    assert message in fails(f"devices kit -o kit {arguments}", capsys)
    assert not (tmp_path / "kit").exists()
