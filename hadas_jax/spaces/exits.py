"""Early exits: which positions may have one, and all their subsets.

Shapes: E exits (positions that some backbone's exit may follow), S = 2^E subsets.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.spaces.mbconv import Backbone, MBConvSpace, block_active

MAX_EXITS = 16  # 2^16 subsets; more call for a search instead of a list


def available_exits(space: MBConvSpace, backbone: Backbone) -> jax.Array:
    """Returns bool[E]: exits whose position the backbone uses, as its block `first_exit` or a later one."""
    active = block_active(space, backbone)
    index = jnp.cumsum(active.astype(jnp.int32)) - 1
    return (active & (index >= space.first_exit))[space.first_exit :]


def check_listable(exits: int) -> None:
    """Raises unless all subsets of so many exits can be listed.

    Raises:
      ValueError: the list would be too long.
    """
    if not 0 <= exits <= MAX_EXITS:
        raise ValueError(f"expected 0 to {MAX_EXITS} exits to list all subsets of, got {exits}")


def exit_subsets(exits: int) -> np.ndarray:
    """Returns bool[2^E, E]: subset s holds exit e where bit e of s is set.

    Raises:
      ValueError: the list would be too long.
    """
    check_listable(exits)
    return (np.arange(2**exits)[:, None] >> np.arange(exits)[None] & 1).astype(bool)
