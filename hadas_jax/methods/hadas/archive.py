"""Every backbone that a search evaluated, with what is known of it, in arrays of fixed size.

Shapes: A archive, N backbones, P backbones to deploy, G genes, E exits, W words of a bit set.

Backbones to start a search from: published ones by name, or those of another run's front.
"""

import dataclasses
import json
import shlex
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.data import SplitRecord
from hadas_jax.methods.hadas.constraints import static_costs
from hadas_jax.methods.hadas.fronts import non_dominated
from hadas_jax.methods.hadas.results import FinishedSearch
from hadas_jax.runs.checkpoints import validated
from hadas_jax.runs.names import EVALUATED
from hadas_jax.settings import Constraints
from hadas_jax.spaces import PUBLISHED_NAMES, MBConvSpace, published_in
from hw_models import Device
from hw_models.files import as_npz, write_whole


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Archive:
    """Backbones in the order of their evaluation; rows from `size` on are empty.

    Attributes:
        genomes: int32[A, G].
        static: float32[A, 3], S(b): error, latency_s, energy_j; +inf where empty.
        correct: uint32[A, E + 1, W], which validation samples every exit gets right.
        params: float32[A], weights of the backbone.
        violation: float32[A], by how much a backbone breaks the limits at least, whatever its exits and clocks.
        merit: float32[A], of its dynamic candidates; NaN where the inner engine did not see the backbone.
        versions: int32[A], how many dynamic candidates the inner engine evaluated.
        size: int32[].
    """

    genomes: np.ndarray
    static: np.ndarray
    correct: np.ndarray
    params: np.ndarray
    violation: np.ndarray
    merit: np.ndarray
    versions: np.ndarray
    size: np.ndarray

    @classmethod
    def empty(cls, capacity: int, space: MBConvSpace, *, samples: int) -> Self:
        """Returns an archive without backbones.

        Args:
            capacity: A, how many it can hold.
            space: Of the backbones.
            samples: Validation samples.
        """
        return cls(
            genomes=np.zeros((capacity, len(space.codec.choices)), np.int32),
            static=np.full((capacity, 3), np.inf, np.float32),
            correct=np.zeros((capacity, space.num_exits + 1, -(-samples // 32)), np.uint32),
            params=np.zeros(capacity, np.float32),
            violation=np.zeros(capacity, np.float32),
            merit=np.full(capacity, np.nan, np.float32),
            versions=np.zeros(capacity, np.int32),
            size=np.asarray(0, np.int32),
        )

    @property
    def examined(self) -> np.ndarray:
        """bool[A], whether the inner engine saw the backbone."""
        return ~np.isnan(self.merit)

    def unseen(self, genomes: np.ndarray) -> np.ndarray:
        """Returns the genomes int32[N, G] that are not in the archive, each once, in their order."""
        genomes = np.asarray(genomes, np.int32)
        known = {genome.tobytes() for genome in self.genomes[: int(self.size)]}
        fresh = {genome.tobytes(): row for row, genome in reversed(list(enumerate(genomes)))}
        return genomes[sorted(row for key, row in fresh.items() if key not in known)]

    def rows(self, genomes: np.ndarray) -> np.ndarray:
        """Returns int[N]: where genomes int32[N, G] are.

        Raises:
            KeyError: A genome that was never evaluated.
        """
        places = {genome.tobytes(): row for row, genome in enumerate(self.genomes[: int(self.size)])}
        return np.array([places[genome.tobytes()] for genome in np.asarray(genomes, np.int32)], np.int64)

    def pool(self, space: MBConvSpace, device: Device, *, limits: Constraints) -> np.ndarray:
        """Returns the genomes int32[P, G] that the inner engine examined, those on the static front, and the extremes.

        Each comes once; backbones with more parameters than the constraints allow are left out.
        """
        rows = np.flatnonzero(self.params[: int(self.size)] <= limits.params)
        genomes, static, chosen = self.genomes[rows], self.static[rows], self.examined[rows]
        chosen[non_dominated(static)] = True
        extremes = np.stack([space.largest_genome, space.smallest_genome])
        if limits.max_params is not None:
            params = np.asarray(static_costs(space, jnp.asarray(extremes), device)[1])
            extremes = extremes[params <= limits.params]
        return np.unique(np.concatenate([genomes[chosen], extremes]), axis=0)

    def append(self, **columns: np.ndarray) -> Self:
        """Returns the archive with N more backbones.

        Args:
            columns: Values of some attributes for the new rows; the others stay empty.
        """
        size = int(self.size) + len(next(iter(columns.values())))
        grown = self.update(slice(int(self.size), size), **columns)
        return dataclasses.replace(grown, size=np.asarray(size, np.int32))

    def update(self, rows: np.ndarray | slice, **columns: np.ndarray) -> Self:
        """Returns the archive with other values in rows int[N]."""
        changed = {}
        for name, values in columns.items():
            changed[name] = getattr(self, name).copy()
            changed[name][rows] = values
        return dataclasses.replace(self, **changed)


def write_evaluated(path: Path, archive: Archive) -> None:
    """Writes which validation samples every exit of every evaluated backbone gets right, for `read_evaluated`."""
    size = int(archive.size)
    write_whole(path, as_npz({"genomes": archive.genomes[:size], "correct": archive.correct[:size]}, compressed=True))


def read_evaluated(
    search: FinishedSearch, space: MBConvSpace, *, record: SplitRecord, samples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns what a search evaluated, for another one that goes on from there.

    Args:
        search: The finished search.
        space: Of the search that goes on.
        record: Of the data of the search that goes on.
        samples: Its validation samples.

    Returns:
        genomes int32[N, G] and correct uint32[N, E + 1, W], as in `Archive`.

    Raises:
        ValueError: Another space or other images, or a search of an earlier version, which did not keep them.
    """
    path = search.path / EVALUATED
    mismatch = search.data.mismatch(record)
    if mismatch is not None:
        raise ValueError(f"resume_from {search.path}: expected a search of the same images, got {mismatch}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            genomes, correct = arrays["genomes"], arrays["correct"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"resume_from {search.path}: expected {EVALUATED} with what the search evaluated, cannot read it; "
            f"{shlex.join(['hadas', 'search', '--resume', '--workdir', str(search.path)])} writes it"
        ) from error
    top = space.codec.cardinalities
    shape = (len(genomes), space.num_exits + 1, -(-samples // 32))
    if genomes.shape[1:] != top.shape or (genomes >= top).any() or correct.shape != shape:
        raise ValueError(
            f"resume_from {search.path}: expected a search of the space {space.name} at these resolutions with "
            f"{samples:,} validation images, got another"
        )
    return genomes.astype(np.int32), correct.astype(np.uint32)


def load_backbones(
    sources: Sequence[str], space: MBConvSpace, *, record: SplitRecord | None = None
) -> np.ndarray | None:
    """Returns the genomes int32[N, G] of some backbones, each once; None for no sources.

    Args:
        sources: Published names (see `spaces.PUBLISHED_NAMES`), or paths of front.json files.
        space: That the backbones must belong to.
        record: Of the data that the search is about; None: whatever backbones were chosen on.

    Raises:
        ValueError: An unknown name, a file that is no front, backbones of another space, or ones that were chosen on
            the same images divided in another way.
    """
    found: list[np.ndarray] = []
    for source in sources:
        found += _from_file(source, space, record) if source.endswith(".json") else [_from_name(source, space)]
    return np.array(list(dict.fromkeys(map(tuple, found))), np.int32) if found else None


def _from_name(name: str, space: MBConvSpace) -> np.ndarray:
    if name not in PUBLISHED_NAMES:
        known = ", ".join(PUBLISHED_NAMES)
        raise ValueError(f"warm_start: expected some of {known}, or a front.json file, got {name!r}")
    try:
        return space.encode(published_in(space, name))
    except ValueError as error:
        raise ValueError(f"warm_start {error}") from error


def _from_file(source: str, space: MBConvSpace, record: SplitRecord | None) -> list[np.ndarray]:
    try:
        content = json.loads(Path(source).read_text(encoding="utf-8"))
        genomes = [np.array(design["genome"], np.int32) for design in content["designs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"warm_start {source}: expected the front.json of a run, cannot read it") from error
    top = space.codec.cardinalities
    for genome in genomes:
        if genome.shape != top.shape or (genome < 0).any() or (genome >= top).any():
            raise ValueError(
                f"warm_start {source}: expected backbones of the space {space.name} ({len(top)} genes), got others"
            )
    if record is None:
        return genomes
    if content.get("data") is None:
        raise ValueError(
            f"warm_start {source}: expected a search that says which images it used, got one of an earlier version, "
            "which does not; search anew"
        )
    chosen_on = validated(SplitRecord, content["data"], path=Path(source))
    mismatch = chosen_on.mismatch(record) if chosen_on.is_related(record) else None
    if mismatch is not None:
        raise ValueError(
            f"warm_start {source}: expected backbones chosen on the images of this search and in their division, got "
            f"{mismatch}: test images of this search may have taken part in their choice"
        )
    return genomes
