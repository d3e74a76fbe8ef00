"""What networks of the DARTS space cost: their layer tables, their throughput on FPGAs, and data sets of it.

Rows of a layer table stand for fused layers (activation, convolution and batch norm in one kernel) of one kind in one
cell, and `active` says how many of them an architecture has, so the table has the same shape for all architectures and
its cost is linear in a distribution over operations: every device of `hw_models` prices relaxed networks,
differentiably.

On an FPGA, E2E-Perf of EH-DNAS (Jiang et al., 2021, https://arxiv.org/abs/2111.12299) has two paradigms. The generic
one has two tables: `published`, which is for the default network on the KU115 alone, and `fitted`, a formula for any
network and FPGA. The pipeline has one.

A data set, which predictors are fitted to, is an npz of `codes` int8[N, 28], `<paradigm>_throughput` float32[N] in
images/s for each paradigm that was priced, 0 where a network does not fit, and `metadata`, a JSON text. EH-DNAS has 1.4
million networks in such a set.
Shapes: L rows, N networks. Counts are for one sample, in elements. Functions take one architecture unless they say
otherwise; batch them with `jax.vmap`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.spaces.darts import DARTS_CODES, is_valid
from hadas_jax.spaces.darts_network import DartsNetwork, network_rows
from hw_models import LayerTable, accelerator, default_point, network_cost, read_device_file, with_clocks
from hw_models.accelerator import Fpga, GenericTable
from hw_models.catalogue import to_device
from hw_models.files import read_arrays, write_arrays
from hw_models.layers import LayerKind
from hw_models.predictors import ThroughputPredictor, predict_throughput, read_predictor

_CHUNK = 4096  # codes at once stay in the cache


def darts_counts(architecture: jax.Array) -> jax.Array:
    """Counts the edges of each place with each operation, what hardware sees of an architecture.

    Args:
        architecture: int[28], a code, or float[28, 8], a distribution over operations for each edge.

    Returns:
        float32[3, 8], places being the edges of a normal cell, those at an input of a reduce cell, and its others.

    Raises:
        ValueError: The array is neither.
    """
    return DARTS_CODES.operation_counts(architecture)


def darts_workload(network: DartsNetwork, architecture: jax.Array) -> LayerTable:
    """Returns the layer table of an architecture.

    Args:
        network: Static: channels, cells, classes, image size, stem.
        architecture: int[28], a code, or float32[28, 8], a distribution over operations for each edge such as
            `softmax(alpha)`: then the table costs what its operations cost on average, `none` nothing.

    Returns:
        Columns [L]. Convolutions have a bias for each output, of the batch norm folded into them; skips of stride 1
        and concatenations cost nothing.

    Raises:
        ValueError: `architecture` is neither.
    """
    rows = network_rows(network)
    weights = np.where(rows.is_weighted, (rows.fan_in + 1) * rows.outputs, 0)
    # Operations of pooling as elsewhere: elements read; of additions: elements written.
    operations = np.where(rows.kind == LayerKind.POOLING, rows.reads, rows.macs)
    return LayerTable(
        kind=jnp.asarray(rows.kind, jnp.int32),
        macs=jnp.asarray(operations, jnp.float32),
        weight_elements=jnp.asarray(weights, jnp.float32),
        input_elements=jnp.asarray(rows.reads, jnp.float32),
        output_elements=jnp.asarray(rows.writes, jnp.float32),
        kernels=jnp.ones(len(rows.name), jnp.float32),
        active=rows.layer_counts(darts_counts(architecture)),
    )


PARADIGMS = ("generic", "pipeline")
TABLES = ("published", "fitted")
_PUBLISHED_FPGA = "ku115"
Throughputs = Callable[[jax.Array], jax.Array]
"""Codes int[N, 28] -> images/s float32[N]; 0 where a network does not fit."""


def generic_table_name(network: DartsNetwork, fpga: Fpga, *, table: str | None = None) -> str:
    """Says which table the generic paradigm takes.

    Args:
        network: Size of the networks.
        fpga: The FPGA.
        table: `published` or `fitted`; None: the published one where there is one.

    Returns:
        `published` or `fitted`.

    Raises:
        ValueError: There is no such table, or no published one for this network and FPGA.
    """
    if table is not None and table not in TABLES:
        raise ValueError(f"table: expected one of {', '.join(TABLES)}, got {table!r}")
    has_published = network == DartsNetwork() and fpga.name == _PUBLISHED_FPGA
    if table == "published" and not has_published:
        raise ValueError(
            f"table published: expected the default network on {_PUBLISHED_FPGA}, got another network or {fpga.name}; "
            "fitted is for any"
        )
    return table or ("published" if has_published else "fitted")


def throughput_table(paradigm: str, network: DartsNetwork, *, fpga: Fpga, table: str | None = None) -> Throughputs:
    """Returns the compiled function that prices many networks.

    Args:
        paradigm: `generic` or `pipeline`.
        network: Size of the networks.
        fpga: The FPGA.
        table: Of the generic paradigm, see `generic_table_name`.

    Returns:
        The function; compiled for each number of codes.

    Raises:
        FpgaTooSmallError: The FPGA holds no engine.
        ValueError: There is no such paradigm or table.
    """
    name, rows = generic_table_name(network, fpga, table=table), network_rows(network)
    if paradigm == "pipeline":
        stages = accelerator.pipeline_table(rows, fpga)
        return _compiled(lambda code: stages.throughput(darts_counts(code)))
    if paradigm != "generic":
        raise ValueError(f"paradigm: expected one of {', '.join(PARADIGMS)}, got {paradigm!r}")
    accelerator.check_generic_fits(fpga)
    layers = published_generic_table() if name == "published" else accelerator.generic_table(rows, fpga)
    return _compiled(lambda code: layers.cost(darts_counts(code)).throughput)


def _compiled(price: Callable[[jax.Array], jax.Array]) -> Throughputs:
    """Prices many codes, some at a time."""
    return jax.jit(lambda codes: jax.lax.map(price, codes, batch_size=_CHUNK))


PUBLISHED_CLOCK_HZ = 200e6
# EH-DNAS (github qianjiangcn/eh-dnas, MIT) gives the throughput of each part of the network of 16 channels and 8 cells
# at 200 MHz: 143,266.5 images/s for a pooling of cells 0 and 1, and so on. Every number is 200e6 over a whole number of
# cycles, rounded to a tenth; those whole numbers are here. Their sums are below 2^24, so float32 has them exactly.
# Cycles of an operation in cells 0 and 1, 2, 3 and 4, 5, 6 and 7; what starts at an input of cells 2 and 5.
PUBLISHED_CELLS = ((0, 1), (2,), (3, 4), (5,), (6, 7))
PUBLISHED_CYCLES = {
    "max_pool_3x3": (1396, 1808, 743, 994, 420),
    "avg_pool_3x3": (1396, 1808, 743, 994, 420),
    "skip_connect": (0, 4635, 0, 2712, 0),
    "sep_conv_3x3": (8334, 5874, 4814, 4295, 3480),
    "sep_conv_5x5": (10368, 7490, 7250, 6737, 6074),
    "dil_conv_3x3": (4167, 3467, 2407, 2555, 1740),
    "dil_conv_5x5": (5184, 3865, 3625, 3700, 3037),
}
_STEM_CYCLES = 3080
_PREPROCESS_CYCLES = (6618, 7611, 9340, 10823, 6228, 7212, 6694, 4264)
"""Both 1x1 convolutions at the inputs of each cell."""
_CLASSIFIER_CYCLES = 2544
_RUN_SAVES_CYCLES = 3850
"""What a whole network takes less than its parts one by one.

