"""The search network of DARTS as plain PyTorch modules, an edge and an operation at a time, and its search step.

Written from the description of the network (Liu et al., 2018, https://arxiv.org/abs/1806.09055); random weights. Used
by `benchmark_darts.py` as the peer. Needs the extra `torch`.
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from hadas_jax.spaces.darts import EDGE_INPUT, EDGE_NODE, EDGES, NODES, OPERATIONS
from hadas_jax.spaces.darts_network import DartsNetwork

RATE, RADIUS = 0.025, 0.01
Batch = tuple[torch.Tensor, torch.Tensor]


def norm(channels: int) -> nn.Module:
    """Returns batch norm without scale and shift."""
    return nn.BatchNorm2d(channels, affine=False)


class Reduction(nn.Module):
    """Factorised reduction."""

    def __init__(self, ins: int, outs: int) -> None:
        super().__init__()
        self.halves = nn.ModuleList(nn.Conv2d(ins, outs // 2, 1, 2, bias=False) for _ in range(2))
        self.norm = norm(outs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, C, H, W] to [B, C', H / 2, W / 2]."""
        x = torch.relu(x)
        return self.norm(torch.cat([self.halves[0](x), self.halves[1](x[:, :, 1:, 1:])], 1))


def operation(name: str, channels: int, stride: int) -> nn.Module:
    """Returns one operation of an edge."""
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else Reduction(channels, channels)
    if name == "max_pool_3x3":
        return nn.Sequential(nn.MaxPool2d(3, stride, 1), norm(channels))
    if name == "avg_pool_3x3":
        return nn.Sequential(nn.AvgPool2d(3, stride, 1, count_include_pad=False), norm(channels))
    k, dilation = int(name[-1]), 2 if name.startswith("dil") else 1
    layers: list[nn.Module] = []
    for step in (stride,) if dilation == 2 else (stride, 1):
        pad = dilation * (k // 2)
        taps = nn.Conv2d(channels, channels, k, step, pad, dilation, groups=channels, bias=False)
        layers += [nn.ReLU(), taps, nn.Conv2d(channels, channels, 1, bias=False), norm(channels)]
    return nn.Sequential(*layers)


class Cell(nn.Module):
    """A cell of mixed operations."""

    def __init__(self, inputs: Sequence[int], channels: int, *, is_reduced: bool, was_reduced: bool) -> None:
        super().__init__()
        first, last = (
            nn.Sequential(nn.ReLU(), nn.Conv2d(ins, channels, 1, bias=False), norm(channels)) for ins in inputs
        )
        self.inputs = nn.ModuleList([Reduction(inputs[0], channels) if was_reduced else first, last])
        strides = [2 if is_reduced and source < 2 else 1 for source in EDGE_INPUT]
        self.edges = nn.ModuleList(
            nn.ModuleList(operation(name, channels, stride) for name in OPERATIONS[1:]) for stride in strides
        )

    def forward(self, before: torch.Tensor, last: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Runs the cell with shares [14, 8]."""
        states = [module(x) for module, x in zip(self.inputs, (before, last), strict=True)]
        for node in range(NODES):
            edges = [edge for edge in range(EDGES) if EDGE_NODE[edge] == node]
            arriving = [self._mix(edge, states[EDGE_INPUT[edge]], shares) for edge in edges]
            states.append(sum(arriving[1:], arriving[0]))
        return torch.cat(states[2:], 1)

    def _mix(self, edge: int, x: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(())
        for share, module in zip(shares[edge, 1:].unbind(), self.edges[edge].children(), strict=True):
            total = total + share * module(x)
        return total


class SearchNetwork(nn.Module):
    """The whole network, for CIFAR images; `alpha` [28, 8] are its architecture parameters."""

    def __init__(self, network: DartsNetwork) -> None:
        super().__init__()
        channels, before = network.channels, 3 * network.channels
        self.stem = nn.Sequential(nn.Conv2d(network.in_channels, before, 3, 1, 1, bias=False), nn.BatchNorm2d(before))
        self.cells, self.reductions, last, was_reduced = nn.ModuleList(), network.reductions, before, False
        for index in range(network.cells):
            is_reduced = index in network.reductions
            channels *= 2 if is_reduced else 1
            self.cells.append(Cell((before, last), channels, is_reduced=is_reduced, was_reduced=was_reduced))
            before, last, was_reduced = last, NODES * channels, is_reduced
        self.classifier = nn.Linear(last, network.classes)
        self.alpha = nn.Parameter(1e-3 * torch.randn(2 * EDGES, len(OPERATIONS)))

    def weights(self) -> list[nn.Parameter]:
        """Returns all parameters but the architecture's."""
        return [value for name, value in self.named_parameters() if name != "alpha"]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images [B, C, H, W] to logits [B, K]."""
        shares = torch.softmax(self.alpha, -1).reshape(2, EDGES, len(OPERATIONS))
        before = last = self.stem(images)
        for index, cell in enumerate(self.cells):
            before, last = last, cell(before, last, shares[int(index in self.reductions)])
        return self.classifier(last.mean((2, 3)))


def loss(network: SearchNetwork, batch: Batch) -> torch.Tensor:
    """Returns the mean cross-entropy."""
    return functional.cross_entropy(network(batch[0]), batch[1])


def search_step(network: SearchNetwork, train: Batch, search: Batch, *, second_order: bool) -> None:
    """Descends once in alpha, then once in the weights.

    Second order follows the original: the product of Hessian and vector from a difference of two gradients.
    """
    weights = network.weights()
    if second_order:
        ahead = copy.deepcopy(network)
        _move(ahead.weights(), torch.autograd.grad(loss(ahead, train), ahead.weights()), -RATE)
        direct, *along = torch.autograd.grad(loss(ahead, search), [ahead.alpha, *ahead.weights()])
        step = RADIUS / torch.sqrt(torch.stack([v.square().sum() for v in along]).sum())
        slopes: list[torch.Tensor] = []
        for by in (step, -2 * step):
            _move(weights, along, by)
            slopes += torch.autograd.grad(loss(network, train), [network.alpha])
        _move(weights, along, step)
        gradient = direct - RATE * (slopes[0] - slopes[1]) / (2 * step)
    else:
        (gradient,) = torch.autograd.grad(loss(network, search), [network.alpha])
    _move([network.alpha], [gradient], -3e-4)
    _move(weights, torch.autograd.grad(loss(network, train), weights), -RATE)


@torch.no_grad()
def _move(values: Sequence[torch.Tensor], along: Sequence[torch.Tensor], by: float | torch.Tensor) -> None:
    for value, direction in zip(values, along, strict=True):
        value += by * direction
