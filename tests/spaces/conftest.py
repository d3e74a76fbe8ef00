"""Layer tables of many backbones from one compiled function per space."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.spaces import workload

AT_ONCE = 100


@partial(jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0})
def _tables(space, backbones):
    return jax.vmap(lambda backbone: workload(space, backbone))(backbones)


def tables_of(space, backbones):
    """Layer tables [P, L] of backbones [P], as numpy; any P runs through one compiled size."""
    count = backbones.resolution.shape[0]
    parts = []
    for start in range(0, count, AT_ONCE):
        index = jnp.minimum(jnp.arange(start, start + AT_ONCE), count - 1)
        parts.append(_tables(space, jax.tree.map(lambda leaf, index=index: leaf[index], backbones)))
    return jax.tree.map(lambda *columns: np.concatenate(columns)[:count], *parts)


@pytest.fixture(name="tables_of", scope="session")
def _tables_of():
    """The function above."""
    return tables_of
