"""Kits: what a board needs to be measured, as a folder of ONNX files, `cases.json` and `measure.py`; extra `onnx`.

A board has no JAX; `python3 measure.py` in the folder runs the cases on what it has and writes their times. Networks
are cut out and exported as any other one is, as a path of segments that end with exits, and whole, without exits: so a
fit can tell what a call costs from what layers cost. Beside them stand single layers of every kind, with a classifier.

Times of dense networks do not depend on their weights. Those of `write_space_kit` are normal numbers from a few files
that all its models share, each of one standard deviation, so that activations neither vanish nor overflow.
Shapes: G genes, E exits of the space, e of a network, L layers, H, W image, C channels.
"""

import functools
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.deploy.given import GivenSegment, GivenSegments
from hadas_jax.deploy.layers import RANGE, Kind, Layer, Segment, Shapes, Weights, fold_batch_norm, output_shapes
from hadas_jax.deploy.materialise import materialise
from hadas_jax.deploy.onnx import Elsewhere, segment_as_onnx
from hadas_jax.deploy.static_network import StaticNetwork
from hadas_jax.runs.checkpoints import output_directory
from hadas_jax.runs.workdir import write_text
from hadas_jax.spaces import AnySpace, Backbone, MBConvSpace, available_exits, block_active, segments, workload
from hadas_jax.spaces.design import spread_genomes
from hadas_jax.supernet import BatchStats, Parameters, estimate_batch_stats, initialise
from hadas_jax.supernet.quantisation import UNIT, Storage
from hw_models import LayerKind, LayerTable, NumberFormat, layer_table, measuring
from hw_models.files import whole_folder, write_whole
from hw_models.measuring.measurements import LAYER, format_layers

FORM = "hadas_jax.kit/1"
CASES = "cases.json"
MEASURE = "measure.py"
AGAIN = "-again"
"""What the names of networks end with that are measured a second time."""
_Kind = Literal["path", "whole", "layer"]
_FILES = (CASES, MEASURE, "*.onnx", "weights*.bin")
_MOST_EXITS = 3  # of a network of a kit
_SIZES = ((64, 16), (32, 48), (16, 128), (8, 256))  # of single layers: pixels of a side, channels
_YARDSTICKS = (LayerKind.DENSE, LayerKind.POINTWISE)  # single layers in every kit, by which machines tell their speed
_RATIO, _DENSE_OUT = 4, 32  # output to input channels of pointwise and linear layers; channels of dense ones
_CLASSES = 10  # behind single layers
_X, _Y = "x", "y"  # input and output of a single layer
_BIAS_STD = 2.0**-4
_MEAN, _DEVIATION = 0.5, 0.25  # of the images of networks without weights


@dataclass(frozen=True)
class Kit:
    """What was written.

    Attributes:
        folder: Where.
        digest: Of the cases; rows of measurements name it.
        cases: How many there are.
        bytes: The size of all files.
    """

    folder: Path
    digest: str
    cases: int
    bytes: int


