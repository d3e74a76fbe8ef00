"""A trained supernet on disk: `supernet.json`, which says what it is, beside `weights.npz` and `images.npz`.

`images.npz` has fingerprints of all images that the weights may have seen, so that other data can be told from the same
data changed. The description holds the digest of the weights, so that damage is found. Batch-norm statistics are not
kept: every backbone's own are re-estimated from training images where they are needed, see
`hadas_jax.supernet.estimate_batch_stats`.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import numpy as np
import pydantic

from hadas_jax.backend import is_first
from hadas_jax.data import Normalisation, SplitRecord
from hadas_jax.runs import checkpoints
from hadas_jax.runs.names import SUPERNET, SUPERNET_FILE
from hadas_jax.spaces import MBConvSpace
from hadas_jax.supernet.network import Parameters, initialise
from hw_models.files import as_npz

IMAGES = "images.npz"
_FILES = (SUPERNET_FILE, checkpoints.WEIGHTS, IMAGES, checkpoints.ORBAX_WEIGHTS)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What all finished weights say of where they come from.

    Attributes:
        normalisation: Mean and standard deviation of every input channel by which images were standardised, in 0 .. 1
            for images of bytes; None: unknown.
        class_names: One for every class; None: unknown.
        data: The data set that they were trained on and its division; None: unknown, as of an imported supernet.
        source: Where they come from, in words for people.
        details: Anything else worth keeping about their making; what JSON holds.
    """

    normalisation: Normalisation | None = None
    class_names: tuple[str, ...] | None = None
    data: SplitRecord | None = None
    source: str
    details: dict[str, Any] = field(default_factory=dict)

    FILE: ClassVar[str]  # name of the description beside the weights
    FORM: ClassVar[str]  # of that file
    RUNS_KEEP_IT_IN: ClassVar[str]  # folder of a run's work directory
    WHAT: ClassVar[str]  # the weights, in words for errors

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Reads the description beside finished weights.

        Raises:
            ValueError: There is none, or it is of another form.
        """
        path, inner = directory / cls.FILE, directory / cls.RUNS_KEEP_IT_IN
        if not path.is_file():
            hint = f"; {inner} has one" if (inner / cls.FILE).is_file() else ""
            raise ValueError(f"{directory}: expected a directory with {cls.WHAT}, got none (no {cls.FILE}){hint}")
        content = checkpoints.read_json(path, cls.FORM, what=f"the description of {cls.WHAT}")
        return checkpoints.validated(cls, content, path=path)

    @classmethod
    def content_of(cls, described: Self) -> dict[str, Any]:
        """Returns what the file holds; of a checkpoint, whose class is derived, the part that is a description."""
        return {"form": cls.FORM, **pydantic.TypeAdapter(cls).dump_python(described)}


@dataclass(frozen=True, kw_only=True)
class Description(Provenance):
    """What is needed to use a supernet's weights.

    Attributes:
        space: With resolution, input channels and classes settled.
        trained_exits: Block positions of the supernet, `space.first_exit` .. `space.positions` - 1, whose exit heads
            are trained.
        exits_of: Name of the one backbone that they were trained for; None: all backbones share them.
        has_classifier: The final classifier is trained; a fresh one must be before the supernet is searched.
    """

    space: MBConvSpace
    trained_exits: tuple[int, ...]
    exits_of: str | None = None
    has_classifier: bool = True

    FILE = SUPERNET_FILE
    FORM = "hadas_jax.supernet/1"
    RUNS_KEEP_IT_IN = SUPERNET
    WHAT = "a trained supernet"

    def __post_init__(self) -> None:
        space, exits, names = self.space, self.trained_exits, self.class_names
        if not space.resolution:
            raise ValueError("space: expected one that was adapted to its data, got one without resolutions")
        if list(exits) != sorted(set(exits) & set(range(space.first_exit, space.positions))):
            raise ValueError(
                f"trained_exits: expected rising positions in {space.first_exit} .. {space.positions - 1}, got {exits}"
            )
        if names is not None and len(names) != space.classes:
            raise ValueError(f"class_names: expected {space.classes}, one for every class, got {len(names)}")
        if self.normalisation is not None and not _normalises(self.normalisation, space.in_channels):
            raise ValueError(
                f"normalisation: expected means and positive deviations of {space.in_channels} channels, "
                f"got {self.normalisation}"
            )


def _normalises(normalisation: Normalisation, channels: int) -> bool:
    mean, deviation = normalisation
    finite = all(math.isfinite(number) for number in (*mean, *deviation))
    return len(mean) == len(deviation) == channels and finite and min(deviation) > 0


@dataclass(frozen=True, kw_only=True)
class SupernetCheckpoint(Description):
    """Weights of a supernet and its exit heads, and what is needed to use them.

    Attributes:
        params: The weights.
        seen: uint64[n], rising: fingerprints of the images of all data sets that the weights were trained on; none
            where `data` is unknown.
    """

    params: Parameters
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64), repr=False)


def require_free(directory: Path | str, *, overwrite: bool = False) -> None:
    """Raises unless a supernet may be written to a directory.

    Args:
        directory: None, an empty one, one that was not written to the end, or with `overwrite` a supernet's.
        overwrite: Replace the supernet that is there.

    Raises:
        ValueError: The directory holds something else or a supernet that may not be replaced, or cannot be written to.
    """
    checkpoints.output_directory(directory, _FILES, mark=SUPERNET_FILE, overwrite=overwrite, parents=True)


def save_supernet(directory: Path | str, trained: SupernetCheckpoint, *, overwrite: bool = False) -> None:
    """Writes a supernet; `supernet.json` comes last, so that what it describes is whole.

    Args:
        directory: Created if need be.
        trained: What is written.
        overwrite: Replace the supernet that is there.

    Raises:
        ValueError: The directory holds something else, or a supernet that may not be replaced.
    """
    directory = Path(directory)
    if is_first():
        require_free(directory, overwrite=overwrite)
    files = {} if trained.data is None else {IMAGES: as_npz({"seen": trained.seen}, compressed=True)}
    checkpoints.write_checkpoint(directory, SUPERNET_FILE, Description.content_of(trained), trained.params, files=files)


def rewrite_description(directory: Path | str, trained: Description) -> None:
    """Replaces what a supernet's directory says of it; the weights stay.

    Args:
        directory: Of a supernet that `save_supernet` wrote.
        trained: The new description of the same weights.
    """
    checkpoints.write_described(Path(directory), SUPERNET_FILE, Description.content_of(trained))


def load_supernet(directory: Path | str) -> SupernetCheckpoint:
    """Reads a supernet that `save_supernet` wrote.

    Raises:
        ValueError: There is none, it is damaged, or of another form.
    """
    directory = Path(directory)
    described = Description.read(directory)
    shapes = jax.eval_shape(lambda: initialise(described.space, jax.random.key(0)))
    params = checkpoints.read_weights(directory, SUPERNET_FILE, shapes=shapes)
    seen = np.zeros(0, np.uint64) if described.data is None else _read_seen(directory / IMAGES)
    return SupernetCheckpoint(params=params, seen=seen, **vars(described))


def _read_seen(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return arrays["seen"]
    except Exception as error:  # numpy and zipfile raise whatever the damage causes
        raise ValueError(f"{path}: expected fingerprints of the images that the weights saw, cannot read it") from error
