"""Small networks of the digits from MLX, scikit-learn and Paddle, each saved in its own way.

``python -m benchmarks.recipes.make_others FOLDER NAME ...`` makes those that are named. It needs the
library of each (skl2onnx too for scikit-learn, paddle2onnx for Paddle), scikit-learn for the images,
nothing of slth.
"""

import sys
from pathlib import Path

import numpy as np

from benchmarks.recipes import digits

STEPS, BATCH, RATE = 500, 64, 3e-3


def rows(x: np.ndarray, y: np.ndarray):
    """Batches, drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        at = rng.integers(len(x), size=BATCH)
        yield x[at], y[at]


def mlx(folder: Path, x, y, x_test):
    """Three convolutions with ELU, kernels (out, rows, columns, in), in safetensors."""
    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optim

    class Net(nn.Module):
        """The network."""

        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 12, 3, padding=1)
            self.conv2 = nn.Conv2d(12, 16, 3, stride=2, padding=1)
            self.conv3 = nn.Conv2d(16, 24, 3, padding=1)
            self.fc = nn.Linear(24, 10)

        def __call__(self, x):
            for conv in (self.conv1, self.conv2, self.conv3):
                x = nn.elu(conv(x))
            return self.fc(x.mean((1, 2)))

    mx.random.seed(0)
    net = Net()
    optimiser = optim.Adam(RATE)
    step = nn.value_and_grad(net, lambda net, a, b: nn.losses.cross_entropy(net(a), b, reduction="mean"))
    for a, b in rows(x, y):
        _, gradient = step(net, mx.array(a), mx.array(b.astype(np.int32)))
        optimiser.update(net, gradient)
        mx.eval(net.parameters(), optimiser.state)
    net.save_weights(str(folder / "mlx.safetensors"))
    return np.array(net(mx.array(x_test)))


def sklearn(folder: Path, x, y, x_test):
    """An MLP of scikit-learn as ONNX, with its probabilities."""
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPClassifier

    flat = x.reshape(len(x), -1)
    net = MLPClassifier((48, 32), activation="tanh", max_iter=200, random_state=0).fit(flat, y)
    model = to_onnx(net, flat[:1], options={"zipmap": False}, target_opset=17)
    (folder / "sklearn.onnx").write_bytes(model.SerializeToString())
    return np.log(net.predict_proba(x_test.reshape(len(x_test), -1)))


def paddle(folder: Path, x, y, x_test):
    """A MobileNet with hard swish and an average pool in ceil mode, as .pdparams and ONNX; channels first."""
    import paddle
    from paddle import nn

    def unit(cin, cout, stride, groups=1, taps=3):
        conv = nn.Conv2D(cin, cout, taps, stride, taps // 2, groups=groups, bias_attr=False)
        return [conv, nn.BatchNorm2D(cout), nn.Hardswish()]

    paddle.seed(0)
    net = nn.Sequential(
        *unit(1, 12, 1),
        *(*unit(12, 12, 1, 12), *unit(12, 20, 1, taps=1)),
        nn.AvgPool2D(3, 2, ceil_mode=True),
        *(*unit(20, 20, 1, 20), *unit(20, 28, 1, taps=1)),
        *(nn.AdaptiveAvgPool2D(1), nn.Flatten(), nn.Linear(28, 10)),
    )
    optimiser = paddle.optimizer.Adam(RATE, parameters=net.parameters())
    for a, b in rows(np.moveaxis(x, -1, 1), y):
        loss = nn.functional.cross_entropy(
            net(paddle.to_tensor(np.ascontiguousarray(a))), paddle.to_tensor(b)
        )
        loss.backward()
        optimiser.step()
        optimiser.clear_grad()
    net.eval()
    paddle.save(net.state_dict(), str(folder / "paddle.pdparams"))
    shape = paddle.static.InputSpec([None, 1, 8, 8], "float32", "images")
    paddle.onnx.export(net, str(folder / "paddle"), [shape], opset_version=13)
    return net(paddle.to_tensor(np.ascontiguousarray(np.moveaxis(x_test, -1, 1)))).numpy()


def main() -> None:
    """Train and write those that are named."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(exist_ok=True)
    x, x_test, y, y_test = digits.split()
    for name in sys.argv[2:]:
        outputs = {"mlx": mlx, "sklearn": sklearn, "paddle": paddle}[name](folder, x, y, x_test)
        digits.store(folder, name, x, x_test, outputs, y_test)


if __name__ == "__main__":
    main()
