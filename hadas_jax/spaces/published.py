"""Published sub-networks of the AttentiveNAS space.

Wang et al., "AttentiveNAS: Improving Neural Architecture Search via Attentive Sampling", CVPR 2021,
https://arxiv.org/abs/2011.09011: a0 (203 million multiply-accumulates at 1,000 classes) to a6 (709 million).
"""

import dataclasses

import jax.numpy as jnp

from hadas_jax.spaces.mbconv import Backbone, MBConvSpace

# resolution; width of stem, mb1 .. mb7 and last; depth, kernel and expand ratio of mb1 .. mb7
_ROWS = {
    "a0": (192, "16 16 24 32 64 112 192 216 1792", "1 3 3 3 3 3 1", "3 3 3 3 3 3 3", "1 4 4 4 4 6 6"),
    "a1": (224, "16 16 24 32 64 112 192 216 1984", "1 3 3 3 3 3 1", "3 3 3 5 3 5 3", "1 4 4 4 4 6 6"),
    "a2": (224, "16 16 24 32 64 112 200 224 1984", "1 3 3 3 3 4 1", "3 3 3 3 3 5 3", "1 4 5 4 4 6 6"),
    "a3": (224, "16 16 24 32 64 112 208 224 1984", "2 3 3 4 3 5 1", "3 3 3 5 3 3 3", "1 4 4 4 4 6 6"),
    "a4": (256, "16 16 24 32 64 112 192 216 1984", "1 3 3 4 3 5 1", "3 3 3 5 3 5 3", "1 4 4 5 4 6 6"),
    "a5": (256, "16 16 24 32 72 112 192 216 1792", "1 3 3 3 4 6 1", "3 3 3 5 3 3 3", "1 4 5 4 4 6 6"),
    "a6": (288, "16 16 24 32 64 112 216 224 1984", "1 3 3 4 4 6 1", "3 3 3 3 3 5 3", "1 4 6 5 4 6 6"),
}


def published_names() -> tuple[str, ...]:
    """Returns the names that `published` knows."""
    return tuple(_ROWS)


def published(name: str) -> Backbone:
    """Returns a published backbone by name.

    Raises:
      ValueError: no backbone has this name; the valid ones are listed.
    """
    if name not in _ROWS:
        raise ValueError(f"unknown backbone {name!r}: expected one of {', '.join(_ROWS)}")
    resolution, *fields = _ROWS[name]
    width, depth, kernel, expand = (jnp.asarray([int(n) for n in field.split()], jnp.int32) for field in fields)
    return Backbone(resolution=jnp.int32(resolution), width=width, depth=depth, kernel=kernel, expand=expand)


def published_in(space: MBConvSpace, name: str) -> Backbone:
    """Returns a published backbone as one of a space; in a space of one resolution it runs at that.

    Raises:
      ValueError: no backbone has this name, or the space does not have it.
    """
    backbone = published(name)
    if len(backbone.depth) != len(space.stages):
        raise ValueError(
            f"{name}: expected a backbone of the space {space.name}: {', '.join(_ROWS)} are of attentivenas and "
            "attentivenas-native"
        )
    if len(space.resolution) == 1:
        backbone = dataclasses.replace(backbone, resolution=jnp.int32(space.resolution[0]))
    try:
        space.encode(backbone)
    except ValueError as error:
        raise ValueError(f"{name}: expected a backbone of the space {space.name}: {error}") from error
    return backbone
