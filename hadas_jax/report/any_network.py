"""What the commands for networks that a user brings print: prices layer by layer."""

from pathlib import Path

from rich.console import Console

from hadas_jax.deploy.pricing import NetworkPrice
from hadas_jax.frozen.description import GivenDescription
from hadas_jax.report.console import megahertz, milli, new_table, print_line
from hadas_jax.runs.names import GIVEN

_WIDTH = 20  # characters of names that are shown
_SHOWN = 2  # operating points whose costs stand beside each layer


def print_price(price: NetworkPrice, console: Console, *, title: str) -> None:
    """Prints the layers of a network with their costs at the default and one other operating point, and all totals.

    Args:
        price: The network on its device.
        console: Where to.
        title: What the network is called.
    """
    beside = [price.points[0], price.points[min(_SHOWN, len(price.points) - 1)]]
    print_line(console, f"{title} on {price.device}: {', then '.join(point.asked for point in beside)}")
    table = new_table("", "layer", "operator", "MMACs", "weights", "kB", *("ms", "mJ") * 2, names=2, dense=True)
    for row, layer in enumerate(price.layers.layers):
        size = layer.memory * price.element_bytes / 1e3
        costs = [milli(value) for point in beside for value in (point.layers_s[row], point.layers_j[row])]
        name = layer.name if len(layer.name) <= _WIDTH else f"…{layer.name[1 - _WIDTH :]}"
        known = layer.operator.replace(" + ", "+") if layer.is_known else f"{layer.operator} (unknown)"
        known = known if len(known) <= _WIDTH else f"{known[: _WIDTH - 1]}…"
        table.add_row(name, known, f"{layer.macs / 1e6:.4g}", f"{layer.weights:,}", f"{size:,.4g}", *costs)
    console.print(table)
    totals = new_table("a run", "clocks", "core, memory, host MHz", "ms", "mJ", "W")
    for point in price.points:
        clocks = megahertz(point.clocks_mhz.values())
        totals.add_row(point.asked, clocks, milli(point.latency_s), milli(point.energy_j), f"{point.power_w:.3g}")
    console.print(totals)
    layers, bytes_each = price.layers, price.element_bytes
    print_line(
        console,
        f"{layers.macs:,} MACs, {layers.weights:,} weights ({layers.weights * bytes_each / 1e6:.3g} MB), "
        f"{layers.memory * bytes_each / 1e6:.3g} MB of activations at the peak",
    )
    if layers.unknown:
        print_line(console, f"Not known, counted by the bytes that they move: {', '.join(layers.unknown)}")


def print_heads(workdir: Path, console: Console) -> None:
    """Prints the heads of a finished run: where each is, what kind was the best, and its validation accuracy."""
    described = GivenDescription.read(workdir / GIVEN)
    table = new_table("heads", "after", "shape", "kind", "validation", names=1)
    new = [] if described.classifier is None else [described.classifier]
    for head in (*described.heads, *new):
        shape = "x".join(map(str, head.place.shape))
        table.add_row(head.place.tensor, shape, head.kind, f"{head.validation_accuracy:.1%}")
    console.print(table)
