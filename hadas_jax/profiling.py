"""What to measure on a machine: sub-networks of a space at their true size, and single layers of every kind.

Layers are in the form in which this project's networks run them; a sub-network is cut out of its space, so that it
computes nothing that is masked.
Shapes: G genes, P candidates, N networks.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.spaces import Backbone, MBConvSpace, load_space, segments, workload
from hadas_jax.supernet import BatchStats, Parameters, cut_space, estimate_batch_stats, initialise, run_trunk
from hadas_jax.supernet.layers import conv, depthwise_conv
from hw_models import LayerKind, LayerTable, layer_table, total_macs
from hw_models.measuring.machine import Machine
from hw_models.measuring.profiling import Case

_CANDIDATES = 1024  # genomes that a design chooses from, at most
_NEAR = 40  # one in so many candidates counts as near to an aim
_SIZES = ((64, 16), (32, 48), (16, 128), (8, 256))  # pixels of a side, channels
_RATIO = 4  # output to input channels of pointwise and linear layers
_DENSE_OUT = 32


def this_machine() -> Machine:
    """Returns the machine that this runs on, with the processor that JAX computes on."""
    if jax.default_backend() == "gpu":
        return Machine("gpu", accelerator=jax.devices()[0].device_kind)
    return Machine("cpu")


def space_to_profile(name: str, resolution: int | None = None) -> MBConvSpace:
    """Returns a space by name with one resolution.

    Args:
        name: One of `hadas_jax.spaces.SPACES`.
        resolution: In pixels; None: the space's smallest, or 8 where images decide, which are then grey and of 10
            classes as the digits are.

    Raises:
        ValueError: No space has this name, or it does not have this resolution.
    """
    space = load_space(name)
    if not space.resolution:
        return space.adapt(in_channels=1, classes=10, image_size=resolution or 8)
    if resolution is not None and resolution not in space.resolution:
        choices = ", ".join(map(str, space.resolution))
        raise ValueError(f"resolution: expected one of {choices} as space {name} has, got {resolution}")
    return dataclasses.replace(space, resolution=(resolution or min(space.resolution),))


def network_cases(space: MBConvSpace, networks: int, *, batch: int = 1, seed: int = 0) -> list[Case]:
    """Returns cases of sub-networks: the smallest, the largest, and others that fill the space.

    Raises:
        ValueError: A number is below 1, or `networks` exceeds the space.
    """
    if batch < 1:
        raise ValueError(f"batch: expected 1 or more, got {batch}")
    backbones, tables = _with_tables(space, _spread_genomes(space, networks, seed=seed))
    cases = []
    for n in range(networks):
        backbone, table = jax.tree.map(lambda leaf, n=n: leaf[n], (backbones, tables))
        rows = np.flatnonzero(table.active > 0)
        layers = jax.tree.map(lambda column, rows=rows: jnp.asarray(column[rows]), table)
        name = f"{space.name}-{backbone.resolution}-{seed}-{n:03d}"
        cases.append(Case(name, name, layers, partial(_start_network, space, backbone, batch), batch))
    return cases


def _spread_genomes(space: MBConvSpace, count: int, *, seed: int = 0) -> np.ndarray:
    """int32[N, G]: the smallest and the largest genome, then others that spread over MACs and genes.

    The others aim at MACs between both ends, in a sequence that fills the logarithmic range evenly however many
    there are (van der Corput's); each is the one most unlike all chosen ones among the candidates nearest to its
    aim. Candidates are drawn from small to large, so that both ends of the range are among them.
    """
    steps = space.codec.cardinalities - 1
    rng = np.random.default_rng(seed)
    drawn = np.unique(rng.binomial(steps, rng.uniform(0, 1, (2 * _CANDIDATES, 1))), axis=0)
    ends = np.stack([space.smallest_genome, space.largest_genome])
    drawn = drawn[~np.any(np.all(drawn[:, None] == ends, axis=2), axis=1)]
    drawn = np.concatenate([ends, rng.permutation(drawn)[: _CANDIDATES - 2]]).astype(np.int32)
    most = len(drawn) // 2
    if not 1 <= count <= most:
        raise ValueError(f"networks: expected 1 to {most}, got {count}")
    macs = np.log(np.asarray(total_macs(_with_tables(space, drawn)[1]), np.float64))
    size = (macs - macs[0]) / (macs[1] - macs[0])
    chosen = [0, 1]
    far = np.min([_differences(drawn, drawn[i], steps) for i in chosen], axis=0)
    for aim in itertools.islice(_van_der_corput(), max(count - 2, 0)):
        free = np.setdiff1d(np.arange(len(drawn)), chosen)
        near = free[np.argsort(np.abs(size[free] - aim), kind="stable")[: max(len(free) // _NEAR, 1)]]
        chosen.append(int(near[np.argmax(far[near])]))
        far = np.minimum(far, _differences(drawn, drawn[chosen[-1]], steps))
    return drawn[chosen[:count]]


def _differences(genomes: np.ndarray, other: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Sums of the genes' differences from another genome, each as a share of its range; [P]."""
    return np.sum(np.abs(genomes - other) / steps, axis=1)


def _van_der_corput() -> Iterator[float]:
    """1/2, 1/4, 3/4, 1/8, ...: the binary digits of 1, 2, 3, ... behind the point in reverse order."""
    for number in itertools.count(1):
        yield int(f"{number:b}"[::-1], 2) / 2 ** number.bit_length()


def _with_tables(space: MBConvSpace, genomes: np.ndarray) -> tuple[Backbone, LayerTable]:
    """Backbones [P] and their layer tables [P, L] without exits, as numpy; any P runs through one compiled size."""
    padded = genomes[np.minimum(np.arange(_CANDIDATES), len(genomes) - 1)]
    return jax.tree.map(lambda leaf: np.asarray(leaf)[: len(genomes)], _tables(space, jnp.asarray(padded)))


@partial(jax.jit, static_argnums=0)
def _tables(space: MBConvSpace, genomes: jax.Array) -> tuple[Backbone, LayerTable]:
    in_trunk = jnp.asarray(segments(space) <= space.num_exits, jnp.float32)

    def one(genome: jax.Array) -> tuple[Backbone, LayerTable]:
        backbone = space.decode(genome)
        table = workload(space, backbone)
        return backbone, dataclasses.replace(table, active=table.active * in_trunk)

    return jax.vmap(one)(genomes)


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


def layer_cases(sizes: int, *, batch: int = 1) -> list[Case]:
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


def _layer_case(kind: LayerKind, side: int, channels: int, batch: int) -> Case:
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
    return Case(f"{name}-{side}-{channels}", name, table, start, batch)
