"""Trees of weights and batch-norm statistics, and how a module is applied to them."""

from typing import Any

import jax
from flax import linen as nn

Tree = Any  # a pytree of arrays, nested by module name


def is_kernel(tree: Tree) -> Tree:
    """Returns which leaves of a tree of weights are kernels: neither biases nor batch-norm parameters."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in ("bias", "scale"), tree)


def batch_stats_like(weights: Tree) -> Tree:
    """Returns a tree of the form of a module's batch-norm statistics, given its weights; values mean nothing."""
    found = {}
    for name, leaf in weights.items():
        if not isinstance(leaf, dict):
            continue
        inner = {"mean": leaf["scale"], "var": leaf["scale"]} if "scale" in leaf else batch_stats_like(leaf)
        if inner:
            found[name] = inner
    return found


def call(module: nn.Module, weights: Tree, stats: Tree | None, *args: Any, keep_stats: bool) -> tuple[Any, Tree]:
    """Applies a module to its weights.

    Args:
      module: with `use_batch_stats` where `stats` is None.
      weights: of the module.
      stats: given batch-norm statistics; None: the batch's own normalise.
      args: inputs.
      keep_stats: return the batch's own statistics.

    Returns:
      The output, and the batch's statistics or an empty tree.
    """
    if stats is not None:
        return module.apply({"params": weights, "batch_stats": stats}, *args), {}
    if not keep_stats:
        return module.apply({"params": weights}, *args), {}
    output, found = module.apply({"params": weights}, *args, mutable=["batch_stats"])
    return output, found["batch_stats"]
