"""One sub-network of an MBConv space as a plain PyTorch module, as an extracted network of the original would run.

Written from the description of the network (AttentiveNAS, arXiv 2011.09011); random weights, without exits. Used by
`benchmark_supernet.py` as the peer. Needs the extra `torch`.
"""

import torch
from torch import nn

from hadas_jax.spaces import Backbone, MBConvSpace
from hadas_jax.spaces.mbconv import make_divisible


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation of [B, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = make_divisible(channels // 4)
        self.squeeze, self.excite = nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Gates the channels."""
        gate = self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        return x * nn.functional.hardsigmoid(gate)


class Block(nn.Module):
    """Inverted residual block with a shortcut."""

    def __init__(self, ins: int, outs: int, kernel: int, expand: int, *, stride: int, expands: bool, se: bool) -> None:
        super().__init__()
        mid = make_divisible(ins * expand) if expands else ins
        layers: list[nn.Module] = []
        if expands:
            layers += [nn.Conv2d(ins, mid, 1, bias=False), nn.BatchNorm2d(mid), nn.SiLU(inplace=True)]
        depthwise = nn.Conv2d(mid, mid, kernel, stride, kernel // 2, groups=mid, bias=False)
        layers += [depthwise, nn.BatchNorm2d(mid), nn.SiLU(inplace=True)]
        layers += [SqueezeExcite(mid)] if se else []
        layers += [nn.Conv2d(mid, outs, 1, bias=False), nn.BatchNorm2d(outs)]
        self.layers = nn.Sequential(*layers)
        self.convolve = nn.Conv2d(ins, outs, 1, bias=False) if ins != outs else nn.Identity()
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, C, H, W] to [B, C', H', W']."""
        short = nn.functional.avg_pool2d(x, 2, 2, x.shape[-1] % 2) if self.stride == 2 else x
        return self.layers(x) + self.convolve(short)


def extracted(space: MBConvSpace, backbone: Backbone) -> nn.Module:
    """Returns the network of one backbone, in evaluation mode.

    Args:
      space: of the backbone.
      backbone: concrete.
    """
    widths, depths, kernels, expands = (
        [int(value) for value in field] for field in (backbone.width, backbone.depth, backbone.kernel, backbone.expand)
    )
    stem = nn.Conv2d(space.in_channels, widths[0], 3, space.stem_stride, 1, bias=False)
    layers: list[nn.Module] = [stem, nn.BatchNorm2d(widths[0]), nn.SiLU(inplace=True)]
    ins = widths[0]
    for s, stage in enumerate(space.stages):
        for block in range(depths[s]):
            stride = stage.stride if block == 0 else 1
            shape = (ins, widths[s + 1], kernels[s], expands[s])
            layers.append(Block(*shape, stride=stride, expands=stage.expands, se=stage.se))
            ins = widths[s + 1]
    head = make_divisible(ins * space.head_expand)
    layers += [nn.Conv2d(ins, head, 1, bias=False), nn.BatchNorm2d(head), nn.SiLU(inplace=True)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Conv2d(head, widths[-1], 1, bias=False), nn.SiLU(inplace=True)]
    layers += [nn.Flatten(), nn.Linear(widths[-1], space.classes)]
    return nn.Sequential(*layers).eval()
