"""Measurements: CSV files of measured latency and power, with the network of each row as a layer table.

Each row is one network at one operating point. Columns, the first two and latency_ms required:

    network       a name
    layers        its layer table: rows separated by `;`, each `kind macs weights inputs outputs kernels`
    family        group that cross-validation leaves out together; the network's name if empty
    batch         samples per run; 1 if empty
    format        fp32, fp16 or int8; the device's default if empty
    segments      calls of the runtime in one run, one for each segment of a network with exits; 1 if empty
    core_mhz, memory_mhz, host_mhz    clocks; the highest setting of the device if empty
    latency_ms    time of one run, as the median of several runs (of the rounds' medians, where there are rounds)
    p95_ms, p99_ms    what 95 and 99 % of the runs stayed within
    spread_ms     how far runs or rounds differ from it: a median absolute deviation
    power_w       mean power while it ran; empty where nothing could be read
    power_rail    what power_w is of: board (all of it, the default) or core
    temperature_c    the hottest sensor of the machine while it ran
    runs          number of timed runs
    machine       what they ran on, in words
    runtime       what ran them: onnxruntime, tensorrt or jax
    runtime_version, provider    its version, and which of its back ends computed (CPU, CUDA, TensorRT, ...)
    kit           digest of the kit that the network came from

A network that is known by network-level features alone is one row with all its MACs, elements and kernels. Files of
spreadsheets are read too, see `hw_models.csv_files`; a column in another unit (`latency_us`, `power (mW)`) is
converted.
"""

import csv
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import jax.numpy as jnp
import numpy as np
import pydantic
from pydantic import Field
from pydantic_core import PydanticCustomError

from hw_models.blocks import BASE, BlockCost, block_layers, parse_block
from hw_models.csv_files import read_table
from hw_models.files import explain, show
from hw_models.layers import LayerKind, LayerTable
from hw_models.schema import ClockMHz, LatencyMs, NonNegative, PowerW, Strict, Text

LAYER = "layer-"  # how the names of single layers begin

_COLUMNS = ("macs", "weight_elements", "input_elements", "output_elements", "kernels")
_REQUIRED = ("network", "layers", "latency_ms")
_NUMBERS = (
    *("batch", "segments", "core_mhz", "memory_mhz", "host_mhz"),
    *("latency_ms", "p95_ms", "p99_ms", "spread_ms", "power_w", "temperature_c", "runs"),
)


class Measurement(Strict):
    """One row; the fields are the columns of the file, described at the top of the module."""

    network: Text
    layers: Text
    family: str | None = None
    batch: Annotated[int, Field(ge=1)] = 1
    format: Literal["fp32", "fp16", "int8"] | None = None
    segments: Annotated[int, Field(ge=1)] = 1
    core_mhz: ClockMHz | None = None
    memory_mhz: ClockMHz | None = None
    host_mhz: ClockMHz | None = None
    latency_ms: LatencyMs
    p95_ms: LatencyMs | None = None
    p99_ms: LatencyMs | None = None
    spread_ms: NonNegative | None = None
    power_w: PowerW | None = None
    power_rail: Literal["board", "core"] | None = None
    temperature_c: Annotated[float, Field(ge=-100, le=300, allow_inf_nan=False)] | None = None
    runs: Annotated[int, Field(ge=1)] | None = None
    machine: str | None = None
    runtime: Literal["onnxruntime", "tensorrt", "jax"] | None = None
    runtime_version: str | None = None
    provider: str | None = None
    kit: str | None = None

    @pydantic.field_validator("layers")
    @classmethod
    def _layers_can_be_read(cls, text: str) -> str:
        try:
            _parse_layers(text)
        except ValueError as error:
            wanted, _, got = str(error).rpartition(", got ")
            raise PydanticCustomError("layers", "{wanted}", {"wanted": wanted, "got": got}) from None
        return text

    @property
    def group(self) -> str:
        """What cross-validation by family leaves out together with this row."""
        return self.family or self.network


def read_measurements(path: str | Path) -> list[Measurement]:
    """Reads a file of measurements.

    Args:
        path: Of the CSV file; columns that the schema does not know are refused.

    Returns:
        The rows, at least one.

    Raises:
        ValueError: One line: file, line, column, what was expected and what came.
    """
    lines = read_table(path, columns=list(Measurement.model_fields), numbers=_NUMBERS, required=_REQUIRED)
    if not lines:
        raise ValueError(f"{path}: expected measurements, got a header and no rows")
    return [_row(path, line, values) for line, values in lines]


def yardsticks_ms(rows: Iterable[Measurement]) -> dict[str, float]:
    """Returns the latencies in ms of single layers by their names, which are the same in all kits.

    They tell how fast a machine was whose clocks nobody holds: layers of one sample in fp32 are taken, of rows that
    have no clocks.
    """
    return {
        row.network: row.latency_ms
        for row in rows
        if row.network.startswith(LAYER)
        and row.batch == 1
        and row.format in (None, "fp32")
        and row.core_mhz is row.memory_mhz is row.host_mhz is None
    }


