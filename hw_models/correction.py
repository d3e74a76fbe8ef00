"""What was learned on top of analytic cost models: corrections, boards known as a whole, and what devices take of them.

A correction is `log target = log base + correction(features)`. The analytic model (base) carries the scale and the
physics, the correction what the model leaves out: a small ensemble of perceptrons on standardised features. Features
are clipped to the range they were trained on: away from the data the correction stops growing and the analytic model
takes over. The members start from different weights; where they disagree, the data did not settle the correction. Deep
ensembles: Lakshminarayanan et al. 2017, https://arxiv.org/abs/1612.01474.

A board predicts a network of which only network-level features are known, by a roofline of the whole network,

    latency = p_norm(compute, memory) + layers + run

where compute grows with the MACs, memory with activations and weights, and each layer and each convolution has a
fixed cost of its own (networks that split a convolution into many layers pay it many times), with a learned correction.
The mean power of one supply rail follows the rates at which MACs and elements are served, `idle + mac_j * macs /
latency + element_j * elements / latency`, and has a correction too. The boards of `board_names` come with the package.
They were fitted to the measurements of https://github.com/HalimaBouzidi/perf_prediction (MIT) by
`experiments/boards/fit_jetson_boards.py`; `read_board_notes` tells their errors on networks left out. They hold for the
clocks, the runtime and the batch size of that data.

A device takes a board's latency at the clocks of the board's data as a factor on its roofline at any clocks:

    latency(f) = roofline(f) (board / roofline(f_data))^w

where w is 1 near the networks that the board was fitted to and falls smoothly to 0 away from them (`Seen`), and the
ratio is kept within a factor of `MOST`. A device that was fitted to measurements of its own may have a correction that
is that ratio itself, trained on top of its roofline. Energy has the same factor: a network that takes longer than the
roofline has it draws the roofline's power for longer.

Searches price millions of networks, so a device has no ensemble but one small perceptron that was trained to say what
the ensemble says (`hw_models.fitting.correction.distilled`). What a device takes is computed feature by feature, each
for all networks at once where networks are the trailing dimensions: several times faster than network by network.

Shapes: N samples (networks), D features, K members, H hidden units, M points, L layers. Predictions are of one network,
leaves f32[]; batch them with `jax.vmap`. Units: s, W, J, elements; a target is in the unit of its base.
"""

import base64
import binascii
import functools
import importlib.resources
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import ArrayLike

from hw_models.files import as_npz, show, write_whole
from hw_models.layers import LayerKind, LayerTable
from hw_models.roofline import p_norm

_LEAST_SPREAD = 1e-6
_LEAST_S = 1e-12
"""Keeps the logarithm of a time finite; far below the time of any kernel."""
_BOARDS = importlib.resources.files("hw_models") / "boards"
_NOTES, _IS_RELATIVE = "notes", "is_relative"
_PartT = TypeVar("_PartT")
MOST = 4.0
"""A correction multiplies or divides by no more than this."""
NEAR = 1.0
"""Root mean square distance, in standard deviations of each feature, up to which a correction counts in full."""
_FAR = 2.0 * NEAR
"""Where it counts no more."""


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
        corrections = log_corrections(self, x)
        # The root has no gradient where all members agree.
        variance = jnp.mean((corrections - jnp.mean(corrections)) ** 2)
        return Prediction(mean=jnp.exp(base + jnp.mean(corrections)), spread=jnp.sqrt(variance + _LEAST_SPREAD**2))


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
class LatencyBase:
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
class PowerBase:
    """Coefficients of the mean power, as natural logarithms.

    Attributes:
        log_idle_w: f32[], power that follows no rate.
        log_mac_j: f32[], energy per MAC.
        log_element_j: f32[], energy per activation element.
    """

    log_idle_w: jax.Array
    log_mac_j: jax.Array
    log_element_j: jax.Array


