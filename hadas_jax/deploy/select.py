"""From the front of a search to one network: which design to take under constraints, and its ARCH.json.

Every preference gives a design a merit that does not depend on the constraints, and the design of the best merit among
those that keep them is taken. So a choice is never dominated by another design that keeps them, and a wider constraint
never makes it worse.
Shapes: M designs. Objectives are error, latency_s and energy_j.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from hadas_jax.deploy.architecture import Architecture, SupernetReference
from hadas_jax.frozen.description import GivenDescription
from hadas_jax.methods.hadas.constraints import static_costs
from hadas_jax.methods.hadas.fronts import constraint_violation
from hadas_jax.methods.hadas.results import Design, FinishedSearch, Result
from hadas_jax.settings import NO_CONSTRAINTS, Constraints, ExitsSettings
from hadas_jax.spaces import AnySpace
from hadas_jax.supernet.checkpoint import Description
from hadas_jax.training.run import at_resolutions
from hw_models import Device, NumberFormat, read_device_file
from hw_models.catalogue import device_of

PREFERENCES = ("knee", "accuracy", "latency", "energy")
NEIGHBOURS = ("more accurate", "faster", "less energy")  # in the order of the objectives


@dataclass(frozen=True)
class Selection:
    """A choice among M designs, by their rows.

    Attributes:
        chosen: The best design that keeps the constraints; the nearest to them where none does.
        violation: The relative constraint violation of the chosen design; 0 where it keeps them.
        neighbours: By `NEIGHBOURS`, the design of the next better value of that objective, whether it keeps the
            constraints or not; absent where there is no better one.
        without: What would be chosen without a constraint, by the name of each one that is set.
    """

    chosen: int
    violation: float
    neighbours: dict[str, int]
    without: dict[str, int]


def candidates(
    result: Result, policy: str, limits: Constraints = NO_CONSTRAINTS
) -> tuple[tuple[Design, ...], np.ndarray, dict[str, np.ndarray]]:
    """Finds the designs of a search to select from: the front of a policy and the best of each accuracy level.

    Those that another one dominates on the selection samples are left out, and all but one of equals; what is no
    objective counts for that where it is limited.

    Args:
        result: What the search found.
        policy: `ideal` or `deployable`.
        limits: The constraints to keep.

    Returns:
        The designs, their objectives float64[M, 3] on the selection samples under the policy, and float64[M] of what
        else is limited, by the name of the constraint and in its unit.

    Raises:
        ValueError: The search found no design under this policy, or is of an earlier version that does not tell what
            is limited.
    """
    every = [*result.front(policy), *(level.exits_and_clocks[policy] for level in result.levels)]
    if not every:
        raise ValueError(f"expected designs found under the {policy} policy, got none")
    objectives = np.array([dataclasses.astuple(design.selection[policy]) for design in every], np.float64)
    others = _limited(every, policy, limits)
    values = np.column_stack([objectives, *others.values()])
    _, different = np.unique(values, axis=0, return_index=True)
    rows = np.sort(different)
    no_worse = np.all(values[rows, None] <= values[rows], axis=-1)
    kept = rows[no_worse.sum(axis=0) == 1]  # each is no worse than itself
    return tuple(every[row] for row in kept), objectives[kept], {name: each[kept] for name, each in others.items()}


def _limited(designs: Sequence[Design], policy: str, limits: Constraints) -> dict[str, np.ndarray]:
    """Returns what designs say of themselves that is limited and no objective, float64[M] by the constraint's name."""
    found = {}
    if limits.max_p99_latency_ms is not None:
        known = [design.selection_percentiles.get(policy) for design in designs]
        found["max_p99_latency_ms"] = np.array([np.nan if each is None else 1e3 * each.p99_s for each in known])
    for name, field in (("max_memory_mb", "peak_memory_bytes"), ("max_flash_mb", "weight_bytes")):
        if getattr(limits, name) is not None:
            sizes = [getattr(design, field) for design in designs]
            found[name] = np.array([np.nan if size is None else 1e-6 * size for size in sizes])
    for name, values in found.items():
        if np.isnan(values).any():
            raise ValueError(
                f"{name}: expected a search that tells it of its designs, got one of an earlier version, which does "
                "not; hadas search --resume writes its front anew"
            )
    return found


def select(
    objectives: np.ndarray, limits: Constraints, *, others: dict[str, np.ndarray], prefer: str = "knee"
) -> Selection:
    """Chooses a design.

    Args:
        objectives: float64[M, 3], M > 0, positive latency and energy; none dominates another.
        limits: The constraints to keep.
        others: What is no objective, [M] by the name of its constraint and in its unit; at least what is limited.
        prefer: What counts among the designs that keep the constraints, one of `PREFERENCES`, see `merit`.

    Raises:
        ValueError: An unknown preference.
    """
    error, latency, energy = objectives.T
    order = np.lexsort((latency, energy, error, merit(objectives, prefer)))

    def best(limits: Constraints) -> tuple[int, float]:
        excess = [values / getattr(limits, name) - 1 for name, values in others.items() if getattr(limits, name)]
        violations = np.max([constraint_violation(objectives, limits), *excess], axis=0).astype(np.float32)[order]
        first = int(np.argmin(violations))  # the first of equals has the best merit
        return int(order[first]), float(violations[first])

    chosen, violated_by = best(limits)
    names = [field.name for field in dataclasses.fields(Constraints) if getattr(limits, field.name) is not None]
    return Selection(
        chosen=chosen,
        violation=violated_by,
        neighbours=_neighbours(objectives, chosen),
        without={name: best(dataclasses.replace(limits, **{name: None}))[0] for name in names},
    )


