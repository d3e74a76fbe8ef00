"""Data sets as arrays, split for training, search, calibration and test."""

from hadas_jax.data.arrays import LabelledImages, Splits, check_arrays, standardise
from hadas_jax.data.catalogue import dataset_names, load_dataset
from hadas_jax.data.splitting import split

__all__ = [
    "LabelledImages",
    "Splits",
    "check_arrays",
    "dataset_names",
    "load_dataset",
    "split",
    "standardise",
]
