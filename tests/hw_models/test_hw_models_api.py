"""The public names of hw_models, and its documented example."""

import doctest

import hw_models


def test_the_public_names_are_pinned():
    assert hw_models.__all__ == [
        "ClockGrid",
        "Cost",
        "Device",
        "DeviceFileError",
        "LayerKind",
        "LayerTable",
        "LookupTable",
        "NumberFormat",
        "OperatingPoint",
        "clock_grid",
        "concatenate",
        "cost",
        "cost_at",
        "cost_everywhere",
        "default_point",
        "device_names",
        "drop_dead",
        "expected_lookup_cost",
        "fit_lookup",
        "fuse",
        "idle_power",
        "layer_table",
        "live_layers",
        "load_device",
        "lookup_cost",
        "lookup_table",
        "mode_caps",
        "network_cost",
        "operating_point",
        "operating_points",
        "read_device_file",
        "read_lookup",
        "run_energy",
        "run_latency",
        "sum_layers",
        "total_kernels",
        "total_macs",
        "total_weights",
        "with_caps",
        "with_clocks",
        "write_device_file",
        "write_lookup",
    ]
    assert all(hasattr(hw_models, name) for name in hw_models.__all__)


def test_the_example_runs_as_written():
    results = doctest.testmod(hw_models)
    assert results.attempted > 5
    assert results.failed == 0
