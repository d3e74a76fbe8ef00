"""ARCH.json, version 1: a selected network with all that is needed to show it, cut it out and run it.

Units: latency_s in s, energy_j in J, clocks in MHz; shares and errors are fractions of samples. The file stands by
itself but for the supernet's weights, which it names by directory and by the digest of their description.

Where the weights of a selected network are: in the supernet that its search trained or was given.

A selected design as an `Architecture`: what its search knows of it, brought together.
"""

import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import jax.numpy as jnp
import numpy as np
import pydantic
from pydantic import Field

from hadas_jax.data import SplitRecord
from hadas_jax.evaluation import Difference
from hadas_jax.methods.hadas.constraints import static_costs
from hadas_jax.methods.hadas.results import Design, FinishedSearch, Performance, Threshold
from hadas_jax.runs.checkpoints import read_checkpoint, validated
from hadas_jax.runs.workdir import ARCHITECTURE, SUPERNET, write_text
from hadas_jax.settings import Constraints
from hadas_jax.spaces import Backbone, MBConvSpace, available_exits, block_active
from hadas_jax.supernet.checkpoint import DESCRIPTION, Description, read_description
from hadas_jax.training.run import at_resolutions
from hw_models import Device, read_device_file
from hw_models.catalogue import device_of
from hw_models.files import show
from hw_models.schema import DeviceFile, Positive, Strict, Text

FORM = "hadas_jax.architecture/1"
Fraction = Annotated[float, Field(ge=0, le=1)]
Gene = Annotated[int, Field(ge=0)]


class Clocks(Strict):
    """An operating point in MHz."""

    core: Positive
    memory: Positive
    host: Positive


