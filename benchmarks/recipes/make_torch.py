"""Networks of the digits in PyTorch and torchvision, trained, and saved as state dicts and ONNX.

``python -m benchmarks.recipes.make_torch FOLDER [NAME ...]`` needs torch, torchvision and scikit-learn,
and nothing of slth. The networks of torchvision see the digits enlarged to 32x32 and three channels.
Beside each file NAME.ext stands NAME.outputs.npz: images, channels last, and what PyTorch computes from
them.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.nn.utils import prune, weight_norm

from benchmarks.recipes import digits

STEPS, BATCH, RATE = 400, 64, 2e-3


class Residuals(nn.Module):
    """A ResNet with a projection, a pooled skip and SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.first = nn.Sequential(
            nn.Conv2d(16, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1)
        )
        self.second = nn.Sequential(
            nn.Conv2d(16, 24, 3, 2, 1, bias=False),
            nn.BatchNorm2d(24),
            nn.SiLU(),
            nn.Conv2d(24, 24, 3, padding=1),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(16, 24, 1))
        self.head = nn.Linear(24, 10)

    def forward(self, x):
        """Logits."""
        x = functional.silu(self.stem(x))
        x = functional.silu(x + self.first(x))
        x = functional.silu(self.shortcut(x) + self.second(x))
        return self.head(x.mean((2, 3)))


class Sound(nn.Module):
    """An M5 for rows of 64 samples: 1-D convolutions, batch norm and max pooling."""

    def __init__(self) -> None:
        super().__init__()
        units = []
        for cin, cout, taps, stride in ((1, 16, 9, 2), (16, 24, 3, 1), (24, 32, 3, 1)):
            units += [
                nn.Conv1d(cin, cout, taps, stride, taps // 2),
                nn.BatchNorm1d(cout),
                nn.ReLU(),
                nn.MaxPool1d(2),
            ]
        self.body = nn.Sequential(*units)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        """Logits."""
        return self.fc(self.body(x).mean(-1))


def plain(*changes) -> nn.Sequential:
    """Three convolutions, a dilated and a grouped one among them, and what `changes` make of the last."""
    last = nn.Conv2d(24, 32, 3, 2, 1)
    for change in changes:
        last = change(last)
    return nn.Sequential(
        *(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(16, 24, 3, 1, 2, dilation=2, groups=4),
        ),
        *(nn.LeakyReLU(0.1), last, nn.LeakyReLU(0.1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 10)),
    )


def pruned(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with half of its weights masked, as torch.nn.utils.prune saves it."""
    prune.l1_unstructured(layer, "weight", 0.5)
    return layer


def mnasnet() -> nn.Module:
    """MnasNet, whose batch norm shall learn its statistics in a few hundred steps."""
    net = zoo.MNASNet(0.25, 10, 0.0)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return net


def of(make, large: bool, steps: int = STEPS, rate: float = RATE):
    """Makes a network; whether it sees enlarged digits; how it is trained."""
    return make, large, steps, rate


zoo = torchvision.models
NETS = {
    "torch_residuals": of(Residuals, False),
    "torch_sound": of(Sound, False),
    "torch_plain": of(plain, False),
    "torch_weight_norm": of(lambda: plain(weight_norm), False),
    "torch_pruned": of(lambda: plain(pruned), False),
    "torchvision_mobilenet_v2": of(
        lambda: zoo.mobilenet_v2(num_classes=10, width_mult=0.25, dropout=0.0), True
    ),
    "torchvision_shufflenet_v2": of(lambda: zoo.ShuffleNetV2([1, 2, 1], [24, 24, 48, 96, 128], 10), True),
    "torchvision_squeezenet": of(lambda: zoo.squeezenet1_1(num_classes=10, dropout=0.0), True, 2000, 5e-4),
    "torchvision_densenet": of(lambda: zoo.DenseNet(8, (2, 2, 2), 16, 4, num_classes=10), True),
    "torchvision_mnasnet": of(mnasnet, True),
    "torchvision_efficientnet": of(lambda: zoo.efficientnet_b0(num_classes=10), True, 0),
}
ONNX = {"torch_residuals": 13, "torch_sound": 11, "torch_plain": 9}
"""Opsets; networks of torchvision are written in opset 16, those that are not here as state dicts alone."""


def fitted(net: nn.Module, x, y, steps: int, rate: float) -> nn.Module:
    """Trained with Adam, in evaluation mode."""
    optimiser = torch.optim.Adam(net.parameters(), rate)
    for step in range(steps):
        if step == steps * 3 // 4:
            optimiser.param_groups[0]["lr"] = rate / 10
        at = torch.randint(len(x), (BATCH,))
        loss = functional.cross_entropy(net(x[at]), y[at])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


def main() -> None:
    """Train and write all that are named, or all."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(exist_ok=True)
    split = digits.split()
    x, x_test = (torch.from_numpy(np.moveaxis(part, -1, 1)).contiguous() for part in split[:2])
    y, y_test = (torch.from_numpy(part) for part in split[2:])
    for name in sys.argv[2:] or NETS:
        make, large, steps, rate = NETS[name]
        torch.manual_seed(0)
        known, held = (
            functional.interpolate(part, size=32, mode="bilinear").repeat(1, 3, 1, 1) if large else part
            for part in (x, x_test)
        )
        if name == "torch_sound":
            known, held = known.reshape(-1, 1, 64), held.reshape(-1, 1, 64)
        net = fitted(make(), known, y, steps, rate)
        with torch.no_grad():
            outputs = net(held)
        if name == "torchvision_efficientnet":
            torch.jit.trace(net, held[:1]).save(str(folder / "torchscript.pt"))
            torch.save(net, folder / "torch_module.pt")
        if name in ONNX or large:
            opset = ONNX.get(name, 16)
            torch.onnx.export(net, held[:1], str(folder / f"{name}.onnx"), opset_version=opset)
        torch.save(net.state_dict(), folder / f"{name}.pth")
        known, held = (np.moveaxis(part.numpy(), 1, -1) for part in (known, held))
        digits.store(folder, name, known, held, outputs.numpy(), y_test.numpy())


if __name__ == "__main__":
    main()
