"""One training step over several devices: the batch is split, the weights are everywhere.

The compiler adds the communication: sums over the batch, those of batch norm among them, run over all of it.
"""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"


def batch_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Returns the mesh with the one axis `batch` over `devices`, by default all of them."""
    found = jax.devices() if devices is None else devices
    return jax.make_mesh((len(found),), (AXIS,), devices=found, axis_types=(jax.sharding.AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns how batches lie: their first axis over the mesh's."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def whole_sharding(mesh: Mesh) -> NamedSharding:
    """Returns how weights lie, and what else every device needs: whole on each of the mesh's devices."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(tree: Any, mesh: Mesh | None) -> Any:
    """Constrains traced arrays [B, ...] to be spread over a mesh; None leaves them where they are.

    Raises:
      ValueError: a batch that the number of devices does not divide.
    """
    if mesh is None:
        return tree
    for leaf in jax.tree.leaves(tree):
        if leaf.shape[0] % mesh.size:
            raise ValueError(f"batch: expected a multiple of the {mesh.size} devices, got {leaf.shape[0]}")
    return jax.lax.with_sharding_constraint(tree, batch_sharding(mesh))


def everywhere(tree: Any, mesh: Mesh | None) -> Any:
    """Constrains traced arrays to lie whole on every device of a mesh; None leaves them where they are."""
    if mesh is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, whole_sharding(mesh))
