"""Where the time and the chip go: a row per stage or layer, which one is the bottleneck, and why.

`hw_models.accelerator.pipeline` and `hw_models.accelerator.generic` report networks of their paradigm.
"""

import dataclasses

import numpy as np
from rich import box
from rich.table import Table

from hw_models.accelerator.rows import Rows


@dataclasses.dataclass(frozen=True)
class StageRow:
    """Equal layers of a network on an accelerator.

    Attributes:
        name: Part of the network, operation and layer.
        layers: How many of them there are.
        macs: Multiply-accumulates of one layer; operations of pooling.
        channels: Channels worked on at once.
        kernels: Kernels worked on at once.
        cycles: Of one layer, for an image.
        share: Of the time: cycles over those of the slowest stage (pipeline), or of all layers over the sum (generic).
        dsp: Taken by all these layers; in the pipeline for the whole batch, without control.
        bram18: Memory blocks, likewise.
        is_bottleneck: Whether this row sets the throughput (pipeline), or takes most of the time (generic).
    """

    name: str
    layers: int
    macs: int
    channels: int
    kernels: int
    cycles: float
    share: float
    dsp: int
    bram18: int
    is_bottleneck: bool

    @classmethod
    def of_network(cls, rows: Rows, layers: np.ndarray, **columns: np.ndarray) -> "tuple[StageRow, ...]":
        """The rows of layers that a network has, int[L], and that take time; columns [L] by field."""
        shown = np.flatnonzero((layers > 0) & (rows.is_weighted | rows.is_pooling))
        columns = {"layers": layers, "macs": rows.macs.astype(int), **columns}
        values = {name: column[shown].tolist() for name, column in columns.items()}
        return tuple(
            cls(name=rows.name[row], **dict(zip(values, cells, strict=True)))
            for row, *cells in zip(shown, *values.values(), strict=True)
        )


@dataclasses.dataclass(frozen=True)
class AcceleratorReport:
    """A network on an accelerator.

    Attributes:
        paradigm: `pipeline` or `generic`.
        fpga: Name.
        throughput: Images/s.
        latency_s: Of an image.
        batch: Images side by side; 1 in the generic paradigm.
        dsp: Taken in all, of `usable_dsp`.
        bram18: Taken in all, of `usable_bram18`.
        usable_dsp: That a design may take.
        usable_bram18: That a design may take.
        rows: In the order of the network.
        reason: Why the bottleneck is one, and what limits the rest, in sentences.
    """

    paradigm: str
    fpga: str
    throughput: float
    latency_s: float
    batch: int
    dsp: int
    bram18: int
    usable_dsp: int
    usable_bram18: int
    rows: tuple[StageRow, ...]
    reason: str

    @property
    def bottleneck(self) -> StageRow:
        """The first row that is one."""
        return next(row for row in self.rows if row.is_bottleneck)


def report_table(report: AcceleratorReport, *, most_rows: int | None = None) -> Table:
    """Draws a report for the terminal.

    Args:
        report: The report.
        most_rows: The rows that take longest, in the order of the network; None: all.

    Returns:
        The table, with the reason below.
    """
    title = (
        f"{report.paradigm} on {report.fpga}: {report.throughput:,.0f} images/s, {1e3 * report.latency_s:.2f} ms, "
        f"batch {report.batch}, {report.dsp:,} of {report.usable_dsp:,} DSPs, "
        f"{report.bram18:,} of {report.usable_bram18:,} memory blocks"
    )
    table = Table(title=title, caption=report.reason, caption_justify="left", box=box.SIMPLE_HEAD)
    table.collapse_padding, table.pad_edge = True, False  # for eighty columns
    table.add_column("layer", no_wrap=True)
    for name in ("", "M\nMACs", "at\nonce", "cycles", "time", "DSPs", "blocks"):
        table.add_column(name, justify="right")
    longest = sorted(report.rows, key=lambda row: -row.share)[:most_rows]
    for row in report.rows:
        if row in longest:
            at_once = f"{row.channels}x{row.kernels}"
            cells = (row.name, f"{row.layers}x", f"{row.macs / 1e6:.2f}", at_once, f"{row.cycles:,.0f}")
            style = "bold" if row.is_bottleneck else ""
            table.add_row(*cells, f"{row.share:.0%}", f"{row.dsp}", f"{row.bram18}", style=style)
    return table
