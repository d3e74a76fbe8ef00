"""Sub-networks on their own: cut out of the supernet's weights and run in float64 with plain loops.

Written from the description of AttentiveNAS's network (arXiv 2011.09011), with no masks, scans or padding of
channels, so that it shares nothing with the supernet but the names of the weights.
"""

import numpy as np

EPSILON = 1e-5


def divisible(value: float) -> int:
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


def cut(space, params, stats, backbone) -> dict:
    """Cuts one backbone out of trees of arrays, as one tree of smaller ones; without `stats`, batch norms use
    the batch's own.
    """
    weights, statistics = params.backbone, stats and stats.backbone
    stem_width, *widths, last_width = (int(w) for w in backbone.width)
    norm = lambda tree, name, width, block=None: _norm(weights, statistics, (*tree, name), width, block)  # noqa: E731
    plain = {
        "stem": weights["stem"]["kernel"][..., :stem_width],
        "stem_bn": norm(("stem",), "bn", stem_width),
        "blocks": {},
        "heads": {},
    }
    position, ins = 0, stem_width
    for s, stage in enumerate(space.stages):
        settings = (int(backbone.kernel[s]), int(backbone.expand[s]), widths[s])
        for block in range(int(backbone.depth[s])):
            path = (f"stage{s}_first",) if block == 0 else (f"stage{s}_rest",)
            index = None if block == 0 else block - 1
            plain["blocks"][position + block] = _block(weights, norm, stage, path, index, ins, *settings)
            ins = widths[s]
        skipped = max(space.first_exit - position, 0)
        for block in range(skipped, int(backbone.depth[s])):
            head = _head(params.heads, stats and stats.heads, f"stage{s}", block - skipped, ins)
            plain["heads"][position + block] = head
        position += max(stage.depth)
    head_width = divisible(ins * space.head_expand)
    plain |= {
        "head": weights["tail"]["head"]["kernel"][:ins, :head_width],
        "head_bn": norm(("tail",), "head_bn", head_width),
        "last": weights["tail"]["last"]["kernel"][:head_width, :last_width],
        "classifier": weights["tail"]["classifier"]["kernel"][:last_width],
        "classifier_bias": weights["tail"]["classifier"]["bias"],
    }
    return plain


def _at(tree, path, block):
    for name in path:
        tree = tree[name]
    return tree if block is None else tree[block]


def _norm(weights, statistics, path, width, block) -> dict:
    found = {name: _at(weights, (*path, name), block)[:width] for name in ("scale", "bias")}
    if statistics is None:
        return found
    return found | {name: _at(statistics, (*path, name), block)[:width] for name in ("mean", "var")}


