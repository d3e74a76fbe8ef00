"""Boards measured as a whole: latency and mean power of a network from its totals.

A roofline on totals (`hw_models.fitting.totals`) and a learned correction (`hw_models.fitting.predictor`), for
latency and for the mean power of one supply rail; the power follows the predicted latency, so a network is predicted
without measuring it. The boards of `board_names` come with the package. They were fitted to the measurements of
https://github.com/HalimaBouzidi/perf_prediction (MIT) by `experiments/fit_jetson_boards.py`; `read_board_notes` tells
their errors on networks left out. They hold for the clocks, the runtime and the batch size of that data.

Shapes: N networks. `predict_board` takes one network; batch it with `jax.vmap`.
"""

import importlib.resources
import json
import zipfile
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from hw_models.fitting import predictor as learned
from hw_models.fitting.predictor import Prediction, Predictor
from hw_models.fitting.totals import (
    LatencyBase,
    NetworkTotals,
    PowerBase,
    base_power,
    fit_latency_base,
    fit_power_base,
    latency_features,
    power_features,
    total_times,
)
from hw_models.whole_files import as_npz, write_whole

_PARTS = ("latency_base", "latency_correction", "power_base", "power_correction")
_NOTES = "notes"

BaseT = TypeVar("BaseT", LatencyBase, PowerBase)


@struct.dataclass
class BoardPredictor:
    """A board fitted to measured networks; holds no measurement.

    Attributes:
        latency_base: Roofline on totals.
        latency_correction: On `latency_features`.
        power_base: Mean power from the rates.
        power_correction: On `power_features`.
    """

    latency_base: LatencyBase
    latency_correction: Predictor
    power_base: PowerBase
    power_correction: Predictor


class BoardPrediction(NamedTuple):
    """What a board is expected to take for one network.

    Attributes:
        latency: In s, with its spread.
        power: Mean power of the measured rail in W, with its spread.
    """

    latency: Prediction
    power: Prediction

    @property
    def energy_j(self) -> jax.Array:
        """Energy of a run on the measured rail, f32[...]."""
        return self.latency.mean * self.power.mean


def predict_board(board: BoardPredictor, totals: NetworkTotals) -> BoardPrediction:
    """Predicts latency and power of one network; differentiable in the totals.

    Args:
        board: The fitted board.
        totals: One network, leaves f32[].

    Returns:
        Predictions with leaves f32[].

    Raises:
        ValueError: A total is not a single number.
    """
    for name, total in vars(totals).items():
        if jnp.ndim(total) != 0:
            raise ValueError(
                f"network totals: {name}: expected one number, got shape {jnp.shape(total)}; "
                "use jax.vmap for several networks"
            )
    features, latency = _latency(board.latency_base, board.latency_correction, totals)
    power = learned.predict_target(
        board.power_correction,
        power_features(features, totals, latency.mean),
        jnp.log(base_power(board.power_base, totals, latency.mean)),
    )
    return BoardPrediction(latency=latency, power=power)


def fit_board(key: jax.Array, totals: NetworkTotals, latency_s: ArrayLike, power_w: ArrayLike) -> BoardPredictor:
    """Fits a board to measured networks.

    Args:
        key: Draws the initial weights of the corrections.
        totals: Leaves f32[N].
        latency_s: f32[N], measured.
        power_w: f32[N], measured mean power of one rail; NaN where it was not measured.

    Returns:
        The board.

    Raises:
        ValueError: Shapes do not match, a latency is not positive and finite, or fewer than two networks have a
            power.
    """
    latency, power = np.asarray(latency_s, np.float32), np.asarray(power_w, np.float32)
    shapes = {np.shape(total) for total in vars(totals).values()} | {power.shape}
    if latency.ndim != 1 or shapes != {latency.shape}:
        raise ValueError(f"fit_board: expected totals, latency_s and power_w [N], got {latency.shape} and {shapes}")
    measured = ~np.isnan(power)
    if not (np.isfinite(latency).all() and (latency > 0).all() and (power[measured] > 0).all()):
        raise ValueError("fit_board: expected positive latency_s and positive power_w or NaN")
    latency_key, power_key = jax.random.split(key)
    latency_base, features, log_latency = _fit_latency_base(totals, jnp.asarray(latency))
    correction = learned.fit_predictor(latency_key, features, log_latency, np.log(latency))
    with_power = jax.tree.map(lambda total: jnp.asarray(total, jnp.float32)[measured], totals)
    watts = jnp.asarray(power[measured])
    power_base, features, log_power = _fit_power_base(latency_base, correction, with_power, watts)
    return BoardPredictor(
        latency_base=latency_base,
        latency_correction=correction,
        power_base=power_base,
        power_correction=learned.fit_predictor(power_key, features, log_power, jnp.log(watts)),
    )


