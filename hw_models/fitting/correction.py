"""Learned corrections of analytic cost models, and boards that are known as a whole.

A correction is `log target = log base + correction(features)`. The analytic model (base) carries the scale and the
physics, the correction what the model leaves out: a small ensemble of perceptrons on standardised features. Features
are clipped to the range they were trained on: away from the data the correction stops growing and the analytic model
takes over. The members start from different weights; where they disagree, the data did not settle the correction. Deep
ensembles: Lakshminarayanan et al. 2017, https://arxiv.org/abs/1612.01474. It is trained on the whole data with a robust
(Huber) loss on the log ratio of target and base, so that a relative error counts the same for small and large targets
and outliers do not bend the fit.

A board predicts a network of which only network-level features are known, by a roofline of the whole network,

    latency = p_norm(compute, memory) + layers + run

where compute grows with the MACs, memory with activations and weights, and each layer and each convolution has a
fixed cost of its own (networks that split a convolution into many layers pay it many times), with a learned correction.
The mean power of one supply rail follows the rates at which MACs and elements are served, `idle + mac_j * macs /
latency + element_j * elements / latency`, and has a correction too. Both are fitted with the loss of a correction. The
boards of `board_names` come with the package. They were fitted to the measurements of
https://github.com/HalimaBouzidi/perf_prediction (MIT) by `experiments/boards/fit_jetson_boards.py`; `read_board_notes`
tells their errors on networks left out. They hold for the clocks, the runtime and the batch size of that data.

Shapes: N samples (networks), D features, K members, H hidden units. Predictions are of one network, leaves f32[]; batch
them with `jax.vmap`. Units: s, W, J, elements; a target is in the unit of its base.
"""

import dataclasses
import importlib.resources
import json
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.typing import ArrayLike

from hw_models.cost import p_norm
from hw_models.files import as_npz, write_whole
from hw_models.fitting.device_parameters import minimise

_LEAST_SPREAD = 1e-6
_LEAST_SCALE = 1e-6
"""A feature that varies less than this is constant and stays at zero."""
_LEAST_S = 1e-12
"""Keeps the logarithm of a time finite; far below the time of any kernel."""
_BASE_STEPS = 800
_BASE_LEARNING_RATE = 0.05
_BASE_HUBER_DELTA = 0.1
_BOARDS = importlib.resources.files("hw_models") / "boards"
_NOTES = "notes"
_PartT = TypeVar("_PartT")


class Prediction(NamedTuple):
    """What a correction makes of one candidate.

    Attributes:
        mean: f32[...], predicted target: geometric mean of the members.
        spread: f32[...], standard deviation of the members' log predictions, which is about a relative error.
            It ranks predictions by trust; noise of the measurements is not part of it.
    """

    mean: jax.Array
    spread: jax.Array


@struct.dataclass
class Correction:
    """A fitted correction; holds no training data.

    Attributes:
        center: f32[D], mean of each feature.
        scale: f32[D], standard deviation of each feature, 1 where it is constant.
        lowest: f32[D], smallest value of each feature in the training data.
        highest: f32[D], largest value.
        offset: f32[], median of the log ratio of target and base.
        input_weights: f32[K, D, H].
        input_bias: f32[K, H].
        hidden_weights: f32[K, H, H].
        hidden_bias: f32[K, H].
        output_weights: f32[K, H].
        output_bias: f32[K].
    """

    center: jax.Array
    scale: jax.Array
    lowest: jax.Array
    highest: jax.Array
    offset: jax.Array
    input_weights: jax.Array
    input_bias: jax.Array
    hidden_weights: jax.Array
    hidden_bias: jax.Array
    output_weights: jax.Array
    output_bias: jax.Array

    def predict(self, features: ArrayLike, log_base: ArrayLike) -> Prediction:
        """Predicts the target of one candidate; differentiable in the features and the base.

        Args:
            features: [D].
            log_base: Scalar, logarithm of the analytic model's prediction.

        Returns:
            Mean in the unit of the base, and spread; both f32[].

        Raises:
            AssertionError: `features` is not of shape [D] or `log_base` not a scalar.
        """
        x, base = jnp.asarray(features, jnp.float32), jnp.asarray(log_base, jnp.float32)
        hint = "use jax.vmap for several candidates"
        chex.assert_shape(x, self.center.shape, custom_message=f"features: {hint}")
        chex.assert_shape(base, (), custom_message=f"log_base: {hint}")
        corrections = _log_corrections(self, x)
        # The root has no gradient where all members agree.
        variance = jnp.mean((corrections - jnp.mean(corrections)) ** 2)
        return Prediction(mean=jnp.exp(base + jnp.mean(corrections)), spread=jnp.sqrt(variance + _LEAST_SPREAD**2))


