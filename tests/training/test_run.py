import dataclasses
import json
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fake_tfds import class_image
from PIL import Image
from tiny_hadas import TINY

from hadas_jax.data import Stream, catalogue, load_dataset
from hadas_jax.methods import TrainingRun
from hadas_jax.runs.loop import DivergenceError, scanned
from hadas_jax.runs.workdir import WorkDir
from hadas_jax.settings import TrainSettings
from hadas_jax.supernet import initialise
from hadas_jax.supernet.checkpoint import SupernetCheckpoint, save_supernet
from hadas_jax.training import batches as feeding
from hadas_jax.training import run as training_run

DIGITS = TINY.adapt(in_channels=1, classes=10, image_size=8)
ALL_EXITS = tuple(range(DIGITS.first_exit, DIGITS.positions))
pytestmark = pytest.mark.usefixtures("listed_space")
QUICK = TrainSettings.of(space="tiny", epochs=2, exit_epochs=2, batch=256)


class Silent:
    """Progress that keeps what it is told, and may interrupt the run after some updates."""

    def __init__(self, interrupt_after=None):
        self.updates, self._interrupt_after = [], interrupt_after

    def stage(self, name, total):
        self.updates.append((name, 0))

    def update(self, done, metrics):
        if metrics:
            self.updates.append((self.updates[-1][0], done))
            if len([1 for _, done in self.updates if done]) == self._interrupt_after:
                raise KeyboardInterrupt


@pytest.fixture(scope="module")
def untrained():
    """A supernet of the tiny space for digits with its first weights."""
    params = jax.jit(initialise, static_argnums=0)(DIGITS, jax.random.key(5))
    normalisation = ((0.25,), (0.5,))
    return SupernetCheckpoint(
        space=DIGITS, params=params, trained_exits=ALL_EXITS, normalisation=normalisation, source="a test"
    )


@pytest.fixture
def save(untrained, tmp_path):
    """(changes) -> directory of that supernet with the changes."""

    def save(**changes):
        place = tmp_path / f"net{len(list(tmp_path.iterdir()))}"
        save_supernet(place, dataclasses.replace(untrained, **changes))
        return str(place)

    return save


@pytest.fixture
def images(tmp_path):
    """(classes, channels) -> name of a data set of so many, in the order of its classes; pixels tell the class."""

    def write(classes, channels=1):
        labels = np.repeat(np.arange(classes), 30)
        pixels = np.broadcast_to(10 * labels[:, None, None, None], (len(labels), 8, 8, channels)).astype(np.uint8)
        np.savez(tmp_path / "data.npz", images=pixels, labels=labels)
        return f"npz:{tmp_path / 'data.npz'}"

    return write


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b))


