"""Too little memory, told with the flag that helps."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def memory_named(flag: str, value: int, what: str) -> Iterator[None]:
    """Turns a failed allocation of JAX into an error that names the flag to lower.

    Args:
      flag: of the command line, such as `--batch`.
      value: that it has.
      what: it counts, for the message.

    Raises:
      ValueError: the device has too little memory for it.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and not _is_memory(str(error)):
            raise
        raise ValueError(
            f"{flag} {value}: expected a batch that fits into memory, got too little of it for {value} {what} at "
            f"once; use a smaller {flag}"
        ) from error


def _is_memory(message: str) -> bool:
    return any(word in message for word in ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory"))