def fit_predictor(
    key: jax.Array,
    features: ArrayLike,
    log_base: ArrayLike,
    log_target: ArrayLike,
    *,
    members: int = 6,
    width: int = 32,
    steps: int = 600,
    learning_rate: float = 0.01,
    weight_decay: float = 0.5,
    huber_delta: float = 0.1,
) -> Correction:
    """Fits the correction; one compiled scan over full-batch steps of AdamW with a cosine schedule.

    Args:
        key: Draws the initial weights.
        features: [N, D], what the correction may depend on, best as logarithms and ratios.
        log_base: [N], logarithm of the analytic model's prediction; zeros to learn the target alone.
        log_target: [N], logarithm of the measured target, in the unit of the base.
        members: K, size of the ensemble.
        width: H, hidden units of each of the two layers of a member.
        steps: Gradient steps.
        learning_rate: Of the first step.
        weight_decay: Pull of the weights towards zero, in units of the learning rate; the fewer samples and the
            noisier the targets, the more: 0.5 suits a thousand networks measured well, 3 to 6 some hundred.
        huber_delta: Log ratio up to which the loss is quadratic.

    Returns:
        The correction.

    Raises:
        ValueError: Shapes do not match, there are fewer than two samples, or a value is not finite.
    """
    x, base, target = (np.asarray(values, np.float64) for values in (features, log_base, log_target))
    if x.ndim != 2 or base.shape != x.shape[:1] or target.shape != x.shape[:1]:
        raise ValueError(
            "fit_predictor: expected features [N, D], log_base [N] and log_target [N], "
            f"got {x.shape}, {base.shape} and {target.shape}"
        )
    if x.shape[0] < 2 or x.shape[1] < 1:
        raise ValueError(f"fit_predictor: expected at least 2 samples of 1 feature, got {x.shape[0]} of {x.shape[1]}")
    for name, values in (("features", x), ("log_base", base), ("log_target", target)):
        if not np.isfinite(values).all():
            raise ValueError(f"fit_predictor: {name}: expected finite values, got {values[~np.isfinite(values)][0]}")
    if min(members, width, steps) < 1:
        raise ValueError(f"fit_predictor: expected members, width, steps >= 1, got {members}, {width}, {steps}")
    inputs, std = x.shape[1], x.std(axis=0)
    input_key, hidden_key = jax.random.split(key)
    start = Correction(
        center=jnp.float32(x.mean(axis=0)),
        scale=jnp.float32(np.where(std > _LEAST_SCALE, std, 1.0)),
        lowest=jnp.float32(x.min(axis=0)),
        highest=jnp.float32(x.max(axis=0)),
        offset=jnp.float32(np.median(target - base)),
        input_weights=jax.random.normal(input_key, (members, inputs, width)) / inputs**0.5,
        input_bias=jnp.zeros((members, width)),
        hidden_weights=jax.random.normal(hidden_key, (members, width, width)) / width**0.5,
        hidden_bias=jnp.zeros((members, width)),
        output_weights=jnp.zeros((members, width)),
        output_bias=jnp.zeros(members),
    )
    rates = jnp.stack([jnp.float32(learning_rate), jnp.float32(weight_decay), jnp.float32(huber_delta)])
    return _train(start, jnp.float32(x), jnp.float32(target - base), rates, steps)


