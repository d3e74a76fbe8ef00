"""Names and counts as messages and notes have them, and the usual names of the parts of a data set."""

import re
from collections.abc import Iterable, Mapping

_FIRST = 3  # names that a line has before it counts the others
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def one_line(text: object) -> str:
    r"""Returns a name as one line of valid Unicode: what breaks lines or is no character is escaped.

    >>> one_line("cat\n1.png")
    'cat\\n1.png'
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))


def first_few(names: Iterable[object], most: int = _FIRST) -> str:
    """Returns the first few names, and how many more there are.

    >>> first_few(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    listed = [one_line(name) for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def plural(count: int, what: str) -> str:
    """Returns a number of things.

    >>> plural(1, "image"), plural(1200, "file")
    ('1 image', '1,200 files')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


PART_WORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev", "development"),
    "test": ("test", "testing", "tst"),
}


def letters(name: str) -> str:
    """Returns a name's letters and digits in lower case, which its spellings have in common.

    >>> letters("Training_Set")
    'trainingset'
    """
    return "".join(char for char in name.casefold() if char.isalnum())
