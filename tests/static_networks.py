"""A static network of random weights, cut out of a small space, for suites about deployment."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from hadas_jax.deploy.architecture import Architecture
from hadas_jax.deploy.materialise import materialise
from hadas_jax.deploy.static_network import StaticNetwork, outcomes_at_exits, predict
from hadas_jax.methods.hadas.results import Performance
from hadas_jax.settings import NO_CONSTRAINTS
from hw_models import load_device, operating_points, read_device_file

_SPLIT = dict.fromkeys(("ideal", "deployable", "static"), Performance(0.1, 0.002, 0.01)) | {"shares": (0.5, 0.3, 0.2)}


def cut(space, network, genome, exits, image_size=9):
    """Segments and weights of a genome."""
    backbone = space.decode(jnp.asarray(genome, jnp.int32))
    return materialise(space, *network, backbone=backbone, exits=exits, image_size=image_size)


def static_network(space, network, *, thresholds=(0.5, 0.5), policy="confidence") -> StaticNetwork:
    """The largest backbone with exits after blocks 1 and 2."""
    device = load_device("tx2-gpu")
    genome = tuple(space.largest_genome.tolist())
    architecture = Architecture(
        space=space,
        genome=genome,
        backbone={name: np.asarray(v).tolist() for name, v in vars(space.largest()).items() if v is not None},
        exits=(1, 2),
        thresholds=thresholds,
        policy=policy,
        found_by="deployable",
        clocks_mhz={
            name: float(getattr(operating_points(device), f"{name}_hz")[-1]) / 1e6
            for name in ("core", "memory", "host")
        },
        device={"file": read_device_file("tx2-gpu"), "number_format": "fp32"},
        weights=1,
        class_names=("a", "b", "c"),
        normalisation={"mean": (0.25,), "deviation": (0.5,)},
        supernet={"path": "supernet", "sha256": "0" * 64},
        selection=_SPLIT,
        test=_SPLIT,
        origin={"workdir": "run", "prefer": "knee", "limits": NO_CONSTRAINTS, "settings": {}, "versions": {}},
    )
    return StaticNetwork(architecture, *cut(space, network, genome, (1, 2)), 9)


def at_median_scores(network, data) -> StaticNetwork:
    """The network with thresholds at the middle of the scores that it gives some images."""
    outcomes = outcomes_at_exits(*predict(network.segments, network.weights, data), np.asarray(data.labels))
    scores, middle = np.sort(np.asarray(outcomes.confidence[:-1]), axis=1), data.count // 2
    thresholds = tuple(float(pair.mean()) for pair in scores[:, middle - 1 : middle + 1])
    architecture = network.architecture.model_copy(update={"thresholds": thresholds})
    return dataclasses.replace(network, architecture=architecture)