@struct.dataclass
class NetworkFeatures:
    """What a whole network asks of the hardware, for one sample.

    Attributes:
        macs: f32[...], multiply-accumulates; half of what is often called FLOPs.
        conv_weights: f32[...], parameters of convolutions.
        norm_weights: f32[...], parameters of batch norms, statistics included; 0 without batch norms.
        linear_weights: f32[...], parameters of linear layers.
        activation_elements: f32[...], sum of the sizes of all layers' outputs.
        layers: f32[...], layers of any kind: activations, additions and splits included.
        conv_layers: f32[...], convolutions.
        norm_layers: f32[...], batch norms.
        linear_layers: f32[...], linear layers.
        resolution: f32[...], side of the input image in pixels.
    """

    macs: jax.Array
    conv_weights: jax.Array
    norm_weights: jax.Array
    linear_weights: jax.Array
    activation_elements: jax.Array
    layers: jax.Array
    conv_layers: jax.Array
    norm_layers: jax.Array
    linear_layers: jax.Array
    resolution: jax.Array


@struct.dataclass
class _LatencyBase:
    """Coefficients of the roofline of a whole network, as natural logarithms: a gradient step keeps them positive.

    Attributes:
        log_mac_s: f32[], time per MAC.
        log_element_s: f32[], time per activation element.
        log_weight_s: f32[], time per parameter.
        log_layer_s: f32[], time per layer.
        log_conv_s: f32[], time per convolution, on top.
        log_run_s: f32[], time per run.
        log_order_above_one: f32[], of p - 1, the order of the norm less one.
    """

    log_mac_s: jax.Array
    log_element_s: jax.Array
    log_weight_s: jax.Array
    log_layer_s: jax.Array
    log_conv_s: jax.Array
    log_run_s: jax.Array
    log_order_above_one: jax.Array


@struct.dataclass
class _PowerBase:
    """Coefficients of the mean power, as natural logarithms.

    Attributes:
        log_idle_w: f32[], power that follows no rate.
        log_mac_j: f32[], energy per MAC.
        log_element_j: f32[], energy per activation element.
    """

    log_idle_w: jax.Array
    log_mac_j: jax.Array
    log_element_j: jax.Array


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


@struct.dataclass
class BoardPredictor:
    """A board fitted to measured networks; holds no measurement.

    Attributes:
        latency_base: Roofline of a whole network.
        latency_correction: On features of the network, f32[22].
        power_base: Mean power from the rates.
        power_correction: On these and the rates, f32[25].
    """

    latency_base: _LatencyBase
    latency_correction: Correction
    power_base: _PowerBase
    power_correction: Correction

    def predict(self, network: NetworkFeatures) -> BoardPrediction:
        """Predicts latency and power of one network; differentiable in its features.

        Args:
            network: Leaves f32[].

        Returns:
            Predictions with leaves f32[].

        Raises:
            AssertionError: A feature is not a single number.
        """
        for name, feature in vars(network).items():
            chex.assert_shape(feature, (), custom_message=f"{name}: use jax.vmap for several networks")
        features, latency = _predict_latency(self.latency_base, self.latency_correction, network)
        power = self.power_correction.predict(
            _power_features(features, latency.mean),
            jnp.log(_base_power(self.power_base, network, latency.mean)),
        )
        return BoardPrediction(latency=latency, power=power)

    def save(self, path: str | Path, notes: Mapping[str, object]) -> None:
        """Writes the board to an npz file of about 100 KB; `notes` must convert to JSON.

        Raises:
            ValueError: The file cannot be written.
        """
        arrays = {
            f"{part}.{name}": np.asarray(leaf) for part, of in vars(self).items() for name, leaf in vars(of).items()
        }
        write_whole(path, as_npz({**arrays, _NOTES: np.array(json.dumps(notes))}, compressed=True))


