"""The usual names of the parts of a data set."""

from collections.abc import Mapping

PART_WORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev", "development"),
    "test": ("test", "testing", "tst"),
}
_BESIDE = ("data", "dataset", "folder", "images", "img", "imgs", "part", "set", "sets", "split")
_PARTS = {
    spelled: part
    for part, words in PART_WORDS.items()
    for word in words
    for spelled in (word, *(word + other for other in _BESIDE), *(other + word for other in _BESIDE))
}


def letters(name: str) -> str:
    """Returns a name's letters and digits in lower case, which its spellings have in common.

    >>> letters("Training_Set")
    'trainingset'
    """
    return "".join(char for char in name.casefold() if char.isalnum())


def part_of(folder: str) -> str | None:
    """Returns the part that a folder's name stands for, in any of its usual spellings: train, val, test or None.

    >>> [part_of(name) for name in ("Training", "test_set", "images-Valid", "1_train2017", "cat")]
    ['train', 'test', 'val', 'train', None]
    """
    return _PARTS.get(letters(folder).strip("0123456789"))
