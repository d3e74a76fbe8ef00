"""Networks as rows of equal layers: what an accelerator has to run.

All networks of a space that ask the hardware for the same kinds of layers share one set of rows; they differ in how
many layers each row stands for. A row belongs to a group, an operation that a network has some number of times, or is
run by every network; so a network is the counts of its groups, which may be fractions of a relaxed choice.
Shapes: L rows, G groups.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.layers import LayerKind


class Rows(NamedTuple):
    """Layers that networks may have; every array is [L], numpy, and the same for all networks.

    Attributes:
        name: Part of the network, operation and layer, for reports.
        kind: A `LayerKind`.
        inputs: Channels read.
        outputs: Channels written.
        kernel: Side of the kernel.
        in_size: Side of the map read.
        out_size: Side of the map written.
        stride: Step of the kernel.
        group: The group that the row belongs to, 0 to G - 1; G where every network runs it.
        times: Layers of the row for each time that its group occurs, or in every network.
        groups: G.
    """

    name: tuple[str, ...]
    kind: np.ndarray
    inputs: np.ndarray
    outputs: np.ndarray
    kernel: np.ndarray
    in_size: np.ndarray
    out_size: np.ndarray
    stride: np.ndarray
    group: np.ndarray
    times: np.ndarray
    groups: int

    @property
    def is_pooling(self) -> np.ndarray:
        """bool[L]."""
        return self.kind == LayerKind.POOLING

    @property
    def is_weighted(self) -> np.ndarray:
        """bool[L], convolutions and linear layers."""
        return (self.kind != LayerKind.POOLING) & (self.kind != LayerKind.ELEMENTWISE)

    @property
    def fan_in(self) -> np.ndarray:
        """float64[L], multiply-accumulates (operations) for one output."""
        alone = (LayerKind.DEPTHWISE, LayerKind.POOLING, LayerKind.ELEMENTWISE)
        channels = np.where(np.isin(self.kind, alone), 1, self.inputs)
        return (channels * self.kernel**2).astype(float)

    @property
    def macs(self) -> np.ndarray:
        """float64[L], multiply-accumulates of one layer; operations of pooling and additions."""
        return self.fan_in * self.outputs * self.out_size**2

    @property
    def reads(self) -> np.ndarray:
        """int64[L], activations read by one layer; an addition reads two maps."""
        return np.where(self.kind == LayerKind.ELEMENTWISE, 2, 1) * self.inputs * self.in_size**2

    @property
    def writes(self) -> np.ndarray:
        """int64[L], activations written by one layer."""
        return self.outputs * self.out_size**2

    def layer_counts(self, counts: jax.Array) -> jax.Array:
        """How many layers of each row a network has.

        Args:
            counts: float32[G], or an array of G numbers: how often each group occurs in the network.

        Returns:
            float32[L]; linear in `counts`.
        """
        every = jnp.append(jnp.ravel(counts), jnp.float32(1.0))
        return jnp.asarray(self.times, jnp.float32) * every[self.group]