def _block(weights, norm, stage, path, block, ins, kernel, expand, outs) -> dict:
    get = lambda *names: _at(weights, (*path, *names), block)  # noqa: E731
    mid, found = ins, {}
    if stage.expands:
        mid = divisible(round(ins * expand))
        found["expand"] = get("expand", "kernel")[:ins, :mid]
        found["expand_bn"] = norm(path, "expand_bn", mid, block)
    rim = (max(stage.kernel) - kernel) // 2
    centre = slice(rim, rim + kernel)
    found["depthwise"] = get("depthwise", "kernel")[centre, centre, :mid]
    found["depthwise_bn"] = norm(path, "depthwise_bn", mid, block)
    if stage.se:
        hidden = divisible(mid // 4)
        found["squeeze"] = get("se", "squeeze", "kernel")[:mid, :hidden]
        found["squeeze_bias"] = get("se", "squeeze", "bias")[:hidden]
        found["excite"] = get("se", "excite", "kernel")[:hidden, :mid]
        found["excite_bias"] = get("se", "excite", "bias")[:mid]
    found["project"] = get("project", "kernel")[:mid, :outs]
    found["project_bn"] = norm(path, "project_bn", outs, block)
    if ins != outs:
        found["shortcut"] = get("shortcut", "kernel")[:ins, :outs]
    return found


def _head(weights, statistics, stage, index, ins) -> dict:
    weights, ins_only = weights[stage], weights[stage]["conv"][index][:, :, :ins]
    return {
        "conv": ins_only,
        "bn": _norm(weights, statistics and statistics[stage], ("bn",), None, index),
        "classifier": weights["classifier"]["kernel"][index],
        "classifier_bias": weights["classifier"]["bias"][index],
        "confidence": weights["confidence"]["kernel"][index],
        "confidence_bias": weights["confidence"]["bias"][index],
    }


def run(space, plain, images) -> tuple[dict, dict, np.ndarray, dict]:
    """Runs a cut sub-network.

    Returns:
      By position the heads' logits [B, K] and confidence logits [B], then the final logits [B, K], and by
      position the blocks' outputs [B, H, W, C].
    """
    x = np.asarray(images, np.float64)
    x = swish(normalise(convolve(x, plain["stem"], space.stem_stride, 1), plain["stem_bn"]))
    starts = np.cumsum([0, *(max(stage.depth) for stage in space.stages)])[:-1].tolist()
    logits, confidences, features = {}, {}, {}
    for position, block in plain["blocks"].items():
        stride = space.stages[starts.index(position)].stride if position in starts else 1
        x = run_block(x, block, stride)
        features[position] = x
        if position in plain["heads"]:
            logits[position], confidences[position] = run_head(x, plain["heads"][position])
    y = swish(normalise(x @ plain["head"], plain["head_bn"])).mean((1, 2))
    final = swish(y @ plain["last"]) @ plain["classifier"] + plain["classifier_bias"]
    return logits, confidences, final, features


def run_block(x, block, stride):
    y = x
    if "expand" in block:
        y = swish(normalise(y @ block["expand"], block["expand_bn"]))
    y = swish(normalise(convolve_depthwise(y, block["depthwise"], stride), block["depthwise_bn"]))
    if "squeeze" in block:
        hidden = np.maximum(y.mean((1, 2)) @ block["squeeze"] + block["squeeze_bias"], 0.0)
        gate = np.clip(hidden @ block["excite"] + block["excite_bias"] + 3.0, 0.0, 6.0) / 6.0
        y = y * gate[:, None, None]
    y = normalise(y @ block["project"], block["project_bn"])
    shortcut = average_pool(x) if stride == 2 else x
    return y + (shortcut @ block["shortcut"] if "shortcut" in block else shortcut)


def run_head(x, head):
    y = normalise(convolve(x, head["conv"], 1, 0 if min(x.shape[1:3]) >= 3 else 1), head["bn"])
    y = np.where(y > 0, y, 0.01 * y).mean((1, 2))
    logits = y @ head["classifier"] + head["classifier_bias"]
    return logits, (y @ head["confidence"] + head["confidence_bias"])[:, 0]


def swish(x):
    return x / (1.0 + np.exp(-x))


def normalise(x, norm):
    scale, bias = (np.asarray(norm[name], np.float64) for name in ("scale", "bias"))
    axes = tuple(range(x.ndim - 1))
    mean, var = (norm["mean"], norm["var"]) if "mean" in norm else (x.mean(axes), x.var(axes))
    return (x - mean) / np.sqrt(var + EPSILON) * scale + bias


def convolve(x, kernel, stride, padding):
    """PyTorch's convolution of [B, H, W, C] with [k, k, C, O], pixel by pixel."""
    return _windows(x, kernel.shape[0], stride, padding, lambda w: np.einsum("bijc,ijco->bo", w, kernel))


def convolve_depthwise(x, kernel, stride):
    """PyTorch's depthwise convolution of [B, H, W, C] with [k, k, C], padded by k // 2."""
    k = kernel.shape[0]
    return _windows(x, k, stride, k // 2, lambda w: (w * kernel).sum((1, 2)))


def average_pool(x):
    """PyTorch's 2x2 average pooling of stride 2, padded by 1 where the size is odd, padding counted."""
    return _windows(x, 2, 2, x.shape[1] % 2, lambda w: w.sum((1, 2)) / 4)


def _windows(x, k, stride, padding, function):
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns = ((n - k) // stride + 1 for n in x.shape[1:3])
    pixels = [
        [function(x[:, i * stride : i * stride + k, j * stride : j * stride + k]) for j in range(columns)]
        for i in range(rows)
    ]
    return np.moveaxis(np.array(pixels), 2, 0)
