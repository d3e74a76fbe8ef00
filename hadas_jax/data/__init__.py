"""Data sets as arrays or streams, split for training, search, calibration and test."""

from hadas_jax.data.arrays import LabelledImages, Normalisation, check_arrays, standardise
from hadas_jax.data.catalogue import IMAGENET_NORMALISATION, dataset_names, load, load_dataset
from hadas_jax.data.record import SplitRecord
from hadas_jax.data.splits import Splits, split
from hadas_jax.data.stream import Stream
from hadas_jax.data.tfds import prepare_dataset

__all__ = [
    "IMAGENET_NORMALISATION",
    "LabelledImages",
    "Normalisation",
    "SplitRecord",
    "Splits",
    "Stream",
    "check_arrays",
    "dataset_names",
    "load",
    "load_dataset",
    "prepare_dataset",
    "split",
    "standardise",
]
