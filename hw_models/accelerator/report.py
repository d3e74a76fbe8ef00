"""Where the time and the chip go: a row per stage or layer, which one is the bottleneck, and why.

Reports of both paradigms, see `hw_models.accelerator.pipeline` and `hw_models.accelerator.generic`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from rich import box
from rich.table import Table

from hw_models.accelerator.fpga import Fpga
from hw_models.accelerator.generic import check_generic_fits, engine, layer_cycles
from hw_models.accelerator.pipeline import check_pipeline_fits, pipeline_cost, pipeline_stages
from hw_models.accelerator.rows import Rows, row_counts


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


def pipeline_report(rows: Rows, counts: jax.Array, fpga: Fpga) -> AcceleratorReport:
    """Reports a network as a pipeline.

    Args:
        rows: Of the space.
        counts: float32[G], how often each group occurs in the network; whole numbers.
        fpga: The FPGA.

    Returns:
        The report.

    Raises:
        FpgaTooSmallError: As `hw_models.accelerator.check_pipeline_fits`.
    """
    check_pipeline_fits(rows, counts, fpga)
    cost = pipeline_cost(rows, counts, fpga)
    stages = pipeline_stages(rows, counts, fpga, halvings=cost.halvings.astype(jnp.int32))
    stages = jax.tree.map(np.asarray, stages)
    layers = np.asarray(row_counts(rows, counts)).astype(int)
    slowest, batch = float(cost.slowest_cycles), int(cost.batch)
    table = _stage_rows(
        rows,
        layers,
        channels=stages.channels,
        kernels=stages.kernels,
        cycles=stages.cycles,
        share=stages.cycles / slowest,
        dsp=layers * batch * stages.dsp,
        bram18=layers * (batch * stages.cache_blocks + stages.weight_blocks),
        is_bottleneck=rows.is_weighted & (stages.cycles == slowest),
    )
    worst, *ties = [row for row in table if row.is_bottleneck]
    by_memory = float(cost.bram18_batch) < float(cost.dsp_batch)
    scarce, other = ("Memory blocks", "DSPs") if by_memory else ("DSPs", "memory blocks")
    allowed = int(max(float(cost.bram18_batch), float(cost.dsp_batch)))
    halved = int(cost.halvings)
    reason = (
        f"{worst.name} is slowest: {worst.macs:,} multiply-accumulates, {worst.channels} channels times "
        f"{worst.kernels} kernels at once, {worst.cycles:,.0f} cycles"
        + (f", and {len(ties)} more like it. " if ties else ". ")
        + (f"Parallelism was halved {halved} times so that one image fits. " if halved else "")
        + f"Parallelism follows the work and the bandwidth of {float(fpga.ddr_bits_per_s) / 1e9:g} Gb/s, rounded to "
        f"powers of two. {scarce} allow {batch} images side by side; {other} would allow {allowed}."
    )
    return AcceleratorReport(
        paradigm="pipeline",
        fpga=fpga.name,
        throughput=float(cost.throughput),
        latency_s=float(cost.latency_s),
        batch=batch,
        dsp=int(cost.dsp),
        bram18=int(cost.bram18),
        usable_dsp=int(fpga.usable_dsp),
        usable_bram18=int(fpga.usable_bram18),
        rows=table,
        reason=reason,
    )


def generic_report(rows: Rows, counts: jax.Array, fpga: Fpga) -> AcceleratorReport:
    """Reports a network on the generic engine; arguments, return and errors as `pipeline_report`."""
    check_generic_fits(fpga)
    layers = np.asarray(row_counts(rows, counts)).astype(int)
    size, cycles = engine(fpga), np.asarray(layer_cycles(rows, fpga), float)
    runs = np.flatnonzero((layers > 0) & (rows.is_weighted | rows.is_pooling))
    times = layers * cycles
    total, worst = float(times[runs].sum()), runs[np.argmax(times[runs])]
    channels, kernels, dsp, bram18 = (int(leaf) for leaf in (size.channels, size.kernels, size.dsp, size.bram18))
    table = _stage_rows(
        rows,
        layers,
        channels=np.where(rows.is_weighted, channels, 1),
        kernels=np.where(rows.is_weighted, kernels, 1),
        cycles=cycles,
        share=times / total,
        dsp=np.where(rows.is_weighted, dsp, 0),
        bram18=np.where(rows.is_weighted, bram18, 0),
        is_bottleneck=np.arange(len(layers)) == worst,
    )
    overhead = fpga.layer_overhead_cycles if rows.is_weighted[worst] else fpga.pool_overhead_cycles
    full_macs = rows.inputs[worst] * rows.outputs[worst] * rows.kernel[worst] ** 2 * rows.out_size[worst] ** 2
    computes = rows.is_weighted[worst] and cycles[worst] - float(overhead) <= full_macs / (channels * kernels) * 1.0001
    bound = "multiplying" if computes else "moving activations"
    reason = (
        f"{rows.name[worst]} takes {times[worst] / total:.0%} of the time: {layers[worst]} times "
        f"{cycles[worst]:,.0f} cycles, bound by {bound}, {float(overhead):g} of them to start. The engine has "
        f"{channels} channels times {kernels} kernels."
    )
    return AcceleratorReport(
        paradigm="generic",
        fpga=fpga.name,
        throughput=float(fpga.clock_hz) / total,
        latency_s=total / float(fpga.clock_hz),
        batch=1,
        dsp=dsp,
        bram18=bram18,
        usable_dsp=int(fpga.usable_dsp),
        usable_bram18=int(fpga.usable_bram18),
        rows=table,
        reason=reason,
    )


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


def _stage_rows(rows: Rows, layers: np.ndarray, **columns: np.ndarray) -> tuple[StageRow, ...]:
    """The rows of a report: those of layers that the network has and that take time; columns [L] by field."""
    shown = np.flatnonzero((layers > 0) & (rows.is_weighted | rows.is_pooling))
    columns = {"layers": layers, "macs": rows.macs.astype(int), **columns}
    values = {name: column[shown].tolist() for name, column in columns.items()}
    return tuple(
        StageRow(name=rows.name[row], **dict(zip(values, cells, strict=True)))
        for row, *cells in zip(shown, *values.values(), strict=True)
    )