def board_names() -> list[str]:
    """Names of the boards that come with the package, sorted."""
    return sorted(entry.name.removesuffix(".npz") for entry in _folder().iterdir() if entry.name.endswith(".npz"))


def load_board_predictor(name_or_path: str | Path) -> BoardPredictor:
    """Loads a board by a name of `board_names` or from a file of `save_board_predictor`, given as a `Path`.

    Raises:
        ValueError: The name is unknown, or the file is missing or holds no board.
    """
    arrays = _read(name_or_path)
    return BoardPredictor(
        latency_base=_base(LatencyBase, arrays, "latency_base."),
        latency_correction=learned.from_arrays(arrays, "latency_correction."),
        power_base=_base(PowerBase, arrays, "power_base."),
        power_correction=learned.from_arrays(arrays, "power_correction."),
    )


def read_board_notes(name_or_path: str | Path) -> dict[str, object]:
    """Reads where a board's data came from, how its errors were measured, and the errors.

    Raises:
        ValueError: As `load_board_predictor`.
    """
    notes = _read(name_or_path).get(_NOTES)
    return {} if notes is None else json.loads(str(notes))


def save_board_predictor(path: str | Path, board: BoardPredictor, notes: Mapping[str, object]) -> None:
    """Writes a board to an npz file of about 100 KB; `notes` must convert to JSON.

    Raises:
        ValueError: The file cannot be written.
    """
    arrays = {
        f"{part}.{name}": np.asarray(leaf) for part in _PARTS for name, leaf in vars(getattr(board, part)).items()
    }
    write_whole(path, as_npz({**arrays, _NOTES: np.array(json.dumps(notes))}, compressed=True))


def _latency(base: LatencyBase, correction: Predictor, totals: NetworkTotals) -> tuple[jax.Array, Prediction]:
    times = total_times(base, totals)
    features = latency_features(totals, times)
    return features, learned.predict_target(correction, features, jnp.log(times.latency_s))


@jax.jit
def _fit_latency_base(totals: NetworkTotals, latency_s: jax.Array) -> tuple[LatencyBase, jax.Array, jax.Array]:
    base = fit_latency_base(totals, latency_s)
    times = jax.vmap(total_times, in_axes=(None, 0))(base, totals)
    return base, jax.vmap(latency_features)(totals, times), jnp.log(times.latency_s)


@jax.jit
def _fit_power_base(
    latency_base: LatencyBase, correction: Predictor, totals: NetworkTotals, power_w: jax.Array
) -> tuple[PowerBase, jax.Array, jax.Array]:
    features, latency = jax.vmap(_latency, in_axes=(None, None, 0))(latency_base, correction, totals)
    base = fit_power_base(totals, latency.mean, power_w)
    features = jax.vmap(power_features)(features, totals, latency.mean)
    return base, features, jnp.log(base_power(base, totals, latency.mean))


def _base(kind: type[BaseT], arrays: dict[str, np.ndarray], prefix: str) -> BaseT:
    names = [prefix + field for field in kind.__dataclass_fields__]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"board: expected arrays {', '.join(names)}, got none for {', '.join(missing)}")
    return kind(*(jnp.asarray(arrays[name], jnp.float32) for name in names))


def _read(name_or_path: str | Path) -> dict[str, np.ndarray]:
    named = isinstance(name_or_path, str)
    if named and name_or_path not in board_names():
        raise ValueError(f"board: expected one of {', '.join(board_names())} or a Path, got {name_or_path!r}")
    source = _folder() / f"{name_or_path}.npz" if named else Path(name_or_path)
    try:
        with source.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{name_or_path}: expected a board predictor, got: {error}") from None


def _folder() -> Traversable:
    return importlib.resources.files("hw_models.fitting") / "boards"
