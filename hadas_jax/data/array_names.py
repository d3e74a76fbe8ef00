"""Which array of a file is which, by the usual names.

Images and labels of the whole or of a part: images, train_images, x_train, X, testLabels, val_y, data, target, ...
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from hadas_jax.data.notes import some
from hadas_jax.data.part_names import PART_WORDS, letters


class Role(NamedTuple):
    """What an array is for: images or labels of train, val or test, or the names of the classes."""

    part: str
    kind: str


CLASS_NAMES = Role("", "class_names")
_KINDS: Mapping[str, tuple[str, ...]] = {
    "images": ("images", "image", "imgs", "img", "x", "xs", "data", "pixels"),
    "labels": ("labels", "label", "y", "ys", "target", "targets"),
}
_ROLES = {
    letters(spelled): Role(part, kind)
    for kind, words in _KINDS.items()
    for word in words
    for part, part_words in PART_WORDS.items()
    for part_word in part_words
    for spelled in (*((word,) if part == "train" else ()), part_word + word, word + part_word)
} | dict.fromkeys(("classnames", "labelnames", "targetnames"), CLASS_NAMES)
_PLAIN = frozenset(f"{part}{kind}" for part in ("", "train_", "val_", "test_") for kind in ("images", "labels"))


def find_roles(names: Iterable[str], *, source: str) -> dict[Role, str]:
    """Returns the name of the array for each role.

    Args:
      names: of all arrays.
      source: named in errors.

    Raises:
      ValueError: several arrays for one role, images without labels or the other way, or no training images.
    """
    listed = list(names)
    found: dict[Role, str] = {}
    for name in listed:
        role = _ROLES.get(letters(name))
        if role in found:
            what = "names of classes" if role == CLASS_NAMES else f"{role.part} {role.kind}"
            raise ValueError(f"{source}: expected one array of {what}, got {some((found[role], name))}; leave one out")
        if role is not None:
            found[role] = name
    for part in PART_WORDS:
        pair = {"images", "labels"} & {role.kind for role in found if role.part == part}
        prefix = "" if part == "train" else f"{part}_"
        if len(pair) == 1 or (part == "train" and not pair):
            wanted = f"the arrays {prefix}images and {prefix}labels"
            raise ValueError(f"{source}: expected {wanted}, got {some(listed, most=10) or 'none'}; rename them so")
    return found


def renaming_notes(roles: Mapping[Role, str]) -> list[str]:
    """Returns a clause for each part whose arrays have other names than the plain ones."""
    notes = []
    for part, called in (("train", "training"), ("val", "validation"), ("test", "test")):
        pair = [name for role, name in roles.items() if role.part == part]
        if not _PLAIN.issuperset(pair):
            notes.append(f"{called} images and labels are {some(sorted(pair))}")
    return notes
