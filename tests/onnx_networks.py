"""Well-known networks as ONNX graphs without values: their weights have shapes alone, all that counting reads."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """Writes nodes one after the other; shapes of weights are given, those of activations are inferred."""

    def __init__(self, *shape, rng=None):
        self.nodes, self.weights, self.rng = [], [], rng
        self.input = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)

    def weight(self, *dims):
        if self.rng is not None:
            values = self.rng.normal(size=dims) * (2 / max(np.prod(dims[1:]), 1)) ** 0.5
            values = np.ones(dims) if len(dims) == 1 else values
            self.weights.append(numpy_helper.from_array(values.astype(np.float32), f"w{len(self.weights)}"))
            return self.weights[-1].name
        tensor = TensorProto(name=f"w{len(self.weights)}", dims=dims, data_type=TensorProto.FLOAT)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="nowhere.bin")
        self.weights.append(tensor)
        return tensor.name

    def constant(self, *values):
        tensor = helper.make_tensor(f"w{len(self.weights)}", TensorProto.INT64, [len(values)], values)
        self.weights.append(tensor)
        return tensor.name

    def add(self, operator, *inputs, **attributes):
        name = f"y{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def conv(self, x, ins, outs, kernel=1, stride=1, groups=1, bias=False, act=None):
        weights = [self.weight(outs, ins // groups, kernel, kernel)] + ([self.weight(outs)] if bias else [])
        pads = [(kernel - 1) // 2] * 4 if kernel < 16 else [0] * 4
        attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": pads, "group": groups}
        x = self.add("Conv", x, *weights, **attributes)
        if not bias:
            x = self.add("BatchNormalization", x, *[self.weight(outs) for _ in range(4)])
        if act == "Swish":
            return self.add("Mul", x, self.add("Sigmoid", x))
        return self.add(act, x) if act else x

    def gemm(self, x, ins, outs):
        return self.add("Gemm", x, self.weight(outs, ins), self.weight(outs), transB=1)

    def linear(self, x, ins, outs):
        return self.add("Add", self.add("MatMul", x, self.weight(ins, outs)), self.weight(outs))

    def model(self, y, opset=17):
        end = helper.make_tensor_value_info(y, TensorProto.FLOAT, [None, None])
        graph = helper.make_graph(self.nodes, "network", [self.input], [end], initializer=self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def _classifier(g, x, width, classes=1000):
    return g.gemm(g.add("Flatten", g.add("GlobalAveragePool", x)), width, classes)


def mobilenet_v2():
    """Width 1.0 (Sandler et al. 2018, table 2)."""
    g = Graph("n", 3, 224, 224)
    x, ins = g.conv("x", 3, 32, 3, 2, act="Relu"), 32
    for expand, outs, count, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for number in range(count):
            step = stride if number == 0 else 1
            y = g.conv(x, ins, ins * expand, act="Relu") if expand > 1 else x
            y = g.conv(y, ins * expand, ins * expand, 3, step, groups=ins * expand, act="Relu")
            y = g.conv(y, ins * expand, outs)
            x, ins = (g.add("Add", x, y) if step == 1 and ins == outs else y), outs
    return g.model(_classifier(g, g.conv(x, ins, 1280, act="Relu"), 1280))


def resnet50():
    """With the stride in the 3x3 convolutions, as in torchvision."""
    g = Graph("n", 3, 224, 224)
    x, ins = g.conv("x", 3, 64, 7, 2, act="Relu"), 64
    x = g.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    for stage, count in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for number in range(count):
            step = 2 if number == 0 and stage else 1
            y = g.conv(g.conv(x, ins, width, act="Relu"), width, width, 3, step, act="Relu")
            shortcut = g.conv(x, ins, 4 * width, 1, step) if number == 0 else x
            x, ins = g.add("Relu", g.add("Add", g.conv(y, width, 4 * width), shortcut)), 4 * width
    return g.model(_classifier(g, x, 2048))


def efficientnet_b0():
    """Squeeze-and-excitation as 1x1 convolutions of the pooled map (Tan and Le 2019, table 1)."""
    g = Graph("n", 3, 224, 224)
    x, ins = g.conv("x", 3, 32, 3, 2, act="Swish"), 32
    for expand, kernel, outs, count, stride in (
        (1, 3, 16, 1, 1),
        (6, 3, 24, 2, 2),
        (6, 5, 40, 2, 2),
        (6, 3, 80, 3, 2),
        (6, 5, 112, 3, 1),
        (6, 5, 192, 4, 2),
        (6, 3, 320, 1, 1),
    ):
        for number in range(count):
            step, mid, squeezed = (stride if number == 0 else 1), ins * expand, ins // 4
            y = g.conv(x, ins, mid, act="Swish") if expand > 1 else x
            y = g.conv(y, mid, mid, kernel, step, groups=mid, act="Swish")
            z = g.conv(g.add("GlobalAveragePool", y), mid, squeezed, bias=True, act="Swish")
            y = g.add("Mul", y, g.conv(z, squeezed, mid, bias=True, act="Sigmoid"))
            y = g.conv(y, mid, outs)
            x, ins = (g.add("Add", x, y) if step == 1 and ins == outs else y), outs
    return g.model(_classifier(g, g.conv(x, ins, 1280, act="Swish"), 1280))


def vit(size, patch, width, heads, blocks, classes, rng=None):
    """Blocks of pre-norm attention; reshapes follow from shapes, as exporters write them."""
    tokens = (size // patch) ** 2 + 1
    g = Graph("n", 3, size, size, rng=rng)
    x = g.conv("x", 3, width, patch, patch, bias=True)
    first = g.add("Gather", g.add("Shape", x), g.constant(0), axis=0)
    x = g.add("Reshape", x, g.add("Concat", first, g.constant(width, -1), axis=0))
    x = g.add("Transpose", x, perm=[0, 2, 1])
    x = g.add("Add", g.add("Concat", g.weight(1, 1, width), x, axis=1), g.weight(1, tokens, width))
    for _ in range(blocks):
        y = g.linear(g.add("LayerNormalization", x, g.weight(width), g.weight(width)), width, 3 * width)
        y = g.add("Reshape", y, g.constant(0, 0, 3, heads, width // heads))
        q, k, v = (g.add("Gather", y, g.constant(n), axis=2) for n in range(3))
        q, k, v = (g.add("Squeeze", part, g.constant(2)) for part in (q, k, v))
        q, v = (g.add("Transpose", part, perm=[0, 2, 1, 3]) for part in (q, v))
        scores = g.add("MatMul", q, g.add("Transpose", k, perm=[0, 2, 3, 1]))
        y = g.add("MatMul", g.add("Softmax", scores, axis=-1), v)
        y = g.add("Reshape", g.add("Transpose", y, perm=[0, 2, 1, 3]), g.constant(0, 0, width))
        x = g.add("Add", x, g.linear(y, width, width))
        y = g.linear(g.add("LayerNormalization", x, g.weight(width), g.weight(width)), width, 4 * width)
        y = g.add("Mul", y, g.add("Erf", y))
        x = g.add("Add", x, g.linear(y, 4 * width, width))
    x = g.add("LayerNormalization", x, g.weight(width), g.weight(width))
    x = g.add("Squeeze", g.add("Gather", x, g.constant(0), axis=1), g.constant(1))
    return g.model(g.gemm(x, width, classes))


def vit_s16():
    """DeiT-S: 12 blocks of 384 channels and 6 heads."""
    return vit(224, 16, 384, 6, 12, 1000)


def small_cnn(size=8, channels=1, classes=10, batch="n"):
    """Residual convolutions of drawn weights, for images that are quickly gone through."""
    g = Graph(batch, channels, size, size, rng=np.random.default_rng(0))
    x = g.conv("x", channels, 16, 3, bias=True, act="Relu")
    for number in range(4):
        outs = 16 * 2 ** (number // 2)
        y = g.conv(g.conv(x, outs if number % 2 else max(outs // 2, 16), outs, 3, bias=True, act="Relu"), outs, outs, 3)
        x = g.add("Relu", g.add("Add", x, y) if number != 2 else y)
    return g.model(_classifier(g, x, 32, classes))


# What torchvision and timm publish of them, here to the last digit: as torch counts the same networks.
MACS = {mobilenet_v2: 300_774_272, resnet50: 4_089_184_256, efficientnet_b0: 385_814_752, vit_s16: 4_598_882_304}
