"""Device file, version 1: the pydantic models of a device's YAML, and their one-line error messages."""

from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from hw_models.figures import (
    AtLeastOne,
    ClockTable,
    Curve,
    Figure,
    FitError,
    NonNegative,
    Positive,
    Powers,
    Share,
    Strict,
    Text,
    VoltageRatios,
)

SCHEMA_VERSION = 1


class Clocks(Strict):
    """Settings of each clock."""

    core: Figure[Literal["MHz"], ClockTable]
    memory: Figure[Literal["MHz"], ClockTable]
    host: Figure[Literal["MHz"], ClockTable]


class MacsPerCycle(Strict):
    """Compute rate by kind of layer, in fp32; the fields follow `hw_models.LayerKind`."""

    dense: Figure[Literal["MAC/cycle"], Positive]
    pointwise: Figure[Literal["MAC/cycle"], Positive]
    depthwise: Figure[Literal["MAC/cycle"], Positive]
    pooling: Figure[Literal["op/cycle"], Positive]
    elementwise: Figure[Literal["op/cycle"], Positive]
    linear: Figure[Literal["MAC/cycle"], Positive]


class FormatSpeedup(Strict):
    """Compute rate relative to fp32; the fields follow `hw_models.NumberFormat`."""

    fp32: Figure[Literal["1"], Positive]
    fp16: Figure[Literal["1"], Positive]
    int8: Figure[Literal["1"], Positive]


class Latency(Strict):
    """Parameters of `hw_models.roofline`."""

    macs_per_cycle: MacsPerCycle
    format_speedup: FormatSpeedup
    weight_bytes_per_cycle: Figure[Literal["B/cycle"], Positive]
    activation_bytes_per_cycle: Figure[Literal["B/cycle"], Positive]
    norm_order: Figure[Literal["1"], AtLeastOne]
    launch_cycles: Figure[Literal["cycle"], NonNegative]
    run_cycles: Figure[Literal["cycle"], NonNegative]
    run_time: Figure[Literal["us"], NonNegative]


class Power(Strict):
    """Parameters of `hw_models.power`, all at the board's input."""

    board: Figure[Literal["W"], NonNegative]
    core_idle: Figure[Literal["W"], NonNegative]
    core_load: Figure[Literal["mW/MHz"], NonNegative]
    core_stalled_share: Figure[Literal["1"], Share]
    core_voltage: Curve[Literal["1"], VoltageRatios]
    memory_clock: Figure[Literal["W/GHz"], NonNegative]
    byte_energy: Figure[Literal["pJ/B"], NonNegative]
    host: Curve[Literal["W"], Powers]


class DeviceFile(Strict):
    """A whole device file."""

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    description: Text
    clocks: Clocks
    latency: Latency
    power: Power


def parse(content: object) -> DeviceFile:
    """Checks the content of a device file.

    Args:
        content: What the YAML held.

    Returns:
        The checked file.

    Raises:
        ValueError: One line: field path, what was expected and what came.
    """
    if not isinstance(content, dict):
        raise ValueError(f"expected a mapping of fields, got {_show(content)}")
    version = content.get("schema_version", SCHEMA_VERSION)
    if isinstance(version, bool) or version != SCHEMA_VERSION:
        # Said alone, because a file of another version differs everywhere else too.
        raise ValueError(f"schema_version: expected {SCHEMA_VERSION}, got {_show(version)}")
    try:
        return DeviceFile.model_validate(content)
    except pydantic.ValidationError as error:
        message = _explain(error.errors()[0])
        others = error.error_count() - 1
        raise ValueError(message + (f" (and {others} more)" if others else "")) from None


def _explain(error: Any) -> str:
    path, kind, context = error["loc"], error["type"], error.get("ctx", {})
    where = ".".join(str(part) for part in path)
    if kind == "missing":
        return f"{where}: expected a value, got nothing"
    if kind == "extra_forbidden":
        return f"{where}: expected no field of this name (known here: {', '.join(_fields(path[:-1]))})"
    expected = {
        "greater_than": "a number above {gt}",
        "greater_than_equal": "a number of at least {ge}",
        "less_than_equal": "a number of at most {le}",
        "finite_number": "a finite number",
        "float_parsing": "a number",
        "float_type": "a number",
        "invalid_key": "text as the name of a field",
        "list_type": "a list",
        "too_short": "at least {min_length} value",
        "literal_error": "{expected}",
        "model_type": "a mapping of fields",
        "string_type": "text",
        "string_too_short": "text that is not empty",
        "string_pattern_mismatch": "text that matches {pattern}",
    }.get(kind)
    wanted = expected.format(**context) if expected else error["msg"]
    return f"{where}: expected {wanted}, got {_show(error['input'])}"


def _fields(path: tuple[str, ...]) -> list[str]:
    model: Any = DeviceFile
    for part in path:
        annotation = model.model_fields[part].annotation
        model = FitError if part == "error" else annotation
    return list(model.model_fields)


def _show(value: object, limit: int = 60) -> str:
    if value is None:
        return "nothing"
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
