"""Checks of the values in training steps, to find where a training breaks: off unless asked for, as they cost time."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import checkify

from hadas_jax.runs.loop import Metrics, Step


def checked(step: Step) -> Step:
    """Returns a step that requires finite metrics (loss and gradient norm among them) and a finite state after it.

    Args:
        step: Its state counts steps as `step`. The result is to be compiled by `checked_jit`.
    """

    @functools.wraps(step)
    def run(state: Any, key: jax.Array, data: Any) -> tuple[Any, Metrics]:
        following, metrics = step(state, key, data)
        for tree in (metrics, following):
            for path, leaf in jax.tree.leaves_with_path(tree):
                if jnp.issubdtype(leaf.dtype, jnp.inexact):
                    name = jax.tree_util.keystr(path, simple=True, separator="/")
                    message = f"{name}: expected finite numbers, got others at step {{step}}"
                    checkify.check(jnp.all(jnp.isfinite(leaf)), message, step=following.step)
        return following, metrics

    return run


def checked_jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a compiled function, as `jax.jit` does, that raises `ValueError` where a check of `checked` fails."""
    compiled = jax.jit(checkify.checkify(function))

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        error, result = compiled(*args)
        message = error.get()
        if message is not None:
            raise ValueError(message.partition(" (`check` failed")[0])
        return result

    return run