def write_space_kit(
    folder: Path | str,
    space: MBConvSpace,
    *,
    networks: int = 60,
    layers: int = 3,
    batch: int = 1,
    number_formats: Sequence[str] = ("fp32",),
    seed: int = 0,
    overwrite: bool = False,
) -> Kit:
    """Writes networks of a space without weights of their own, and single layers, for `hadas devices fit`.

    Args:
        folder: Created if need be.
        space: With one resolution, see `hadas_jax.spaces.design.space_to_profile`.
        networks: How many; the smallest, the largest, and others that fill the space.
        layers: Sizes of each kind of single layer, 0 to 4.
        batch: Images per run.
        number_formats: In each of which every network and layer is there: fp32, fp16, int8.
        seed: Of the choice of networks and of the positions of their exits.
        overwrite: Replace the kit in the folder.

    Raises:
        ValueError: A number is out of range, the extra is missing, or the folder holds something else.
    """
    if batch < 1:
        raise ValueError(f"batch: expected 1 or more, got {batch}")
    if not 0 <= layers <= len(_SIZES):
        raise ValueError(f"layers: expected 0 to {len(_SIZES)} sizes of each kind, got {layers}")
    known = [form.name.lower() for form in NumberFormat]
    for wrong in [name for name in number_formats if name not in known] or (() if number_formats else ("none",)):
        raise ValueError(f"number_formats: expected some of {', '.join(known)}, got {wrong}")
    forms = [NumberFormat[name.upper()] for name in dict.fromkeys(number_formats)]
    require_onnx()
    folder = output_directory(folder, _FILES, mark=CASES, overwrite=overwrite)
    size, channels = space.resolution[0], space.in_channels
    images = _images(size, [_MEAN] * channels, [_DEVIATION] * channels)
    values = _SharedValues()
    with whole_folder(folder, mark=CASES) as staged:
        writer = _Writer(staged, batch, values.place)
        for number, genome in enumerate(spread_genomes(space, networks, seed=seed)):
            name = f"{space.name}-{size}-{seed}-{number:03d}"
            cases: tuple[tuple[_Kind, str, tuple[int, ...]], ...]
            cases = ("path", name, _draw_exits(space, genome, seed, number)), ("whole", f"{name}-whole", ())
            for kind, case, exits in cases:
                parts = fold_batch_norm(*_materialised(space, genome, exits))
                shapes = output_shapes(*parts, image_size=size, channels=channels)
                texts = layers_by_segment(space, genome, exits)
                about: dict[str, Any] = {"family": name, "images": images, "score": "confidence"}
                for form in forms:
                    writer.add_own(kind, _in(form, case), *parts, shapes, texts, number_format=form, **about)
        for side, width in _SIZES[:layers]:
            for layer, form in itertools.product(LayerKind, forms):
                writer.add_layer(layer, side, width, form)
        values.write(staged)
        reference = f"{space.name}-{size}-{seed}-{min(1, networks - 1):03d}-whole"  # the largest
        return writer.finish(folder, _in(forms[0], reference))


def _in(form: NumberFormat, name: str) -> str:
    """What a case is called in a number format."""
    return name if form == NumberFormat.FP32 else f"{name}-{form.name.lower()}"


def write_network_kit(
    folder: Path | str, networks: Sequence[tuple[str, StaticNetwork | GivenSegments]], *, overwrite: bool = False
) -> Kit:
    """Writes networks with their weights and exits, each as two cases, so that it is measured twice independently.

    Beside them are some of the single layers of `write_space_kit`, which tell how fast the machine is by then.

    Args:
        folder: Created if need be.
        networks: Names, which differ, and networks; at least one.
        overwrite: Replace the kit in the folder.

    Raises:
        ValueError: The extra is missing, or the folder holds something else.
    """
    require_onnx()
    folder = output_directory(folder, _FILES, mark=CASES, overwrite=overwrite)
    with whole_folder(folder, mark=CASES) as staged:
        writer, macs = _Writer(staged, 1, None), {}
        for name, network in networks:
            architecture, folded = network.architecture, network.folded()
            space, channels, by = architecture.space, architecture.space.in_channels, architecture.normalisation
            mean, deviation = (by.mean, by.deviation) if by else ([0.0] * channels, [1.0] * channels)
            texts = layers_by_segment(space, architecture.genome, architecture.exits)
            images = _images(network.image_size, mean, deviation)
            about: dict[str, Any] = {"family": name, "images": images, "score": architecture.policy}
            if isinstance(folded, GivenSegments):
                if folded.format != "onnx":
                    raise ValueError(f"{name}: expected a network that was given as ONNX, got one of JAX functions")
                parts = folded.segments
                blobs = [part.blob for part in parts]
                entry = writer.add("path", name, parts, blobs, folded.input_shape(), texts, **about)
            else:
                folded.require_finite_ranges()
                about["number_format"] = architecture.number_format
                shapes = output_shapes(
                    folded.segments, folded.weights, image_size=network.image_size, channels=channels
                )
                entry = writer.add_own("path", name, folded.segments, folded.weights, shapes, texts, **about)
            writer.cases.append({**entry, "name": name + AGAIN})
            macs[name] = sum(float(row.split()[1]) for text in texts for row in text.split(";"))
        for (side, width), kind in itertools.product(_SIZES[:3], _YARDSTICKS):
            writer.add_layer(kind, side, width, NumberFormat.FP32)
        return writer.finish(folder, max(macs, key=macs.__getitem__))


