"""Checks of shapes and types at the boundary of the search package."""

import jax
import jax.numpy as jnp


def check_matrix(name: str, array: jax.Array, *, columns: int | None = None) -> None:
    """Raises unless `array` is a floating matrix [rows >= 1, columns].

    Args:
        name: What the message calls the array.
        array: The array to look at.
        columns: The number of columns wanted, None for any number above 0.

    Raises:
        ValueError: For another rank, dtype or number of columns.
    """
    wanted = "M >= 1" if columns is None else str(columns)
    fits = array.ndim == 2 and array.shape[0] > 0 and array.shape[1] > 0
    if not fits or (columns is not None and array.shape[1] != columns):
        raise ValueError(f"{name}: expected a matrix [P >= 1, {wanted}], got shape {array.shape}")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name}: expected a floating dtype, got {array.dtype}")


def check_shape(name: str, array: jax.Array, shape: tuple[int, ...]) -> None:
    """Raises unless `array` has exactly this shape.

    Args:
        name: What the message calls the array.
        array: The array to look at.
        shape: The shape wanted.

    Raises:
        ValueError: For another shape.
    """
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
