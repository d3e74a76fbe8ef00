"""Backbones to start a search from: published ones by name, or those of another run's front."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hadas_jax.data import SplitRecord
from hadas_jax.descriptions import validated
from hadas_jax.spaces import MBConvSpace, published_in, published_names


def load_backbones(
    sources: Sequence[str], space: MBConvSpace, *, record: SplitRecord | None = None
) -> np.ndarray | None:
    """Returns the genomes int32[N, G] of some backbones, each once; None for no sources.

    Args:
      sources: published names (see `spaces.published_names`), or paths of front.json files.
      space: that the backbones must belong to.
      record: of the data that the search is about; None: whatever backbones were chosen on.

    Raises:
      ValueError: an unknown name, a file that is no front, backbones of another space, or ones that were chosen on
        the same images divided in another way.
    """
    found: list[np.ndarray] = []
    for source in sources:
        found += _from_file(source, space, record) if source.endswith(".json") else [_from_name(source, space)]
    return np.array(list(dict.fromkeys(map(tuple, found))), np.int32) if found else None


def _from_name(name: str, space: MBConvSpace) -> np.ndarray:
    if name not in published_names():
        known = ", ".join(published_names())
        raise ValueError(f"--warm-start: expected some of {known}, or a front.json file, got {name!r}")
    try:
        return space.encode(published_in(space, name))
    except ValueError as error:
        raise ValueError(f"--warm-start {error}") from error


def _from_file(source: str, space: MBConvSpace, record: SplitRecord | None) -> list[np.ndarray]:
    try:
        content = json.loads(Path(source).read_text(encoding="utf-8"))
        genomes = [np.array(design["genome"], np.int32) for design in content["designs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--warm-start {source}: expected the front.json of a run, cannot read it") from error
    top = space.codec.cardinalities
    for genome in genomes:
        if genome.shape != top.shape or (genome < 0).any() or (genome >= top).any():
            raise ValueError(
                f"--warm-start {source}: expected backbones of the space {space.name} ({len(top)} genes), got others"
            )
    if record is None:
        return genomes
    if content.get("data") is None:
        raise ValueError(
            f"--warm-start {source}: expected a search that says which images it used, got one of an earlier version, "
            "which does not; search anew"
        )
    chosen_on = validated(SplitRecord, content["data"], path=Path(source))
    mismatch = chosen_on.mismatch(record) if chosen_on.is_related(record) else None
    if mismatch is not None:
        raise ValueError(
            f"--warm-start {source}: expected backbones chosen on the images of this search and in their division, got "
            f"{mismatch}: test images of this search may have taken part in their choice"
        )
    return genomes
