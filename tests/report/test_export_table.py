import io

import pytest
from rich.console import Console

import hw_models as hw
from hadas_jax.deploy.export import ExportCheck
from hadas_jax.report.network import print_export

CHECK = ExportCheck(
    images=10,
    difference=1e-7,
    other_exits=0,
    other_labels=0,
    accuracy=0.9,
    expected_accuracy=0.9,
    number_format=hw.NumberFormat.FP32,
    shares=(0.75, 0.25),
    latency_s=(0.003, 0.004),
)
SEGMENTS = [{"name": "exit after block 2", "latency_s": 0.002}, {"name": "classifier", "latency_s": 0.005}]
HERE = "Some CPU, CPU, 2 CPU cores"


def printed(measured_on, runs_as="stablehlo"):
    file = hw.read_device_file("x86-cpu").model_copy(update={"name": "mine", "measured_on": measured_on})
    console = Console(file=io.StringIO(), width=300)
    print_export(CHECK, {"format": runs_as, "segments": SEGMENTS}, device=file, machine=HERE, console=console)
    return console.file.getvalue()


@pytest.mark.parametrize("runs_as", ["stablehlo", "onnx"])
def test_a_model_of_this_machine_is_compared_exit_by_exit(runs_as):
    text = printed(HERE, runs_as)
    assert "mine was fitted to measurements of this machine (Some CPU, CPU, 2 CPU cores)" in text
    assert ("onnxruntime" in text) == (runs_as == "onnx")
    row = next(line for line in text.splitlines() if "exit after block 2" in line)
    assert [part in row for part in ("75.0%", "2.000 ms", "3.000 ms", "1.50")] == [True] * 4
    assert "0.80" in text


@pytest.mark.parametrize(
    ("measured_on", "said"),
    [
        (None, "mine is no model of this machine (Some CPU, CPU, 2 CPU cores): the latencies do not compare."),
        ("Other CPU, CPU, 2 CPU cores", "mine was fitted on Other CPU, CPU, 2 CPU cores, this is Some CPU, CPU,"),
    ],
)
def test_a_model_of_other_hardware_is_not_compared(measured_on, said):
    text = printed(measured_on)
    assert said in text
    assert "hadas devices profile and hadas devices fit make a model of this machine" in text
    assert "measured / model" not in text
    assert "1.50" not in text
