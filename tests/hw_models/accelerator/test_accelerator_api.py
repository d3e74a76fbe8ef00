"""The public names of hw_models.accelerator."""

from hw_models import accelerator


def test_the_public_names_are_pinned():
    assert accelerator.__all__ == [
        "AcceleratorReport",
        "Fpga",
        "FpgaFileError",
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
        "generic_table_cost",
        "load_fpga",
        "pipeline_cost",
        "pipeline_report",
        "pipeline_table",
        "pipeline_table_throughput",
        "report_table",
        "row_counts",
    ]


def test_every_public_name_is_there_and_documented():
    for name in accelerator.__all__:
        assert getattr(accelerator, name).__doc__
