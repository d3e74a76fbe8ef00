"""The search network written out plainly, an edge and an operation at a time, by XLA's own convolutions, in NHWC."""

import jax
import jax.numpy as jnp

from hadas_jax.spaces.darts import EDGE_INPUT, EDGE_NODE, OPERATIONS

_HALVING = [edge for edge in range(14) if EDGE_INPUT[edge] < 2]
LAYOUT = ("NHWC", "HWIO", "NHWC")


def plain_search(network, weights, shares, images):
    """Logits [B, K]; operations of share 0 are left out when `shares` is a numpy array."""
    before, last = _stem(network, weights["stem"], images)
    was_reduced = network.stem == "imagenet"
    for cell in range(network.cells):
        is_reduced = cell in network.reductions
        own = weights[f"cell_{cell}"]
        read = _reduction if was_reduced else _pointwise
        states = [_norm(read(jax.nn.relu(before), own["input_0"]))]
        states.append(_norm(_pointwise(jax.nn.relu(last), own["input_1"])))
        for node in range(4):
            total = 0.0
            for edge in [e for e in range(14) if EDGE_NODE[e] == node]:
                source = int(EDGE_INPUT[edge])
                stride = 2 if is_reduced and source < 2 else 1
                row_shares = shares[14 * is_reduced + edge]
                for digit, name in enumerate(OPERATIONS):
                    if digit and not (isinstance(row_shares[digit], float) and row_shares[digit] == 0.0):
                        found = _operation(name, own, edge, states[source], stride)
                        total = total + row_shares[digit] * found
            states.append(total)
        before, last, was_reduced = last, jnp.concatenate(states[2:], axis=-1), is_reduced
    return jnp.mean(last, (1, 2)) @ weights["classifier"]["kernel"] + weights["classifier"]["bias"][None]


def _stem(network, weights, images):
    x, outputs = images, []
    for index in range(len(weights)):
        layer = weights[f"conv_{index}"]
        stride = 1 if network.stem == "cifar" else 2
        x = _conv(jax.nn.relu(x) if index else x, layer["kernel"], stride=stride, padding=1)
        x = _norm(x) * layer["scale"][None, None, None] + layer["bias"][None, None, None]
        outputs.append(x)
    return ([*outputs[:1], *outputs])[-2:]


def _operation(name, weights, edge, x, stride):
    if name == "skip_connect":
        return x if stride == 1 else _norm(_reduction(jax.nn.relu(x), weights[name]["reduction"][_HALVING.index(edge)]))
    if "pool" in name:
        padded = [(0, 0), (1, 1), (1, 1), (0, 0)]
        window, strides = (1, 3, 3, 1), (1, stride, stride, 1)
        if name.startswith("max"):
            return _norm(jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padded))
        add = lambda a: jax.lax.reduce_window(a, 0.0, jax.lax.add, window, strides, padded)  # noqa: E731
        return _norm(add(x) / add(jnp.ones_like(x)))
    own, dilated = weights[name], name.startswith("dil")
    for index in range(1 if dilated else 2):
        taps = own[f"depthwise_{index}"][edge]
        channels, k, _ = taps.shape
        dilation = 2 if dilated else 1
        x = _conv(
            jax.nn.relu(x),
            taps.transpose(1, 2, 0)[:, :, None],
            stride=stride if index == 0 else 1,
            padding=dilation * (k // 2),
            dilation=dilation,
            groups=channels,
        )
        x = _norm(_pointwise(x, own[f"pointwise_{index}"][edge]))
    return x


def _reduction(x, weights):
    height, width = x.shape[1:3]
    shifted = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))[:, 1:, 1:]
    halves = [_conv(a, w.T[None, None], stride=2) for a, w in zip((x, shifted), weights, strict=True)]
    return jnp.concatenate(halves, axis=-1)


def _pointwise(x, weights):
    return _conv(x, weights.T[None, None])


def _conv(x, kernel, *, stride=1, padding=0, dilation=1, groups=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding),) * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=LAYOUT,
        feature_group_count=groups,
    )


def _norm(x):
    mean = jnp.mean(x, (0, 1, 2), keepdims=True)
    variance = jnp.mean((x - mean) ** 2, (0, 1, 2), keepdims=True)
    return (x - mean) / jnp.sqrt(variance + 1e-5)
