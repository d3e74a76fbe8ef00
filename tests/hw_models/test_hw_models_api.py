"""The public names of hw_models, and its documented example."""

import doctest

import hw_models


def test_the_public_names_are_pinned():
    assert hw_models.__all__ == [
        "Cost",
        "Device",
        "DeviceFileError",
        "LayerKind",
        "LayerTable",
        "NumberFormat",
        "OperatingPoint",
        "concatenate",
        "cost",
        "default_point",
        "device_names",
        "energy",
        "idle_power",
        "latency",
        "layer_table",
        "load_device",
        "network_cost",
        "operating_point",
        "operating_points",
        "read_device_file",
        "run_energy",
        "run_latency",
        "total_kernels",
        "total_macs",
        "total_weights",
    ]
    assert all(hasattr(hw_models, name) for name in hw_models.__all__)


def test_the_example_runs_as_written():
    results = doctest.testmod(hw_models)
    assert results.attempted > 5
    assert results.failed == 0
