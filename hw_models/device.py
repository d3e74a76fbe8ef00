"""Device: clocks and cost parameters as a pytree of float32 leaves, and the operating points they span.

Units: Hz, s, W, J, bytes; `cycles` are of the clock that the field names. Shapes: Nc, Nm, Nh settings of the
core, memory and host clock; K layer kinds; N number formats; V and H knots of the voltage and host curve; F operating
points.
"""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hw_models.blocks import BlockTable
from hw_models.correction import DeviceCorrection
from hw_models.units import in_other_units


class NumberFormat(enum.IntEnum):
    """Format of weights and activations; the value is the position in `Device.format_speedup`."""

    FP32 = 0
    """Single precision."""
    FP16 = 1
    """Half precision."""
    INT8 = 2
    """Integers of 8 bit."""

    @property
    def element_bytes(self) -> int:
        """Bytes of one element."""
        return (4, 2, 1)[self]


SAME_CLOCK = 0.01
"""Relative difference of two clocks that are one setting: tables are rounded in several ways."""


@struct.dataclass
class Device:
    """One processor of one board: everything the cost models need to know.

    Every number is a leaf, so a device can be batched, differentiated and fitted. Powers are at the board's
    input and add up to the board power.

    Attributes:
        core_hz: f32[Nc], settings of the clock of the processor that computes, ascending.
        memory_hz: f32[Nm], settings of the memory clock, ascending.
        host_hz: f32[Nh], settings of the clock of the processor that launches kernels, ascending.
        macs_per_cycle: f32[K], multiply-accumulates (or operations) per core cycle by `LayerKind`, in fp32.
        format_speedup: f32[N], compute rate by `NumberFormat` relative to `macs_per_cycle`; 1 where the device
            does not run the format.
        weight_bytes_per_cycle: f32[], weights read per memory cycle.
        activation_bytes_per_cycle: f32[], activations read or written per memory cycle.
        core_cycles_per_weight_byte: f32[], core cycles to bring a weight into use beyond those of its MACs; layers
            of many weights and few pixels keep much of a wide core idle, and this stands for it.
        norm_order: f32[], p of the p-norm of compute and memory time; 1 adds them, infinity overlaps them.
        launch_cycles: f32[], host cycles to launch one kernel.
        run_cycles: f32[], host cycles to start one run of a network.
        run_s: f32[], part of the cost of a run that follows no clock.
        segment_cycles: f32[], host cycles of one call of a segment; a network without exits is one segment.
        board_w: f32[], power that follows no clock.
        core_idle_w: f32[], power of the idle core at its lowest voltage; grows with the voltage squared.
        core_w_per_hz: f32[], load coefficient: power of the fully busy core at its lowest voltage per Hz.
        core_stalled_share: f32[], share of that load that is drawn while kernels only wait for memory.
        voltage_hz: f32[V], knots of the voltage curve.
        voltage_ratio: f32[V], core voltage over its lowest value at these knots.
        memory_w_per_hz: f32[], memory power by memory clock.
        byte_j: f32[], energy to move one byte.
        host_curve_hz: f32[H], knots of the host power curve.
        host_curve_w: f32[H], host power at these knots.
        correction: What was learned of whole networks, on top of all this; None: nothing.
        blocks: Measured blocks, which are all that a device of a table knows; None: a device of a roofline.
        name: What the device is called; static.
        formats: Number formats that the device runs, the default one first; static.
    """

    core_hz: jax.Array
    memory_hz: jax.Array
    host_hz: jax.Array
    macs_per_cycle: jax.Array
    format_speedup: jax.Array
    weight_bytes_per_cycle: jax.Array
    activation_bytes_per_cycle: jax.Array
    core_cycles_per_weight_byte: jax.Array
    norm_order: jax.Array
    launch_cycles: jax.Array
    run_cycles: jax.Array
    run_s: jax.Array
    segment_cycles: jax.Array
    board_w: jax.Array
    core_idle_w: jax.Array
    core_w_per_hz: jax.Array
    core_stalled_share: jax.Array
    voltage_hz: jax.Array
    voltage_ratio: jax.Array
    memory_w_per_hz: jax.Array
    byte_j: jax.Array
    host_curve_hz: jax.Array
    host_curve_w: jax.Array
    correction: DeviceCorrection | None = None
    blocks: BlockTable | None = None
    name: str = struct.field(pytree_node=False, default="unnamed")
    formats: tuple[NumberFormat, ...] = struct.field(pytree_node=False, default=tuple(NumberFormat))


def table_device(blocks: BlockTable, *, name: str, board_w: float, clock_hz: float = 1e9) -> Device:
    """Returns the device of a table: layers cost nothing but what `hw_models.blocks.measured_layers` writes into them.

    Args:
        blocks: The table.
        name: What it is called.
        board_w: Power that energies are told from where the table has none, in W.
        clock_hz: The only setting of every clock; a table tells of one.
    """
    zero, one, most = (jnp.float32(value) for value in (0.0, 1.0, jnp.inf))
    clock = jnp.full(1, clock_hz, jnp.float32)
    parameters = {field.name: zero for field in dataclasses.fields(Device) if field.name not in ("name", "formats")}
    parameters |= dict.fromkeys(("core_hz", "memory_hz", "host_hz", "voltage_hz", "host_curve_hz"), clock)
    parameters |= dict.fromkeys(("weight_bytes_per_cycle", "activation_bytes_per_cycle"), most)
    parameters |= {"macs_per_cycle": jnp.ones(6), "format_speedup": jnp.ones(len(NumberFormat)), "norm_order": one}
    parameters |= {"voltage_ratio": jnp.ones(1), "host_curve_w": jnp.zeros(1), "board_w": jnp.float32(board_w)}
    parameters |= {"launch_cycles": clock[0], "byte_j": one / NumberFormat.FP32.element_bytes}
    parameters |= {"correction": None, "blocks": blocks}
    return Device(name=name, formats=(NumberFormat.FP32,), **parameters)


