"""ARCH.json, version 1: a selected network with all that is needed to show it, cut it out and run it.

Units: latency_s in s, energy_j in J, clocks in MHz; shares and errors are fractions of samples. The file stands by
itself but for the supernet's weights, which it names by directory and by the digest of their description.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import numpy as np
import pydantic
from pydantic import Field

from hadas_jax.data import SplitRecord
from hadas_jax.evaluation import Difference
from hadas_jax.methods.hadas.results import Percentiles, Performance, Threshold
from hadas_jax.runs.checkpoints import read_json, validated
from hadas_jax.runs.names import ARCHITECTURE, GIVEN_FILE, SUPERNET_FILE
from hadas_jax.runs.workdir import write_text
from hadas_jax.settings import Constraints
from hadas_jax.spaces import Backbone, GivenNetwork, MBConvSpace, available_exits, block_active
from hw_models import Device, NumberFormat
from hw_models.catalogue import device_of
from hw_models.files import show
from hw_models.schema import DeviceFile, Positive, Strict, Text

_FORM = "hadas_jax.architecture/1"
_Fraction = Annotated[float, Field(ge=0, le=1)]
_Gene = Annotated[int, Field(ge=0)]


def _kind(space: object) -> str:
    """Which kind of space a value describes."""
    is_given = "places" in space if isinstance(space, dict) else isinstance(space, GivenNetwork)
    return "[given]" if is_given else "[mbconv]"


# The space of a search, or a network that was given; errors speak of fields alone, not of the kind.
_Space = Annotated[
    Annotated[MBConvSpace, pydantic.Tag("[mbconv]")] | Annotated[GivenNetwork, pydantic.Tag("[given]")],
    pydantic.Discriminator(_kind),
]


class _Clocks(Strict):
    """An operating point in MHz."""

    core: Positive
    memory: Positive
    host: Positive


class _TargetDevice(Strict):
    """The device that a network was selected for, its file's content included.

    Attributes:
        file: The device file.
        number_format: The format that the network runs in.
        power_mode: The power mode whose caps hold; None: no caps.
        core_mhz: The settings of the core clock that were searched; all if empty.
        memory_mhz: Likewise of the memory clock.
        host_mhz: Likewise of the host clock.
    """

    file: DeviceFile
    number_format: Literal["fp32", "fp16", "int8"]
    power_mode: str | None = None
    core_mhz: tuple[Positive, ...] = ()
    memory_mhz: tuple[Positive, ...] = ()
    host_mhz: tuple[Positive, ...] = ()

    def load(self) -> Device:
        """Returns the cost model at the operating points that were searched.

        Raises:
            ValueError: The file does not have what was asked for.
        """
        return device_of(self.file, self)


class Normalisation(Strict):
    """Mean and standard deviation of each channel that images are standardised by, in 0 .. 1 for images of bytes."""

    mean: tuple[float, ...]
    deviation: tuple[Positive, ...]


class SupernetReference(Strict):
    """Names the supernet that holds the weights of a network.

    Attributes:
        path: The supernet's directory, relative to the folder of the ARCH.json, or absolute.
        sha256: The digest of its supernet.json.
    """

    path: Text
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @classmethod
    def to(cls, supernet: Path, *, folder: Path) -> "SupernetReference":
        """Returns how an ARCH.json in a folder names a supernet's directory: by a relative path if it lies below."""
        folder, supernet = folder.resolve(), supernet.resolve()
        is_below = supernet.is_relative_to(folder)
        path = supernet.relative_to(folder).as_posix() if is_below else str(supernet)
        return cls(path=path, sha256=_description_digest(supernet))

    def directory(self, file: Path | str) -> Path:
        """Returns the supernet's directory.

        Args:
            file: The ARCH.json that names it.

        Raises:
            ValueError: There is no supernet, or it is not the one that the network was selected from.
        """
        directory = Path(file).parent / self.path
        if not _description(directory).is_file():
            raise ValueError(
                f"{file}: expected the supernet of the network at {directory}, got none (no {SUPERNET_FILE})"
            )
        if _description_digest(directory) != self.sha256:
            raise ValueError(
                f"{directory}: expected the supernet that {file} was selected from, got another one; hadas select "
                "chooses from the new one"
            )
        return directory