def fit_board(key: jax.Array, network: NetworkFeatures, latency_s: ArrayLike, power_w: ArrayLike) -> BoardPredictor:
    """Fits a board to measured networks.

    Args:
        key: Draws the initial weights of the corrections.
        network: Leaves f32[N].
        latency_s: f32[N], measured.
        power_w: f32[N], measured mean power of one rail; NaN where it was not measured.

    Returns:
        The board.

    Raises:
        ValueError: Shapes do not match, a latency is not positive and finite, or fewer than two networks have a
            power.
    """
    latency, power = np.asarray(latency_s, np.float32), np.asarray(power_w, np.float32)
    shapes = {np.shape(feature) for feature in vars(network).values()} | {power.shape}
    if latency.ndim != 1 or shapes != {latency.shape}:
        raise ValueError(f"fit_board: expected features, latency_s and power_w [N], got {latency.shape} and {shapes}")
    measured = ~np.isnan(power)
    if not (np.isfinite(latency).all() and (latency > 0).all() and (power[measured] > 0).all()):
        raise ValueError("fit_board: expected positive latency_s and positive power_w or NaN")
    latency_key, power_key = jax.random.split(key)
    latency_base, features, log_latency = _fit_latency_base(network, jnp.asarray(latency))
    correction = fit_predictor(latency_key, features, log_latency, np.log(latency))
    with_power = jax.tree.map(lambda feature: jnp.asarray(feature, jnp.float32)[measured], network)
    watts = jnp.asarray(power[measured])
    power_base, features, log_power = _fit_power_base(latency_base, correction, with_power, watts)
    return BoardPredictor(
        latency_base=latency_base,
        latency_correction=correction,
        power_base=power_base,
        power_correction=fit_predictor(power_key, features, log_power, jnp.log(watts)),
    )


def board_names() -> list[str]:
    """Names of the boards that come with the package, sorted."""
    return sorted(entry.name.removesuffix(".npz") for entry in _BOARDS.iterdir() if entry.name.endswith(".npz"))


def load_board_predictor(name_or_path: str | Path) -> BoardPredictor:
    """Loads a board by a name of `board_names` or from a file of `BoardPredictor.save`, given as a `Path`.

    Raises:
        ValueError: The name is unknown, or the file is missing or holds no board.
    """
    arrays = _read(name_or_path)
    return BoardPredictor(
        latency_base=_part(_LatencyBase, arrays, "latency_base."),
        latency_correction=_part(Correction, arrays, "latency_correction."),
        power_base=_part(_PowerBase, arrays, "power_base."),
        power_correction=_part(Correction, arrays, "power_correction."),
    )


def read_board_notes(name_or_path: str | Path) -> dict[str, object]:
    """Reads where a board's data came from, how its errors were measured, and the errors.

    Raises:
        ValueError: As `load_board_predictor`.
    """
    notes = _read(name_or_path).get(_NOTES)
    return {} if notes is None else json.loads(str(notes))


def _log_corrections(correction: Correction, features: jax.Array) -> jax.Array:
    """Log corrections of the members for one candidate, f32[K]."""
    inside = jnp.clip(features, correction.lowest, correction.highest)
    x = (inside - correction.center) / correction.scale
    hidden = jax.nn.silu(jnp.einsum("d,kdh->kh", x, correction.input_weights) + correction.input_bias)
    hidden = jax.nn.silu(jnp.einsum("kh,khj->kj", hidden, correction.hidden_weights) + correction.hidden_bias)
    return correction.offset + jnp.einsum("kh,kh->k", hidden, correction.output_weights) + correction.output_bias


