"""Measured tables as a cost model: one cost per position and choice, as in Once-for-All and HW-NAS-Bench.

A network costs the base plus the entry of its choice at each position (https://arxiv.org/abs/1908.09791,
https://arxiv.org/abs/2103.10584). A table is a CSV file `position,choice,latency_ms,energy_mj` with one line per entry.
A line `base,,LATENCY,ENERGY` holds what every network takes on top. An empty energy was not measured; an entry without
a line is missing. Positions and choices count from 0. Tables of blocks by name (`hw_models.blocks`), which are devices,
are read here too.
Shapes: P positions, C choices, N networks. Functions take one design; batch them with `jax.vmap`. Units: s, J.
"""

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hw_models.blocks import BASE, BlockCost, parse_block
from hw_models.cost import Cost
from hw_models.csv_files import read_table
from hw_models.files import load_yaml, read_text, write_whole

_HEADER = ["position", "choice", "latency_ms", "energy_mj"]
_MILLI = 1e-3


@struct.dataclass
class LookupTable:
    """Costs of blocks.

    Attributes:
        latency_s: f32[P, C]; NaN where there is no such block or it was not measured.
        energy_j: f32[P, C], NaN as above; all NaN where energy was not measured.
        base_latency_s: f32[], what every network takes on top: stem, head, start of a run.
        base_energy_j: f32[], likewise.
    """

    latency_s: jax.Array
    energy_j: jax.Array
    base_latency_s: jax.Array
    base_energy_j: jax.Array


def lookup_table(
    latency_s: jax.Array,
    energy_j: jax.Array | None = None,
    *,
    base_latency_s: float | jax.Array = 0.0,
    base_energy_j: float | jax.Array = 0.0,
) -> LookupTable:
    """Builds a table.

    Args:
        latency_s: f32[P, C], NaN where an entry is missing.
        energy_j: f32[P, C]; None: not measured.
        base_latency_s: f32[].
        base_energy_j: f32[].

    Returns:
        The table, as float32.

    Raises:
        AssertionError: Shapes do not fit.
    """
    latency_s = jnp.asarray(latency_s, jnp.float32)
    energy_j = jnp.full_like(latency_s, jnp.nan) if energy_j is None else jnp.asarray(energy_j, jnp.float32)
    chex.assert_rank(latency_s, 2, custom_message="latency_s")
    chex.assert_shape(energy_j, latency_s.shape, custom_message="energy_j, beside latency_s")
    return LookupTable(
        latency_s, energy_j, jnp.asarray(base_latency_s, jnp.float32), jnp.asarray(base_energy_j, jnp.float32)
    )


def lookup_cost(table: LookupTable, choices: jax.Array) -> Cost:
    """Costs of a network.

    Args:
        table: The table.
        choices: int[P], a choice per position.

    Returns:
        Costs f32[], infinite if an entry is missing or a choice is outside the table, so that a search avoids it.
        Energy is infinite throughout where it was not measured.

    Raises:
        AssertionError: `choices` is not an integer array of shape [P].
    """
    choices = jnp.asarray(choices)
    count, options = table.latency_s.shape
    chex.assert_type(choices, int, custom_message="choices")
    chex.assert_shape(choices, (count,), custom_message="choices")
    is_known = (choices >= 0) & (choices < options)

    def total(entries: jax.Array, base: jax.Array) -> jax.Array:
        chosen = entries[jnp.arange(count), jnp.clip(choices, 0, options - 1)]
        return base + jnp.sum(jnp.where(is_known & ~jnp.isnan(chosen), chosen, jnp.inf))

    return Cost(total(table.latency_s, table.base_latency_s), total(table.energy_j, table.base_energy_j))


def expected_lookup_cost(table: LookupTable, probabilities: jax.Array) -> Cost:
    """Expected costs of a relaxed choice; linear in the probabilities, so a gradient search can descend on it.

    Args:
        table: The table.
        probabilities: f32[P, C], each row a distribution over the choices.

    Returns:
        Costs f32[]: those of `lookup_cost` for one-hot rows. Missing entries count only where their probability is
        positive, and then make the cost infinite: mask them out before a softmax.

    Raises:
        AssertionError: `probabilities` has another shape.
    """
    chex.assert_shape(probabilities, table.latency_s.shape, custom_message="probabilities")

    def total(entries: jax.Array, base: jax.Array) -> jax.Array:
        is_missing = jnp.isnan(entries)
        expected = jnp.sum(probabilities * jnp.where(is_missing, 0.0, entries))
        return base + expected + jnp.where(jnp.any(is_missing & (probabilities > 0)), jnp.inf, 0.0)

    return Cost(total(table.latency_s, table.base_latency_s), total(table.energy_j, table.base_energy_j))


