"""Predictors as files: an npz of weights and a JSON text of everything else."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.accelerator.network import DartsNetwork
from hw_models.array_files import read_arrays, write_arrays
from hw_models.predictors.models import KINDS, Weights, init_weights
from hw_models.predictors.predictor import SCALES, PredictorNotes, ThroughputPredictor

FORM = "hw_models.predictor/1"


def write_predictor(predictor: ThroughputPredictor, path: Path | str) -> None:
    """Writes a predictor, whole or not at all; a file at this path is replaced.

    Args:
        predictor: The predictor, with its notes.
        path: The file, .npz.

    Raises:
        ValueError: The file cannot be written.
    """
    metadata = {
        "kind": predictor.kind,
        "scale": predictor.scale,
        "members": predictor.members,
        "hidden": _hidden(predictor.weights),
        "notes": dataclasses.asdict(predictor.notes),
    }
    arrays = {"mean": predictor.mean, "deviation": predictor.deviation, **_named(predictor.weights)}
    write_arrays(Path(path), arrays, form=FORM, metadata=metadata)


def read_predictor(path: Path | str) -> ThroughputPredictor:
    """Reads a predictor.

    Args:
        path: The file.

    Returns:
        The predictor, equal in every bit to the one written.

    Raises:
        ValueError: The file is missing, damaged, or no predictor; the message is one line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected a predictor ({FORM}), got {'a folder' if path.is_dir() else 'no file'}")
    try:
        return _assemble(*read_arrays(path, form=FORM))
    except Exception as error:  # numpy, zipfile and json raise whatever the damage causes
        reason = f": {error}" if isinstance(error, ValueError) else ""
        raise ValueError(f"{path}: expected a predictor ({FORM}), cannot read it{reason}") from error


def _assemble(arrays: dict[str, np.ndarray], metadata: dict[str, Any]) -> ThroughputPredictor:
    kind, scale, members = metadata["kind"], metadata["scale"], metadata["members"]
    if kind not in KINDS or scale not in SCALES:
        raise ValueError(f"kind {kind!r}, scale {scale!r}")
    wanted = jax.eval_shape(lambda: init_weights(jax.random.key(0), kind, hidden=metadata["hidden"]))
    shapes = {name: (members, *leaf.shape) for name, leaf in _named(wanted).items()} | {"mean": (), "deviation": ()}
    for name, shape in shapes.items():
        if name not in arrays or arrays[name].shape != shape or arrays[name].dtype != np.float32:
            raise ValueError(f"{name}: expected float32{list(shape)}")
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name}: expected finite numbers")
    leaves = [jnp.asarray(arrays[name]) for name in _named(wanted)]
    notes = dict(metadata["notes"])
    network = notes.pop("network")
    return ThroughputPredictor(
        weights=jax.tree.unflatten(jax.tree.structure(wanted), leaves),
        mean=jnp.asarray(arrays["mean"]),
        deviation=jnp.asarray(arrays["deviation"]),
        kind=kind,
        scale=scale,
        notes=PredictorNotes(network=None if network is None else DartsNetwork(**network), **notes),
    )


def _named(weights: Weights) -> dict[str, Any]:
    """Leaves by name, in their order."""
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _hidden(weights: Weights) -> list[int]:
    return [layer.bias.shape[-1] for layer in weights.layers[:-1]]
