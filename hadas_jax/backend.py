"""What JAX computes on; some things are computed otherwise on a CPU than on accelerators."""

import jax


def on_cpu() -> bool:
    """Whether JAX computes on a CPU."""
    return jax.default_backend() == "cpu"
