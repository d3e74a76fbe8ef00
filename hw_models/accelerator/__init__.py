"""Customised accelerators on FPGAs: throughput and latency of networks, in the two paradigms of E2E-Perf.

`pipeline_cost` gives every layer a stage of its own, `generic_cost` runs all layers on one engine (Jiang et al.,
"EH-DNAS", 2021, https://arxiv.org/abs/2111.12299). Both are pure functions of a network, the `Rows` of its space and
the counts of their groups; tables of them price millions of networks per second. An FPGA is a YAML file; `load_fpga`
takes the name of one that comes with the package (`fpga_names`) or a path.
"""

from hw_models.accelerator.fpga import Fpga, FpgaTooSmallError, fpga_names, load_fpga
from hw_models.accelerator.generic import (
    GenericCost,
    GenericTable,
    check_generic_fits,
    generic_cost,
    generic_report,
    generic_table,
)
from hw_models.accelerator.pipeline import (
    PipelineCost,
    PipelineTable,
    check_pipeline_fits,
    pipeline_cost,
    pipeline_report,
    pipeline_table,
)
from hw_models.accelerator.report import AcceleratorReport, StageRow, report_table
from hw_models.accelerator.rows import Rows

__all__ = [
    "AcceleratorReport",
    "Fpga",
    "FpgaTooSmallError",
    "GenericCost",
    "GenericTable",
    "PipelineCost",
    "PipelineTable",
    "Rows",
    "StageRow",
    "check_generic_fits",
    "check_pipeline_fits",
    "fpga_names",
    "generic_cost",
    "generic_report",
    "generic_table",
    "load_fpga",
    "pipeline_cost",
    "pipeline_report",
    "pipeline_table",
    "report_table",
]