def _description(supernet: Path) -> Path:
    """The file that says what a supernet, or a given network, is."""
    given = supernet / GIVEN_FILE
    return given if given.is_file() else supernet / SUPERNET_FILE


def _description_digest(supernet: Path) -> str:
    return hashlib.sha256(_description(supernet).read_bytes()).hexdigest()


class SplitMetrics(Strict):
    """What the network does on the samples of one split.

    Attributes:
        ideal: Every sample stops at the first exit that is right; needs labels.
        deployable: Every sample stops at the first exit that is sure enough.
        static: The backbone without exits, at the highest clocks.
        static_dvfs: The backbone without exits, at its best clocks within the constraints of the search; None in files
            of versions that did not tell.
        difference: The accuracy of the deployable network minus that of the backbone without exits, with its 95 %
            interval; None in files of versions that did not tell, and where a search chose the network on these
            samples.
        shares: The share of samples that stop at each exit, and last at the classifier, when deployed.
        percentiles: Of the latency when deployed; None in files of versions that did not tell.
        aurocs: How well the score of each exit tells what that exit gets right (see
            `hadas_jax.evaluation.score_quality`), None for an exit that gets all or nothing right; None where it was
            not told.
    """

    ideal: Performance
    deployable: Performance
    static: Performance
    static_dvfs: Performance | None = None
    difference: Difference | None = None
    shares: tuple[_Fraction, ...]
    percentiles: Percentiles | None = None
    aurocs: tuple[_Fraction | None, ...] | None = None


class _Origin(Strict):
    """How the network was found and chosen.

    Attributes:
        workdir: The name of the search's work directory.
        prefer: The preference of the selection.
        limits: The constraints of the selection.
        settings: The settings of the search.
        versions: The versions of the packages that the search ran with.
    """

    workdir: str
    prefer: str
    limits: Constraints
    settings: dict[str, Any]
    versions: dict[str, str]


