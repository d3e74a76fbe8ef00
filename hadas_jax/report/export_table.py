"""An export for people: whether it does what JAX does, and its latency per exit beside the device model."""

from typing import Any

from rich.console import Console
from rich.table import Table

from hadas_jax.deploy.export_check import ExportCheck
from hadas_jax.outputs import say
from hw_models.schema import DeviceFile


def print_export(
    check: ExportCheck, manifest: dict[str, Any], *, device: DeviceFile, machine: str, console: Console
) -> None:
    """Prints what an export was found to do.

    Args:
      check: of the export.
      manifest: of the export.
      device: whose model gave the latencies of the manifest.
      machine: that the latencies of the check were measured on, as `hw_models.measuring.machine.Machine.name`.
      console: where to.
    """
    say(
        console,
        f"{check.images} test images: largest difference to JAX {check.difference:.1e}, relative; "
        f"{check.other_exits} stop elsewhere, {check.other_labels} get another class; accuracy {check.accuracy:.2%}",
    )
    is_own = device.measured_on == machine
    table = Table(title="Latency of one image that stops there")
    headings = ("", "share", f"device model: {device.name}", "measured here", *(["measured / model"] if is_own else []))
    for heading in headings:
        table.add_column(heading, justify="left" if not heading else "right")
    for segment, share, measured in zip(manifest["segments"], check.shares, check.latency_s, strict=True):
        modelled = segment["latency_s"]
        ratio = [f"{measured / modelled:.2f}"] if is_own else []
        table.add_row(segment["name"], f"{share:.1%}", f"{modelled * 1e3:.3f} ms", f"{measured * 1e3:.3f} ms", *ratio)
    console.print(table)
    say(console, comparison(device, machine, runs_as=manifest["format"]))


def comparison(device: DeviceFile, machine: str, *, runs_as: str) -> str:
    """Says in one sentence whether a device model and latencies measured on a machine belong together.

    Args:
      device: its file.
      machine: that was measured.
      runs_as: format of the export.
    """
    if device.measured_on == machine:
        runtime = ", and onnxruntime from JAX, which was measured" if runs_as == "onnx" else ""
        return (
            f"{device.name} was fitted to measurements of this machine ({machine}): the ratio is of one call "
            f"for each segment to whole networks, and says by how much the model is off{runtime}."
        )
    own = "the latencies do not compare. hadas devices profile and hadas devices fit make a model of this machine."
    if device.measured_on is not None:
        return f"{device.name} was fitted on {device.measured_on}, this is {machine}: {own}"
    return f"{device.name} is no model of this machine ({machine}): {own}"
