"""Functions that XLA compiles apart, fused with nothing around them.

On CPUs the compiler fuses a cheap-looking producer into each of its consumers and flattens the loops by their shapes.
For sums of shifted views this computes the same map several times, by loops without vector instructions: ten times
slower in all, and far longer to compile.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata

from hadas_jax.backend import on_cpu


def apart(function: Callable[..., Any], *, static: tuple[int, ...] = ()) -> Callable[..., Any]:
    """Returns the function as a call that the compiler keeps on CPUs; elsewhere it is as any other.

    Args:
        function: Of arrays and static arguments.
        static: Positions of the static ones.
    """
    compiled = jax.jit(function, static_argnums=static)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        if not on_cpu():
            return function(*args)
        with set_xla_metadata(inlineable="false"):
            return compiled(*args)

    return call


def apart_with_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function of arrays as a piece, and its gradient as one that keeps the arguments alone."""
    forward = apart(function)
    backward = apart(lambda arguments, gradient: jax.vjp(function, *arguments)[1](gradient))
    piece = jax.custom_vjp(forward)
    piece.defvjp(lambda *arguments: (forward(*arguments), arguments), backward)
    return piece