@partial(jax.jit, static_argnames="steps")
def _train(start: Correction, x: jax.Array, log_ratio: jax.Array, rates: jax.Array, steps: int) -> Correction:
    learning_rate, weight_decay, huber_delta = rates
    schedule = optax.cosine_decay_schedule(1.0, steps)
    optimiser = optax.chain(
        optax.scale_by_adam(),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_schedule(lambda step: -learning_rate * schedule(step)),
    )

    def loss(trained: dict[str, jax.Array]) -> jax.Array:
        errors = jax.vmap(partial(_log_corrections, dataclasses.replace(start, **trained)))(x) - log_ratio[:, None]
        size = jnp.abs(errors)
        quadratic = 0.5 * errors**2 / huber_delta
        # The sum over members gives each the gradient it would have alone.
        return jnp.sum(jnp.mean(jnp.where(size < huber_delta, quadratic, size - 0.5 * huber_delta), axis=0))

    first = {name: leaf for name, leaf in vars(start).items() if name.endswith(("_weights", "_bias"))}
    return dataclasses.replace(start, **minimise(loss, first, optimiser, steps=steps))


class _Times(NamedTuple):
    """Parts of the time of a run, f32[...] each."""

    compute_s: jax.Array
    memory_s: jax.Array
    roofline_s: jax.Array
    layers_s: jax.Array
    run_s: jax.Array

    @property
    def latency_s(self) -> jax.Array:
        """Time of the run."""
        return self.roofline_s + self.layers_s + self.run_s


def _base_times(base: _LatencyBase, network: NetworkFeatures) -> _Times:
    """Computes the parts of the latency of one network, in s."""
    compute_s = jnp.exp(base.log_mac_s) * network.macs
    memory_s = jnp.exp(base.log_element_s) * network.activation_elements
    memory_s += jnp.exp(base.log_weight_s) * (network.conv_weights + network.linear_weights)
    return _Times(
        compute_s=compute_s,
        memory_s=memory_s,
        roofline_s=p_norm(compute_s, memory_s, 1.0 + jnp.exp(base.log_order_above_one)),
        layers_s=jnp.exp(base.log_layer_s) * network.layers + jnp.exp(base.log_conv_s) * network.conv_layers,
        run_s=jnp.exp(base.log_run_s),
    )


def _base_power(base: _PowerBase, network: NetworkFeatures, latency_s: jax.Array) -> jax.Array:
    """Mean power of one network over a run that takes `latency_s`, in W."""
    work_j = jnp.exp(base.log_mac_j) * network.macs + jnp.exp(base.log_element_j) * network.activation_elements
    return jnp.exp(base.log_idle_w) + work_j / latency_s


def _latency_features(network: NetworkFeatures, times: _Times) -> jax.Array:
    """Features of one network for a learned correction of its latency: logarithms of sizes, ratios and shares.

    Args:
        network: Leaves f32[].
        times: Of the analytic model.

    Returns:
        f32[22]: sizes and counts; MACs per element and per parameter, parameters per convolution, mean fan-in, size
        of a map, channels of a batch norm, layers per convolution, batch norms per convolution; compute to
        memory time, and the shares of roofline, layers and run in the latency.
    """
    n = network
    macs, elements, conv_weights, layers, convs, resolution = (
        jnp.log(jnp.maximum(count, 1.0))
        for count in (n.macs, n.activation_elements, n.conv_weights, n.layers, n.conv_layers, n.resolution)
    )
    norm_weights, linear_weights, norms, linears = (
        jnp.log1p(count) for count in (n.norm_weights, n.linear_weights, n.norm_layers, n.linear_layers)
    )
    sizes = [macs, elements, conv_weights, norm_weights, linear_weights, convs, norms, layers, resolution, linears]
    ratios = [macs - elements, macs - conv_weights, conv_weights - convs, conv_weights - norm_weights]
    ratios += [elements - convs, norm_weights - norms, layers - convs, norms - convs]
    parts = (times.roofline_s, times.layers_s, times.run_s)
    compute, memory, latency, *shared = (
        jnp.log(part + _LEAST_S) for part in (times.compute_s, times.memory_s, times.latency_s, *parts)
    )
    shares = [compute - memory, *(part - latency for part in shared)]
    return jnp.stack([*sizes, *ratios, *shares])


