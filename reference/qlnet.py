"""QLNet in PyTorch: the project's own reference, written from the paper.

Liu, Shao, Bai, "A Novel Convolutional Neural Network Architecture with a Continuous Symmetry",
arXiv 2308.01621. The modules carry the names of the published checkpoints, so that
`QLNet().load_state_dict(torch.load("qlnet-50-v0.pth.tar")["state_dict"])` works.

    python reference/qlnet.py          prints the number of parameters of the known configurations
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass
class Config:
    """What varies between QLNets. The defaults are those of qlnet-50-v0."""

    stem: int = 64
    widths: tuple = (64, 128, 256, 512)
    depths: tuple = (3, 4, 6, 3)
    wide_up_to: int = 128  # hidden width is 4c for c <= wide_up_to, 2c above
    filters: int = 2  # depthwise filters per hidden channel
    kernels: int | None = None  # distinct depthwise kernels per block; None: one per filter
    classes: int = 1000

    def hidden(self, c):
        return 4 * c if c <= self.wide_up_to else 2 * c


class ConvNorm(nn.Module):
    """A 1x1 convolution and its batch norm."""

    def __init__(self, c, o, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(c, o, 1, stride=stride, bias=False)
        self.bn = nn.BatchNorm2d(o)

    def forward(self, x):
        return self.bn(self.conv(x))


class SharedDepthwise(nn.Module):
    """A depthwise 3x3 convolution whose kernels repeat along the channels."""

    def __init__(self, w, filters, kernels, stride):
        super().__init__()
        self.groups, self.rows, self.stride = w, w * filters, stride
        self.weight = nn.Parameter(torch.randn(kernels, 1, 3, 3) / 3)

    def forward(self, x):
        weight = self.weight.repeat(self.rows // self.weight.shape[0], 1, 1, 1)
        return F.conv2d(x, weight, stride=self.stride, padding=1, groups=self.groups)


def hardball(x):
    """Projects every pixel's vector of n channels onto the ball of radius sqrt(n)."""
    radius = x.shape[1] ** 0.5
    norm = x.norm(dim=1, keepdim=True)
    return torch.where(norm > radius, x * (radius / norm), x)


class Block(nn.Module):
    def __init__(self, config, c, o, stride):
        super().__init__()
        w, rows = config.hidden(c), config.hidden(c) * config.filters
        self.conv1 = ConvNorm(c, 2 * w)
        if config.kernels is None:
            self.conv2 = nn.Conv2d(w, rows, 3, stride=stride, padding=1, groups=w, bias=False)
        else:
            self.conv2 = SharedDepthwise(w, config.filters, config.kernels, stride)
        self.bn2 = nn.BatchNorm2d(rows)
        self.conv3 = ConvNorm(rows, o)
        self.skip = ConvNorm(c, o, stride) if stride != 1 or c != o else None

    def forward(self, x):
        a, b = self.conv1(x).chunk(2, dim=1)
        y = self.conv3(self.bn2(self.conv2(a * b)))
        if self.skip is None:
            return y + x
        return hardball(y + self.skip(x))


class QLNet(nn.Module):
    """Maps [N, 3, H, W] to logits [N, classes]."""

    def __init__(self, config=Config()):
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv2d(3, config.stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(config.stem)
        c = config.stem
        self.layers = len(config.widths)
        for i, (o, depth) in enumerate(zip(config.widths, config.depths)):
            blocks = []
            for j in range(depth):
                blocks.append(Block(config, c, o, 2 if i > 0 and j == 0 else 1))
                c = o
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(c, config.classes)

    def trace(self, x):
        """The output of every step by name, NCHW."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        yield "stem", x
        for i in range(self.layers):
            for j, block in enumerate(getattr(self, f"layer{i + 1}")):
                x = block(x)
                yield f"layer{i + 1}.{j}", x
        x = hardball(x)
        yield "act", x
        yield "logits", self.fc(x.mean(dim=(2, 3)))

    def forward(self, x):
        for _, x in self.trace(x):
            pass
        return x


QLNET_50_V0 = Config()
QLNET_10M = Config(wide_up_to=256, filters=1)
QLNET_DIGITS = Config(stem=16, widths=(16, 24, 32, 48), depths=(1, 2, 2, 1), wide_up_to=24, classes=10)

KNOWN = {"qlnet-50-v0": QLNET_50_V0, "qlnet-10m": QLNET_10M, "qlnet-digits": QLNET_DIGITS}


def read_state_dict(file):
    """The state_dict of a checkpoint: a training state or a bare one, by torch.save or safetensors."""
    if str(file).endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(file)
    state = torch.load(file, map_location="cpu", weights_only=False)
    return state.get("state_dict", state)


def from_file(file):
    """The network of a checkpoint, ready for inference. Its configuration is the known one that fits."""
    state = read_state_dict(file)
    for config in KNOWN.values():
        net = QLNet(config)
        names = {name: value.shape for name, value in net.state_dict().items() if "num_batches" not in name}
        if all(name in state and state[name].shape == shape for name, shape in names.items()):
            net.load_state_dict(state, strict=False)
            return net.eval()
    raise ValueError(f"{file}: none of the known configurations ({', '.join(KNOWN)})")


if __name__ == "__main__":
    for name, config in KNOWN.items():
        net = QLNet(config)
        print(f"{name}: {sum(p.numel() for p in net.parameters()):,} parameters, {len(net.state_dict())} entries")
