"""Tests of places and cuts: segments give what the whole graph gives, for networks of all kinds."""

import numpy as np
import onnx
import pytest
from onnx_networks import small_cnn, vit

from hadas_jax.frozen.backbone import FrozenNetwork
from hadas_jax.frozen.heads import Head
from hw_models import load_device


def largest_difference(path, *, exits=3, classes=11, size=None):
    """Cuts a model after some places with drawn heads; returns the network and how far it is from the whole graph."""
    network = FrozenNetwork(path, image_size=size)
    places = network.useful_places(load_device("raspberry-pi-4"), exits)
    assert len(places) == exits
    rng = np.random.default_rng(0)

    def dense(ins, outs):
        return (rng.normal(size=(ins, outs)) / ins**0.5).astype(np.float32), rng.normal(size=outs).astype(np.float32)

    widths = [place.width * len(place.pools) for place in places]
    heads = [Head(place.pools, (dense(w, 8),), dense(8, classes + 1)) for place, w in zip(places, widths, strict=True)]
    x = rng.normal(size=(network.batch or 3, network.channels, network.image_size, network.image_size))
    x = x.astype(np.float32)
    pairs = list(zip(places, heads, strict=True))
    whole = network.session(*network.whole(pairs, None))(x)
    found, takes = [], "images"
    for pair in [*pairs, None]:
        tensor = None if pair is None else pair[0].tensor
        model, outputs = network.segment(takes, features=tensor, head=pair, learned=pair is not None)
        onnx.checker.check_model(model, full_check=True)
        values = dict(zip(outputs, network.session(model, list(outputs.values()), takes=takes)(x), strict=True))
        found.append(values["logits"])
        x, takes = values.get("features"), tensor
    differences = [np.abs(a - b).max() / np.abs(b).max() for a, b in zip(found, whole, strict=False)]
    return network, max(differences)


def test_a_transformer_is_cut_between_its_blocks_and_pooled_over_tokens(tmp_path):
    onnx.save(vit(16, 4, 24, 2, 3, 5, rng=np.random.default_rng(0)), tmp_path / "vit.onnx")
    network, difference = largest_difference(tmp_path / "vit.onnx")
    assert difference <= 1e-4
    assert network.batch == 1  # its shapes follow from the input
    tokens = [place for place in network.places if len(place.shape) == 2 and place.shape[0] > 1]
    assert {place.pools for place in tokens} == {("mean", "first")}


def test_a_residual_network_of_any_batch_is_cut_behind_its_additions(tmp_path):
    onnx.save(small_cnn(), tmp_path / "cnn.onnx")
    network, difference = largest_difference(tmp_path / "cnn.onnx")
    assert difference <= 1e-4
    assert network.batch is None


def test_no_exit_follows_a_padding_which_runtimes_do_within_the_convolution(tmp_path):
    model = small_cnn()
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    (pads,) = (each for each in first.attribute if each.name == "pads")
    around = [0, 0, *pads.ints[:2], 0, 0, *pads.ints[2:]]
    assert any(around)
    pad = onnx.helper.make_node("Pad", [first.input[0], "around"], ["padded"])
    pads.ints[:] = [0] * 4
    first.input[0] = "padded"
    model.graph.node.insert(list(model.graph.node).index(first), pad)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(around, np.int64), "around"))
    onnx.save(model, tmp_path / "padded.onnx")
    onnx.save(small_cnn(), tmp_path / "own.onnx")
    padded, own = (FrozenNetwork(tmp_path / f"{name}.onnx") for name in ("padded", "own"))
    assert [place.tensor for place in padded.places] == [place.tensor for place in own.places]


def _resnet18(torch):
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, ins, outs, stride):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(ins, outs, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outs),
                nn.ReLU(),
                nn.Conv2d(outs, outs, 3, 1, 1, bias=False),
                nn.BatchNorm2d(outs),
            )
            other = ins != outs or stride > 1
            shortcut = nn.Sequential(nn.Conv2d(ins, outs, 1, stride, bias=False), nn.BatchNorm2d(outs))
            self.shortcut = shortcut if other else nn.Identity()

        def forward(self, x):
            return torch.relu(self.body(x) + self.shortcut(x))

    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    widths = [64, 64, 128, 256, 512]
    blocks = [
        Block(widths[s] if b == 0 else widths[s + 1], widths[s + 1], 2 if s and b == 0 else 1)
        for s in range(4)
        for b in range(2)
    ]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def _small_vit(torch):
    nn = torch.nn

    class Vit(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 48, 16, 16)
            self.token = nn.Parameter(torch.randn(1, 1, 48))
            layer = nn.TransformerEncoderLayer(48, 4, 96, batch_first=True, norm_first=True, dropout=0.0)
            self.blocks = nn.ModuleList([layer for _ in range(4)])
            self.last = nn.Linear(48, 10)

        def forward(self, x):
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
            for block in self.blocks:
                x = block(x)
            return self.last(x[:, 0])

    return Vit()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's exporter
@pytest.mark.parametrize(("build", "macs"), [(_resnet18, 1_814_073_344), (_small_vit, None)], ids=["resnet18", "vit"])
def test_networks_that_torch_writes_are_cut(build, macs, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    torch.backends.mha.set_fastpath_enabled(False)  # an operator that ONNX does not have
    axes = {"x": {0: "n"}}
    about = {"input_names": ["x"], "dynamic_axes": axes, "dynamo": False}
    torch.onnx.export(build(torch).eval(), (torch.zeros(1, 3, 224, 224),), str(tmp_path / "model.onnx"), **about)
    network, difference = largest_difference(tmp_path / "model.onnx")
    assert difference <= 1e-4
    assert macs in (None, network.layers.macs)
    assert not network.layers.unknown
