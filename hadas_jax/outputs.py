"""Files that a command writes, and what it prints."""

import sys
from pathlib import Path

from rich.console import Console


def new_file(path: Path | str, suffix: str, *, overwrite: bool = False) -> Path:
    """Checks that a file may be written.

    Raises:
        ValueError: Its ending is another, it exists, or its folder does not.
    """
    target = Path(path)
    if target.suffix != suffix:
        raise ValueError(f"{path}: expected a file that ends in {suffix}, got {target.suffix or 'no ending'!r}")
    if target.exists() and not overwrite:
        raise ValueError(f"{path}: expected a new file, got one that exists; --overwrite replaces it")
    if not target.parent.is_dir():
        raise ValueError(f"{path}: expected a folder that exists, got {target.parent}")
    return target


def new_console(*, quiet: bool = False) -> Console:
    """Returns a console on standard output that prints text as it is: `[x]` and `:x:` in a path are no markup."""
    return Console(file=sys.stdout, markup=False, emoji=False, quiet=quiet)


def say(console: Console, text: str) -> None:
    """Prints a line as it is."""
    console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)