Fitted: the one number that gives 200,000 random networks the published mean of 799 images/s. Their spread and range,
and the order of single networks, are no part of the fit. The stem's 3,080 cycles are most of it."""


def published_generic_table(*, run_saves_cycles: float = _RUN_SAVES_CYCLES) -> GenericTable:
    """Returns the table of the generic paradigm that EH-DNAS publishes, with overhead, in cycles.

    In it an edge of a reduce cell costs what its operation costs at an input of that cell, wherever it starts; only a
    skip is free elsewhere. A part that is not there costs nothing.

    Args:
        run_saves_cycles: Taken off the sum of the parts; 0 gives the sums of the published table.

    Returns:
        The table, for networks of the default `DartsNetwork`.
    """
    by_operation = np.zeros(DARTS_CODES.counts_shape)
    for digit, cycles in enumerate(PUBLISHED_CYCLES.values(), start=1):
        by_cells = dict(zip(PUBLISHED_CELLS, cycles, strict=True))
        at_inputs = by_cells[(2,)] + by_cells[(5,)]
        by_operation[0, digit] = sum(len(cells) * by_cells[cells] for cells in ((0, 1), (3, 4), (6, 7)))
        by_operation[1, digit] = at_inputs
        by_operation[2, digit] = 0 if by_cells[(0, 1)] == 0 else at_inputs
    fixed = _STEM_CYCLES + sum(_PREPROCESS_CYCLES) + _CLASSIFIER_CYCLES - run_saves_cycles
    return GenericTable(
        jnp.asarray(by_operation.ravel(), jnp.float32), jnp.float32(fixed), jnp.float32(PUBLISHED_CLOCK_HZ)
    )


