"""Short names of values, equal for equal ones: what answers depend on, in the name of the folder that keeps them."""

import hashlib
from typing import Any

import jax
import numpy as np


def fingerprint(*values: Any) -> str:
    """Returns 20 hexadecimal digits that follow from types, shapes and contents of pytrees of arrays, and from texts.

    Args:
      values: texts, or pytrees of arrays; the names of a pytree's fields count too.
    """
    digest = hashlib.blake2b(digest_size=10)
    for value in values:
        if isinstance(value, str):
            digest.update(repr(value).encode())
            continue
        for path, leaf in jax.tree_util.tree_leaves_with_path(value):
            array = np.ascontiguousarray(leaf)
            digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape};".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()