def _power_features(features: jax.Array, latency_s: jax.Array) -> jax.Array:
    """Features for a correction of the power, f32[25]: those of the latency, its logarithm and those of both rates."""
    log_latency = jnp.log(latency_s)
    rates = jnp.stack([log_latency, features[0] - log_latency, features[1] - log_latency])
    return jnp.concatenate([features, rates])


def _predict_latency(
    base: _LatencyBase, correction: Correction, network: NetworkFeatures
) -> tuple[jax.Array, Prediction]:
    """Predicts the latency of one network; returns its features f32[22] too, which the power depends on."""
    times = _base_times(base, network)
    features = _latency_features(network, times)
    return features, correction.predict(features, jnp.log(times.latency_s))


@jax.jit
def _fit_latency_base(network: NetworkFeatures, latency_s: jax.Array) -> tuple[_LatencyBase, jax.Array, jax.Array]:
    """Fits the roofline; with features [N, 22] and log latencies [N] for its correction."""
    # Typical rates of embedded GPUs: 1 TMAC/s, 1e9 elements/s, 10 us per layer.
    first = _LatencyBase(*(jnp.log(jnp.float32(start)) for start in (1e-12, 1e-9, 1e-9, 1e-5, 1e-5, 1e-4, 1.0)))
    base = _fit_base(first, lambda base: _base_times(base, network).latency_s, latency_s)
    times = jax.vmap(_base_times, in_axes=(None, 0))(base, network)
    return base, jax.vmap(_latency_features)(network, times), jnp.log(times.latency_s)


@jax.jit
def _fit_power_base(
    latency_base: _LatencyBase, correction: Correction, network: NetworkFeatures, power_w: jax.Array
) -> tuple[_PowerBase, jax.Array, jax.Array]:
    """Fits the mean power at predicted latencies; with features [N, 25] and log powers [N] for its correction."""
    features, latency = jax.vmap(_predict_latency, in_axes=(None, None, 0))(latency_base, correction, network)
    first = _PowerBase(*(jnp.log(jnp.float32(start)) for start in (1.0, 1e-11, 1e-9)))
    base = _fit_base(first, lambda base: _base_power(base, network, latency.mean), power_w)
    features = jax.vmap(_power_features)(features, latency.mean)
    return base, features, jnp.log(_base_power(base, network, latency.mean))


def _fit_base(first: _PartT, model: Callable[[_PartT], jax.Array], target: jax.Array) -> _PartT:
    optimiser = optax.adam(optax.cosine_decay_schedule(_BASE_LEARNING_RATE, _BASE_STEPS))

    def loss(base: _PartT) -> jax.Array:
        return jnp.mean(optax.huber_loss(jnp.log(model(base) / target), delta=_BASE_HUBER_DELTA))

    return minimise(loss, first, optimiser, steps=_BASE_STEPS)


def _part(kind: type[_PartT], arrays: dict[str, np.ndarray], prefix: str) -> _PartT:
    names = [prefix + field for field in kind.__dataclass_fields__]  # type: ignore[attr-defined]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"board: expected arrays {', '.join(names)}, got none for {', '.join(missing)}")
    return kind(*(jnp.asarray(arrays[name], jnp.float32) for name in names))


def _read(name_or_path: str | Path) -> dict[str, np.ndarray]:
    is_name = isinstance(name_or_path, str)
    if is_name and name_or_path not in board_names():
        raise ValueError(f"board: expected one of {', '.join(board_names())} or a Path, got {name_or_path!r}")
    source = _BOARDS / f"{name_or_path}.npz" if is_name else Path(name_or_path)
    try:
        with source.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{name_or_path}: expected a board predictor, got: {error}") from None