def test_a_run_that_was_interrupted_in_each_stage_ends_with_the_same_weights(tmp_path, undisturbed):
    workdir = WorkDir(tmp_path, kind="train")
    for updates in (1, 2):  # in the supernet's training, then in that of the exits
        with pytest.raises(KeyboardInterrupt):
            TrainingRun(QUICK).train(workdir, Silent(interrupt_after=updates))
    progress = Silent()
    assert same(TrainingRun(QUICK).train(workdir, progress), undisturbed)
    assert len([1 for _, done in progress.updates if done]) == 1
    entries = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [entry["stage"] for entry in entries] == ["supernet"] * 2 + ["exits"] * 2


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The weights after training without interruption."""
    return TrainingRun(QUICK).train(WorkDir(tmp_path_factory.mktemp("undisturbed"), kind="train"), Silent())


@pytest.fixture
def streamed_images(tmp_path, monkeypatch):
    """Name of a folder of images that are said not to fit into memory."""
    rng = np.random.default_rng(0)
    for label in range(3):
        (tmp_path / "images" / str(label)).mkdir(parents=True)
        for number in range(30):
            pixels = class_image(label, rng, height=8, width=8, channels=3)
            Image.fromarray(pixels).save(tmp_path / "images" / str(label) / f"{number}.png")
    monkeypatch.setattr(catalogue, "load_dataset", partial(load_dataset, in_memory_bytes=1))
    return f"folder:{tmp_path / 'images'}"


@pytest.mark.slow
def test_images_that_do_not_fit_into_memory_are_trained_on_and_resumed_alike(streamed_images, tmp_path):
    settings = QUICK.replace(dataset=streamed_images, batch=16)
    expected = TrainingRun(settings).train(WorkDir(tmp_path / "a", kind="train"), Silent())
    run = TrainingRun(settings)
    assert isinstance(run.splits.train, Stream)
    with pytest.raises(KeyboardInterrupt):
        run.train(WorkDir(tmp_path / "b", kind="train"), Silent(interrupt_after=1))
    found = TrainingRun(settings).train(WorkDir(tmp_path / "b", kind="train"), Silent())
    assert same(found, expected)
    assert not same(found.backbone, run.initial_parameters().backbone)
    shares = run.accuracies(found, np.stack([run.space.largest_genome]), run.splits.test)
    assert shares.shape == (1, run.space.num_exits + 1)


def poisoned(down_to):
    """`scanned` with a loss that is infinite past the first chunk until the learning rate is as low as this."""

    def poisoned(step, *, chunk, **rest):
        advance = scanned(step, chunk=chunk, **rest)

        def diverging(state, done, retry):
            following, metrics = advance(state, done, retry)
            bad = {"loss": np.full(chunk, np.inf)} if done and float(state.rate) > down_to else {}
            return following, metrics | bad

        return diverging

    return poisoned


def test_a_loss_that_diverges_goes_back_at_half_the_rate_and_is_recorded(tmp_path, monkeypatch, undisturbed):
    monkeypatch.setattr(feeding, "scanned", poisoned(down_to=0.5))
    run = TrainingRun(QUICK)
    params = run.train_supernet(run.initial_parameters(), WorkDir(tmp_path, kind="train"), Silent())
    entries = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(entry["step"], entry["rollbacks"]) for entry in entries] == [(3, 0), (6, 1)]
    assert all(np.isfinite(entry["loss"]) for entry in entries)
    assert not same(params.backbone, undisturbed.backbone)


@pytest.fixture
def quick_step(monkeypatch):
    """In place of the supernet's step, one that compiles at once and whose loss is no number."""

    def step(state, key, data):
        return dataclasses.replace(state, step=state.step + 1), {"loss": jnp.float32(jnp.nan)}

    monkeypatch.setattr(training_run, "sandwich_step", lambda *_, **__: step)


def test_a_loss_that_stays_infinite_is_one_line(tmp_path, quick_step):
    run = TrainingRun(QUICK)
    with pytest.raises(
        DivergenceError, match=r"supernet: .* with none of 3 rollbacks left; .* lower the learning rate"
    ):
        run.train_supernet(run.initial_parameters(), WorkDir(tmp_path, kind="train"), Silent())


def test_debugging_stops_at_the_first_number_that_is_not_finite(tmp_path, quick_step):
    run = TrainingRun(QUICK.replace(debug=True))
    with pytest.raises(ValueError, match=r"^loss: expected finite numbers, got others at step 1$"):
        run.train_supernet(run.initial_parameters(), WorkDir(tmp_path, kind="train"), Silent())