def block_measurements(costs: Mapping[str, BlockCost]) -> list[Measurement]:
    """Returns blocks of a table as measurements of networks of one block each, for a fit; free ones are left out."""
    return [
        Measurement(
            network=name,
            layers=format_layers(block_layers(parse_block(name))),
            latency_ms=cost.latency_ms,
            power_w=None if cost.energy_mj is None else cost.energy_mj / cost.latency_ms,
        )
        for name, cost in costs.items()
        if name != BASE and cost.latency_ms > 0
    ]


def write_measurements(path: str | Path, rows: Iterable[Measurement], *, append: bool = False) -> None:
    """Writes rows to a new file, or appends them to one.

    Raises:
        ValueError: The file exists and `append` is false, lacks a column that a row needs, or cannot be written.
    """
    target = Path(path)
    is_new = not (target.exists() and target.stat().st_size)
    if not is_new and not append:
        raise ValueError(f"{path}: expected a new file, got one that exists; nothing was written")
    try:
        with target.open("a", newline="", encoding="utf-8") as file:
            columns = list(Measurement.model_fields) if is_new else _columns_of(target)
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            if is_new:
                writer.writeheader()
            for row in rows:
                _check_columns(target, columns, row)
                writer.writerow(row.model_dump())
    except OSError as error:
        raise ValueError(f"{path}: expected a file that can be written, got: {error.strerror}") from None


def _columns_of(path: Path) -> list[str]:
    """The columns of a file, which an earlier version or other means may have begun."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        columns = next(csv.reader(file))
    if not set(columns) <= set(Measurement.model_fields):
        raise ValueError(f"{path}: expected a header as this project writes it, to append to, got {show(columns)}")
    return columns


def _check_columns(path: Path, columns: list[str], row: Measurement) -> None:
    """Raises if a file has no place for what a row says; what ran it may be left out."""
    lost = [name for name in row.model_dump(exclude_defaults=True) if name not in (*columns, "machine")]
    if lost:
        raise ValueError(f"{path}: expected columns {', '.join(lost)} to append to, got none; write a new file")


def format_layers(layers: LayerTable) -> str:
    """Writes the active rows of a layer table [L] as the text of the column `layers`."""
    kinds, active = np.asarray(layers.kind), np.asarray(layers.active)
    columns = [np.asarray(getattr(layers, name)) for name in _COLUMNS]
    return ";".join(
        " ".join([LayerKind(kinds[i]).name.lower(), *(f"{float(column[i]):.9g}" for column in columns)])
        for i in np.flatnonzero(active > 0)
    )


@functools.lru_cache(maxsize=4096)
def _parse_layers(text: str) -> tuple[tuple[float, ...], ...]:
    """Reads the text of the column `layers` into rows of kind, macs, weights, inputs, outputs, kernels.

    Raises:
        ValueError: What was expected and what came.
    """
    return tuple(_parse_layer(part) for part in text.split(";"))


def layer_tables(rows: Sequence[Measurement]) -> LayerTable:
    """Stacks the networks of measurements, padded with inactive rows: columns [N, L]."""
    parsed = [_parse_layers(row.layers) for row in rows]
    longest = max(len(table) for table in parsed)
    values = np.zeros((len(rows), longest, 1 + len(_COLUMNS)), np.float32)
    active = np.zeros((len(rows), longest), np.float32)
    for i, table in enumerate(parsed):
        values[i, : len(table)], active[i, : len(table)] = table, 1.0
    columns = {name: jnp.asarray(values[..., 1 + j]) for j, name in enumerate(_COLUMNS)}
    return LayerTable(kind=jnp.asarray(values[..., 0], jnp.int32), active=jnp.asarray(active), **columns)


def _row(path: str | Path, line: int, values: dict[str, str]) -> Measurement:
    try:
        return Measurement.model_validate({name: text for name, text in values.items() if text})
    except pydantic.ValidationError as error:
        raise ValueError(f"{path}, line {line}: {explain(error.errors()[0])}") from None


def _parse_layer(text: str) -> tuple[float, ...]:
    words = text.split()
    kinds = [kind.name.lower() for kind in LayerKind]
    if len(words) != 1 + len(_COLUMNS) or words[0] not in kinds:
        raise ValueError(f"a layer as `KIND {' '.join(_COLUMNS)}` with a kind among {', '.join(kinds)}, got {text}")
    try:
        numbers = [float(word) for word in words[1:]]
    except ValueError:
        raise ValueError(f"numbers behind the kind of a layer, got {text}") from None
    if not all(0 <= number < 1e15 for number in numbers):
        raise ValueError(f"numbers from 0 to 1e15 behind the kind of a layer, got {text}")
    return (float(kinds.index(words[0])), *numbers)
