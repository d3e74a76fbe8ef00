"""A whole run for a given network: features, heads, thresholds, exits x clocks, report.

Features are kept on disk and resumed from there; heads are kept one by one. What follows is exact and computed anew:
the same inner engine that searches over backbones searches here over the exits and clocks of one.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.data import LabelledImages, Splits, load
from hadas_jax.evaluation import Outcomes
from hadas_jax.evaluation.evaluator import outcomes_of_logits
from hadas_jax.frozen.backbone import FrozenNetwork, Place
from hadas_jax.frozen.description import MODEL, DescribedHead, GivenDescription, GivenHeads
from hadas_jax.frozen.features import PARTS, Features, collect_features
from hadas_jax.frozen.heads import Head, Training, train_head
from hadas_jax.frozen.stages import Stage, StagedNetwork
from hadas_jax.methods.hadas.constraints import require_reachable
from hadas_jax.methods.hadas.results import Result, write_result
from hadas_jax.methods.hadas.selection import choose, measure, set_thresholds
from hadas_jax.runs.loop import Progress
from hadas_jax.runs.names import FEATURES, GIVEN
from hadas_jax.runs.workdir import WorkDir, versions
from hadas_jax.settings import ExitsSettings
from hadas_jax.spaces import GivenNetwork
from hadas_jax.spaces.given import Row
from hw_models import Device, operating_points
from hw_models.catalogue import chosen_device
from hw_models.files import as_npz, write_whole
from hw_models.graphs import GraphLayer
from hw_models.onnx_graphs import read_onnx

_MEGABYTE = 2**20


class ExitsRun:
    """A run: reads its inputs at once, so that mistakes show before any work.

    Args:
        settings: Settings of the run.
        stages: The network as JAX functions, see `hadas_jax.frozen.stages`; None: `model` of the settings.

    Raises:
        ValueError: The model, the data set or the device do not fit.
    """

    def __init__(self, settings: ExitsSettings, *, stages: Sequence[Stage] | None = None) -> None:
        given, size = settings.given, settings.data.image_size
        self.device: Device = chosen_device(settings.device, settings.operating)
        if self.device.blocks is not None:
            raise ValueError(f"device {settings.device}: expected one that prices layers, got a table of blocks")
        self.network: FrozenNetwork | StagedNetwork
        if stages is None:
            if not given.model:
                raise ValueError("model: expected an ONNX file of a classifier, got none")
            self.network = FrozenNetwork(given.model, layout=given.layout, image_size=size)
        else:
            first = load(settings.data, stream_seed=settings.seed)
            about = {"image_size": first.image_size, "channels": first.channels}
            self.network = StagedNetwork(stages, **about, source=given.model or "stages")
        self.settings = settings.replace(image_size=self.network.image_size)
        if size not in (None, self.network.image_size):
            raise ValueError(
                f"image_size: expected {self.network.image_size}, as {self.network.source} takes, got {size}"
            )
        splits = load(self.settings.data, stream_seed=settings.seed)
        self._require_fit(splits)
        self.splits = splits.standardised_by(*given.normalisation(splits.channels))
        before = self.network.penultimate if given.new_classifier else None
        last = None if before is None else before.row
        self.places = self.network.useful_places(self.device, given.places, before=last)
        if not self.places:
            raise ValueError(
                f"{given.model}: expected a network with places where one tensor alone passes on, got none between "
                "5 % and 95 % of its latency"
            )
        self._classifier_at = before

    def _require_fit(self, splits: Splits) -> None:
        network, given = self.network, self.settings.given
        if splits.channels != network.channels:
            raise ValueError(
                f"dataset {splits.name}: expected images of {network.channels} channels as {network.source} takes, got "
                f"{splits.channels}"
            )
        if not given.new_classifier and splits.classes != network.classes:
            raise ValueError(
                f"dataset {splits.name}: expected {network.classes} classes as {network.source} tells, got "
                f"{splits.classes}; `new_classifier` trains one for these"
            )

    def execute(self, workdir: WorkDir, progress: Progress) -> Result:
        """Runs all stages that are not done yet, and writes the result into the work directory.

        Raises:
            ValueError: The model cannot be run, or what was kept cannot be used.
        """
        given, extra = self.settings.given, [] if self._classifier_at is None else [self._classifier_at]
        features = collect_features(
            workdir.path / FEATURES,
            self.network,
            [*self.places, *extra],
            self.splits,
            with_logits=not extra,
            memory_mb=given.memory_mb,
            disk_mb=given.features_mb,
            seed=self.settings.seed,
            progress=progress,
        )
        heads = self.train(features, progress)
        if isinstance(self.network, StagedNetwork):
            heads.write(workdir.path / GIVEN, self.network.blobs())
        else:
            heads.write(workdir.path / GIVEN, {MODEL: read_onnx(given.model).SerializeToString()})
        result = self.deploy(heads, features, progress)
        context = {
            "settings": self.settings.flat(),
            "data": self.splits.record.as_json(),
            "versions": versions(),
        }
        write_result(result, workdir.path, context=context)
        return result

    def train(self, features: Features, progress: Progress) -> GivenHeads:
        """Trains a head at every place, and before them the new classifier, where one is asked for."""
        given, count = self.settings.given, len(self.places)
        about = Training(
            labels=features.labels("train"),
            teacher=features.logits("train") if features.has_logits else None,
            validation=features.labels("validation"),
            classes=self.splits.classes,
            epochs=given.head_epochs,
            bytes=int(given.memory_mb * _MEGABYTE / 4),
            seed=self.settings.seed,
        )
        progress.stage("heads", count + (self._classifier_at is not None))
        trained: list[tuple[Head, float]] = []
        if self._classifier_at is not None:
            head, accuracy = self._kept_head(features, count, about)
            progress.update(1, {"accuracy": accuracy})
            teacher, _ = head.predict([features.of("train", count)[how] for how in head.pools])
            about = dataclasses.replace(about, teacher=teacher)
            trained.append((head, accuracy))
        for place in range(count):
            trained.append(self._kept_head(features, place, about))
            progress.update(len(trained), {"accuracy": trained[-1][1]})
        classifier = trained.pop(0) if self._classifier_at is not None else None
        described = [self._described(*pair) for pair in zip(self.places, trained, strict=True)]
        new = None
        if classifier is not None and self._classifier_at is not None:
            new = self._described(self._classifier_at, classifier)
        head_of = [head for head, _ in trained]
        description = GivenDescription(
            normalisation=self.splits.normalisation,
            class_names=self.splits.class_names,
            data=self.splits.record,
            source=f"hadas exits, {Path(self.network.source).name}",
            details={"settings": self.settings.flat()},
            space=self._space(head_of, classifier and classifier[0]),
            layout="stages" if isinstance(self.network, StagedNetwork) else given.layout,
            heads=tuple(described),
            classifier=new,
        )
        return GivenHeads(self.network, description, tuple(head_of), classifier and classifier[0])

    @staticmethod
    def _described(place: Place, trained: tuple[Head, float]) -> DescribedHead:
        head, accuracy = trained
        return DescribedHead(place, head.pools, head.kind, accuracy)

    def _kept_head(self, features: Features, place: int, about: Training) -> tuple[Head, float]:
        """Trains the head at a place, or reads it where it was kept with all that it follows from."""
        teacher = b"" if about.teacher is None else np.ascontiguousarray(about.teacher).tobytes()
        record = (features.folder / "features.json").read_bytes()
        follows = [record, teacher, about.labels.tobytes(), f"{about.epochs} {about.seed} {about.bytes}".encode()]
        key = hashlib.sha256(b"".join(follows)).hexdigest()
        path = features.folder / f"head-{place:02d}-{key[:16]}.npz"
        if path.is_file():
            with np.load(path) as file:
                arrays = {
                    name: {part: file[f"{name}/{part}"] for part in ("kernel", "bias")} for name in file["layers"]
                }
                return Head.of_arrays(file["pools"].tolist(), arrays), float(file["accuracy"])
        head, accuracy = train_head(features.of("train", place), features.of("validation", place), about)
        arrays = head.as_arrays()
        flat = {f"{name}/{part}": leaf for name, layer in arrays.items() for part, leaf in layer.items()}
        told = {"pools": np.array(head.pools), "layers": np.array(list(arrays)), "accuracy": np.array(accuracy)}
        write_whole(path, as_npz({**flat, **told}))
        return head, accuracy

    def _space(self, heads: list[Head], classifier: Head | None) -> GivenNetwork:
        """The network as a space of one design, with what its parts ask of the hardware."""
        network, learned = self.network, self.settings.deployment.policy == "learned"
        last = self._classifier_at
        trunk = network.rows_between([*self.places, *([last] if last else [])])
        rows = [_rows(part) for part in trunk]
        if last is not None and classifier is not None:
            rows = [*rows[:-2], (*rows[-2], *classifier.rows(int(np.prod(last.shape)), learned=False))]
        used = [layer for part in (trunk if last is None else trunk[:-1]) for layer in part]
        sizes = [int(np.prod(place.shape)) for place in self.places]
        widths = [sum(place.width for _ in head.pools) for place, head in zip(self.places, heads, strict=True)]
        return GivenNetwork(
            name=Path(network.source).stem,
            image_size=network.image_size,
            in_channels=network.channels,
            classes=self.splits.classes,
            places=tuple(place.tensor for place in self.places),
            maps=tuple((size // place.width, place.width) for place, size in zip(self.places, sizes, strict=True)),
            trunk=tuple(rows),
            heads=tuple(tuple(head.rows(size, learned=learned)) for head, size in zip(heads, sizes, strict=True)),
            trunk_memory=max(layer.memory for layer in used),
            head_memory=tuple(size + 2 * width for size, width in zip(sizes, widths, strict=True)),
        )

    def outcomes(self, heads: GivenHeads, features: Features, part: str) -> Outcomes:
        """Returns what happens at every exit on the images of a part, [E + 1, N]."""
        count = len(self.places)
        found = [
            head.predict([features.of(part, place)[how] for how in head.pools])
            for place, head in enumerate(heads.heads)
        ]
        if heads.classifier is None:
            last = np.asarray(features.logits(part))
        else:
            last, _ = heads.classifier.predict([features.of(part, count)[how] for how in heads.classifier.pools])
        logits = np.stack([*(logits for logits, _ in found), last])
        confidence = np.stack([confidence for _, confidence in found])
        return outcomes_of_logits(
            jnp.asarray(logits), jnp.asarray(confidence), jnp.asarray(features.labels(part)), jnp.ones(count + 1, bool)
        )

    def deploy(self, heads: GivenHeads, features: Features, progress: Progress) -> Result:
        """Sets thresholds, chooses exits and clocks exactly, and measures them on the test split."""
        settings, space, limits = self.settings.deployment, heads.description.space, self.settings.constraints
        require_reachable(limits, space, self.device)
        parts = {id(getattr(self.splits, part)): part for part in PARTS}

        def evaluate(genomes: np.ndarray, data: LabelledImages) -> Outcomes:
            one = self.outcomes(heads, features, parts[id(data)])
            return jax.tree.map(lambda leaf: np.repeat(np.asarray(leaf)[None], len(genomes), axis=0), one)

        progress.stage("thresholds", 1)
        genomes: Any = space.largest_genome[None]
        pool = set_thresholds(
            space,
            self.device,
            genomes,
            splits=self.splits,
            policy=settings.policy,
            evaluate=evaluate,
            limits=limits,
        )
        choices = choose(
            pool,
            front_size=settings.front_size,
            key=jax.random.key(self.settings.seed),
            per_exit_thresholds=settings.per_exit_thresholds,
        )
        progress.update(1, {"designs": float(len(choices.designs))})
        progress.stage("test", 1)
        designs, levels = measure(
            pool, choices, test=self.splits.test, evaluate=evaluate, accuracy_tolerance=settings.accuracy_tolerance
        )
        accuracy = float(np.mean(evaluate(genomes, self.splits.test).correct[0, -1]))
        progress.update(1, {"test_accuracy": accuracy})
        points = len(operating_points(self.device).core_hz)
        return Result(
            designs=designs,
            levels=levels,
            largest_test_accuracy=accuracy,
            smallest_test_accuracy=accuracy,
            backbones=1,
            candidates=2**space.num_exits * points,
            test_images=self.splits.test.count,
            accuracy_tolerance=settings.accuracy_tolerance,
            limits=limits,
            within_limits=choices.within,
        )


def _rows(layers: list[GraphLayer]) -> tuple[Row, ...]:
    return tuple((int(each.kind), each.macs, each.weights, each.inputs, each.outputs, each.kernels) for each in layers)
