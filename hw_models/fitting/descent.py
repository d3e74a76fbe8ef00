"""Full-batch gradient descent of a fit, in one `jax.lax.scan`."""

from collections.abc import Callable
from typing import TypeVar

import jax
import optax

TreeT = TypeVar("TreeT")


def minimise(
    loss: Callable[[TreeT], jax.Array], first: TreeT, optimiser: optax.GradientTransformation, *, steps: int
) -> TreeT:
    """Follows the gradient of a loss from a first point.

    Args:
        loss: Maps a pytree of parameters to a scalar.
        first: The parameters to start from.
        optimiser: Turns gradients into updates.
        steps: How many; static.

    Returns:
        The parameters after the last step.
    """

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        parameters, state = carry
        gradient = jax.grad(loss)(parameters)
        # Adam raises its decay, a float, to its count, an int: no strict promotion rule allows that.
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimiser.update(gradient, state, parameters)
        return (optax.apply_updates(parameters, updates), state), None

    (parameters, _), _ = jax.lax.scan(step, (first, optimiser.init(first)), None, length=steps)
    return parameters