def layers_by_segment(space: AnySpace, genome: Sequence[int] | np.ndarray, exits: Sequence[int]) -> tuple[str, ...]:
    """Returns the layer table of each segment of a network, its part of the trunk and then its exit head.

    Args:
        space: The space of the network.
        genome: int[G].
        exits: The blocks that an exit follows, counted over the backbone's own blocks from 0, rising.

    Returns:
        e + 1 texts as of the column `layers` of measurements, the classifier's segment last.
    """
    table, active, _ = jax.tree.map(np.asarray, _rows(space, jnp.asarray(genome, jnp.int32)))
    owner, last = segments(space), space.num_exits
    found, before = [], -1
    for end in [*(np.flatnonzero(active)[list(exits)] - space.first_exit), last]:
        trunk = np.flatnonzero((owner > before) & (owner <= end))
        head = np.flatnonzero((owner == last + 1 + end) & (end < last))
        rows = np.concatenate([trunk, head])
        found.append(format_layers(jax.tree.map(lambda column, rows=rows: column[rows], table)))
        before = end
    return tuple(found)


@functools.partial(jax.jit, static_argnums=0)
def _rows(space: AnySpace, genome: jax.Array) -> tuple[LayerTable, jax.Array, jax.Array]:
    """The layers of a backbone with all its exits, its blocks among the space's, and the exits that it has."""
    backbone = space.decode(genome)
    return workload(space, backbone), block_active(space, backbone), available_exits(space, backbone)


def _draw_exits(space: MBConvSpace, genome: np.ndarray, seed: int, number: int) -> tuple[int, ...]:
    """One, two or three exits in turn, as many as there are, at drawn positions among the backbone's own blocks."""
    _, active, available = jax.tree.map(np.asarray, _rows(space, jnp.asarray(genome)))
    possible = (np.cumsum(active) - 1)[space.first_exit :][available]
    count = min(1 + number % _MOST_EXITS, len(possible))
    chosen = np.random.default_rng((seed, number)).choice(possible, count, replace=False)
    return tuple(sorted(chosen.tolist()))


def _materialised(space: MBConvSpace, genome: np.ndarray, exits: Sequence[int]) -> tuple[tuple[Segment, ...], Weights]:
    """The network of a genome, as it is cut out of any supernet; its weights are ones, which stand for others."""
    params, stats = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(1), leaf.shape), _shapes_of_supernet(space))
    backbone: Backbone = jax.tree.map(np.asarray, space.decode(jnp.asarray(genome)))
    return materialise(space, params, stats, backbone=backbone, exits=exits, image_size=space.resolution[0])


@functools.cache
def _shapes_of_supernet(space: MBConvSpace) -> tuple[Parameters, BatchStats]:
    size = space.resolution[0]
    params = jax.eval_shape(lambda: initialise(space, jax.random.key(0)))
    images = jax.ShapeDtypeStruct((1, 1, size, size, space.in_channels), jnp.float32)
    estimate = functools.partial(estimate_batch_stats, space, storage=Storage(NumberFormat.INT8))
    return params, jax.eval_shape(estimate, params, space.largest(), images)


def _images(size: int, mean: Sequence[float], deviation: Sequence[float]) -> dict[str, Any]:
    return {"shape": [size, size, len(mean)], "mean": list(mean), "deviation": list(deviation)}


