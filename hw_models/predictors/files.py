"""Predictors as files, an npz of weights and a JSON text of everything else, and weights that EH-DNAS publishes.

EH-DNAS (Jiang et al., 2021, https://arxiv.org/abs/2111.12299, github qianjiangcn/eh-dnas, MIT) fits its embedding
perceptron to standardised throughputs; mean and standard deviation of its data sets turn what it says into images/s.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hw_models.codes import CodeLayout
from hw_models.files import read_arrays, write_arrays
from hw_models.predictors.predictor import (
    KINDS,
    SCALES,
    Layer,
    PredictorNotes,
    ThroughputPredictor,
    Weights,
    init_weights,
    recipe_of,
)

_FORM = "hw_models.predictor/1"


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
        "hidden": [layer.bias.shape[-1] for layer in predictor.weights.layers[:-1]],
        "notes": {**dataclasses.asdict(predictor.notes), "network": dict(predictor.notes.network) or None},
    }
    arrays = {"mean": predictor.mean, "deviation": predictor.std, **_named(predictor.weights)}
    write_arrays(Path(path), arrays, form=_FORM, metadata=metadata)


def read_predictor(path: Path | str, *, layout: CodeLayout) -> ThroughputPredictor:
    """Reads a predictor.

    Args:
        path: The file.
        layout: Of the codes that it was fitted to, which the file does not hold.

    Returns:
        The predictor, equal in every bit to the one written.

    Raises:
        ValueError: The file is missing, damaged, or no predictor; the message is one line.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: expected a predictor ({_FORM}), got {'a folder' if path.is_dir() else 'no file'}")
    try:
        return _assemble(*read_arrays(path, form=_FORM), layout)
    except Exception as error:  # numpy, zipfile and json raise whatever the damage causes
        reason = f": {error}" if isinstance(error, ValueError) else ""
        raise ValueError(f"{path}: expected a predictor ({_FORM}), cannot read it{reason}") from error


def _assemble(arrays: dict[str, np.ndarray], metadata: dict[str, Any], layout: CodeLayout) -> ThroughputPredictor:
    kind, scale, members = metadata["kind"], metadata["scale"], metadata["members"]
    if kind not in KINDS or scale not in SCALES:
        raise ValueError(f"kind {kind!r}, scale {scale!r}")
    wanted = jax.eval_shape(lambda: init_weights(jax.random.key(0), kind, layout, hidden=metadata["hidden"]))
    shapes = {name: (members, *leaf.shape) for name, leaf in _named(wanted).items()} | {"mean": (), "deviation": ()}
    for name, shape in shapes.items():
        if name not in arrays or arrays[name].shape != shape or arrays[name].dtype != np.float32:
            raise ValueError(f"{name}: expected float32{list(shape)}")
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{name}: expected finite numbers")
    leaves = [jnp.asarray(arrays[name]) for name in _named(wanted)]
    notes = dict(metadata["notes"])
    network = tuple((notes.pop("network") or {}).items())
    return ThroughputPredictor(
        weights=jax.tree.unflatten(jax.tree.structure(wanted), leaves),
        mean=jnp.asarray(arrays["mean"]),
        std=jnp.asarray(arrays["deviation"]),
        kind=kind,
        layout=layout,
        scale=scale,
        notes=PredictorNotes(network=network, **notes),
    )


def _named(weights: Weights) -> dict[str, Any]:
    """Leaves by name, in their order."""
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


PUBLISHED_SCALES = {"generic": (799.28, 147.87), "pipeline": (10691.55, 2753.21)}
"""Mean and standard deviation of the published data sets by paradigm, images/s."""


def import_predictor(
    entries: Mapping[str, np.ndarray],
    *,
    layout: CodeLayout,
    paradigm: str,
    mean: float | None = None,
    std: float | None = None,
) -> ThroughputPredictor:
    """Makes a predictor of published weights.

    Entries are told apart by their shapes: embeddings [O, 10] for each of E edges, numbered in their names, or one
    [E, O, 10] or [E O, 10]; kernels [200, 10 E], [100, 200] and [1, 100] with their biases.

    Args:
        entries: The state dict as arrays; files of PyTorch are read by `hadas_jax.supernet.pytorch.read_pytorch`,
            which needs the extra `torch`.
        layout: Of the codes; that of DARTS for what EH-DNAS publishes.
        paradigm: `generic` or `pipeline`; any other name needs `mean` and `std`.
        mean: Of the throughputs that it was fitted to; None: as published for the paradigm.
        std: Standard deviation, likewise.

    Returns:
        A predictor of linear scale: mean + std * model, cut off at `LEAST_THROUGHPUT`.

    Raises:
        ValueError: An entry is missing or is left over, or mean and standard deviation are unknown or not positive.
    """
    if paradigm not in PUBLISHED_SCALES and (mean is None or std is None):
        raise ValueError(
            f"paradigm: expected {' or '.join(PUBLISHED_SCALES)}, or mean and standard deviation with it, "
            f"got {paradigm!r}"
        )
    published_mean, published_std = PUBLISHED_SCALES.get(paradigm, (0.0, 0.0))
    mean = published_mean if mean is None else mean
    std = published_std if std is None else std
    if not (mean > 0 and std > 0):
        raise ValueError(f"mean, std: expected numbers above 0, got {mean} and {std}")
    return ThroughputPredictor(
        weights=jax.tree.map(lambda leaf: leaf[None], _weights(entries, layout)),
        mean=jnp.float32(mean),
        std=jnp.float32(std),
        kind="embedding",
        layout=layout,
        scale="linear",
        notes=PredictorNotes(paradigm=paradigm, source="imported from PyTorch"),
    )


def _weights(entries: Mapping[str, np.ndarray], layout: CodeLayout) -> Weights:
    hidden = recipe_of("embedding").hidden
    wanted = jax.eval_shape(lambda: init_weights(jax.random.key(0), "embedding", layout, hidden=hidden))
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name in sorted(entries, key=_natural):
        by_shape.setdefault(np.shape(entries[name]), []).append(name)
    edges, operations, size = wanted.table.shape
    tables = [by_shape.pop(shape, []) for shape in ((operations, size), (edges * operations, size), wanted.table.shape)]
    if [len(names) for names in tables] not in ([edges, 0, 0], [0, 1, 0], [0, 0, 1]):
        raise ValueError(
            f"embeddings: expected {edges} of {operations} x {size}, or one of all, got "
            f"{sum(len(names) for names in tables)}"
        )
    table = np.stack([entries[name] for names in tables for name in names]).reshape(wanted.table.shape)
    layers = []
    for layer in wanted.layers:
        kernel = _only(entries, by_shape, layer.kernel.shape[::-1])
        bias = _only(entries, by_shape, layer.bias.shape)
        layers.append(Layer(jnp.asarray(kernel.T, jnp.float32), jnp.asarray(bias, jnp.float32)))
    if by_shape:
        raise ValueError(
            f"entries: expected embeddings and three layers alone, got {next(iter(by_shape.values()))[0]} too"
        )
    return Weights(jnp.asarray(table, jnp.float32), tuple(layers))


def _only(
    entries: Mapping[str, np.ndarray], by_shape: dict[tuple[int, ...], list[str]], shape: tuple[int, ...]
) -> np.ndarray:
    names = by_shape.pop(shape, [])
    if len(names) != 1:
        raise ValueError(f"entries: expected one of shape {list(shape)}, got {len(names)}")
    return np.asarray(entries[names[0]])


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts embeddings.10 after embeddings.9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
