"""The network of a genotype against the same network in PyTorch, written plainly and in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hadas_jax.spaces.darts import EDGE_INPUT, EDGE_NODE, OPERATIONS
from hadas_jax.spaces.darts_network import DartsNetwork
from hadas_jax.spaces.genotypes import Genotype, code_of
from hadas_jax.supernet.darts.network import (
    apply_derived,
    apply_derived_training,
    cell_runs,
    estimate_statistics,
    initialise_derived,
)

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = pytest.mark.slow

# Every operation at stride 1 and at stride 2.
CODE = [int(digit) for digit in "43 150 2006 70010 64 705 3001 20030".replace(" ", "")]
GENOTYPE = Genotype.of(CODE)
NETWORKS = {
    "cifar": DartsNetwork(channels=4, cells=10, classes=3, image_size=32, in_channels=2),
    "imagenet": DartsNetwork(channels=4, cells=4, classes=3, image_size=64, in_channels=2, stem="imagenet"),
}


def kernel(w):
    return w.permute(3, 2, 0, 1)


class Plain:
    """The network; `given` statistics normalise, or else the batch's, which are kept in `kept` by their weights."""

    def __init__(self, network, weights, given=None):
        self.network, self.weights, self.given, self.kept = network, weights, given, given or {}

    def norm(self, x, w, name):
        if self.given is not None:
            mean, var = self.kept[name]
            return F.batch_norm(x, mean, var, w["scale"], w["bias"])
        mean, var = self.kept.setdefault(name, (torch.zeros_like(w["bias"]), torch.ones_like(w["bias"])))
        return F.batch_norm(x, mean.detach(), var.detach(), w["scale"], w["bias"], training=True, momentum=1.0)

    def conv(self, x, w, name, stride=1):
        padding = w["kernel"].shape[0] // 2
        return self.norm(F.conv2d(x, kernel(w["kernel"]), stride=stride, padding=padding), w["bn"], f"{name}.bn")

    def reduction(self, x, w, name):
        first, second = kernel(w["kernel"]).chunk(2)
        x = F.relu(x)
        halves = [F.conv2d(x, first, stride=2), F.conv2d(x[:, :, 1:, 1:], second, stride=2)]
        return self.norm(torch.cat(halves, 1), w["bn"], f"{name}.bn")

    def separable(self, x, w, name, stride, dilation):
        taps = w["depthwise"].permute(2, 0, 1)[:, None]
        padding = dilation * (taps.shape[-1] // 2)
        x = F.conv2d(F.relu(x), taps, stride=stride, padding=padding, dilation=dilation, groups=len(taps))
        return self.conv(x, w["pointwise"], f"{name}.pointwise")

    def operation(self, x, w, name, kind, stride):
        if kind == "max_pool_3x3":
            return F.max_pool2d(x, 3, stride, 1)
        if kind == "avg_pool_3x3":
            return F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
        if kind == "skip_connect":
            return x if stride == 1 else self.reduction(x, w["skip"], f"{name}.skip")
        if kind.startswith("dil"):
            return self.separable(x, w["first"], f"{name}.first", stride, 2)
        x = self.separable(x, w["first"], f"{name}.first", stride, 1)
        return self.separable(x, w["second"], f"{name}.second", 1, 1)

    def cell(self, before, last, w, name, cell):
        if cell.follows_reduce:
            before = self.reduction(before, w["input0"], f"{name}.input0")
        else:
            before = self.conv(F.relu(before), w["input0"], f"{name}.input0")
        states = [before, self.conv(F.relu(last), w["input1"], f"{name}.input1")]
        for node in range(4):
            total = 0
            for edge in range(14):
                if EDGE_NODE[edge] == node and cell.digits[edge]:
                    source, kind = EDGE_INPUT[edge], OPERATIONS[cell.digits[edge]]
                    stride = 2 if cell.is_reduce and source < 2 else 1
                    part = w.get(f"edge{edge}")
                    total = total + self.operation(states[source], part, f"{name}.edge{edge}", kind, stride)
            states.append(total)
        return torch.cat(states[2:], 1)

    def auxiliary(self, x, w):
        x = F.relu(x)
        # 8x8 maps of the one network are pooled as in DARTS, 2x2 maps of the other by halves.
        x = F.avg_pool2d(x, 5, 3) if x.shape[-1] == 8 else F.adaptive_avg_pool2d(x, 2)
        x = F.relu(self.conv(x, w["first"], "auxiliary.first"))
        flat = x.permute(0, 2, 3, 1).reshape(len(x), -1, 1, 1)
        x = F.relu(self.conv(flat, w["second"], "auxiliary.second"))[:, :, 0, 0]
        return x @ w["classifier"]["kernel"] + w["classifier"]["bias"]

    def __call__(self, images):
        w, extra = self.weights, None
        if self.network.stem == "cifar":
            before = last = self.conv(images, w["stem"]["conv1"], "stem.conv1")
        else:
            x = F.relu(self.conv(images, w["stem"]["conv1"], "stem.conv1", 2))
            before = self.conv(x, w["stem"]["conv2"], "stem.conv2", 2)
            last = self.conv(F.relu(before), w["stem"]["conv3"], "stem.conv3", 2)
        for run in cell_runs(self.network, GENOTYPE, use_batch_stats=True):
            for i in range(run.cells):
                own = jax.tree.map(lambda leaf: leaf[i], w[run.name])  # noqa: B023
                before, last = last, self.cell(before, last, own, f"{run.name}.{i}", run.cell)
            if run.start == self.network.reductions[-1] and self.given is None:
                extra = self.auxiliary(last, w["auxiliary"])
        return last.mean((2, 3)) @ w["classifier"]["linear"]["kernel"] + w["classifier"]["linear"]["bias"], extra


def nested(kept, names):
    """Statistics by name as the tree that ours are; cells of one run stacked."""
    found = {}
    for name in names:
        path = name.split(".")
        if path[0] == "auxiliary":
            continue
        place, rest = (path[0], path[1:]) if path[0] == "stem" else (path[0], path[2:])
        at = found.setdefault(place, {})
        for word in rest:
            at = at.setdefault(word, {})
        for key, value in zip(("mean", "var"), kept[name], strict=True):
            at.setdefault(key, []).append(value.numpy())
    return jax.tree.map(np.stack, found, is_leaf=lambda leaf: isinstance(leaf, list))


@pytest.mark.parametrize("style", NETWORKS)
def test_logits_gradients_statistics_and_inference_are_pytorchs(style):
    network = NETWORKS[style]
    rng = np.random.default_rng(0)
    images = rng.normal(size=(8, network.image_size, network.image_size, 2)).astype(np.float32)
    slopes = rng.normal(size=(2, 8, 3)).astype(np.float32)
    fresh = initialise_derived(network, GENOTYPE, jax.random.key(0), auxiliary=True)
    shift = lambda leaf: leaf + jnp.asarray(rng.uniform(-0.2, 0.2, leaf.shape), jnp.float32)  # noqa: E731
    weights = jax.tree.map(shift, fresh)

    def projected(w):
        logits = apply_derived_training(network, GENOTYPE, w, jnp.asarray(images), auxiliary=True)
        return sum(jnp.sum(a * b) for a, b in zip(logits, slopes, strict=True)), logits

    gradients, logits = jax.jit(jax.grad(projected, has_aux=True))(weights)
    as_torch = jax.tree.map(
        lambda leaf: torch.tensor(np.asarray(leaf), dtype=torch.float64, requires_grad=True), weights
    )
    pixels = torch.tensor(images, dtype=torch.float64).permute(0, 3, 1, 2)
    plain = Plain(network, as_torch)
    expected = plain(pixels)
    for found, wanted in zip(logits, expected, strict=True):
        np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=1e-3, atol=1e-3)
    sum((torch.tensor(slope) * out).sum() for slope, out in zip(slopes, expected, strict=True)).backward()
    for (path, found), wanted in zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(as_torch), strict=True
    ):
        scale = max(float(wanted.grad.abs().max()), 1e-2)
        np.testing.assert_allclose(
            np.asarray(found) / scale, wanted.grad.numpy() / scale, atol=5e-3, err_msg=jax.tree_util.keystr(path)
        )

    statistics = estimate_statistics(network, GENOTYPE, weights, jnp.asarray(images)[None])
    wanted = nested(plain.kept, plain.kept)
    for (path, found), (_, value) in zip(
        jax.tree_util.tree_leaves_with_path(statistics), jax.tree_util.tree_leaves_with_path(wanted), strict=True
    ):
        value = value[0] if path[0].key == "stem" else value
        np.testing.assert_allclose(found, value, rtol=2e-3, atol=1e-3, err_msg=jax.tree_util.keystr(path))
    other = rng.normal(size=images.shape).astype(np.float32)
    with torch.no_grad():
        inferred, _ = Plain(network, as_torch, plain.kept)(torch.tensor(other, dtype=torch.float64).permute(0, 3, 1, 2))
    found = apply_derived(network, GENOTYPE, weights, statistics, jnp.asarray(other))
    np.testing.assert_allclose(found, inferred.numpy(), rtol=1e-2, atol=1e-2)


def test_the_code_above_has_every_operation_in_both_places():
    digits = np.asarray(code_of(GENOTYPE)).reshape(2, 14)
    assert set(digits[0]) == set(range(8))
    starts = {int(digit) for digit, source in zip(digits[1], EDGE_INPUT, strict=True) if source < 2 and digit}
    assert {2, 3, 4, 6, 7} <= starts
