"""A trained network of the DARTS space on disk: `derived.json`, which says what it is, beside `weights.npz`.

The description holds the weights' digest, so that damage is found; the statistics of batch norms are among them.
"""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp

from hadas_jax.runs.checkpoints import read_weights, write_checkpoint
from hadas_jax.runs.names import DERIVED
from hadas_jax.spaces.darts import parse_code
from hadas_jax.spaces.darts_network import DartsNetwork
from hadas_jax.spaces.genotypes import Genotype
from hadas_jax.supernet.checkpoint import Provenance
from hadas_jax.supernet.darts.network import apply_derived, estimate_statistics, weight_shapes
from hadas_jax.supernet.layers import Tree


@dataclass(frozen=True, kw_only=True)
class _Description(Provenance):
    """What is needed to use the weights of a trained network.

    Attributes:
        network: Its size.
        code: Its cells, 28 digits.
    """

    network: DartsNetwork
    code: str

    FILE = "derived.json"
    FORM = "hadas_jax.derived/1"
    RUNS_KEEP_IT_IN = DERIVED
    WHAT = "a retrained network"

    def __post_init__(self) -> None:
        parse_code(self.code)

    @property
    def genotype(self) -> Genotype:
        """The cells."""
        return Genotype.of(parse_code(self.code))


@dataclass(frozen=True, kw_only=True)
class DerivedCheckpoint(_Description):
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
    content = _Description.content_of(trained)
    write_checkpoint(Path(directory), _Description.FILE, content, (trained.weights, trained.statistics))


def load_derived(directory: Path | str) -> DerivedCheckpoint:
    """Reads a network that `save_derived` wrote, such as `derived/` of the work directory of `hadas dnas retrain`.

    Raises:
        ValueError: There is none, it is damaged, or of another form.
    """
    directory = Path(directory)
    described = _Description.read(directory)
    network, genotype = described.network, described.genotype
    weights = weight_shapes(network, genotype)
    images = jax.ShapeDtypeStruct((1, 2, *(network.image_size,) * 2, network.in_channels), jnp.float32)
    statistics = jax.eval_shape(lambda w, x: estimate_statistics(network, genotype, w, x), weights, images)
    found = read_weights(directory, _Description.FILE, shapes=(weights, statistics))
    return DerivedCheckpoint(weights=found[0], statistics=found[1], **vars(described))
