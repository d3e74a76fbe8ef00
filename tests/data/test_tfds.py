import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_tfds import class_image, write_fake_set

from hadas_jax.data import Stream, load_dataset, prepare_dataset


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with CIFAR-100, ImageNet and Fashion-MNIST in small, which tests do not change."""
    folder = tmp_path_factory.mktemp("tfds")
    write_fake_set(folder, counts={"train": 210, "test": 33}, classes=30)
    write_fake_set(folder, "fashion_mnist", counts={"train": 70, "test": 20})
    counts = {"train": 40, "validation": 16, "test": 3}
    write_fake_set(folder, "imagenet2012", counts=counts, classes=4, unlabelled=("test",))
    return folder


def counts(splits):
    return [part.count for part in (splits.train, splits.validation, splits.calibration, splits.test)]


def refused(function, *arguments, **named):
    with pytest.raises(ValueError, match=r".") as caught:
        function(*arguments, **named)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_prepared_set_is_read_without_tensorflow(prepared):
    before = "tensorflow" in sys.modules
    splits = load_dataset("cifar100", seed=0, data_dir=prepared)
    assert ("tensorflow" in sys.modules) == before
    assert counts(splits) == [210 - 2 * 32, 32, 32, 33]
    assert (splits.classes, splits.image_size, splits.channels, len(splits.class_names)) == (100, 32, 3, 100)
    images, labels = np.asarray(splits.test.images).astype(int), np.asarray(splits.test.labels)
    assert sorted(labels.tolist()) == sorted(number % 30 for number in range(33))
    nothing = np.random.default_rng(0)
    for image, label in zip(images, labels, strict=True):
        drawn = class_image(label, nothing, height=32, width=32, channels=3)
        assert np.abs(image - drawn).mean() < 20


def test_a_prepared_set_of_grey_images_has_one_channel(prepared):
    splits = load_dataset("fashion_mnist", seed=0, data_dir=str(prepared))
    assert (splits.image_size, splits.channels, splits.classes) == (28, 1, 10)


def test_any_name_of_tensorflow_datasets_may_be_given(prepared):
    splits = load_dataset("tfds:fashion_mnist:3.*.*", seed=0, data_dir=prepared, image_size=14)
    assert splits.train.images.shape == (50, 14, 14, 1)


def test_labelled_validation_images_are_the_test_part_of_imagenet(prepared):
    assert "give `image_size`" in refused(load_dataset, "imagenet2012", seed=0, data_dir=prepared)
    splits = load_dataset("imagenet2012", seed=0, data_dir=prepared, image_size=24)
    assert counts(splits) == [28, 6, 6, 16]
    assert splits.classes == 1000


def test_a_large_set_becomes_a_stream(prepared):
    splits = load_dataset("imagenet2012", seed=0, data_dir=prepared, image_size=24, in_memory_bytes=10_000)
    assert isinstance(splits.train, Stream)
    assert counts(splits) == [28, 6, 6, 16]
    images, labels = next(splits.train.batches(0, 8))
    assert images.shape == (8, 24, 24, 3)
    assert set(labels.tolist()) <= {0, 1, 2, 3}
    parts = (splits.train.sample(28), splits.validation, splits.calibration)
    assert len({image.tobytes() for part in parts for image in np.asarray(part.images)}) == 40


def test_test_images_of_a_stream_are_as_many_as_asked(prepared):
    splits = load_dataset("cifar100", seed=0, data_dir=prepared, in_memory_bytes=1, evaluation_images=30)
    assert counts(splits) == [210 - 2 * 32, 30, 30, 30]


def test_a_given_normalisation_spares_a_stream_its_statistics(prepared):
    given = ((0.5,), (0.25,))
    splits = load_dataset("fashion_mnist", seed=0, data_dir=prepared, in_memory_bytes=1, normalisation=given)
    assert splits.normalisation == given


def test_a_set_that_is_not_prepared_is_refused_with_the_command(prepared, tmp_path):
    command = "run: pip install 'hadas-jax[tfds]' && hadas data prepare"
    message = refused(load_dataset, "mnist", seed=0, data_dir=tmp_path)
    assert message == (
        f"dataset mnist: expected a prepared copy in {tmp_path}/mnist/3.0.1, got none; "
        f"{command} mnist --data-dir {tmp_path}"
    )
    message = refused(load_dataset, "tfds:kmnist", seed=0, data_dir=Path("a b"))
    assert message.endswith(f"{command} tfds:kmnist --data-dir 'a b'")
    assert not list(tmp_path.iterdir())


def test_imagenet_s_archives_are_asked_for(tmp_path):
    message = refused(load_dataset, "imagenet2012", seed=0, data_dir=tmp_path)
    assert (
        "put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, from image-net.org, into "
        f"{tmp_path}/downloads/manual and run: pip install"
    ) in message


def test_a_copy_of_another_version_is_read(tmp_path):
    folder = write_fake_set(tmp_path, "mnist", counts={"train": 70, "test": 20})
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace(folder.name, "2.9.9"))
    folder.rename(folder.with_name("2.9.9"))
    assert counts(load_dataset("mnist", seed=0, data_dir=tmp_path)) == [50, 10, 10, 20]


@pytest.mark.parametrize("name", ["nonsense", "huggingface:mnist", "mnist:1.0.0", "imagenette/900px"])
def test_what_tensorflow_datasets_does_not_know_is_refused(name, tmp_path):
    message = refused(load_dataset, f"tfds:{name}", seed=0, data_dir=tmp_path)
    assert message.startswith(f"dataset {name}: expected one that tensorflow-datasets can open, got: ")


@pytest.mark.parametrize("name", ["imdb_reviews", "celeb_a"])
def test_sets_without_an_image_and_a_class_are_refused(name, tmp_path):
    message = refused(load_dataset, f"tfds:{name}", seed=0, data_dir=tmp_path)
    assert message.startswith(f"dataset {name}: expected images with one class each, got ")


@pytest.fixture
def damaged(tmp_path):
    """The folder of a small set that a test may damage."""
    return write_fake_set(tmp_path, "mnist", counts={"train": 70, "test": 10})


def test_files_in_another_form_are_refused(damaged):
    info = damaged / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    place = damaged.parents[1]
    message = refused(load_dataset, "mnist", seed=0, data_dir=place)
    assert message.startswith(f"dataset mnist: expected array_record files in {damaged}, got tfrecord; run: ")
    assert message.endswith("hadas data prepare mnist --data-dir OTHER_DIR")
    message = refused(prepare_dataset, "mnist", place)
    assert message == f"dataset mnist: is in {damaged} as tfrecord files, expected array_record: give another folder"


def test_damaged_files_are_refused(damaged):
    place = damaged.parents[1]
    (file,) = damaged.glob("*train*")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    message = refused(load_dataset, "mnist", seed=0, data_dir=place)
    assert message.startswith("mnist: expected images of 8 bits, cannot read 70: mnist train image 0, ")
    file.unlink()
    message = refused(load_dataset, "mnist", seed=0, data_dir=place)
    assert message == f"dataset mnist: expected the file {file}, got none at this path"
    (damaged / "dataset_info.json").write_text("{")
    assert "tensorflow-datasets can open" in refused(load_dataset, "mnist", seed=0, data_dir=place)


def test_a_set_without_training_images_is_refused(tmp_path):
    write_fake_set(tmp_path, "mnist", counts={"test": 10})
    message = refused(load_dataset, "mnist", seed=0, data_dir=tmp_path)
    assert message == "dataset mnist: expected training images, got test alone"


def test_preparing_leaves_a_prepared_set_alone(prepared):
    assert prepare_dataset("cifar100", prepared).parent == prepared / "cifar100"


def test_preparing_asks_for_tensorflow(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = refused(prepare_dataset, "mnist", tmp_path)
    assert message == (
        "dataset mnist: preparing it needs TensorFlow once, got none; "
        f"run: pip install 'hadas-jax[tfds]' && hadas data prepare mnist --data-dir {tmp_path}"
    )


def test_preparing_imagenet_asks_for_its_archives(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    message = refused(prepare_dataset, "imagenet2012", str(tmp_path))
    assert message.startswith("dataset imagenet2012: expected ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar")
    assert message.endswith(f"in {tmp_path}/downloads/manual, got none there")


def test_what_goes_wrong_while_preparing_is_one_line(monkeypatch, tmp_path):
    import tensorflow_datasets as tfds

    def fail(*_, **__):
        raise OSError("no network\nat all")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    message = refused(prepare_dataset, "tfds:kmnist", tmp_path)
    assert message == "dataset kmnist: could not be prepared: no network"


def test_preparing_takes_prepared_sets_alone():
    assert "expected one of cifar10, cifar100" in refused(prepare_dataset, "digits")


def test_a_set_that_only_tensorflow_can_describe_is_refused_with_the_command(monkeypatch, tmp_path):
    import tensorflow_datasets as tfds

    def fail(*_, **__):
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    monkeypatch.setattr(tfds, "builder", fail)
    message = refused(load_dataset, "tfds:coco", seed=0, data_dir=tmp_path)
    assert message == (
        "dataset coco: expected a prepared copy or the package tensorflow, which describing it needs, got neither; "
        f"run: pip install 'hadas-jax[tfds]' && hadas data prepare tfds:coco --data-dir {tmp_path}"
    )
