"""A selected design as an `Architecture`: what its search knows of it, brought together."""

import json
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from hadas_jax.deploy.architecture import (
    Architecture,
    Clocks,
    DeviceOfNetwork,
    Normalisation,
    OnSplit,
    Origin,
    backbone_in_words,
)
from hadas_jax.deploy.weights import SearchedSupernet, place_from
from hadas_jax.methods.device_choice import chosen_device
from hadas_jax.methods.limits import Limits
from hadas_jax.methods.result_file import FinishedSearch
from hadas_jax.methods.results import Design
from hadas_jax.methods.static import static_costs
from hadas_jax.spaces import MBConvSpace
from hw_models import Device, read_device_file


def weights_of(designs: Sequence[Design], space: MBConvSpace, device: Device) -> np.ndarray:
    """Returns int64[M]: weights of the backbones, exit heads aside.

    Raises:
      ValueError: a design is of another space.
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
    limits: Limits,
    prefer: str,
) -> Architecture:
    """Brings together what an ARCH.json holds.

    Args:
      search: that found the design.
      design: chosen.
      supernet: of the search.
      weights: of the design's backbone.
      folder: that the ARCH.json is written to.
      limits: of the selection.
      prefer: of the selection.
    """
    settings, described = search.settings, supernet.description
    normalisation = described.normalisation
    return Architecture(
        space=supernet.space,
        genome=design.genome,
        backbone=backbone_in_words(supernet.space.decode(jnp.asarray(design.genome, jnp.int32))),
        exits=design.exits,
        thresholds=design.thresholds,
        policy=settings.policy,  # type: ignore[arg-type]
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
            settings=json.loads(json.dumps(vars(settings))),
            versions=search.versions,
        ),
    )


def _device_of(search: FinishedSearch) -> DeviceOfNetwork:
    settings = search.settings
    return DeviceOfNetwork(
        file=read_device_file(settings.device),
        number_format=chosen_device(settings).formats[0].name.lower(),  # type: ignore[arg-type]
        power_mode=settings.power_mode,
        core_mhz=settings.core_mhz,
        memory_mhz=settings.memory_mhz,
        host_mhz=settings.host_mhz,
    )
