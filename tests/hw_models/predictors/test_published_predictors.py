"""Weights as EH-DNAS's PyTorch modules have them."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.spaces.darts import DARTS_CODES
from hadas_jax.supernet.pytorch_files import read_pytorch
from hw_models.predictors import LEAST_THROUGHPUT, PUBLISHED_SCALES, predict_throughput
from hw_models.predictors import import_predictor as import_any

ask = jax.jit(predict_throughput)
import_predictor = partial(import_any, layout=DARTS_CODES)


def state_dict(seed=0):
    """Weights in the shapes of the published modules, out of their order."""
    rng = np.random.default_rng(seed)
    shapes = {"embeddings": None, "out.2": (1, 100), "out.0": (200, 280), "out.1": (100, 200)}
    entries = {f"embeddings.{edge}.weight": rng.normal(size=(8, 10)) for edge in (*range(14, 28), *range(14))}
    for name, shape in shapes.items():
        if shape is not None:
            entries[f"{name}.weight"] = rng.normal(0, shape[1] ** -0.5, shape)
            entries[f"{name}.bias"] = rng.normal(size=shape[0])
    return {name: array.astype(np.float32) for name, array in entries.items()}


def by_numpy(entries, shares):
    hidden = np.concatenate([shares[edge] @ entries[f"embeddings.{edge}.weight"].astype(float) for edge in range(28)])
    for i in range(3):
        hidden = entries[f"out.{i}.weight"].astype(float) @ hidden + entries[f"out.{i}.bias"]
        hidden = np.maximum(hidden, 0) if i < 2 else hidden
    return hidden[0]


@pytest.mark.parametrize("paradigm", PUBLISHED_SCALES)
def test_imported_weights_predict_the_published_scale(paradigm, codes):
    entries, (mean, deviation) = state_dict(), PUBLISHED_SCALES[paradigm]
    predictor = import_predictor(entries, paradigm=paradigm)
    soft = np.random.default_rng(1).dirichlet(np.ones(8), size=28)
    for shares in (np.eye(8)[codes[0]], np.eye(8)[codes[1]], soft):
        expected = max(mean + deviation * by_numpy(entries, shares), LEAST_THROUGHPUT)
        found = ask(predictor, jnp.asarray(shares, jnp.float32))
        np.testing.assert_allclose(found.throughput, expected, rtol=1e-4)


@pytest.mark.parametrize("shape", [(28, 8, 10), (224, 10)])
def test_embeddings_may_be_one_table(shape, codes):
    entries = state_dict()
    table = np.stack([entries[f"embeddings.{edge}.weight"] for edge in range(28)]).reshape(shape)
    layers = {name: array for name, array in entries.items() if "embeddings" not in name}
    together = import_predictor(layers | {"table": table}, paradigm="generic")
    apart = import_predictor(entries, paradigm="generic")
    code = jnp.asarray(codes[0])
    assert ask(together, code).throughput == ask(apart, code).throughput


def test_mean_and_deviation_may_be_given(codes):
    found = import_predictor(state_dict(), paradigm="my board", mean=30.0, std=2.0)
    assert (float(found.mean), float(found.std), found.notes.paradigm) == (30.0, 2.0, "my board")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: {k: v for k, v in e.items() if k != "embeddings.3.weight"}, "embeddings: expected 28 of 8 x 10"),
        (lambda e: {k: v for k, v in e.items() if k != "out.0.bias"}, r"expected one of shape \[200\], got 0"),
        (lambda e: e | {"out.9.bias": e["out.0.bias"]}, r"expected one of shape \[200\], got 2"),
        (lambda e: e | {"scale": np.ones(3)}, "expected embeddings and three layers alone, got scale too"),
        (lambda e: {}, "embeddings: expected 28 of 8 x 10, or one of all, got 0"),
    ],
)
def test_another_state_dict_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        import_predictor(change(state_dict()), paradigm="generic")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"paradigm": "serial"}, "paradigm: expected generic or pipeline, or mean and standard deviation with it"),
        ({"paradigm": "generic", "mean": -1.0}, "mean, std: expected numbers above 0, got -1.0"),
    ],
)
def test_an_unknown_scale_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        import_predictor(state_dict(), **settings)


def test_a_file_of_pytorch_predicts_what_pytorch_does(tmp_path, codes):
    torch = pytest.importorskip("torch")

    class Published(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embeddings = torch.nn.ModuleList([torch.nn.Embedding(8, 10) for _ in range(28)])
            sizes = (280, 200, 100, 1)
            self.layers = torch.nn.ModuleList([torch.nn.Linear(a, b) for a, b in itertools.pairwise(sizes)])

        def forward(self, code):
            hidden = torch.cat([embed(code[edge]) for edge, embed in enumerate(self.embeddings)])
            for layer in self.layers[:-1]:
                hidden = torch.relu(layer(hidden))
            return self.layers[-1](hidden)[0]

    torch.manual_seed(0)
    module = Published()
    torch.save(module.state_dict(), tmp_path / "predictor.pt")
    predictor = import_predictor(read_pytorch(tmp_path / "predictor.pt"), paradigm="pipeline")
    mean, deviation = PUBLISHED_SCALES["pipeline"]
    for code in codes[:5]:
        expected = mean + deviation * module(torch.from_numpy(code.astype(np.int64))).item()
        np.testing.assert_allclose(ask(predictor, jnp.asarray(code)).throughput, expected, rtol=1e-5)