def merit(objectives: np.ndarray, prefer: str) -> np.ndarray:
    """Returns float64[M]: how far designs are from the best, less is better.

    `accuracy`, `latency` and `energy` look at that objective; `knee` at the Euclidean distance to the best value of
    all three at once, in error and in the logarithms of latency and energy, each over its range on the whole front.

    Raises:
        ValueError: An unknown preference.
    """
    if prefer not in PREFERENCES:
        raise ValueError(f"prefer: expected one of {', '.join(PREFERENCES)}, got {prefer!r}")
    if prefer != "knee":
        return objectives[:, ("accuracy", "latency", "energy").index(prefer)]
    scaled = np.column_stack([objectives[:, 0], np.log(objectives[:, 1:])])
    scaled = scaled - scaled.min(axis=0)
    span = scaled.max(axis=0)
    return np.linalg.norm(scaled / np.where(span > 0, span, 1.0), axis=1)


def _neighbours(objectives: np.ndarray, row: int) -> dict[str, int]:
    """The designs of the next better value of each objective, of several the one that costs the least energy."""
    neighbours = {}
    for m, name in enumerate(NEIGHBOURS):
        better = np.flatnonzero(objectives[:, m] < objectives[row, m])
        if len(better):
            order = np.lexsort((objectives[better, 2], objectives[better, 0], -objectives[better, m]))
            neighbours[name] = int(better[order[0]])
    return neighbours


@dataclass(frozen=True)
class SearchedSupernet:
    """The supernet that a search evaluated backbones with.

    Attributes:
        path: Its directory, or that of a given network.
        description: The content of its supernet.json, or given.json.
        space: The space that was searched, at the resolutions asked for.
    """

    path: Path
    description: Description | GivenDescription
    space: AnySpace

    @classmethod
    def of(cls, search: FinishedSearch) -> "SearchedSupernet":
        """Reads the description of the supernet of a search.

        Raises:
            ValueError: It is not there any more, or it is damaged.
        """
        path, settings = search.supernet, search.settings
        is_given = isinstance(settings, ExitsSettings)
        description = GivenDescription.read(path) if is_given else Description.read(path)
        if description.data is not None and description.data.mismatch(search.data) is not None:
            raise ValueError(
                f"{path}: expected the supernet that {search.path} searched, got one of other images or of another "
                "division; search anew"
            )
        if isinstance(description, GivenDescription) or isinstance(settings, ExitsSettings):
            return cls(path, description, description.space)
        space = at_resolutions(description.space, settings.supernet.resolutions)
        formats = tuple(int(NumberFormat[name.upper()]) for name in search.result.number_formats)
        return cls(path, description, dataclasses.replace(space, number_formats=formats))

    def parameter_counts(self, designs: Sequence[Design], device: Device) -> np.ndarray:
        """Returns int64[M]: the number of parameters of each design's backbone, exit heads aside.

        Raises:
            ValueError: A design is of another space.
        """
        top = self.space.codec.cardinalities
        genomes = np.array([design.genome for design in designs if len(design.genome) == len(top)], np.int32)
        if len(genomes) < len(designs) or (genomes >= top).any() or (genomes < 0).any():
            raise ValueError(f"expected designs of the space {self.space.name} ({len(top)} genes), got others")
        different, rows = np.unique(genomes, axis=0, return_inverse=True)
        counts = np.asarray(static_costs(self.space, jnp.asarray(different), device)[1], np.float64)
        return counts.round().astype(np.int64)[rows.ravel()]


def architecture_of(
    search: FinishedSearch,
    design: Design,
    *,
    supernet: SearchedSupernet,
    parameters: int,
    folder: Path,
    limits: Constraints,
    prefer: str,
) -> Architecture:
    """Returns what an ARCH.json holds of a design.

    Args:
        search: The search that found the design.
        design: The design that was chosen.
        supernet: The supernet of the search.
        parameters: The number of parameters of the design's backbone.
        folder: The folder that the ARCH.json is written to.
        limits: The constraints of the selection.
        prefer: The preference of the selection.
    """
    settings, operating = search.settings, search.settings.operating
    device, normalisation = read_device_file(settings.device), supernet.description.normalisation
    content = {
        "space": supernet.space,
        "genome": design.genome,
        "backbone": design.backbone,
        "exits": design.exits,
        "thresholds": design.thresholds,
        "policy": settings.deployment.policy,
        "found_by": design.found_by,
        "clocks_mhz": design.clocks_mhz,
        "device": dataclasses.asdict(operating)
        | {
            "file": device,
            "number_format": design.number_format or device_of(device, operating).formats[0].name.lower(),
        },
        "weights": parameters,
        "peak_memory_bytes": design.peak_memory_bytes,
        "weight_bytes": design.weight_bytes,
        "class_names": supernet.description.class_names,
        "normalisation": normalisation and dict(zip(("mean", "deviation"), normalisation, strict=True)),
        "data": search.data,
        "supernet": SupernetReference.to(supernet.path, folder=folder),
        "selection": design.selection
        | {
            "static": design.static_selection,
            "static_dvfs": design.static_dvfs_selection,
            "shares": design.selection_shares,
            "percentiles": design.selection_percentiles.get("deployable"),
        },
        "test": design.test
        | {
            "static": design.static_test,
            "static_dvfs": design.static_dvfs_test,
            "difference": design.differences["deployable"],
            "shares": design.test_shares,
            "percentiles": design.test_percentiles.get("deployable"),
            "aurocs": design.test_aurocs or None,
        },
        "origin": {
            "workdir": search.path.resolve().name,
            "prefer": prefer,
            "limits": limits,
            "settings": json.loads(json.dumps(settings.flat())),
            "versions": search.versions,
        },
    }
    return Architecture.model_validate(content)