def fit_lookup(
    choices: jax.Array, latency_s: jax.Array, *, options: int, energy_j: jax.Array | None = None, penalty: float = 1e-3
) -> LookupTable:
    """Fits a table to latencies of whole networks.

    Whole networks tell the entries of a position only up to a constant. Here the cheapest choice of each position
    costs zero and the base takes the rest, so no entry is negative.

    Args:
        choices: int[N, P], choices of measured networks.
        latency_s: f32[N].
        options: Choices per position.
        energy_j: f32[N]; None: not measured.
        penalty: Of the ridge, in networks: an entry seen in `penalty` networks is halfway to its prior.

    Returns:
        The table; entries that no network has are NaN.

    Raises:
        ValueError: Shapes do not fit, or a choice is outside 0 .. options - 1.
    """
    choices = jnp.asarray(choices)
    if choices.ndim != 2 or latency_s.shape != choices.shape[:1] or choices.shape[0] < 1:
        raise ValueError(f"networks: expected choices [N, P] and latencies [N], got {choices.shape}, {latency_s.shape}")
    if int(jnp.min(choices)) < 0 or int(jnp.max(choices)) >= options:
        raise ValueError(
            f"choices: expected 0 to {options - 1}, got {int(jnp.min(choices))} to {int(jnp.max(choices))}"
        )
    latency, base_latency = _fit_entries(choices, latency_s, options, penalty)
    if energy_j is None:
        return lookup_table(latency, base_latency_s=base_latency)
    energy, base_energy = _fit_entries(choices, energy_j, options, penalty)
    return lookup_table(latency, energy, base_latency_s=base_latency, base_energy_j=base_energy)


def read_lookup(path: str | Path) -> LookupTable:
    """Reads a table.

    Args:
        path: The file.

    Returns:
        The table; its shape is set by the largest position and choice, entries without a line are NaN.

    Raises:
        ValueError: The file is missing or wrong; the message names file, line and what was expected.
    """
    lines = read_table(path, columns=_HEADER, numbers=_HEADER[2:], required=_HEADER)
    entries: dict[tuple[int, int], tuple[float, float]] = {}
    base: tuple[float, float] | None = None
    for number, cells in lines:
        where = f"{path}, line {number}"
        costs = (
            _cost(cells["latency_ms"], where, "latency_ms"),
            _cost(cells["energy_mj"], where, "energy_mj", may_be_empty=True),
        )
        if cells["position"].casefold() == BASE:
            if base is not None:
                raise ValueError(f"{where}: expected one line of the base, got another")
            base = costs
            continue
        key = _index(cells["position"], where, "position"), _index(cells["choice"], where, "choice")
        if key in entries:
            raise ValueError(f"{where}: expected each entry once, got position {key[0]}, choice {key[1]} again")
        entries[key] = costs
    if not entries:
        raise ValueError(f"{path}: expected at least one entry, got none")
    shape = [max(key[axis] for key in entries) + 1 for axis in (0, 1)]
    columns = np.full((2, *shape), np.nan, np.float32)
    for (position, choice), costs in entries.items():
        columns[:, position, choice] = costs
    base_latency_s, base_energy_j = (0.0 if math.isnan(value) else value for value in base or (0.0, 0.0))
    return lookup_table(columns[0], columns[1], base_latency_s=base_latency_s, base_energy_j=base_energy_j)


def write_lookup(table: LookupTable, path: str | Path) -> None:
    """Writes a table; missing entries get no line.

    Args:
        table: The table.
        path: A file that is not there yet.

    Raises:
        ValueError: The file is there already, or cannot be written.
    """
    latency_s, energy_j = np.asarray(table.latency_s, np.float64), np.asarray(table.energy_j, np.float64)
    lines = [[BASE, "", _milli(float(table.base_latency_s)), _milli(float(table.base_energy_j))]]
    for position, choice in np.argwhere(~np.isnan(latency_s)).tolist():
        lines.append(
            [str(position), str(choice), _milli(latency_s[position, choice]), _milli(energy_j[position, choice])]
        )
    if Path(path).exists():
        raise ValueError(f"{path}: expected a new file, got one that exists")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_HEADER, *lines])
    write_whole(path, text.getvalue().encode("utf-8"))


