"""Cost models of edge hardware: latency and energy of a network at any clocks, as pure JAX functions.

A `LayerTable` says what each layer asks of the hardware, a `Device` what the hardware can do, and `cost` what
the layers take at one `OperatingPoint`. `jit`, `vmap` and `grad` apply to all of it.

Examples:
    >>> import jax
    >>> import hw_models
    >>> device = hw_models.load_device("agx-xavier-gpu")
    >>> layers = hw_models.layer_table(
    ...     kind=[hw_models.LayerKind.DENSE, hw_models.LayerKind.LINEAR],
    ...     macs=[86.7e6, 1.28e6],
    ...     weight_elements=[1728, 1.28e6],
    ...     input_elements=[150528, 1280],
    ...     output_elements=[3.2e6, 1000],
    ... )
    >>> points = hw_models.operating_points(device)
    >>> costs = jax.vmap(hw_models.cost, in_axes=(None, None, 0))(layers, device, points)
    >>> costs.latency_s.shape, costs.energy_j.shape
    ((3654, 2), (3654, 2))
    >>> fastest = hw_models.network_cost(layers, device, hw_models.default_point(device))
    >>> bool(fastest.latency_s < 0.01), bool(fastest.energy_j < 0.3)
    (True, True)

Units: s, J, Hz, elements. A device is a YAML file; `load_device` takes the name of one that comes with the
package (`device_names`) or a path.
"""

from hw_models.catalogue import (
    device_names,
    load_device,
    mode_caps,
    read_device_file,
    write_device_file,
)
from hw_models.cost import (
    ClockGrid,
    Cost,
    clock_grid,
    cost,
    cost_at,
    cost_everywhere,
    idle_power,
    network_cost,
    network_cost_everywhere,
    run_cost,
    run_energy,
    run_latency,
    segment_energy,
    segment_latency,
    sum_layers,
)
from hw_models.device import (
    Device,
    NumberFormat,
    OperatingPoint,
    default_point,
    operating_point,
    operating_points,
    with_caps,
    with_clocks,
)
from hw_models.graphs import GraphLayer, GraphLayers
from hw_models.jaxpr_graphs import layers_of
from hw_models.layers import (
    LayerKind,
    LayerTable,
    concatenate,
    drop_dead,
    fuse,
    layer_table,
    live_layers,
    total_macs,
    total_weights,
)
from hw_models.lookup import (
    LookupTable,
    expected_lookup_cost,
    fit_lookup,
    lookup_cost,
    lookup_table,
    read_lookup,
    write_lookup,
)
from hw_models.onnx_graphs import onnx_layers

__all__ = [
    "ClockGrid",
    "Cost",
    "Device",
    "GraphLayer",
    "GraphLayers",
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
    "layers_of",
    "live_layers",
    "load_device",
    "lookup_cost",
    "lookup_table",
    "mode_caps",
    "network_cost",
    "network_cost_everywhere",
    "onnx_layers",
    "operating_point",
    "operating_points",
    "read_device_file",
    "read_lookup",
    "run_cost",
    "run_energy",
    "run_latency",
    "segment_energy",
    "segment_latency",
    "sum_layers",
    "total_macs",
    "total_weights",
    "with_caps",
    "with_clocks",
    "write_device_file",
    "write_lookup",
]
