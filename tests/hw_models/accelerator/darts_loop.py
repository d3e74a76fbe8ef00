"""Both paradigms as plain loops in float64 over the layers of a network, one by one."""

import math
from typing import NamedTuple

import numpy as np


class Layer(NamedTuple):
    kind: str
    inputs: int
    outputs: int
    kernel: int
    in_size: int
    out_size: int
    stride: int

    @property
    def fan_in(self) -> int:
        return (self.inputs if self.kind == "conv" else 1) * self.kernel**2

    @property
    def macs(self) -> int:
        return self.fan_in * self.outputs * self.out_size**2


def layers_of(code, channels=16, cells=8, classes=10, size=32) -> list[Layer]:
    """Layers of the network of a code, images of three channels."""

    def conv(inputs, outputs, kernel, at, stride=1):
        return Layer("conv", inputs, outputs, kernel, at, at // stride, stride)

    def reduction(inputs, at):
        return [conv(inputs, channels // 2, 1, at, 2)] * 2

    layers = [conv(3, 3 * channels, 3, size)]
    before, last, was_reduced = (3 * channels, size), (3 * channels, size), False
    for cell in range(cells):
        is_reduced = cell in (cells // 3, 2 * cells // 3)
        channels *= 2 if is_reduced else 1
        layers += reduction(*before) if was_reduced else [conv(before[0], channels, 1, before[1])]
        layers.append(conv(last[0], channels, 1, last[1]))
        out = last[1] // 2 if is_reduced else last[1]
        edge = 14 if is_reduced else 0
        for node in range(4):
            for start in range(2 + node):
                digit, edge = int(code[edge]), edge + 1
                stride = 2 if is_reduced and start < 2 else 1
                at = out * stride
                if digit in (1, 2):
                    layers.append(Layer("pool", channels, channels, 3, at, out, stride))
                elif digit == 3 and stride == 2:
                    layers += reduction(channels, at)
                elif digit > 3:
                    kernel = 3 if digit in (4, 6) else 5
                    layers += [Layer("depthwise", channels, channels, kernel, at, out, stride)]
                    layers += [conv(channels, channels, 1, out)]
                    if digit < 6:
                        layers += [Layer("depthwise", channels, channels, kernel, out, out, 1)]
                        layers += [conv(channels, channels, 1, out)]
        before, last, was_reduced = last, (4 * channels, out), is_reduced
    layers.append(Layer("pool", last[0], last[0], last[1], last[1], 1, 1))
    return [*layers, conv(last[0], classes, 1, 1)]


def blocks(width: int, depth: int) -> int:
    """Memory blocks of 18 Kb, slice after slice of the width."""
    count = 0
    while width >= 36:
        wide = 72 if width >= 72 else 36
        count += (wide // 36) * math.ceil(depth / 512)
        width -= wide
    shapes = {1: 16384, 2: 8192, 4: 4096, 9: 2048, 18: 1024, 36: 512}
    return count + (math.ceil(depth / next(d for w, d in shapes.items() if width <= w)) if width else 0)


def pipeline(layers, *, dsp, bram, ddr=81.92e9, clock=200e6, bits=16, most=64, pool=16, port=128) -> dict:
    """DNNBuilder's allocation as a loop."""
    weighted = [layer for layer in layers if layer.kind != "pool"]
    seconds = sum(layer.macs / layer.out_size for layer in weighted) * bits / ddr
    wanted = [math.ceil(layer.macs / (seconds * clock)) for layer in weighted]
    control = 6 * len(weighted) + 2 * (len(layers) - len(weighted))
    while True:
        dsps, memory, cache, slowest = 0, 0, 0, 0
        for layer, target in zip(weighted, wanted, strict=True):
            parallelism = 2 ** round(math.log2(target))
            channels = min(parallelism, 2 ** math.ceil(math.log2(min(layer.inputs, most))))
            most_kernels = 2 ** math.floor(math.log2(min(layer.outputs, most)))
            kernels = min(parallelism // channels, most_kernels)
            while channels / kernels > 2 and kernels < most_kernels:
                channels, kernels = channels // 2, kernels * 2
            dsps += math.ceil(channels * kernels / (2 if bits == 8 else 1))
            slowest = max(slowest, math.ceil(layer.macs / (channels * kernels)))
            cache += blocks(
                channels * bits, math.ceil(layer.inputs * layer.in_size * (layer.kernel + layer.stride) / channels)
            )
            width, depth = channels * kernels * bits, math.ceil(layer.fan_in / channels)
            memory += blocks(max(width, port), 2 * min(depth, math.ceil(width * depth / port)))
            memory += blocks(2 * bits * kernels, max(math.ceil(layer.outputs / kernels), 2))
        for layer in layers:
            if layer.kind == "pool":
                at_once = min(pool, layer.outputs)
                words = layer.inputs * layer.in_size * (layer.kernel + layer.stride)
                cache += blocks(at_once * bits, math.ceil(words / at_once))
        batch = min((math.floor(0.9 * dsp) - control) // dsps, (bram - memory) // cache)
        if batch >= 1 or max(wanted) == 1:
            break
        wanted = [max(target // 2, 1) for target in wanted]
    batch = max(batch, 0)
    return {
        "throughput": batch * clock / (slowest + 1),
        "batch": batch,
        "slowest": slowest,
        "dsp": control + batch * dsps,
        "bram": memory + batch * cache,
    }


def generic_cycles(layers, *, multipliers=4096, efficiency=0.87, ddr=81.92e9, clock=200e6, bits=16) -> float:
    """Layer after layer on one engine."""
    words_per_cycle = efficiency * ddr / bits / clock
    total = 0.0
    for layer in layers:
        moved = (layer.inputs * layer.in_size**2 + layer.outputs * layer.out_size**2) / words_per_cycle
        full = layer.inputs * layer.outputs * layer.kernel**2 * layer.out_size**2
        total += 40 + moved if layer.kind == "pool" else 600 + max(full / multipliers, moved)
    return total


def draw(count: int, seed: int) -> np.ndarray:
    """Random codes, int32[count, 28]."""
    rng = np.random.default_rng(seed)
    codes = np.zeros((count, 28), np.int32)
    for code in codes:
        for start, size in ((0, 2), (2, 3), (5, 4), (9, 5)):
            for cell in (0, 14):
                code[cell + start + rng.choice(size, 2, replace=False)] = rng.integers(1, 8, 2)
    return codes