@pytest.mark.parametrize("error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")])
def test_too_little_memory_for_a_step_names_the_flag(error, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(feeding, "run_stage", fail)
    with pytest.raises(ValueError, match="batch 256: expected a batch that fits into memory"):
        TrainingRun(QUICK).train(WorkDir(tmp_path, kind="train"), Silent())


def test_another_number_of_classes_makes_classifiers_fresh_and_keeps_the_rest(save, images, untrained):
    checkpoint = save(class_names=tuple("0123456789"))
    run = TrainingRun(TrainSettings.of(checkpoint=checkpoint, dataset=images(4)))
    assert run.space.classes == 4
    found = jax.tree_util.tree_leaves_with_path(run.initial_parameters())
    before = dict(jax.tree_util.tree_leaves_with_path(untrained.params))
    fresh = {jax.tree_util.keystr(path) for path, leaf in found if not np.array_equal(leaf, before[path])}
    assert fresh
    assert all("classifier" in name for name in fresh)
    kernels = [leaf for path, leaf in found if "classifier" in jax.tree_util.keystr(path)]
    assert all(leaf.shape[-1] == 4 for leaf in kernels)
    assert run.described(run.initial_parameters(), {}).class_names is None


def test_the_same_number_of_classes_keeps_all_weights(save, untrained):
    assert same(TrainingRun(TrainSettings.of(checkpoint=save())).initial_parameters(), untrained.params)


def test_images_are_standardised_as_the_checkpoint_was_trained(save):
    run = TrainingRun(TrainSettings.of(checkpoint=save()), fine_tune=False)
    assert run.splits.normalisation == ((0.25,), (0.5,))
    for part in (run.splits.train, run.splits.validation, run.splits.calibration, run.splits.test):
        found, _ = part.take(jnp.arange(3))
        np.testing.assert_allclose(found, (np.asarray(part.images[:3]) - 0.25) / 0.5)
    own = TrainingRun(TrainSettings.of(checkpoint=save(normalisation=None)), fine_tune=False)
    assert own.splits.normalisation == TrainingRun(QUICK).splits.normalisation


def test_a_stream_is_standardised_as_the_checkpoint_was_trained(streamed_images, save):
    colours = dataclasses.replace(DIGITS, in_channels=3)
    params = initialise(colours, jax.random.key(0))
    given = ((0.25, 0.5, 0.75), (0.5, 0.25, 0.125))
    settings = TrainSettings.of(
        checkpoint=save(space=colours, params=params, normalisation=given), dataset=streamed_images
    )
    splits = TrainingRun(settings).splits
    assert isinstance(splits.train, Stream)
    assert splits.normalisation == given


def test_parts_to_judge_on_have_at_most_so_many_images():
    splits = TrainingRun(QUICK.replace(evaluation_images=50)).splits
    assert [part.count for part in (splits.validation, splits.calibration, splits.test)] == [50] * 3


def test_batch_norm_statistics_see_all_classes_of_images_in_order(images, monkeypatch):
    monkeypatch.setattr(training_run, "Evaluator", lambda space, params, calibration, settings, dtype: calibration)
    run = TrainingRun(QUICK.replace(dataset=images(6), batch=16, stats_batches=3))
    calibration = run.evaluator(run.initial_parameters())
    assert calibration.shape == (3, 16, 8, 8, 1)
    assert len(np.unique(np.asarray(calibration))) == 6


def stages(monkeypatch, run):
    """Which trainings a run goes through."""
    found = []
    for name in ("train_supernet", "train_exits"):
        monkeypatch.setattr(run, name, lambda params, *_, name=name: found.append(name) or params)
    run.train(None, None)
    return found


@pytest.mark.parametrize(
    ("trained", "searched"),
    [
        ({}, []),
        ({"trained_exits": ALL_EXITS[:1]}, ["train_exits"]),
        ({"trained_exits": ()}, ["train_exits"]),
        ({"exits_of": "largest"}, ["train_exits"]),
    ],
)
def test_a_search_trains_exits_where_they_are_not_all_trained_for_all(save, monkeypatch, trained, searched):
    run = TrainingRun(TrainSettings.of(checkpoint=save(**trained)), fine_tune=False)
    assert stages(monkeypatch, run) == searched


@pytest.mark.parametrize(("epochs", "expected"), [(1, ["train_supernet", "train_exits"]), (0, ["train_exits"])])
def test_a_training_trains_exits_in_any_case_and_the_supernet_for_some_epochs(save, monkeypatch, epochs, expected):
    assert stages(monkeypatch, TrainingRun(TrainSettings.of(checkpoint=save(), epochs=epochs))) == expected


def test_exits_of_one_backbone_are_fresh_and_said_to_be_its(save, untrained):
    run = TrainingRun(TrainSettings.of(checkpoint=save(), epochs=0), exits_for="smallest")
    params = run.initial_parameters()
    assert same(params.backbone, untrained.params.backbone)
    assert not same(params.heads, untrained.params.heads)
    described = run.described(params, {})
    assert described.exits_of == "smallest"
    assert 0 < len(described.trained_exits) < len(ALL_EXITS)


def test_a_supernet_that_is_kept_keeps_its_class_names(save, images):
    names = tuple("abcdefghij")
    run = TrainingRun(TrainSettings.of(checkpoint=save(class_names=names), epochs=0, dataset=images(4)))
    assert (run.space.classes, run.described(run.initial_parameters(), {}).class_names) == (10, names)


def test_where_a_supernet_comes_from_is_told_without_the_users_folders(save, images):
    run = TrainingRun(TrainSettings.of(checkpoint=save(), dataset=images(4)))
    assert run.described(run.initial_parameters(), {}).source == "hadas train on npz:data.npz, from: a test"


def test_a_published_backbone_runs_at_the_size_of_a_space_of_one_resolution():
    run = TrainingRun(TrainSettings.of(space="attentivenas-native"), exits_for="a0")
    assert int(run.exits_backbone.resolution) == 8
    assert len(run.trained_exits) == 12


def test_resolutions_are_chosen_from_those_of_the_space():
    run = TrainingRun(TrainSettings.of(space="attentivenas", resolutions=(256, 192)))
    assert run.space.resolution == (192, 256)


MISTAKES = [
    ({"space": "digits"}, {}, r"space digits: expected tiny as checkpoint .* has, or leave it out"),
    ({"resolutions": (8, 9)}, {}, r"resolutions: expected some of 8 as space tiny has, got 9"),
    ({}, {"exits_for": "a9"}, r"exits_for: expected one of largest, smallest, a0, .*, a6, got 'a9'"),
    ({}, {"exits_for": "a0"}, r"exits_for a0: expected a backbone of the space tiny: "),
]


@pytest.mark.parametrize(("settings", "arguments", "message"), MISTAKES)
def test_what_does_not_fit_a_checkpoint_is_named(save, settings, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        TrainingRun(TrainSettings.of(checkpoint=save(), **settings), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fine_tune", [False, True])
def test_images_of_other_channels_than_the_checkpoints_are_refused(save, images, fine_tune):
    with pytest.raises(ValueError, match=r"expected images of 1 channels as checkpoint .* takes, got 3"):
        TrainingRun(TrainSettings.of(checkpoint=save(), dataset=images(4, channels=3)), fine_tune=fine_tune)


@pytest.mark.parametrize(("fine_tune", "epochs"), [(False, 28), (True, 0)])
def test_more_classes_than_a_checkpoint_has_need_training(save, images, fine_tune, epochs):
    settings = TrainSettings.of(checkpoint=save(), dataset=images(12), epochs=epochs)
    with pytest.raises(ValueError, match=r"expected at most 10 classes .*, got 12; hadas train --checkpoint"):
        TrainingRun(settings, fine_tune=fine_tune)


def test_fewer_classes_than_a_checkpoint_has_will_do_for_a_search(save, images):
    settings = TrainSettings.of(checkpoint=save(), dataset=images(4))
    assert TrainingRun(settings, fine_tune=False).space.classes == 10


@pytest.mark.parametrize(("fine_tune", "epochs"), [(False, 28), (True, 0)])
def test_a_fresh_classifier_must_be_trained_first(save, fine_tune, epochs):
    checkpoint = save(has_classifier=False)
    with pytest.raises(ValueError, match="expected a trained classifier, got a fresh one; hadas train --checkpoint"):
        TrainingRun(TrainSettings.of(checkpoint=checkpoint, epochs=epochs), fine_tune=fine_tune)
    assert TrainingRun(TrainSettings.of(checkpoint=checkpoint))


def test_classes_of_other_names_than_the_checkpoints_are_refused(save, tmp_path):
    names = np.array(["cat", "dog"])
    pixels = np.random.default_rng(0).integers(0, 255, (60, 8, 8), np.uint8)
    np.savez(tmp_path / "named.npz", images=pixels, labels=np.arange(60) % 2, class_names=names)
    dataset = f"npz:{tmp_path / 'named.npz'}"
    known = save(class_names=("cat", "owl", *"abcdefgh"))
    with pytest.raises(ValueError, match=r"where class 1 is 'owl', got 'dog'"):
        TrainingRun(TrainSettings.of(checkpoint=known, dataset=dataset), fine_tune=False)
    same = save(class_names=("cat", "dog", *"abcdefgh"))
    assert TrainingRun(TrainSettings.of(checkpoint=same, dataset=dataset), fine_tune=False)
    assert TrainingRun(TrainSettings.of(checkpoint=known, dataset=dataset))


def test_randaugment_needs_images_of_bytes_or_from_0_to_1(tmp_path):
    pixels = np.random.default_rng(0).uniform(0, 255, (60, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "wide.npz", images=pixels, labels=np.arange(60) % 2)
    with pytest.raises(ValueError, match=r"augmentation randaugment: expected images of bytes or of values from 0"):
        TrainingRun(TrainSettings.of(dataset=f"npz:{tmp_path / 'wide.npz'}", augmentation="randaugment"))
    assert TrainingRun(TrainSettings.of(augmentation="randaugment"))


def test_a_batch_that_the_devices_do_not_divide_is_refused(monkeypatch):
    monkeypatch.setattr(feeding, "batch_mesh", lambda: SimpleNamespace(size=3))
    with pytest.raises(ValueError, match="batch: expected a multiple of the 3 devices that share a batch, got 256"):
        TrainingRun(QUICK.replace(data_parallel=True))
    assert TrainingRun(QUICK.replace(data_parallel=True, batch=255))