@struct.dataclass
class Seen:
    """Where the data of a correction lie.

    Attributes:
        points: f32[M, D], centres of clusters of the standardised features.
    """

    points: jax.Array

    def weight(self, standardised: jax.Array) -> jax.Array:
        """How far the data reach: 1 near them, 0 away from them, smoothly between.

        Args:
            standardised: f32[D, ...], features of networks; unlike what a correction sees, not clipped to the range of
                the data.

        Returns:
            f32[...]: 1 up to a root mean square distance of `NEAR` from the nearest point, 0 from twice that.
        """
        # Multiplied out, so that many networks at once are one matrix product.
        products = jnp.einsum("md,d...->m...", self.points, standardised)
        squares = _beside(jnp.sum(self.points**2, axis=1), products) - 2.0 * products
        square = (jnp.min(squares, axis=0) + jnp.sum(standardised**2, axis=0)) / len(standardised)
        # The root has no gradient at 0.
        distance = jnp.sqrt(jnp.maximum(square, 0.25 * NEAR**2))
        t = jnp.clip((distance - NEAR) / (_FAR - NEAR), 0.0, 1.0)
        return 1.0 - t**2 * (3.0 - 2.0 * t)


@struct.dataclass
class DeviceCorrection:
    """What a device takes of a board, or of measurements of its own.

    Attributes:
        base: Roofline of a whole network.
        latency: Its correction, on features f32[22]; of one member, see `hw_models.fitting.correction.distilled`.
        seen: Where the data lie.
        point: Clocks of the data, a `hw_models.OperatingPoint` with leaves f32[].
        number_format: A `hw_models.NumberFormat`, of the data, of one image at a time; static.
        is_relative: Whether the correction was trained on top of the device's roofline, as few measurements need, and
            not on top of the whole network's; static.
    """

    base: LatencyBase
    latency: Correction
    seen: Seen
    point: Any
    number_format: int = struct.field(pytree_node=False, default=0)
    is_relative: bool = struct.field(pytree_node=False, default=False)

    def log_ratio(self, network: NetworkFeatures, roofline_s: jax.Array) -> jax.Array:
        """Logarithm of the factor on the roofline of networks.

        Args:
            network: Leaves f32[...].
            roofline_s: f32[...], the roofline's latency of one run at the clocks of the data.

        Returns:
            f32[...], within the logarithm of `MOST` of 0.
        """
        times = base_times(self.base, network)
        features = latency_features(network, times)
        ratio = jnp.mean(log_corrections(self.latency, features), axis=0)
        if not self.is_relative:
            ratio = ratio + jnp.log((times.latency_s + _LEAST_S) / (roofline_s + _LEAST_S))
        return self._weight(features) * jnp.clip(ratio, -np.log(MOST), np.log(MOST))

    def weight(self, network: NetworkFeatures) -> jax.Array:
        """How near networks are to the data, f32[...]: the w of `Seen.weight`."""
        return self._weight(latency_features(network, base_times(self.base, network)))

    def _weight(self, features: jax.Array) -> jax.Array:
        return self.seen.weight(_standardised(self.latency, features))