class DeviceOfNetwork(Strict):
    """The device that a network was selected for, its file's content included.

    Attributes:
        file: Of the device.
        number_format: That the network runs in.
        power_mode: Whose caps hold; None: no caps.
        core_mhz: Settings of the clock that were searched, all if empty; likewise of the other clocks.
        memory_mhz: Settings of the memory clock.
        host_mhz: Settings of the host clock.
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
    """By which images are standardised, of every channel, in 0 .. 1 for images of bytes."""

    mean: tuple[float, ...]
    deviation: tuple[Positive, ...]


class SupernetPlace(Strict):
    """Where the weights are.

    Attributes:
        path: Of the supernet's directory, from the folder of the ARCH.json, or absolute.
        sha256: Of its supernet.json.
    """

    path: Text
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class OnSplit(Strict):
    """What the network does on some samples.

    Attributes:
        ideal: Every sample stops at the first exit that is right; needs labels.
        deployable: Every sample stops at the first exit that is sure enough.
        static: The backbone without exits, at the highest clocks.
        static_dvfs: The backbone without exits, at its best clocks within the limits of the search; None in files of
            versions that did not tell.
        difference: In accuracy of the deployable network from the backbone without exits, with its 95 % interval; None
            in files of versions that did not tell, and where a search chose the network on these samples.
        shares: Of samples that stop at each exit, and last at the classifier, when deployed.
    """

    ideal: Performance
    deployable: Performance
    static: Performance
    static_dvfs: Performance | None = None
    difference: Difference | None = None
    shares: tuple[Fraction, ...]


class Origin(Strict):
    """How the network was found and chosen.

    Attributes:
        workdir: Name of the search's work directory.
        prefer: What was preferred in the selection.
        limits: Of the selection.
        settings: Of the search.
        versions: Of the packages that it ran with.
    """

    workdir: str
    prefer: str
    limits: Constraints
    settings: dict[str, Any]
    versions: dict[str, str]


class Architecture(Strict):
    """A selected network.

    Attributes:
        form: Of the file.
        space: With resolution, input channels and classes settled.
        genome: Of the backbone.
        backbone: What the genome says, in words.
        exits: Blocks that an exit follows, counted over the backbone's own blocks from 0.
        thresholds: Per exit, the least score at which a sample stops; inf (null in the file) where none may.
        policy: The score.
        found_by: The policy under which the network is on the front.
        clocks_mhz: Selected.
        device: Selected for.
        weights: Number of the backbone's weights with batch norm folded in, exit heads aside.
        class_names: None: unknown.
        normalisation: Of the images; None: unknown.
        data: The data set that the network was found on and its division; None: of an earlier version.
        supernet: Where the weights are.
        selection: On the samples that it was chosen on.
        test: On the test split.
        origin: How it was found.
    """

    form: Literal["hadas_jax.architecture/1"] = "hadas_jax.architecture/1"
    space: MBConvSpace
    genome: tuple[Gene, ...]
    backbone: dict[str, int | tuple[int, ...]]
    exits: tuple[Gene, ...]
    thresholds: tuple[Threshold, ...]
    policy: Literal["confidence", "entropy", "learned"]
    found_by: Literal["ideal", "deployable"]
    clocks_mhz: Clocks
    device: DeviceOfNetwork
    weights: Annotated[int, Field(gt=0)]
    class_names: tuple[str, ...] | None
    normalisation: Normalisation | None
    data: SplitRecord | None = None
    supernet: SupernetPlace
    selection: OnSplit
    test: OnSplit
    origin: Origin

    @pydantic.model_validator(mode="after")
    def _parts_fit(self) -> "Architecture":
        space, exits, by = self.space, len(self.exits), self.normalisation
        if not space.resolution:
            _refuse("space.resolution: expected sizes in pixels", space.resolution)
        top = space.codec.cardinalities
        if len(self.genome) != len(top) or (np.array(self.genome) >= top).any():
            _refuse(f"genome: expected {len(top)} genes of the space {space.name}", self.genome)
        decoded = backbone_in_words(self.decoded)
        if self.backbone != decoded:
            _refuse(f"backbone: expected what the genome says ({decoded})", self.backbone)
        blocks = range(space.first_exit, self.blocks)
        if list(self.exits) != sorted(set(self.exits) & set(blocks)):
            _refuse(f"exits: expected rising blocks in {space.first_exit} .. {self.blocks - 1}", self.exits)
        for name, found, wanted in (
            ("thresholds", self.thresholds, exits),
            ("selection.shares", self.selection.shares, exits + 1),
            ("test.shares", self.test.shares, exits + 1),
            ("class_names", self.class_names, space.classes),
            ("normalisation.mean", by.mean if by else None, space.in_channels),
            ("normalisation.deviation", by.deviation if by else None, space.in_channels),
        ):
            if found is not None and len(found) != wanted:
                _refuse(f"{name}: expected {wanted} values", found)
        return self

    @property
    def decoded(self) -> Backbone:
        """The backbone."""
        return self.space.decode(jnp.asarray(self.genome, jnp.int32))

    @property
    def blocks(self) -> int:
        """Blocks of the backbone."""
        return int(np.sum(np.asarray(self.decoded.depth)))

    @property
    def exit_mask(self) -> np.ndarray:
        """bool[E]: which exits of the space the network has."""
        block = np.cumsum(np.asarray(block_active(self.space, self.decoded)))[self.space.first_exit :] - 1
        return np.asarray(available_exits(self.space, self.decoded)) & np.isin(block, self.exits)


def backbone_in_words(backbone: Backbone) -> dict[str, int | tuple[int, ...]]:
    """Returns resolution, width, depth, kernel and expand as plain numbers."""
    values = {name: np.asarray(value).tolist() for name, value in vars(backbone).items()}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def architecture_file(place: Path | str) -> Path:
    """Returns the ARCH.json that a path means: a file, or the one of a work directory."""
    place = Path(place)
    return place / ARCHITECTURE if place.is_dir() else place


def read_architecture(place: Path | str) -> Architecture:
    """Reads a network that `write_architecture` wrote.

    Args:
        place: Of the file, or a work directory with one.

    Raises:
        ValueError: One line: there is none, it is of another form or version, or a field does not fit.
    """
    path = architecture_file(place)
    if not path.is_file():
        hint = "; hadas select WORKDIR writes it" if Path(place).is_dir() else ""
        raise ValueError(f"{path}: expected an ARCH.json as hadas select writes, got none{hint}")
    content = read_checkpoint(path, FORM, what="an ARCH.json as hadas select writes")
    return validated(Architecture, content, path=path)


def write_architecture(path: Path | str, architecture: Architecture, *, overwrite: bool = False) -> None:
    """Writes a network.

    Raises:
        ValueError: The folder does not exist, or the file does and may not be replaced.
    """
    path = Path(path)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"{path}: expected a file in an existing folder")
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: expected a new file, got one that exists; --overwrite replaces it")
    content = architecture.model_dump(mode="json", exclude={"device"})
    content["device"] = architecture.device.model_dump(mode="json", exclude_none=True)
    write_text(path, json.dumps(content, indent=1) + "\n")


def _refuse(wanted: str, got: object) -> None:
    raise ValueError(f"{wanted}, got {show(got)}")


@dataclass(frozen=True)
class SearchedSupernet:
    """The supernet that a search judged by.

    Attributes:
        path: Of its directory.
        description: Of it.
        space: That was searched, at the resolutions asked for.
    """

    path: Path
    description: Description
    space: MBConvSpace


def supernet_of_search(search: FinishedSearch) -> SearchedSupernet:
    """Finds the supernet of a search: in its work directory if it trained any of it, else that of its checkpoint.

    Raises:
        ValueError: It is not there any more, or it is damaged.
    """
    own, given = search.path / SUPERNET, search.settings.supernet.checkpoint
    if not (own / DESCRIPTION).is_file() and given is None:
        raise ValueError(
            f"{search.path}: expected the supernet of the search in {SUPERNET}/, got none; "
            f"{shlex.join(['hadas', 'search', '--resume', '--workdir', str(search.path)])} writes it"
        )
    path = own if given is None or (own / DESCRIPTION).is_file() else Path(given)
    description = read_description(path)
    if description.data is not None and description.data.mismatch(search.data) is not None:
        raise ValueError(
            f"{path}: expected the supernet that {search.path} searched, got one of other images or of another "
            "division; search anew"
        )
    return SearchedSupernet(path, description, at_resolutions(description.space, search.settings.supernet.resolutions))


def place_from(folder: Path, supernet: Path) -> SupernetPlace:
    """Returns how an ARCH.json in a folder names a supernet's directory: by a relative path if it lies below."""
    folder, supernet = folder.resolve(), supernet.resolve()
    is_below = supernet.is_relative_to(folder)
    path = supernet.relative_to(folder).as_posix() if is_below else str(supernet)
    return SupernetPlace(path=path, sha256=_digest(supernet))


