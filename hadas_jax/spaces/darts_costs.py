"""What a network of the DARTS space asks of the hardware, as a layer table; exact in expectation over operations.

Rows stand for fused layers (activation, convolution and batch norm in one kernel) of one kind in one cell, and
`active` says how many of them an architecture has, so the table has the same shape for all architectures and its cost
is linear in a distribution over operations: every device of `hw_models` prices relaxed networks, differentiably.
Shapes: L rows. Counts are for one sample, in elements. Functions take one architecture; batch them with `jax.vmap`.

Which table prices networks of the DARTS space on an FPGA, in either paradigm of E2E-Perf.

The generic paradigm has two tables: `published`, that of EH-DNAS (Jiang et al., 2021,
https://arxiv.org/abs/2111.12299), which is for the default network on the KU115 alone, and `fitted`, a formula for
any network and FPGA. The pipeline has one.

Data sets of networks of the DARTS space with their throughput: what predictors are fitted to.

A file is an npz of `codes` int8[N, 28], `<paradigm>_throughput` float32[N] in images/s for each paradigm that was
priced, 0 where a network does not fit, and `metadata`, a JSON text. EH-DNAS (Jiang et al., 2021,
https://arxiv.org/abs/2111.12299) has 1.4 million networks in such a set.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.spaces.darts import is_valid
from hw_models import LayerTable
from hw_models.accelerator import (
    Fpga,
    check_generic_fits,
    generic_table,
    generic_table_throughputs,
    pipeline_table,
    pipeline_table_throughputs,
    published_generic_table,
)
from hw_models.accelerator.network import DartsNetwork, network_rows, row_counts
from hw_models.files import read_arrays, write_arrays
from hw_models.layers import LayerKind


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
    reads = np.where(rows.kind == LayerKind.ELEMENTWISE, 2, 1) * rows.inputs * rows.in_size**2
    # Operations of pooling as elsewhere: elements read; of additions: elements written.
    operations = np.where(rows.kind == LayerKind.POOLING, reads, rows.macs)
    return LayerTable(
        kind=jnp.asarray(rows.kind, jnp.int32),
        macs=jnp.asarray(operations, jnp.float32),
        weight_elements=jnp.asarray(weights, jnp.float32),
        input_elements=jnp.asarray(reads, jnp.float32),
        output_elements=jnp.asarray(rows.outputs * rows.out_size**2, jnp.float32),
        kernels=jnp.ones(len(rows.name), jnp.float32),
        active=row_counts(network, architecture),
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
    name = generic_table_name(network, fpga, table=table)
    if paradigm == "pipeline":
        stages = pipeline_table(network, fpga)
        return jax.jit(lambda codes: pipeline_table_throughputs(stages, codes))
    if paradigm != "generic":
        raise ValueError(f"paradigm: expected one of {', '.join(PARADIGMS)}, got {paradigm!r}")
    check_generic_fits(fpga)
    layers = published_generic_table() if name == "published" else generic_table(network, fpga)
    return jax.jit(lambda codes: generic_table_throughputs(layers, codes))


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


def write_priced_networks(priced: PricedNetworks, path: Path | str) -> None:
    """Writes a data set, whole or not at all; a file at this path is replaced.

    Raises:
        ValueError: The file cannot be written.
    """
    metadata = {
        "network": dataclasses.asdict(priced.network),
        "fpga": priced.fpga,
        "table": priced.table,
        "details": dict(priced.details),
    }
    columns = {paradigm + _SUFFIX: column for paradigm, column in priced.throughputs.items()}
    write_arrays(Path(path), {"codes": priced.codes, **columns}, form=FORM, metadata=metadata)


def read_priced_networks(path: Path | str) -> PricedNetworks:
    """Reads a data set.

    Args:
        path: The file.

    Returns:
        The data set.

    Raises:
        ValueError: The file is missing, damaged, or no data set; the message is one line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected a data set of hadas dnas sample, got no file")
    try:
        arrays, metadata = read_arrays(path, form=FORM)
        priced = PricedNetworks(
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