def layer_features(
    layers: LayerTable, owner: ArrayLike | None = None, *, is_start: ArrayLike = True
) -> NetworkFeatures:
    """What each row of a layer table adds to the features of its network, as the boards' data count them.

    The data are of frameworks that run normalisation, activation, padding and splits as layers of their own; rows of
    layer tables are fused. So a convolution counts as convolution, batch norm and activation, each writing its output;
    a pointwise one that narrows has no activation (a projection); a depthwise one with a stride comes with the padding
    of its input; linear layers before the last convolution are those of squeeze and excitation, which the data count
    as convolutions without batch norm. Biases of fused convolutions stand for batch norms of four numbers per channel.

    Args:
        layers: Columns [L].
        owner: int[L], positive numbers of segments that are networks or parts of some; None: one network.
        is_start: Whether the first active row is the first of a network, which reads the image.

    Returns:
        Leaves f32[L], 0 at inactive rows; their sums over a network's rows are its features.
    """
    count = layers.kind.shape[-1]
    rows, runs = jnp.arange(count), layers.active > 0
    macs, weights, reads, writes = (
        jnp.where(runs, getattr(layers, name), 0.0)
        for name in ("macs", "weight_elements", "input_elements", "output_elements")
    )
    kind = layers.kind
    is_linear, is_depthwise = kind == LayerKind.LINEAR, kind == LayerKind.DEPTHWISE
    is_conv = is_depthwise | (kind == LayerKind.DENSE) | (kind == LayerKind.POINTWISE)
    owners = jnp.zeros(count, jnp.int32) if owner is None else jnp.asarray(owner)
    last_conv = jax.ops.segment_max(jnp.where(is_conv & runs, rows, -1), owners, count)[owners]
    masks = {
        "conv": is_conv,
        "classifier": is_linear & (rows > last_conv),
        "squeeze": is_linear & (rows <= last_conv),
        "projection": (kind == LayerKind.POINTWISE) & (writes < reads),
        "padding": is_depthwise & (writes < reads),
        "start": (rows == jnp.argmax(runs)) & jnp.asarray(is_start),
    }
    conv, classifier, squeeze, projection, padding, start = (mask.astype(jnp.float32) for mask in masks.values())
    fan_in = macs / jnp.maximum(writes, 1.0)
    channels = weights / (fan_in + 1.0)
    outputs_of_row = 1.0 + 2.0 * conv - projection + squeeze
    sums = {
        "macs": macs * (conv + classifier + squeeze),
        "conv_weights": channels * fan_in * conv + weights * squeeze,
        "norm_weights": 4.0 * channels * conv,
        "linear_weights": weights * classifier,
        "activation_elements": writes * outputs_of_row + reads * jnp.maximum(padding, start),
        "layers": outputs_of_row + padding + start,
        "conv_layers": conv + squeeze,
        "norm_layers": conv,
        "linear_layers": classifier,
    }
    of_rows = {name: layers.active * jnp.where(runs, value, 0.0) for name, value in sums.items()}
    return NetworkFeatures(**of_rows, resolution=jnp.sqrt(jnp.maximum(reads / 3.0, 1.0)) * start)


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
        seen: Where the data lie.
        distilled: What a device takes of the correction of the latency, of one member.
    """

    latency_base: LatencyBase
    latency_correction: Correction
    power_base: PowerBase
    power_correction: Correction
    seen: Seen
    distilled: Correction

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
        features, latency = predict_latency(self.latency_base, self.latency_correction, network)
        power = self.power_correction.predict(
            power_features(features, latency.mean),
            jnp.log(base_power(self.power_base, network, latency.mean)),
        )
        return BoardPrediction(latency=latency, power=power)

    def save(self, path: str | Path, notes: Mapping[str, object]) -> None:
        """Writes the board to an npz file of about 100 KB; `notes` must convert to JSON.

        Raises:
            ValueError: The file cannot be written.
        """
        write_whole(path, as_npz({**_arrays(vars(self)), _NOTES: np.array(json.dumps(notes))}, compressed=True))


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
        latency_base=_part(LatencyBase, arrays, "latency_base."),
        latency_correction=_part(Correction, arrays, "latency_correction."),
        power_base=_part(PowerBase, arrays, "power_base."),
        power_correction=_part(Correction, arrays, "power_correction."),
        seen=_part(Seen, arrays, "seen."),
        distilled=_part(Correction, arrays, "distilled."),
    )


def read_board_notes(name_or_path: str | Path) -> dict[str, object]:
    """Reads where a board's data came from, how its errors were measured, and the errors.

    Raises:
        ValueError: As `load_board_predictor`.
    """
    notes = _read(name_or_path).get(_NOTES)
    return {} if notes is None else json.loads(str(notes))


def device_correction(source: str, point: Any, number_format: int) -> DeviceCorrection:
    """Loads what a device file names.

    Args:
        source: A name of `board_names`, or an npz file of `encode_correction` as base64 text.
        point: As in `DeviceCorrection`.
        number_format: Likewise.

    Raises:
        ValueError: It is neither.
    """
    is_board = source in board_names()
    arrays = _read(source) if is_board else _decode(source)
    return DeviceCorrection(
        base=_part(LatencyBase, arrays, "latency_base."),
        latency=_part(Correction, arrays, "distilled." if is_board else "latency_correction."),
        seen=_part(Seen, arrays, "seen."),
        point=point,
        number_format=number_format,
        is_relative=bool(arrays.get(_IS_RELATIVE, False)),
    )


def encode_correction(correction: DeviceCorrection) -> str:
    """Writes a correction as text for a device file: an npz file of about 50 KB in base64, without its clocks."""
    parts = {"latency_base": correction.base, "latency_correction": correction.latency, "seen": correction.seen}
    arrays = {**_arrays(parts), _IS_RELATIVE: np.array(correction.is_relative)}
    return base64.b64encode(as_npz(arrays, compressed=True)).decode("ascii")


def log_corrections(correction: Correction, features: jax.Array) -> jax.Array:
    """Log corrections of the members for candidates, f32[D, ...] -> f32[K, ...]."""
    inside = jnp.clip(features, _beside(correction.lowest, features), _beside(correction.highest, features))
    x = _standardised(correction, inside)
    hidden = jnp.einsum("kdh,d...->kh...", correction.input_weights, x)
    hidden = jax.nn.silu(hidden + _beside(correction.input_bias, hidden))
    hidden = jnp.einsum("khj,kh...->kj...", correction.hidden_weights, hidden)
    hidden = jax.nn.silu(hidden + _beside(correction.hidden_bias, hidden))
    outputs = jnp.einsum("kh,kh...->k...", correction.output_weights, hidden)
    return correction.offset + outputs + _beside(correction.output_bias, outputs)


def _standardised(correction: Correction, features: jax.Array) -> jax.Array:
    return (features - _beside(correction.center, features)) / _beside(correction.scale, features)


def _beside(column: jax.Array, values: jax.Array) -> jax.Array:
    """Gives a column as many dimensions as the values that it goes with."""
    return column.reshape(column.shape + (1,) * (values.ndim - column.ndim))


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


def base_times(base: LatencyBase, network: NetworkFeatures) -> _Times:
    """Computes the parts of the latency of networks, in s."""
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


def base_power(base: PowerBase, network: NetworkFeatures, latency_s: jax.Array) -> jax.Array:
    """Mean power of one network over a run that takes `latency_s`, in W."""
    work_j = jnp.exp(base.log_mac_j) * network.macs + jnp.exp(base.log_element_j) * network.activation_elements
    return jnp.exp(base.log_idle_w) + work_j / latency_s


def latency_features(network: NetworkFeatures, times: _Times) -> jax.Array:
    """Features of networks for a learned correction of their latency: logarithms of sizes, ratios and shares.

    Args:
        network: Leaves f32[...].
        times: Of the analytic model.

    Returns:
        f32[22, ...]: sizes and counts; MACs per element and per parameter, parameters per convolution, mean fan-in,
        size of a map, channels of a batch norm, layers per convolution, batch norms per convolution; compute to
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