@struct.dataclass
class OperatingPoint:
    """Clocks a device runs at.

    Attributes:
        core_hz: f32[...].
        memory_hz: f32[...].
        host_hz: f32[...].
    """

    core_hz: jax.Array
    memory_hz: jax.Array
    host_hz: jax.Array


def operating_points(device: Device) -> OperatingPoint:
    """All combinations of the clock settings, the host clock varying fastest and the core clock slowest.

    Args:
        device: The device.

    Returns:
        Leaves f32[F] with F = Nc * Nm * Nh; the point of settings (c, m, h) stands at (c * Nm + m) * Nh + h.
    """
    grids = jnp.meshgrid(device.core_hz, device.memory_hz, device.host_hz, indexing="ij")
    return OperatingPoint(*(grid.ravel() for grid in grids))


def operating_point(device: Device, indices: jax.Array) -> OperatingPoint:
    """Looks up clock settings.

    Args:
        device: The device.
        indices: int32[..., 3], positions in the core, memory and host clock table; a position outside a
            table is moved to its nearest end.

    Returns:
        Leaves f32[...].

    Raises:
        AssertionError: `indices` is not an integer array whose last dimension is 3.
    """
    indices = jnp.asarray(indices)
    chex.assert_type(indices, int, custom_message="indices")
    chex.assert_axis_dimension(indices, -1, 3, custom_message="indices")
    tables = (device.core_hz, device.memory_hz, device.host_hz)
    last = [table.shape[0] - 1 for table in tables]
    return OperatingPoint(*(table[jnp.clip(indices[..., i], 0, last[i])] for i, table in enumerate(tables)))


def default_point(device: Device) -> OperatingPoint:
    """The highest setting of every clock, leaves f32[]."""
    return OperatingPoint(jnp.max(device.core_hz), jnp.max(device.memory_hz), jnp.max(device.host_hz))


def with_clocks(
    device: Device,
    *,
    core_hz: Sequence[float] | None = None,
    memory_hz: Sequence[float] | None = None,
    host_hz: Sequence[float] | None = None,
) -> Device:
    """Keeps some settings of each clock table, as a search over part of the operating points needs.

    Args:
        device: The device.
        core_hz: Settings to keep; each is matched to the nearest one of the table, within 1 %. None keeps all.
        memory_hz: As `core_hz`.
        host_hz: As `core_hz`.

    Returns:
        The device with shorter clock tables; powers and rates stay.

    Raises:
        ValueError: A device lacks a setting, or none is asked for.
    """
    asked = {"core_hz": core_hz, "memory_hz": memory_hz, "host_hz": host_hz}
    tables: dict[str, Any] = {name: _subset(device, name, hz) for name, hz in asked.items() if hz is not None}
    return dataclasses.replace(device, **tables)


def with_caps(device: Device, caps: OperatingPoint) -> Device:
    """Keeps the settings at or below a cap for each clock, as a power mode does.

    Args:
        device: The device.
        caps: Highest settings, leaves f32[]; infinity for no cap.

    Returns:
        The device with shorter clock tables.

    Raises:
        ValueError: A cap lies below the lowest setting.
    """
    tables: dict[str, Any] = {}
    for name, cap in vars(caps).items():
        table = np.asarray(getattr(device, name))
        # Caps and settings are the same decimal numbers, rounded to float32 on different ways.
        kept = table[table <= float(cap) * (1 + 1e-6)]
        if not kept.size:
            raise ValueError(
                f"{name}: expected a cap of at least {table[0] / 1e6:g} MHz, the lowest setting of {device.name}, "
                f"got {float(cap) / 1e6:g} MHz"
            )
        tables[name] = jnp.asarray(kept)
    return dataclasses.replace(device, **tables)


def match_settings(table: np.ndarray, clocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the setting that each clock is nearest to, and whether it is that setting within `SAME_CLOCK`.

    Args:
        table: float[T], settings.
        clocks: float[N], in the unit of the table; NaN is no setting.

    Returns:
        Positions int[N] in the table, and bool[N].
    """
    nearest = np.abs(table[:, None] - clocks).argmin(axis=0)
    return nearest, np.abs(table[nearest] - clocks) <= SAME_CLOCK * table[nearest]


def _subset(device: Device, name: str, values: Sequence[float]) -> jax.Array:
    table, asked = np.asarray(getattr(device, name)), np.asarray(values, np.float64)
    if not asked.size:
        raise ValueError(f"{name}: expected at least one setting of {device.name}, got none")
    nearest, is_known = match_settings(table, asked)
    if not is_known.all():
        settings, unknown = " ".join(f"{hz / 1e6:g}" for hz in table), float(asked[~is_known][0]) / 1e6
        likely = in_other_units(unknown, "MHz", lambda mhz: bool(match_settings(table, np.array([mhz * 1e6]))[1][0]))
        raise ValueError(
            f"{name}: expected settings of {device.name} ({settings} MHz), got {unknown:.10g} MHz"
            + (f": {likely}" if likely else "")
        )
    return jnp.asarray(table[np.unique(nearest)])
