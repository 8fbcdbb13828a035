"""MobileNetV2 and DenseNet-40 of CIFAR-10's size, trained for a few hundred steps by PyTorch: state dicts.

``python -m benchmarks.recipes.make_cifar IMAGES.npz FOLDER [NAME ...]`` needs torch and torchvision, and
nothing of slth. IMAGES.npz holds x, float32 (n, 32, 32, 3), normalised, and y, (n,); slth writes it:

    images = slth.data.load("cifar10", DIR)
    np.savez("IMAGES.npz", x=images.train_images, y=images.train_labels)

The names of the arrays are those of `slth.nn.zoo`, so `slth.load(FILE, zoo.build("mobilenet_v2", (32, 32, 3),
10))` reads them. So few steps make no good classifier; they make weights and statistics like those of one.
The last 512 images are not trained on, and their accuracy is printed.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional

STEPS = {"mobilenet_v2": 300, "densenet40": 200}
BATCH = 64


class Grown(nn.Module):
    """A layer of a dense block: its input, and what it makes of it."""

    def __init__(self, cin: int, growth: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(cin), nn.Conv2d(cin, growth, 3, padding=1, bias=False)

    def forward(self, x):
        """(n, cin + growth, ...)."""
        return torch.cat([x, self.conv1(functional.relu(self.bn1(x)))], 1)


class Transition(nn.Module):
    """A 1x1 convolution and mean pooling."""

    def __init__(self, cin: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(cin), nn.Conv2d(cin, cin, 1, bias=False)

    def forward(self, x):
        """(n, cin, half, half)."""
        return functional.avg_pool2d(self.conv1(functional.relu(self.bn1(x))), 2)


class DenseNet(nn.Module):
    """DenseNet-40, growth 12 (Huang et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        channels = 16
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        for block in (1, 2, 3):
            layers = [Grown(channels + 12 * index, 12) for index in range(12)]
            channels += 12 * 12
            self.add_module(f"block{block}", nn.ModuleDict({"layer": nn.Sequential(*layers)}))
            if block < 3:
                self.add_module(f"trans{block}", Transition(channels))
        self.bn1, self.fc = nn.BatchNorm2d(channels), nn.Linear(channels, 10)

    def forward(self, x):
        """Logits."""
        x = self.conv1(x)
        for block in (1, 2, 3):
            x = getattr(self, f"block{block}")["layer"](x)
            x = getattr(self, f"trans{block}")(x) if block < 3 else x
        return self.fc(functional.relu(self.bn1(x)).mean((2, 3)))


def mobilenet_v2() -> nn.Module:
    """torchvision's, whose first convolution and second stage have stride 1."""
    stages = [[1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 3, 2], [6, 64, 4, 2], [6, 96, 3, 1], [6, 160, 3, 2]]
    setting = [*stages, [6, 320, 1, 1]]
    net = torchvision.models.mobilenet_v2(num_classes=10, inverted_residual_setting=setting, dropout=0.0)
    net.features[0][0].stride = (1, 1)
    return net


NETS = {"mobilenet_v2": mobilenet_v2, "densenet40": DenseNet}


def main() -> None:
    """Train and write those that are named, or both."""
    held, folder = np.load(sys.argv[1]), Path(sys.argv[2])
    x, y = torch.from_numpy(np.moveaxis(held["x"], -1, 1)).contiguous(), torch.from_numpy(held["y"]).long()
    x, x_test, y, y_test = x[:-512], x[-512:], y[:-512], y[-512:]
    for name in sys.argv[3:] or NETS:
        torch.manual_seed(0)
        net, begun = NETS[name](), time.time()
        optimiser = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS[name])
        for _ in range(STEPS[name]):
            at = torch.randint(len(x), (BATCH,))
            loss = functional.cross_entropy(net(x[at]), y[at])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        net.eval()
        with torch.no_grad():
            right = sum(
                int((net(a).argmax(1) == b).sum())
                for a, b in zip(x_test.split(64), y_test.split(64), strict=True)
            )
        torch.save(net.state_dict(), folder / f"{name}.pth")
        print(
            name,
            f"{right / len(y_test):.3f} of {len(y_test)} images, {time.time() - begun:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
