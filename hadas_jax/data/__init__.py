"""Data sets as arrays, split for training, search, calibration and test."""

from hadas_jax.data.arrays import LabelledImages, Splits, check_arrays, split
from hadas_jax.data.catalogue import dataset_names, load_dataset

__all__ = ["LabelledImages", "Splits", "check_arrays", "dataset_names", "load_dataset", "split"]
