"""Data sets of networks of the DARTS space with their throughput: what predictors are fitted to.

A file is an npz of `codes` int8[N, 28], `<paradigm>_throughput` float32[N] in images/s for each paradigm that was
priced, 0 where a network does not fit, and `metadata`, a JSON text. EH-DNAS (Jiang et al., 2021,
https://arxiv.org/abs/2111.12299) has 1.4 million networks in such a set.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from hadas_jax.spaces.darts import is_valid
from hadas_jax.spaces.throughput_tables import PARADIGMS
from hw_models.accelerator import DartsNetwork
from hw_models.array_files import read_arrays, write_arrays

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
