"""A weight-sharing supernet of an MBConv space as plain PyTorch modules, and its step by the sandwich rule.

Written from the description of the networks (AttentiveNAS, arXiv 2011.09011): every layer holds the weights of its
largest size, of which a sub-network takes the first channels and the middle of the kernels; batch norm normalises by
the batch. Random weights, without exits. Used by `benchmark_training.py` as the peer. Needs the extra `torch`.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from hadas_jax.spaces import MBConvSpace
from hadas_jax.spaces.mbconv import make_divisible


class Convolution(nn.Module):
    """Convolution and batch norm of a part of its channels and taps.

    Args:
        ins: Most input channels.
        outs: Most output channels.
        kernel: Largest kernel.
        stride: 1 or 2.
        depthwise: One kernel for each channel.
        norm: With batch norm; otherwise with a bias.
    """

    def __init__(
        self, ins: int, outs: int, kernel: int = 1, stride: int = 1, *, depthwise: bool = False, norm: bool = True
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.randn(outs, 1 if depthwise else ins, kernel, kernel) / (ins * kernel**2) ** 0.5
        )
        self.scale, self.bias = nn.Parameter(torch.ones(outs)), nn.Parameter(torch.zeros(outs))
        self.stride, self.depthwise, self.norm = stride, depthwise, norm

    def forward(self, x: torch.Tensor, outs: int, kernel: int | None = None) -> torch.Tensor:
        """Maps [B, C, H, W] to [B, C', H', W'] of `outs` channels."""
        size = kernel or self.weight.shape[-1]
        rim = (self.weight.shape[-1] - size) // 2
        ins = 1 if self.depthwise else x.shape[1]
        weight = self.weight[:outs, :ins, rim : rim + size, rim : rim + size]
        bias = None if self.norm else self.bias[:outs]
        x = functional.conv2d(x, weight, bias, self.stride, size // 2, groups=outs if self.depthwise else 1)
        if not self.norm:
            return x
        return functional.batch_norm(x, None, None, self.scale[:outs], self.bias[:outs], training=True)


class Block(nn.Module):
    """Inverted residual block with a shortcut, of the largest sizes."""

    def __init__(self, ins: int, outs: int, kernel: int, expand: int, *, stride: int, expands: bool, se: bool) -> None:
        super().__init__()
        mid = make_divisible(ins * expand) if expands else ins
        self.expand = Convolution(ins, mid) if expands else None
        self.taps = Convolution(mid, mid, kernel, stride, depthwise=True)
        hidden = make_divisible(mid // 4)
        self.squeeze = Convolution(mid, hidden, norm=False) if se else None
        self.excite = Convolution(hidden, mid, norm=False) if se else None
        self.project = Convolution(mid, outs)
        self.short = Convolution(ins, outs, norm=False)
        self.stride = stride

    def forward(self, x: torch.Tensor, outs: int, kernel: int, expand: int) -> torch.Tensor:
        """Maps [B, C, H, W] to [B, C', H', W']."""
        short = functional.avg_pool2d(x, 2, 2, x.shape[-1] % 2) if self.stride == 2 else x
        short = self.short(short, outs) if short.shape[1] != outs else short
        mid = x.shape[1]
        if self.expand is not None:
            mid = make_divisible(mid * expand)
            x = functional.silu(self.expand(x, mid))
        x = functional.silu(self.taps(x, mid, kernel))
        if self.squeeze is not None and self.excite is not None:
            gate = torch.relu(self.squeeze(x.mean((2, 3), keepdim=True), make_divisible(mid // 4)))
            x = x * functional.hardsigmoid(self.excite(gate, mid))
        return self.project(x, outs) + short


class Supernet(nn.Module):
    """All networks of a space at once."""

    def __init__(self, space: MBConvSpace) -> None:
        super().__init__()
        width = max(space.stem_width)
        self.stem = Convolution(space.in_channels, width, 3, space.stem_stride)
        self.stages = nn.ModuleList()
        for stage in space.stages:
            blocks = []
            for block in range(max(stage.depth)):
                shape = (width, max(stage.width), max(stage.kernel), max(stage.expand))
                stride = stage.stride if block == 0 else 1
                blocks.append(Block(*shape, stride=stride, expands=stage.expands, se=stage.se))
                width = max(stage.width)
            self.stages.append(nn.ModuleList(blocks))
        self.head_expand = space.head_expand
        head = make_divisible(width * space.head_expand)
        self.head, self.last = Convolution(width, head), Convolution(head, max(space.last_width), norm=False)
        self.classifier = nn.Linear(max(space.last_width), space.classes)

    def forward(self, images: torch.Tensor, backbone: Any) -> torch.Tensor:
        """Maps [B, C, H, W] to logits [B, K] of a backbone."""
        widths, depths, kernels, expands = (
            [int(value) for value in field]
            for field in (backbone.width, backbone.depth, backbone.kernel, backbone.expand)
        )
        x = functional.silu(self.stem(images, widths[0]))
        for s, blocks in enumerate(self.stages):
            for block in itertools.islice(blocks.children(), depths[s]):
                x = block(x, widths[s + 1], kernels[s], expands[s])
        x = functional.silu(self.head(x, make_divisible(x.shape[1] * self.head_expand)))
        x = functional.silu(self.last(x.mean((2, 3), keepdim=True), widths[-1]))[:, :, 0, 0]
        return functional.linear(x, self.classifier.weight[:, : widths[-1]], self.classifier.bias)


def sandwich_step(
    supernet: Supernet,
    optimiser: torch.optim.Optimizer,
    batch: tuple[torch.Tensor, torch.Tensor],
    backbones: Sequence[Any],
) -> float:
    """Descends once on the summed losses of backbones, of which the first learns from labels and teaches the others."""
    images, labels = batch
    optimiser.zero_grad(set_to_none=True)
    logits = supernet(images, backbones[0])
    loss = functional.cross_entropy(logits, labels)
    loss.backward()
    teacher = logits.detach().softmax(-1)
    for backbone in backbones[1:]:
        functional.cross_entropy(supernet(images, backbone), teacher).backward()
    nn.utils.clip_grad_value_([parameter for parameter in supernet.parameters() if parameter.grad is not None], 1.0)
    optimiser.step()
    return loss.item()