def power_features(features: jax.Array, latency_s: jax.Array) -> jax.Array:
    """Features for a correction of the power, f32[25]: those of the latency, its logarithm and those of both rates."""
    log_latency = jnp.log(latency_s)
    rates = jnp.stack([log_latency, features[0] - log_latency, features[1] - log_latency])
    return jnp.concatenate([features, rates])


def predict_latency(
    base: LatencyBase, correction: Correction, network: NetworkFeatures
) -> tuple[jax.Array, Prediction]:
    """Predicts the latency of one network; returns its features f32[22] too, which the power depends on."""
    times = base_times(base, network)
    features = latency_features(network, times)
    return features, correction.predict(features, jnp.log(times.latency_s))


def _part(kind: type[_PartT], arrays: dict[str, np.ndarray], prefix: str) -> _PartT:
    names = [prefix + field for field in kind.__dataclass_fields__]  # type: ignore[attr-defined]
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"board: expected arrays {', '.join(names)}, got none for {', '.join(missing)}")
    return kind(*(jnp.asarray(arrays[name], jnp.float32) for name in names))


@functools.lru_cache(maxsize=8)
def _decode(text: str) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(base64.b64decode(text, validate=True)), allow_pickle=False) as arrays:
            return dict(arrays)
    except (binascii.Error, OSError, EOFError, TypeError, ValueError, zipfile.BadZipFile):
        raise ValueError(
            f"correction: expected one of {', '.join(board_names())} or an npz file as base64 text, got {show(text)}"
        ) from None


def _arrays(parts: Mapping[str, object]) -> dict[str, np.ndarray]:
    return {f"{part}.{name}": np.asarray(leaf) for part, of in parts.items() for name, leaf in vars(of).items()}


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
