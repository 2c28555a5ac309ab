"""Features and gradients of small residual networks by PyTorch in f64, written to resnet.json: python make_resnet.py ."""
import json
import sys

import torch
from torch import nn


def value(k, count):
    """The generator of tests/golden.h: elements 0 to count - 1 of tensor k, in [-1, 1)."""
    mask = (1 << 64) - 1
    numbers = []
    for i in range(count):
        z = ((i + 1) * 0x9E3779B97F4A7C15 + (k + 1) * 0xBF58476D1CE4E5B9) & mask
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = ((z ^ (z >> shift)) * factor) & mask
        numbers.append(((z ^ (z >> 31)) >> 11) * 2.0**-53 * 2 - 1)
    return torch.tensor(numbers, dtype=torch.float64)


class Block(nn.Module):
    def __init__(self, inner, width, stride, bottleneck):
        super().__init__()
        outer = 4 * width if bottleneck else width
        shapes = [(inner, width, 1, 1), (width, width, 3, stride), (width, outer, 1, 1)] if bottleneck else [(inner, width, 3, stride), (width, width, 3, 1)]
        self.count = len(shapes)
        for i, (a, b, kernel, step) in enumerate(shapes, 1):
            setattr(self, f"conv{i}", nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(b))
        self.downsample = None
        if stride != 1 or inner != outer:
            self.downsample = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x):
        y = x
        for i in range(1, self.count + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            if i < self.count:
                y = y.relu()
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class Net(nn.Module):
    def __init__(self, blocks, bottleneck, width):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inner = width
        for stage, count in enumerate(blocks):
            layers = []
            for i in range(count):
                layers.append(Block(inner, width << stage, 2 if stage and not i else 1, bottleneck))
                inner = (width << stage) * (4 if bottleneck else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))

    def forward(self, x):
        x = nn.functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean((2, 3))


def numbers(tensor, count=6):
    return tensor.flatten()[:count].tolist()


def result(blocks, bottleneck):
    net = Net(blocks, bottleneck, 4).double()
    state = {name: tensor for name, tensor in net.state_dict().items() if "num_batches" not in name}
    with torch.no_grad():
        for k, (name, tensor) in enumerate(state.items()):
            r = value(k, tensor.numel()).view(tensor.shape)
            if tensor.dim() == 4:
                tensor.copy_(0.3 * r)
            elif name.endswith(("weight", "running_var")):
                tensor.copy_(1 + 0.5 * r)
            else:
                tensor.copy_(0.1 * r)
    images = value(1000, 2 * 3 * 40 * 40).view(2, 3, 40, 40)
    net.eval()
    out = {"blocks": blocks, "bottleneck": bottleneck, "names": list(state), "eval": numbers(net(images))}
    net.train()
    features = net(images)
    nn.functional.cross_entropy(features, torch.tensor([1, 3])).backward()
    out["train"] = numbers(features)
    out["running_var"] = numbers(state["bn1.running_var"], 3)
    out["gradients"] = {name: numbers(parameter.grad, 3) for name, parameter in net.named_parameters()}
    return out


with open(sys.argv[1] + "/resnet.json", "w") as file:
    json.dump([result([2, 1, 1, 1], True), result([1, 2, 1, 1], False)], file, indent=1)
    file.write("\n")