def is_block_table(path: str | Path) -> bool:
    """Whether a file may be a table of blocks, and is none of measured networks."""
    path = Path(path)
    if path.suffix.lower() != ".csv":
        return True
    try:
        header = read_text(path).partition("\n")[0].lower()
    except (OSError, ValueError):  # the reader of measurements says what is wrong
        return False
    return "block" in header and "layers" not in header


def read_block_costs(path: str | Path) -> dict[str, BlockCost] | None:
    """Reads a table of blocks.

    Args:
        path: A CSV file, or a YAML file.

    Returns:
        Costs by name; None where the path is something else: a name, or a YAML file of a device.

    Raises:
        ValueError: One line: file, line, what was expected and what came.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _costs_of_csv(path)
    if suffix not in (".yaml", ".yml"):
        return None
    try:
        text = read_text(path)
        content = load_yaml(text) if "-input:" in text else None
    except (OSError, ValueError):  # the reader of device files says what is wrong
        return None
    if not isinstance(content, Mapping) or "-input:" not in str(next(iter(content), "")):
        return None
    costs: dict[str, BlockCost] = {}
    for name, entry in content.items():
        mean = entry.get("mean") if isinstance(entry, Mapping) else entry
        costs[str(name)] = BlockCost(_as_written(str(mean), f"{path}: {name}", "mean"))
    return _checked_blocks(costs, source=str(path))


def _costs_of_csv(path: Path) -> dict[str, BlockCost]:
    columns = ["block", "latency_ms", "energy_mj"]
    lines = read_table(path, columns=columns, numbers=columns[1:], required=columns[:2])
    costs: dict[str, BlockCost] = {}
    for number, cells in lines:
        where, name, energy = f"{path}, line {number}", cells["block"], cells.get("energy_mj", "")
        if name in costs:
            raise ValueError(f"{where}: expected each block once, got {name} again")
        costs[name] = BlockCost(
            _as_written(cells["latency_ms"], where, "latency_ms"),
            _as_written(energy, where, "energy_mj") if energy else None,
        )
    return _checked_blocks(costs, source=str(path))


def _checked_blocks(costs: dict[str, BlockCost], *, source: str) -> dict[str, BlockCost]:
    """Returns costs as they are; raises for names of no block, no block at all, or energies of some blocks alone."""
    blocks = {name: cost for name, cost in costs.items() if name != BASE}
    for name in blocks:
        try:
            parse_block(name)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
    known = sum(cost.energy_mj is not None for cost in blocks.values())
    if not blocks:
        raise ValueError(f"{source}: expected at least one block, got none")
    if known not in (0, len(blocks)):
        raise ValueError(f"{source}: energy_mj: expected it for all {len(blocks)} blocks or for none, got {known}")
    return costs


def _fit_entries(choices: jax.Array, targets: jax.Array, options: int, penalty: float) -> tuple[jax.Array, jax.Array]:
    """Ridge on one-hot choices, then the constants moved into the base: entries f32[P, C] and base f32[]."""
    count = choices.shape[1]
    one_hot = jax.nn.one_hot(choices, options, dtype=jnp.float32).reshape(choices.shape[0], -1)
    share, mean = jnp.mean(one_hot, axis=0), jnp.mean(targets)
    scale = jnp.maximum(jnp.std(targets), jnp.finfo(jnp.float32).tiny)
    centered = one_hot - share[None]
    normal = centered.T @ centered + penalty * jnp.eye(count * options)
    entries = scale * jnp.linalg.solve(normal, centered.T @ ((targets - mean) / scale))
    base = mean - share @ entries
    entries = jnp.where(share > 0, entries, jnp.nan).reshape(count, options)
    cheapest = jnp.nanmin(entries, axis=1)
    return entries - cheapest[:, None], base + jnp.sum(cheapest)


def _milli(value: float) -> str:
    return "" if math.isnan(value) else f"{value / _MILLI:.9g}"


def _index(text: str, where: str, name: str) -> int:
    if not text.strip().isdecimal() or int(text) > 10_000:
        raise ValueError(f"{where}: {name}: expected a whole number from 0 to 10000, got {text!r}")
    return int(text)


def _cost(text: str, where: str, name: str, *, may_be_empty: bool = False) -> float:
    """Reads a cost in SI units, NaN where it may be empty."""
    if may_be_empty and not text.strip():
        return math.nan
    return _as_written(text, where, name) * _MILLI


def _as_written(text: str, where: str, name: str) -> float:
    """Reads a cost as it stands."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{where}: {name}: expected a number of at least 0, got {text!r}")
    return value
