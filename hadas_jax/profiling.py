"""What to measure on this machine: sub-networks of a space at their true size, and single layers of every kind.

On onnxruntime it is a kit, as a board gets one. On JAX layers are in the form in which this project's networks run
them, and a sub-network is cut out of its space, so that it computes nothing that is masked.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.deploy.kit import write_space_kit
from hadas_jax.spaces import Backbone, MBConvSpace
from hadas_jax.spaces.design import space_to_profile as space_to_profile
from hadas_jax.spaces.design import spread_genomes, with_tables
from hadas_jax.supernet import BatchStats, Parameters, cut_space, estimate_batch_stats, initialise, run_trunk
from hadas_jax.supernet.layers import conv, depthwise_conv
from hw_models import LayerKind, LayerTable, layer_table
from hw_models.measuring import Case, Machine, find_engine, format_layers, kit_cases, kit_labels, read_kit

_SIZES = ((64, 16), (32, 48), (16, 128), (8, 256))  # pixels of a side, channels
_RATIO = 4  # output to input channels of pointwise and linear layers
_DENSE_OUT = 32


@dataclass(frozen=True)
class JaxCase:
    """A network that JAX runs, for `hw_models.measuring.profile`.

    Attributes:
        name: Of the network, unique within a profile.
        family: What cross-validation leaves out together.
        table: What it asks of the hardware, for one sample; columns [L].
        build: Returns a callable that computes arrays; called once a round, so that nothing large is kept in between.
        batch: Samples per run.
        format: Of weights and activations.
    """

    name: str
    family: str
    table: LayerTable
    build: Callable[[], Callable[[], Any]]
    batch: int = 1
    format: str = "fp32"

    @property
    def layers(self) -> tuple[str, ...]:
        """Its layer table as the text of the column `layers`."""
        return (format_layers(self.table),)

    def start(self) -> "_Running":
        """Builds it; the result runs it once and says how long that took."""
        return _Running(self.build())


class _Running(NamedTuple):
    compute: Callable[[], Any]

    def run(self) -> tuple[float]:
        """Runs until the result is ready; returns the seconds."""
        begin = time.perf_counter()
        jax.block_until_ready(self.compute())
        return (time.perf_counter() - begin,)


class Subjects(NamedTuple):
    """What to measure, and on what.

    Attributes:
        cases: The networks.
        reference: Name of the one that runs in turn with every other one: the largest.
        machine: Where they run.
        labels: What rows say of the runtime.
    """

    cases: Sequence[Case | JaxCase]
    reference: str
    machine: Machine
    labels: dict[str, str | None]


def on_jax(space: MBConvSpace, *, networks: int, layers: int, batch: int = 1, seed: int = 0) -> Subjects:
    """Returns sub-networks and single layers as JAX runs them, see `network_cases` and `layer_cases`."""
    sub_networks = network_cases(space, networks, batch=batch, seed=seed)
    labels = {"runtime": "jax", "runtime_version": jax.__version__, "provider": jax.default_backend().upper()}
    reference = sub_networks[min(1, networks - 1)].name
    return Subjects(sub_networks + layer_cases(layers, batch=batch), reference, this_machine(), {**labels})


def on_onnxruntime(
    folder: Path,
    space: MBConvSpace,
    *,
    networks: int,
    layers: int,
    batch: int = 1,
    number_formats: Sequence[str] = ("fp32",),
    seed: int = 0,
) -> Subjects:
    """Writes a kit, see `hadas_jax.deploy.kit.write_space_kit`, and returns its networks on this machine's CPU.

    Raises:
        ValueError: onnxruntime or the extra onnx is missing, or a number is out of range.
    """
    engine = find_engine("onnxruntime")
    design: dict[str, Any] = {"networks": networks, "layers": layers, "batch": batch, "seed": seed}
    write_space_kit(folder, space, number_formats=number_formats, **design)
    kit = read_kit(folder)
    labels = kit_labels(kit, engine)
    return Subjects(kit_cases(folder, kit, engine), kit["reference"], Machine(engine.processor), labels)


def this_machine() -> Machine:
    """Returns the machine that this runs on, with the processor that JAX computes on."""
    if jax.default_backend() == "gpu":
        return Machine("gpu", accelerator=jax.devices()[0].device_kind)
    return Machine("cpu")


def network_cases(space: MBConvSpace, networks: int, *, batch: int = 1, seed: int = 0) -> list[JaxCase]:
    """Returns cases of sub-networks: the smallest, the largest, and others that fill the space.

    Raises:
        ValueError: A number is below 1, or `networks` exceeds the space.
    """
    if batch < 1:
        raise ValueError(f"batch: expected 1 or more, got {batch}")
    backbones, tables = with_tables(space, spread_genomes(space, networks, seed=seed))
    cases = []
    for n in range(networks):
        backbone, table = jax.tree.map(lambda leaf, n=n: leaf[n], (backbones, tables))
        rows = np.flatnonzero(table.active > 0)
        layers = jax.tree.map(lambda column, rows=rows: jnp.asarray(column[rows]), table)
        name = f"{space.name}-{backbone.resolution}-{seed}-{n:03d}"
        cases.append(JaxCase(name, name, layers, partial(_start_network, space, backbone, batch), batch))
    return cases


def _start_network(space: MBConvSpace, backbone: Backbone, batch: int) -> Callable[[], Any]:
    """Returns a callable that runs the network of one backbone, with random weights and without exits.

    Compiled anew in every call (from JAX's compilation cache, where there is one): code of many networks held at once
    would run into the operating system's limit of memory maps.
    """
    space = dataclasses.replace(cut_space(space, backbone), first_exit=int(np.sum(backbone.depth)))  # without exits
    size = int(backbone.resolution)
    images = jax.ShapeDtypeStruct((batch, size, size, space.in_channels), jnp.float32)
    params = jax.eval_shape(lambda: initialise(space, jax.random.key(0)))
    batches = jax.ShapeDtypeStruct((1, *images.shape), jnp.float32)
    shapes = params, jax.eval_shape(partial(estimate_batch_stats, space), params, backbone, batches)

    def logits(weights: tuple[Parameters, BatchStats], images: jax.Array) -> jax.Array:
        params, stats = weights
        return run_trunk(space, params.backbone, backbone, images, stats=stats.backbone, unroll=True)[1]

    compiled = jax.jit(logits).lower(shapes, images).compile()
    weights = jax.tree_util.tree_map_with_path(_random_leaf, shapes)
    return partial(compiled, weights, jnp.asarray(_random_values(images.shape)))


def _random_leaf(path: Sequence[Any], leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """Values that keep activations finite: neither their scale nor their sign matters to a dense network's time."""
    name = path[-1].key
    if name in ("scale", "var"):
        return jnp.ones(leaf.shape, leaf.dtype)
    if name in ("bias", "mean"):
        return jnp.zeros(leaf.shape, leaf.dtype)
    return jnp.asarray(_random_values(leaf.shape) / np.float32(np.prod(leaf.shape[:-1]) ** 0.5))


def _random_values(shape: tuple[int, ...]) -> np.ndarray:
    """Normal float32 numbers, the same few thousand over and over, which is quick at any size."""
    return np.resize(np.random.default_rng(0).standard_normal(4093, np.float32), shape)


def layer_cases(sizes: int, *, batch: int = 1) -> list[JaxCase]:
    """Returns cases of single layers, all layers of a kind in one family.

    Args:
        sizes: Number of sizes of each kind, 0 to 4.
        batch: Images per run.

    Raises:
        ValueError: `sizes` is out of range.
    """
    if not 0 <= sizes <= len(_SIZES):
        raise ValueError(f"layers: expected 0 to {len(_SIZES)} sizes of each kind, got {sizes}")
    return [_layer_case(kind, side, channels, batch) for side, channels in _SIZES[:sizes] for kind in LayerKind]


def _layer_case(kind: LayerKind, side: int, channels: int, batch: int) -> JaxCase:
    """The case of one layer on square maps of `side` pixels; compiles when it is built first."""
    pixels, wide, maps = side**2, _RATIO * channels, (batch, side, side, channels)
    dense, linear, inputs = 9 * channels * _DENSE_OUT, wide * channels, channels * pixels
    # Per kind what computes it, shapes of input and weights (or a second input), and MACs, weights, inputs and outputs
    # of one sample.
    layers: dict[LayerKind, tuple[Callable[..., Any], tuple[tuple[int, ...], ...], tuple[int, int, int, int]]] = {
        LayerKind.DENSE: (
            partial(conv, stride=1, padding=1),
            (maps, (3, 3, channels, _DENSE_OUT)),
            (dense * pixels, dense, inputs, _DENSE_OUT * pixels),
        ),
        LayerKind.POINTWISE: (jnp.matmul, (maps, (channels, wide)), (linear * pixels, linear, inputs, wide * pixels)),
        LayerKind.DEPTHWISE: (depthwise_conv, (maps, (3, 3, channels)), (9 * inputs, 9 * channels, inputs, inputs)),
        LayerKind.POOLING: (partial(jnp.mean, axis=(1, 2)), (maps,), (inputs, 0, inputs, channels)),
        LayerKind.ELEMENTWISE: (jnp.add, (maps, maps), (inputs, 0, 2 * inputs, inputs)),
        LayerKind.LINEAR: (jnp.matmul, ((batch, channels), (channels, wide)), (linear, linear, channels, wide)),
    }
    function, shapes, (macs, weights, reads, writes) = layers[kind]
    table = layer_table([kind], [macs], weight_elements=[weights], input_elements=[reads], output_elements=[writes])

    @cache
    def compiled() -> Callable[..., Any]:
        structs = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)
        return jax.jit(function).lower(*structs).compile()

    def start() -> Callable[[], Any]:
        return partial(compiled(), *(jnp.asarray(_random_values(shape)) for shape in shapes))

    name = f"layer-{kind.name.lower()}"
    return JaxCase(f"{name}-{side}-{channels}", name, table, start, batch)
