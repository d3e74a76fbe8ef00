"""Customised accelerators on FPGAs: throughput and latency of DARTS networks, in the two paradigms of E2E-Perf.

`pipeline_cost` gives every layer a stage of its own, `generic_cost` runs all layers on one engine. Both are pure
functions of an architecture, a code of 28 digits; tables of them price millions of architectures per second. An FPGA
is a YAML file; `load_fpga` takes the name of one that comes with the package (`fpga_names`) or a path.
"""

from hw_models.accelerator.fpga import Fpga, FpgaFileError, FpgaTooSmallError, fpga_names, load_fpga, read_fpga_file
from hw_models.accelerator.generic import (
    GenericCost,
    GenericTable,
    check_generic_fits,
    generic_cost,
    generic_table,
    generic_table_cost,
    generic_table_throughputs,
    published_generic_table,
)
from hw_models.accelerator.network import DartsNetwork
from hw_models.accelerator.pipeline import PipelineCost, check_pipeline_fits, pipeline_cost
from hw_models.accelerator.pipeline_table import (
    PipelineTable,
    pipeline_table,
    pipeline_table_throughput,
    pipeline_table_throughputs,
)
from hw_models.accelerator.report import AcceleratorReport, StageRow, generic_report, pipeline_report, report_table

__all__ = [
    "AcceleratorReport",
    "DartsNetwork",
    "Fpga",
    "FpgaFileError",
    "FpgaTooSmallError",
    "GenericCost",
    "GenericTable",
    "PipelineCost",
    "PipelineTable",
    "StageRow",
    "check_generic_fits",
    "check_pipeline_fits",
    "fpga_names",
    "generic_cost",
    "generic_report",
    "generic_table",
    "generic_table_cost",
    "generic_table_throughputs",
    "load_fpga",
    "pipeline_cost",
    "pipeline_report",
    "pipeline_table",
    "pipeline_table_throughput",
    "pipeline_table_throughputs",
    "published_generic_table",
    "read_fpga_file",
    "report_table",
]
