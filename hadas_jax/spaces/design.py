"""Which sub-networks of a space to measure: the smallest, the largest, and others that fill it.

Shapes: G genes, P candidates, N networks, L layers.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.spaces.catalogue import load_space
from hadas_jax.spaces.mbconv import Backbone, MBConvSpace
from hadas_jax.spaces.workload import segments, workload
from hw_models import LayerTable, total_macs

_CANDIDATES = 1024  # genomes that a design chooses from, at most
_NEAR = 40  # one in so many candidates counts as near to an aim


def space_to_profile(name: str, resolution: int | None = None) -> MBConvSpace:
    """Returns a space by name with one resolution.

    Args:
        name: One of `hadas_jax.spaces.SPACES`.
        resolution: In pixels; None: the space's smallest, or 8 where images decide, which are then grey and of 10
            classes as the digits are.

    Raises:
        ValueError: No space has this name, or it does not have this resolution.
    """
    space = load_space(name)
    if not space.resolution:
        return space.adapt(in_channels=1, classes=10, image_size=resolution or 8)
    if resolution is not None and resolution not in space.resolution:
        choices = ", ".join(map(str, space.resolution))
        raise ValueError(f"resolution: expected one of {choices} as space {name} has, got {resolution}")
    return dataclasses.replace(space, resolution=(resolution or min(space.resolution),))


def spread_genomes(space: MBConvSpace, count: int, *, seed: int = 0) -> np.ndarray:
    """int32[N, G]: the smallest and the largest genome, then others that spread over MACs and genes.

    The others aim at MACs between both ends, in a sequence that fills the logarithmic range evenly however many
    there are (van der Corput's); each is the one most unlike all chosen ones among the candidates nearest to its
    aim. Candidates are drawn from small to large, so that both ends of the range are among them.
    """
    steps = space.codec.cardinalities - 1
    rng = np.random.default_rng(seed)
    drawn = np.unique(rng.binomial(steps, rng.uniform(0, 1, (2 * _CANDIDATES, 1))), axis=0)
    ends = np.stack([space.smallest_genome, space.largest_genome])
    drawn = drawn[~np.any(np.all(drawn[:, None] == ends, axis=2), axis=1)]
    drawn = np.concatenate([ends, rng.permutation(drawn)[: _CANDIDATES - 2]]).astype(np.int32)
    most = len(drawn) // 2
    if not 1 <= count <= most:
        raise ValueError(f"networks: expected 1 to {most}, got {count}")
    macs = np.log(np.asarray(total_macs(with_tables(space, drawn)[1]), np.float64))
    size = (macs - macs[0]) / (macs[1] - macs[0])
    chosen = [0, 1]
    far = np.min([_differences(drawn, drawn[i], steps) for i in chosen], axis=0)
    for aim in itertools.islice(_van_der_corput(), max(count - 2, 0)):
        free = np.setdiff1d(np.arange(len(drawn)), chosen)
        near = free[np.argsort(np.abs(size[free] - aim), kind="stable")[: max(len(free) // _NEAR, 1)]]
        chosen.append(int(near[np.argmax(far[near])]))
        far = np.minimum(far, _differences(drawn, drawn[chosen[-1]], steps))
    return drawn[chosen[:count]]


def _differences(genomes: np.ndarray, other: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Sums of the genes' differences from another genome, each as a share of its range; [P]."""
    return np.sum(np.abs(genomes - other) / steps, axis=1)


def _van_der_corput() -> Iterator[float]:
    """1/2, 1/4, 3/4, 1/8, ...: the binary digits of 1, 2, 3, ... behind the point in reverse order."""
    for number in itertools.count(1):
        yield int(f"{number:b}"[::-1], 2) / 2 ** number.bit_length()


def with_tables(space: MBConvSpace, genomes: np.ndarray) -> tuple[Backbone, LayerTable]:
    """Backbones [P] and their layer tables [P, L] without exits, as numpy; any P runs through one compiled size."""
    padded = genomes[np.minimum(np.arange(_CANDIDATES), len(genomes) - 1)]
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(genomes)], _tables(space, jnp.asarray(padded)))


@partial(jax.jit, static_argnums=0)
def _tables(space: MBConvSpace, genomes: jax.Array) -> tuple[Backbone, LayerTable]:
    in_trunk = jnp.asarray(segments(space) <= space.num_exits, jnp.float32)

    def one(genome: jax.Array) -> tuple[Backbone, LayerTable]:
        backbone = space.decode(genome)
        table = workload(space, backbone)
        return backbone, dataclasses.replace(table, active=table.active * in_trunk)

    return jax.vmap(one)(genomes)
