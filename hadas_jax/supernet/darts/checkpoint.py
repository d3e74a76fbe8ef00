"""A trained network of the DARTS space on disk: `derived.json`, which says what it is, beside `weights/`.

The weights' files carry digests, so that damage is found; the statistics of batch norms are among them.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from hadas_jax.data import SplitRecord
from hadas_jax.runs.checkpoints import read_checkpoint, read_weights, validated, write_checkpoint
from hadas_jax.runs.workdir import versions
from hadas_jax.spaces.darts import parse_code
from hadas_jax.spaces.darts_network import DartsNetwork
from hadas_jax.spaces.genotypes import Genotype, genotype_of
from hadas_jax.supernet.darts.network import apply_derived, estimate_statistics, weight_shapes
from hadas_jax.supernet.layers import Tree

FORM = "hadas_jax.derived/1"
_DESCRIPTION = "derived.json"


@dataclass(frozen=True, kw_only=True)
class DerivedDescription:
    """What is needed to use the weights of a trained network.

    Attributes:
        network: Its size.
        code: Its cells, 28 digits.
        normalisation: Mean and deviation of every input channel by which images were standardised, in 0 .. 1 for images
            of bytes.
        class_names: One for every class; None: unknown.
        data: The data set that it was trained on and its division; None: unknown.
        source: Where it comes from, in words for people.
        details: Anything else worth keeping about its making; what JSON holds.
    """

    network: DartsNetwork
    code: str
    normalisation: tuple[tuple[float, ...], tuple[float, ...]]
    class_names: tuple[str, ...] | None = None
    data: SplitRecord | None = None
    source: str
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parse_code(self.code)

    @property
    def genotype(self) -> Genotype:
        """The cells."""
        return genotype_of(parse_code(self.code))


@dataclass(frozen=True, kw_only=True)
class DerivedCheckpoint(DerivedDescription):
    """A trained network and what is needed to use it.

    Attributes:
        weights: Without an auxiliary head.
        statistics: Of its batch norms.
    """

    weights: Tree
    statistics: Tree

    def logits(self, images: jax.Array) -> jax.Array:
        """Logits float32[B, K] of standardised images float32[B, H, W, channels]."""
        return apply_derived(self.network, self.genotype, self.weights, self.statistics, images)


def save_derived(directory: Path | str, trained: DerivedCheckpoint) -> None:
    """Writes a network, in place of one that is there; `derived.json` comes last, so that what it describes is whole.

    Args:
        directory: Created if need be.
        trained: What is written.
    """
    directory = Path(directory)
    described = {each.name: getattr(trained, each.name) for each in dataclasses.fields(DerivedDescription)}
    described["network"] = dataclasses.asdict(trained.network)
    described["data"] = None if trained.data is None else trained.data.as_json()
    content = {"form": FORM, **described, "versions": versions()}
    text = json.dumps(content, indent=1) + "\n"
    write_checkpoint(directory, _DESCRIPTION, text=text, weights=(trained.weights, trained.statistics))


def load_derived(directory: Path | str) -> DerivedCheckpoint:
    """Reads a network that `save_derived` wrote, such as `derived/` of the work directory of `hadas dnas retrain`.

    Raises:
        ValueError: There is none, it is damaged, or of another form.
    """
    directory = Path(directory)
    described = _read_description(directory)
    network, genotype = described.network, described.genotype
    weights = weight_shapes(network, genotype)
    images = jax.ShapeDtypeStruct((1, 2, *(network.image_size,) * 2, network.in_channels), jnp.float32)
    statistics = jax.eval_shape(lambda w, x: estimate_statistics(network, genotype, w, x), weights, images)
    found = read_weights(directory, _DESCRIPTION, shapes=(weights, statistics))
    fields = {each.name: getattr(described, each.name) for each in dataclasses.fields(described)}
    return DerivedCheckpoint(weights=found[0], statistics=found[1], **fields)


def _read_description(directory: Path) -> DerivedDescription:
    path = directory / _DESCRIPTION
    if not path.is_file():
        inner = directory / "derived"
        hint = f"; {inner} has one" if (inner / _DESCRIPTION).is_file() else ""
        raise ValueError(
            f"{directory}: expected a directory with a retrained network, got none (no {_DESCRIPTION}){hint}"
        )
    return validated(DerivedDescription, read_checkpoint(path, FORM, what="the description of a network"), path=path)
