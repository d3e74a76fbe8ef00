"""Which table prices networks of the DARTS space on an FPGA, in either paradigm of E2E-Perf.

The generic paradigm has two tables: `published`, that of EH-DNAS (Jiang et al., 2021,
https://arxiv.org/abs/2111.12299), which is for the default network on the KU115 alone, and `fitted`, a formula for
any network and FPGA. The pipeline has one.
"""

from collections.abc import Callable

import jax

from hw_models.accelerator import (
    DartsNetwork,
    Fpga,
    check_generic_fits,
    generic_table,
    generic_table_throughputs,
    pipeline_table,
    pipeline_table_throughputs,
    published_generic_table,
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
