"""A word about work that takes a while and has no steps to count."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

from hadas_jax.outputs import say


@contextmanager
def waiting(console: Console, text: str) -> Iterator[None]:
    """Says what is going on: beside a spinner on a terminal, in a line elsewhere.

    Args:
      console: to say it on.
      text: what is going on, without a full stop.
    """
    if console.is_terminal:
        with console.status(escape(text)):
            yield
    else:
        say(console, text)
        yield
