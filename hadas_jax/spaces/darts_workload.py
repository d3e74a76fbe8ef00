"""What a network of the DARTS space asks of the hardware, as a layer table; exact in expectation over operations.

Rows stand for fused layers (activation, convolution and batch norm in one kernel) of one kind in one cell, and
`active` says how many of them an architecture has, so the table has the same shape for all architectures and its cost
is linear in a distribution over operations: every device of `hw_models` prices relaxed networks, differentiably.
Shapes: L rows. Counts are for one sample, in elements. Functions take one architecture; batch them with `jax.vmap`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hw_models import LayerTable
from hw_models.accelerator.network import DartsNetwork, network_rows, row_counts
from hw_models.layers import LayerKind


def darts_workload(network: DartsNetwork, architecture: jax.Array) -> LayerTable:
    """Returns the layer table of an architecture.

    Args:
        network: Static: channels, cells, classes, image size, stem.
        architecture: int[28], a code, or float32[28, 8], a distribution over operations for each edge such as
            `softmax(alpha)`: then the table costs what its operations cost on average, `none` nothing.

    Returns:
        Columns [L]. Convolutions have a bias for each output, of the batch norm folded into them; skips of stride 1
        and concatenations cost nothing.

    Raises:
        ValueError: `architecture` is neither.
    """
    rows = network_rows(network)
    weights = np.where(rows.is_weighted, (rows.fan_in + 1) * rows.outputs, 0)
    reads = np.where(rows.kind == LayerKind.ELEMENTWISE, 2, 1) * rows.inputs * rows.in_size**2
    # Operations of pooling as elsewhere: elements read; of additions: elements written.
    operations = np.where(rows.kind == LayerKind.POOLING, reads, rows.macs)
    return LayerTable(
        kind=jnp.asarray(rows.kind, jnp.int32),
        macs=jnp.asarray(operations, jnp.float32),
        weight_elements=jnp.asarray(weights, jnp.float32),
        input_elements=jnp.asarray(reads, jnp.float32),
        output_elements=jnp.asarray(rows.outputs * rows.out_size**2, jnp.float32),
        kernels=jnp.ones(len(rows.name), jnp.float32),
        active=row_counts(network, architecture),
    )