class Architecture(Strict):
    """A selected network.

    Attributes:
        form: The form of the file.
        space: The search space, with resolution, input channels and classes settled, or the given network.
        genome: The genes of the backbone.
        backbone: What the genome says: resolution, width, depth, kernel and expand.
        exits: The blocks that an exit follows, counted over the backbone's own blocks from 0.
        thresholds: For each exit, the least score at which a sample stops; inf (null in the file) where none may.
        policy: The score that thresholds compare with.
        found_by: The policy under which the network is on the front.
        clocks_mhz: The operating point.
        device: The device that the network was selected for.
        weights: The number of the backbone's parameters with batch norm folded in, exit heads aside.
        peak_memory_bytes: Peak of the activations of one sample, exits included, in the device's number format; None in
            files of an earlier version.
        weight_bytes: Of the parameters, likewise.
        class_names: The names of the classes; None: unknown.
        normalisation: How images are standardised; None: unknown.
        data: The data set that the network was found on and its division; None in files of an earlier version.
        supernet: Where the weights are.
        selection: What the network does on the samples that it was chosen on.
        test: What it does on the test split.
        origin: How it was found.
    """

    form: Literal["hadas_jax.architecture/1"] = "hadas_jax.architecture/1"
    space: _Space
    genome: tuple[_Gene, ...]
    backbone: dict[str, int | tuple[int, ...]]
    exits: tuple[_Gene, ...]
    thresholds: tuple[Threshold, ...]
    policy: Literal["confidence", "entropy", "learned"]
    found_by: Literal["ideal", "deployable"]
    clocks_mhz: _Clocks
    device: _TargetDevice
    weights: Annotated[int, Field(gt=0)]
    peak_memory_bytes: Annotated[int, Field(gt=0)] | None = None
    weight_bytes: Annotated[int, Field(gt=0)] | None = None
    class_names: tuple[str, ...] | None
    normalisation: Normalisation | None
    data: SplitRecord | None = None
    supernet: SupernetReference
    selection: SplitMetrics
    test: SplitMetrics
    origin: _Origin

    @pydantic.model_validator(mode="after")
    def _parts_fit(self) -> "Architecture":
        space, exits, by = self.space, len(self.exits), self.normalisation
        if not space.resolution:
            _refuse("space.resolution: expected sizes in pixels", space.resolution)
        top = space.codec.cardinalities
        if len(self.genome) != len(top) or (np.array(self.genome) >= top).any():
            _refuse(f"genome: expected {len(top)} genes of the space {space.name}", self.genome)
        decoded = _backbone_fields(self.decoded)
        if self.backbone != decoded:
            _refuse(f"backbone: expected what the genome says ({decoded})", self.backbone)
        if self.decoded.number_format not in (None, self.number_format):
            _refuse("device.number_format: expected the one that the genome says", self.device.number_format)
        blocks = range(space.first_exit, int(np.sum(np.asarray(self.decoded.depth))))
        if list(self.exits) != sorted(set(self.exits) & set(blocks)):
            _refuse(f"exits: expected rising blocks in {blocks.start} .. {blocks.stop - 1}", self.exits)
        for name, values, wanted in (
            ("thresholds", self.thresholds, exits),
            ("selection.shares", self.selection.shares, exits + 1),
            ("test.shares", self.test.shares, exits + 1),
            ("test.aurocs", self.test.aurocs, exits),
            ("class_names", self.class_names, space.classes),
            ("normalisation.mean", by.mean if by else None, space.in_channels),
            ("normalisation.deviation", by.deviation if by else None, space.in_channels),
        ):
            if values is not None and len(values) != wanted:
                _refuse(f"{name}: expected {wanted} values", values)
        return self

    @property
    def decoded(self) -> Backbone:
        """The backbone that the genome stands for."""
        return self.space.decode(jnp.asarray(self.genome, jnp.int32))

    @property
    def number_format(self) -> NumberFormat:
        """The format that the network runs in."""
        return NumberFormat[self.device.number_format.upper()]

    @property
    def exit_mask(self) -> np.ndarray:
        """bool[E]: which exits of the space the network has."""
        block = np.cumsum(np.asarray(block_active(self.space, self.decoded)))[self.space.first_exit :] - 1
        return np.asarray(available_exits(self.space, self.decoded)) & np.isin(block, self.exits)

    @property
    def exit_names(self) -> list[str]:
        """The names of the exits for people, the classifier last."""
        return [*(f"exit after block {block}" for block in self.exits), "classifier"]


def _backbone_fields(backbone: Backbone) -> dict[str, int | tuple[int, ...]]:
    """Resolution, width, depth, kernel and expand of one backbone as plain numbers."""
    values = {name: np.asarray(value).tolist() for name, value in vars(backbone).items() if name != "number_format"}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def architecture_file(path: Path | str) -> Path:
    """Returns the ARCH.json that a path means: a file, or the one of a work directory."""
    path = Path(path)
    return path / ARCHITECTURE if path.is_dir() else path


def read_architecture(path: Path | str) -> Architecture:
    """Reads a network that `write_architecture` wrote.

    Args:
        path: An ARCH.json, or a work directory with one.

    Raises:
        ValueError: One line: there is none, it is of another form or version, or a field does not fit.
    """
    file = architecture_file(path)
    if not file.is_file():
        hint = "; hadas select WORKDIR writes it" if Path(path).is_dir() else ""
        raise ValueError(f"{file}: expected an ARCH.json as hadas select writes, got none{hint}")
    content = read_json(file, _FORM, what="an ARCH.json as hadas select writes")
    return validated(Architecture, content, path=file)


def write_architecture(path: Path | str, architecture: Architecture, *, overwrite: bool = False) -> None:
    """Writes a network.

    Raises:
        ValueError: The folder does not exist, or the file does and may not be replaced.
    """
    path = Path(path)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"{path}: expected a file in an existing folder")
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: expected a new file, got one that exists; `overwrite` replaces it")
    content = architecture.model_dump(mode="json", exclude={"device"})
    content["device"] = architecture.device.model_dump(mode="json", exclude_none=True)
    write_text(path, json.dumps(content, indent=1) + "\n")


def _refuse(wanted: str, got: object) -> None:
    raise ValueError(f"{wanted}, got {show(got)}")
