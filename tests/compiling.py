"""How tests compile: what runs a few times on little data is better compiled quickly than well.

XLA ends a process that names a flag which it does not know, so the flags beside the level of optimisation, which halve
the time again, are for the version of JAX that they were tried with.
"""

import jax

XLA_FLAGS = "--xla_backend_optimization_level=0"
if jax.__version_info__[:2] == (0, 10):
    XLA_FLAGS += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