@dataclass
class _SharedValues:
    """Random values for weights: one file for each power of two, as long as the largest array of that deviation."""

    sizes: dict[int, int] = field(default_factory=dict)

    def place(self, values: np.ndarray) -> tuple[str, int]:
        """Returns the file for an array, by its fan-in, and where it begins there."""
        std = _BIAS_STD if values.ndim == 1 else (values.size / values.shape[values.ndim == 2]) ** -0.5
        power = max(math.ceil(-math.log2(std)), 0)
        self.sizes[power] = max(self.sizes.get(power, 0), values.size)
        return f"weights{power}.bin", 0

    def write(self, folder: Path) -> None:
        """Writes the files."""
        for power, size in self.sizes.items():
            values = np.random.default_rng(power).standard_normal(size, np.float32) * np.float32(2.0**-power)
            write_whole(folder / f"weights{power}.bin", values.astype("<f4").tobytes())


@dataclass
class _Writer:
    """Writes models and collects the cases that they are.

    Attributes:
        folder: Where models go.
        batch: Images per run.
        elsewhere: Where the values of weights are; None: in the models.
        cases: What `cases.json` says.
    """

    folder: Path
    batch: int
    elsewhere: Elsewhere | None
    cases: list[dict[str, Any]] = field(default_factory=list)

    def add_own(
        self,
        kind: _Kind,
        name: str,
        parts: Sequence[Segment],
        weights: Weights,
        shapes: Shapes,
        texts: Sequence[str],
        *,
        number_format: NumberFormat,
        **about: Any,
    ) -> dict[str, Any]:
        """Adds a network of the project by its segments and weights, otherwise as `add`."""
        options: dict[str, Any] = {"shapes": shapes, "batch": self.batch, "elsewhere": self.elsewhere}
        options["number_format"] = number_format
        *size, channels = shapes[parts[0].takes]
        blobs = [segment_as_onnx(part, weights, **options) for part in parts]
        return self.add(kind, name, parts, blobs, (channels, *size), texts, number_format=number_format, **about)

    def add(
        self,
        kind: _Kind,
        name: str,
        parts: Sequence[Segment | GivenSegment],
        blobs: Sequence[bytes],
        size: Sequence[int],
        texts: Sequence[str],
        *,
        family: str,
        images: dict[str, Any] | None,
        score: str | None,
        number_format: NumberFormat = NumberFormat.FP32,
    ) -> dict[str, Any]:
        """Adds a network by its segments, and returns the case; the classifier is scored by its confidence."""
        entries = []
        for number, (segment, blob, text) in enumerate(zip(parts, blobs, texts, strict=True)):
            file = f"{name}.segment{number}.onnx" if kind == "path" else f"{name}.onnx"
            write_whole(self.folder / file, blob)
            entries.append(
                {
                    "file": file,
                    "sha256": hashlib.sha256(blob).hexdigest(),
                    "input": segment.takes,
                    "outputs": segment.outputs,
                    "score": "confidence" if score and number == len(parts) - 1 else score,
                    "layers": text,
                }
            )
        entry = {
            "name": name,
            "family": family,
            "kind": kind,
            "batch": self.batch,
            "format": number_format.name.lower(),
            "images": images,
            "inputs": {parts[0].takes: [self.batch, *size]},
            "segments": entries,
        }
        self.cases.append(entry)
        return entry

    def add_layer(self, kind: LayerKind, side: int, channels: int, number_format: NumberFormat) -> None:
        """Adds a layer on square maps of `side` pixels; a classifier behind it makes it a network that has a score."""
        pixels, wide, maps, flat = side**2, _RATIO * channels, (side, side, channels), (channels,)
        dense, linear, inputs = 9 * channels * _DENSE_OUT, wide * channels, channels * pixels
        # What computes it, shapes of kernel, input and output, and MACs, weights, inputs and outputs of one sample.
        choices: dict[LayerKind, tuple[Kind, tuple[int, ...], Shapes, tuple[int, int, int, int]]] = {
            LayerKind.DENSE: (
                "conv",
                (3, 3, channels, _DENSE_OUT),
                {_X: maps, _Y: (side, side, _DENSE_OUT)},
                (dense * pixels, dense, inputs, _DENSE_OUT * pixels),
            ),
            LayerKind.POINTWISE: (
                "linear",
                (channels, wide),
                {_X: maps, _Y: (side, side, wide)},
                (linear * pixels, linear, inputs, wide * pixels),
            ),
            LayerKind.DEPTHWISE: (
                "depthwise",
                (3, 3, channels),
                {_X: maps, _Y: maps},
                (9 * inputs, 9 * channels, inputs, inputs),
            ),
            LayerKind.POOLING: ("mean", (), {_X: maps, _Y: flat}, (inputs, 0, inputs, channels)),
            LayerKind.ELEMENTWISE: ("add", (), {_X: maps, _Y: maps}, (inputs, 0, inputs, inputs)),  # x + x
            LayerKind.LINEAR: ("linear", (channels, wide), {_X: flat, _Y: (wide,)}, (linear, linear, channels, wide)),
        }
        computes, kernel, shapes, counts = choices[kind]
        takes, padded = ((_X, _X) if computes == "add" else (_X,)), kind in (LayerKind.DENSE, LayerKind.DEPTHWISE)
        layers, rows, last = [Layer(_Y, computes, takes, padding=1 if padded else 0)], [(kind, *counts)], _Y
        *size, width = shapes[_Y]
        if size:
            layers, last = [*layers, Layer("mean", "mean", (_Y,))], "mean"
            rows.append((LayerKind.POOLING, width * math.prod(size), 0, width * math.prod(size), width))
        rows.append((LayerKind.LINEAR, width * _CLASSES, width * _CLASSES, width, _CLASSES))
        layers.append(Layer("logits", "linear", (last,)))
        shapes = {**shapes, "mean": (width,), "logits": (_CLASSES,)}
        arrays = {"logits": {"kernel": jnp.ones((width, _CLASSES), jnp.float32)}}
        if kernel:
            arrays[_Y] = {"kernel": jnp.ones(kernel, jnp.float32)}
        for stored in (_X, _Y, *(("mean",) if size else ())):
            arrays[stored] = {**arrays.get(stored, {}), RANGE: jnp.asarray(UNIT)}
        kinds, macs, weights, reads, writes = (list(column) for column in zip(*rows, strict=True))
        table = layer_table(kinds, macs, weight_elements=weights, input_elements=reads, output_elements=writes)
        name = _in(number_format, f"{LAYER}{kind.name.lower()}-{side}-{channels}")
        segment = Segment(tuple(layers), _X, features=None, logits="logits", confidence=None)
        about: dict[str, Any] = {"family": name, "images": None, "score": "confidence", "number_format": number_format}
        self.add_own("layer", name, [segment], arrays, shapes, [format_layers(table)], **about)

    def finish(self, folder: Path, reference: str) -> Kit:
        """Adds what measures the cases, and says what there is."""
        write_whole(self.folder / MEASURE, (Path(measuring.__file__).parent / MEASURE).read_bytes())
        files = dict(_digests(self.folder))
        digest = cases_digest(self.cases)
        content = {"form": FORM, "digest": digest, "reference": reference, "cases": self.cases, "files": files}
        write_text(self.folder / CASES, json.dumps(content, indent=1) + "\n")
        size = sum(path.stat().st_size for path in self.folder.iterdir())
        return Kit(folder, digest, len(self.cases), size)


def cases_digest(cases: Sequence[dict[str, Any]]) -> str:
    """Returns the digest of cases: 12 hexadecimal digits."""
    text = json.dumps(cases, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:12]


def _digests(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()):
        yield path.name, hashlib.sha256(path.read_bytes()).hexdigest()


def require_onnx() -> None:
    """Raises ValueError where the package that writes ONNX is missing, with what to install."""
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise ValueError("onnx: expected the extra onnx, got none; pip install 'hadas-jax[onnx]'") from None
