"""Hand-made backbones that stand for AttentiveNAS's a0 to a6 in another space.

Wang et al., "AttentiveNAS", CVPR 2021, https://arxiv.org/abs/2011.09011. HADAS's optimised baselines are these with the
best exits and clocks. Shapes: P backbones.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.methods.hadas.constraints import trunk
from hadas_jax.spaces import MBConvSpace, load_space, published

KINDS = ("depth", "expand", "kernel", "width", "resolution")


_trunk = partial(jax.jit, static_argnames="space")(trunk)


def macs(space: MBConvSpace, genome: np.ndarray) -> float:
    """Returns the multiply-accumulates of a backbone without exits."""
    layers = _trunk(space, jnp.asarray(genome))
    return float(np.sum(np.asarray(layers.macs, np.float64) * np.asarray(layers.active)))


def ladder(space: MBConvSpace) -> list[np.ndarray]:
    """Returns hand-made backbones from the smallest to the largest, each one step of one gene above the one before.

    Genes rise in turns: in each turn every gene that can by one option, depths first, then expand ratios, kernels and
    widths, of later stages before earlier ones; AttentiveNAS's own series grows in this way.
    """
    names = space.codec.names
    order = sorted(range(len(names)), key=lambda g: (KINDS.index(names[g].partition(".")[0]), -g))
    steps = [np.asarray(space.smallest_genome)]
    while (steps[-1] < space.largest_genome).any():
        for gene in order:
            if steps[-1][gene] < space.largest_genome[gene]:
                steps.append(steps[-1].copy())
                steps[-1][gene] += 1
    return steps


def like_published(space: MBConvSpace, names: Sequence[str]) -> np.ndarray:
    """Returns the backbones int32[P, G] of a space's ladder that stand for AttentiveNAS's a0 to a6.

    Each is as large, by the logarithm of its multiply-accumulates between the smallest and the largest backbone, as
    the published one is within its own space.
    """
    theirs = load_space("attentivenas").adapt(in_channels=3, classes=100, image_size=224)
    sizes = [macs(theirs, theirs.encode(published(name))) for name in names]
    places = _relative(np.array(sizes), macs(theirs, theirs.smallest_genome), macs(theirs, theirs.largest_genome))
    steps = ladder(space)
    own = np.array([macs(space, step) for step in steps])
    ours = _relative(own, own[0], own[-1])
    return np.stack([steps[int(np.argmin(np.abs(ours - place)))] for place in places])


def _relative(sizes: np.ndarray, smallest: float, largest: float) -> np.ndarray:
    return np.log(sizes / smallest) / np.log(largest / smallest)
