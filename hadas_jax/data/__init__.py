"""Data sets as arrays or streams, split for training, search, calibration and test."""

from hadas_jax.data.arrays import LabelledImages, Splits, check_arrays, standardise
from hadas_jax.data.catalogue import IMAGENET_NORMALISATION, dataset_names, load_dataset
from hadas_jax.data.preparing import prepare_dataset
from hadas_jax.data.record import SplitRecord
from hadas_jax.data.splitting import Normalisation, split
from hadas_jax.data.stream import Stream

__all__ = [
    "IMAGENET_NORMALISATION",
    "LabelledImages",
    "Normalisation",
    "SplitRecord",
    "Splits",
    "Stream",
    "check_arrays",
    "dataset_names",
    "load_dataset",
    "prepare_dataset",
    "split",
    "standardise",
]