def supernet_directory(architecture: Architecture, file: Path | str) -> Path:
    """Returns the directory of a network's supernet.

    Args:
        architecture: The network.
        file: Its ARCH.json.

    Raises:
        ValueError: There is no supernet, or it is not the one that the network was selected from.
    """
    directory = Path(file).parent / architecture.supernet.path
    if not (directory / DESCRIPTION).is_file():
        raise ValueError(f"{file}: expected the supernet of the network at {directory}, got none (no {DESCRIPTION})")
    if _digest(directory) != architecture.supernet.sha256:
        raise ValueError(
            f"{directory}: expected the supernet that {file} was selected from, got another one; hadas select "
            "chooses from the new one"
        )
    return directory


def _digest(directory: Path) -> str:
    return hashlib.sha256((directory / DESCRIPTION).read_bytes()).hexdigest()


def weights_of(designs: Sequence[Design], space: MBConvSpace, device: Device) -> np.ndarray:
    """Returns int64[M]: weights of the backbones, exit heads aside.

    Raises:
        ValueError: A design is of another space.
    """
    top = space.codec.cardinalities
    genomes = np.array([design.genome for design in designs if len(design.genome) == len(top)], np.int32)
    if len(genomes) < len(designs) or (genomes >= top).any() or (genomes < 0).any():
        raise ValueError(f"expected designs of the space {space.name} ({len(top)} genes), got others")
    different, rows = np.unique(genomes, axis=0, return_inverse=True)
    found = np.asarray(static_costs(space, jnp.asarray(different), device)[1], np.float64)
    return found.round().astype(np.int64)[rows.ravel()]


def architecture_of(
    search: FinishedSearch,
    design: Design,
    *,
    supernet: SearchedSupernet,
    weights: int,
    folder: Path,
    limits: Constraints,
    prefer: str,
) -> Architecture:
    """Brings together what an ARCH.json holds.

    Args:
        search: That found the design.
        design: Chosen.
        supernet: Of the search.
        weights: Of the design's backbone.
        folder: That the ARCH.json is written to.
        limits: Of the selection.
        prefer: Of the selection.
    """
    settings, described = search.settings, supernet.description
    normalisation = described.normalisation
    return Architecture(
        space=supernet.space,
        genome=design.genome,
        backbone=backbone_in_words(supernet.space.decode(jnp.asarray(design.genome, jnp.int32))),
        exits=design.exits,
        thresholds=design.thresholds,
        policy=settings.deployment.policy,
        found_by=design.found_by,  # type: ignore[arg-type]
        clocks_mhz=Clocks(**design.clocks_mhz),
        device=_device_of(search),
        weights=weights,
        class_names=described.class_names,
        normalisation=normalisation and Normalisation(mean=normalisation[0], deviation=normalisation[1]),
        data=search.data,
        supernet=place_from(folder, supernet.path),
        selection=OnSplit(
            ideal=design.selection["ideal"],
            deployable=design.selection["deployable"],
            static=design.static_selection,
            static_dvfs=design.static_dvfs_selection,
            shares=design.selection_shares,
        ),
        test=OnSplit(
            ideal=design.test["ideal"],
            deployable=design.test["deployable"],
            static=design.static_test,
            static_dvfs=design.static_dvfs_test,
            difference=design.differences["deployable"],
            shares=design.test_shares,
        ),
        origin=Origin(
            workdir=search.path.resolve().name,
            prefer=prefer,
            limits=limits,
            settings=json.loads(json.dumps(settings.flat())),
            versions=search.versions,
        ),
    )


def _device_of(search: FinishedSearch) -> DeviceOfNetwork:
    file, operating = read_device_file(search.settings.device), search.settings.operating
    return DeviceOfNetwork(
        file=file,
        number_format=device_of(file, operating).formats[0].name.lower(),  # type: ignore[arg-type]
        power_mode=operating.power_mode,
        core_mhz=operating.core_mhz,
        memory_mhz=operating.memory_mhz,
        host_mhz=operating.host_mhz,
    )
