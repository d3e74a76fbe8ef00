"""Memory blocks of an FPGA: how many of 18 Kb a memory of a width and depth takes."""

import jax
import jax.numpy as jnp

# A block is 512 words of up to 36 bits, or more words of fewer bits; two of them make 512 words of 72 bits.
_WIDTHS = (1, 2, 4, 9, 18)
_DEEPEST = 16384
_DEPTH = 512


def memory_blocks(width: jax.Array, depth: jax.Array) -> jax.Array:
    """Counts the blocks of a memory.

    The width is cut into slices of 72 and 36 bits, and what is left takes the deepest blocks that are wide enough.

    Args:
        width: int32[...], bits of a word.
        depth: int32[...], words.

    Returns:
        int32[...], in blocks of 18 Kb.
    """
    rows = (depth + _DEPTH - 1) // _DEPTH
    whole, rest = width // 72, width % 72
    half = (rest >= 36).astype(jnp.int32)
    rest = rest - 36 * half
    wider_than = sum((rest > narrow).astype(jnp.int32) for narrow in _WIDTHS)
    deep = jnp.right_shift(_DEEPEST, wider_than)
    return (2 * whole + half) * rows + jnp.where(rest > 0, (depth + deep - 1) // deep, 0)
