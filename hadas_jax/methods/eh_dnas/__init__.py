"""EH-DNAS: differentiable architecture search whose loss holds a model of the hardware."""

from hadas_jax.methods.eh_dnas.result import GENOTYPE, DnasResult
from hadas_jax.methods.eh_dnas.run import DnasRun

__all__ = ["GENOTYPE", "DnasResult", "DnasRun"]
