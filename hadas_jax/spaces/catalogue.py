"""The spaces that come with the package, by name, and files of the user's own."""

import dataclasses
from pathlib import Path

from hadas_jax.spaces.mbconv import MBConvSpace, Stage
from hadas_jax.spaces.space_file import is_space_file, read_space

DIGITS = MBConvSpace(
    name="digits",
    resolution=(),
    stem_width=(8, 16),
    stem_stride=1,
    stages=(
        Stage(width=(8, 16), depth=(1, 2), kernel=(3, 5), expand=(1,), stride=2),
        Stage(width=(16, 24), depth=(2, 3, 4), kernel=(3, 5), expand=(2, 3, 4)),
        Stage(width=(32, 40, 48), depth=(2, 3, 4), kernel=(3, 5), expand=(2, 3, 4), stride=2, se=True),
    ),
    last_width=(64, 96),
    head_expand=2,
    first_exit=2,
    exit_width=32,
)

ATTENTIVENAS = MBConvSpace(
    name="attentivenas",
    resolution=(192, 224, 256, 288),
    stem_width=(16, 24),
    stem_stride=2,
    stages=(
        Stage((16, 24), (1, 2), (3, 5), (1,)),
        Stage((24, 32), (3, 4, 5), (3, 5), (4, 5, 6), stride=2),
        Stage((32, 40), (3, 4, 5, 6), (3, 5), (4, 5, 6), stride=2, se=True),
        Stage((64, 72), (3, 4, 5, 6), (3, 5), (4, 5, 6), stride=2),
        Stage((112, 120, 128), (3, 4, 5, 6, 7, 8), (3, 5), (4, 5, 6), se=True),
        Stage((192, 200, 208, 216), (3, 4, 5, 6, 7, 8), (3, 5), (6,), stride=2, se=True),
        Stage((216, 224), (1, 2), (3, 5), (6,), se=True),
    ),
    last_width=(1792, 1984),
)

# The same backbones at the images' own size, such as CIFAR's 32 pixels, instead of enlarging them.
ATTENTIVENAS_NATIVE = dataclasses.replace(ATTENTIVENAS, name="attentivenas-native", resolution=())

# For images of 28 to 64 pixels, sized to train within the hour on two CPU cores.
SMALL_IMAGES = MBConvSpace(
    name="small-images",
    resolution=(),
    stem_width=(8, 16),
    stem_stride=2,
    stages=(
        Stage(width=(16,), depth=(1,), kernel=(3,), expand=(1,)),
        Stage(width=(16, 24), depth=(1, 2, 3), kernel=(3,), expand=(2, 3), stride=2),
        Stage(width=(32, 40), depth=(2, 3), kernel=(3, 5), expand=(2, 3), se=True),
        Stage(width=(48, 64), depth=(2, 3), kernel=(3, 5), expand=(2, 3), stride=2, se=True),
    ),
    last_width=(96, 128),
    head_expand=2,
    first_exit=2,
    exit_width=48,
)

_SPACES = {space.name: space for space in (DIGITS, SMALL_IMAGES, ATTENTIVENAS, ATTENTIVENAS_NATIVE)}


def space_names() -> tuple[str, ...]:
    """Returns the names that `load_space` knows."""
    return tuple(_SPACES)


def load_space(name_or_path: str | Path) -> MBConvSpace:
    """Returns a space by name or from a file.

    Args:
      name_or_path: a name of `space_names`, or the path of a space file: a `Path`, or a text that ends in `.yaml`,
        `.yml` or `.json` or has a folder in it.

    Raises:
      ValueError: no space has this name, and the valid ones are listed; or the file is missing or wrong.
    """
    if is_space_file(name_or_path):
        return read_space(name_or_path)
    if name_or_path not in _SPACES:
        raise ValueError(f"unknown space {name_or_path!r}: expected one of {', '.join(_SPACES)}, or a space file")
    return _SPACES[str(name_or_path)]
