"""Paths as a user writes them."""

import os
import re

_HOME = re.compile(r"(?P<before>(?:--[\w-]+=)?(?:npz:|folder:)?)(?P<path>~.*)", re.DOTALL)


def expand_home(text: str) -> str:
    """Returns a path, data set or flag with the home folder for `~`, which shells put in at a word's start alone.

    Args:
      text: `~/images`, `npz:~/data.npz`, `--checkpoint=~/supernet`; anything else is returned as it is.
    """
    found = _HOME.fullmatch(text)
    return text if found is None else found["before"] + os.path.expanduser(found["path"])
