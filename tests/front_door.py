"""A user's whole program, for networks that were trained elsewhere: file in, ticket file out.

``python -m tests.front_door relu+tanh gelu+gelu`` prints what the tickets of such networks do.
"""

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.numpy

import slth
import slth.data
import slth.train
from slth import nn

DIGITS = slth.data.load("digits")


def network(first: str, second: str) -> nn.Network:
    """A small convolutional network with batch norm and PyTorch's order of flattening."""
    pad = nn.same_padding((3, 3))
    return nn.Network(
        DIGITS.shape,
        (
            *(nn.Conv("conv1", 8, (3, 3), padding=pad, use_bias=False), nn.BatchNorm("bn1")),
            nn.Activation(first),
            *(nn.Conv("conv2", 16, (3, 3), (2, 2), pad, use_bias=False), nn.BatchNorm("bn2")),
            nn.Activation(second),
            *(nn.Pool("max", (2, 2)), nn.Flatten("chw"), nn.Dense("linear", DIGITS.classes)),
        ),
    )


def state_dict(params: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Parameters under the names and in the layout that PyTorch would give them."""
    named = {"mean": "running_mean", "var": "running_var", "scale": "weight", "bias": "bias"}
    state = {}
    for layer, values in params.items():
        for name, array in values.items():
            if name == "kernel":
                axes = (array.ndim - 1, array.ndim - 2, *range(array.ndim - 2))
                state[f"{layer}.weight"] = np.ascontiguousarray(np.transpose(array, axes))
            else:
                state[f"{layer}.{named[name]}"] = np.asarray(array)
    return state


def write_state(path: Path, state: Mapping[str, np.ndarray]) -> Path:
    """The state dict as .safetensors or .npz."""
    if path.suffix == ".npz":
        np.savez(path, **state)
    else:
        path.write_bytes(safetensors.numpy.save(dict(state)))
    return path


class Passed(NamedTuple):
    """What the program gave."""

    accuracy: float
    """Of the target on held-out digits, [0, 1]."""
    agreement: float
    largest: float
    """Largest error of a logit."""
    unsolved: int
    problems: int


def trained_file(spec: nn.Network, path: Path, epochs: int = 30) -> Path:
    """A file of the network, trained on the digits."""
    settings = replace(slth.train.SETTINGS["digits"], epochs=epochs)
    params = slth.train.train(spec, DIGITS, settings, report=lambda epoch: None).params
    return write_state(path, state_dict(params))


def program(file: Path, spec: nn.Network, folder: Path) -> Passed:
    """The six lines, with no number that a user has to know, and what their results must satisfy."""
    images, x = DIGITS.calibration(256), DIGITS.test_images
    target = slth.load(file, spec)
    made = slth.construct(target, slth.Source.of(target), slth.Robust(), images)
    error = made.error(x)
    made.ticket.save(folder / "net.ticket")
    y = slth.Ticket.load(folder / "net.ticket")(x)
    np.testing.assert_array_equal(y, made.ticket(x))
    goal = target(x)
    agreement = float((y.argmax(-1) == goal.argmax(-1)).mean())
    assert error.agreement == agreement
    accuracy = float((goal.argmax(-1) == DIGITS.test_labels).mean())
    return Passed(accuracy, agreement, error.max, made.unsolved, made.stats.problems)


def main() -> None:
    """A line for each pair of activations."""
    for pair in sys.argv[1:]:
        spec = network(*pair.split("+"))
        with tempfile.TemporaryDirectory() as folder:
            found = program(trained_file(spec, Path(folder) / "net.npz"), spec, Path(folder))
        print(
            f"{pair}: target {100 * found.accuracy:.2f} %, agreement {100 * found.agreement:.2f} %, "
            f"largest error {found.largest:.2g}, {found.unsolved:,} of {found.problems:,} unsolved"
        )


if __name__ == "__main__":
    main()