def read_darts_predictor(
    path: Path | str, network: DartsNetwork, *, paradigm: str = "", fpga: str = ""
) -> ThroughputPredictor:
    """Reads a predictor of networks of the DARTS space.

    Args:
        path: The file.
        network: Size of the networks that it is to be asked about.
        paradigm: Of the accelerator; empty: any.
        fpga: Of the accelerator; empty: any.

    Raises:
        ValueError: The file is no predictor, or its notes say that it is of something else.
    """
    predictor = read_predictor(path, layout=DARTS_CODES)
    notes = predictor.notes
    try:
        noted = DartsNetwork(**dict(notes.network)) if notes.network else None  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a predictor of the DARTS space, got another: {error}") from error
    for what, wanted, got in (
        ("paradigm", paradigm, notes.paradigm),
        ("FPGA", fpga, notes.fpga),
        ("network", network, noted),
    ):
        if wanted and got and wanted != got:
            raise ValueError(f"{path}: expected a predictor of {what} {wanted}, got one of {got}")
    return predictor


FORM = "hadas_jax.priced_networks/1"
_SUFFIX = "_throughput"


@dataclasses.dataclass(frozen=True)
class PricedNetworks:
    """Networks and what E2E-Perf says of them.

    Attributes:
        codes: int8[N, 28].
        throughputs: By paradigm, images/s float32[N]; 0 where a network does not fit.
        network: Size of the networks.
        fpga: Name of the FPGA.
        table: Of the generic paradigm, `published` or `fitted`.
        details: How the networks were drawn, and versions.
    """

    codes: np.ndarray
    throughputs: Mapping[str, np.ndarray]
    network: DartsNetwork
    fpga: str
    table: str
    details: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path | str) -> "PricedNetworks":
        """Reads a data set.

        Raises:
            ValueError: The file is missing, damaged, or no data set; the message is one line.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"{path}: expected a data set of hadas dnas sample, got no file")
        try:
            arrays, metadata = read_arrays(path, form=FORM)
            priced = cls(
                codes=arrays["codes"],
                throughputs={name: arrays[name + _SUFFIX] for name in PARADIGMS if name + _SUFFIX in arrays},
                network=DartsNetwork(**metadata["network"]),
                fpga=str(metadata["fpga"]),
                table=str(metadata["table"]),
                details=dict(metadata["details"]),
            )
        except Exception as error:  # numpy, zipfile and json raise whatever the damage causes
            raise ValueError(f"{path}: expected a data set of hadas dnas sample ({FORM}), cannot read it") from error
        _check(priced, path)
        return priced

    def write(self, path: Path | str) -> None:
        """Writes the data set, whole or not at all; a file at this path is replaced.

        Raises:
            ValueError: The file cannot be written.
        """
        fields = {name: value for name, value in vars(self).items() if name not in ("codes", "throughputs")}
        metadata = fields | {"network": dataclasses.asdict(self.network), "details": dict(self.details)}
        columns = {paradigm + _SUFFIX: column for paradigm, column in self.throughputs.items()}
        write_arrays(Path(path), {"codes": self.codes, **columns}, form=FORM, metadata=metadata)


def _check(priced: PricedNetworks, path: Path) -> None:
    codes = priced.codes
    if codes.dtype != np.int8 or codes.ndim != 2 or codes.shape[1] != 28 or not len(codes):
        raise ValueError(f"{path}: codes: expected int8[N, 28], got {codes.dtype}{list(codes.shape)}")
    invalid = np.flatnonzero(~np.asarray(is_valid(jnp.asarray(codes))))
    if len(invalid):
        raise ValueError(f"{path}: codes: expected networks alone, got another code in row {invalid[0]}")
    if not priced.throughputs:
        raise ValueError(f"{path}: expected throughputs of {' or '.join(PARADIGMS)}, got none")
    for paradigm, column in priced.throughputs.items():
        if column.shape != codes.shape[:1] or column.dtype != np.float32:
            raise ValueError(
                f"{path}: {paradigm}{_SUFFIX}: expected float32[{len(codes)}], got {column.dtype}{list(column.shape)}"
            )
        if not (np.isfinite(column).all() and (column >= 0).all()):
            raise ValueError(f"{path}: {paradigm}{_SUFFIX}: expected numbers of at least 0, got others")


@dataclasses.dataclass(frozen=True)
class Price:
    """What a network costs by one model.

    Attributes:
        model: In words.
        throughput: Images/s.
        latency_s: Of an image; None: the model does not say, as a pipeline's throughput alone does not.
        energy_j: Of an image; None: the model does not say.
        spread: Of the members of an ensemble, relative; None: there is one model.
    """

    model: str
    throughput: float
    latency_s: float | None
    energy_j: float | None = None
    spread: float | None = None

    @classmethod
    def by_table(cls, code: np.ndarray, network: DartsNetwork, *, fpga: Fpga, table: str | None) -> "Price":
        """Prices a network by a table of the generic paradigm, see `generic_table_name`."""
        name = generic_table_name(network, fpga, table=table)
        throughput = float(throughput_table("generic", network, fpga=fpga, table=name)(jnp.asarray(code)[None])[0])
        return cls(f"generic on {fpga.name}, {name} table", throughput, 1 / throughput)

    @classmethod
    def by_predictor(cls, path: Path | str, code: np.ndarray, network: DartsNetwork) -> "Price":
        """Prices a network by a predictor, see `read_darts_predictor`."""
        predictor = read_darts_predictor(path, network)
        notes = predictor.notes
        found = jax.jit(predict_throughput)(predictor, code)
        throughput = float(found.throughput)
        error = "" if notes.held_out_error is None else f", {notes.held_out_error:.2%} mean error"
        source = f"{predictor.kind} of {notes.paradigm or 'unknown data'} {notes.fpga}".rstrip()
        spread = float(found.spread) if predictor.members > 1 else None
        latency_s = None if notes.paradigm == "pipeline" else 1 / throughput
        return cls(f"{Path(path).name}: {source}{error}", throughput, latency_s, spread=spread)

    @classmethod
    def on_device(
        cls, name: str, code: np.ndarray, network: DartsNetwork, *, clocks_mhz: Mapping[str, float | None]
    ) -> "Price":
        """Prices a network on a device at some clocks, the others being the highest."""
        chosen = {clock: None if mhz is None else (1e6 * mhz,) for clock, mhz in clocks_mhz.items()}
        file = read_device_file(name)
        file.roofline()  # a table of blocks has none for these networks
        device = with_clocks(to_device(file), **chosen)
        point = default_point(device)
        cost = jax.jit(network_cost)(darts_workload(network, jnp.asarray(code)), device, point)
        mhz = " ".join(f"{float(hz) / 1e6:.5g}" for hz in (point.core_hz, point.memory_hz, point.host_hz))
        latency_s, energy_j = float(cost.latency_s), float(cost.energy_j)
        return cls(f"{Path(name).stem} at {mhz} MHz", 1 / latency_s, latency_s, energy_j)
