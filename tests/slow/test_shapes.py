"""Every residual shape of the zoo passes through the construction: random weights, small widths.

Batch norm carries statistics of random images, moved at random, so that activations keep their size
with depth and outputs depend on the image. Errors are relative to the spread of the outputs over images, on
images that the construction has not seen; `pytest -s` prints them all.
"""

import time

import numpy as np
import pytest

from slth import Compensated, Robust, Target, construct, nn
from slth.nn import zoo
from tests.construction.nets import images, random_params, source_of

NETWORKS = {
    "resnet20, projections": zoo.resnet_cifar(20, (16, 16, 3), 10, width=4, skip="projection"),
    "preresnet20": zoo.resnet_cifar(20, (16, 16, 3), 10, width=4, pre_activation=True),
    "resnet56": zoo.resnet_cifar(56, (16, 16, 3), 10, width=4),
    "resnet50": zoo.resnet_imagenet(50, (64, 64, 3), 8, width=4),
}
ROBUST = Robust()
COMPENSATED = Compensated(sweeps=3)
# Copies, solver, calibration images, skip of the source, and the largest accepted error.
CASES = [
    ("resnet20, projections", 15, ROBUST, 32, "carried", 0.4),
    ("resnet20, projections", 8, COMPENSATED, 512, "random", 0.9),
    ("preresnet20", 15, ROBUST, 32, "random", 0.15),
    ("resnet56", 15, ROBUST, 32, "carried", 0.5),
    ("resnet50", 15, ROBUST, 16, "carried", 0.7),
]


def trained_like(network, seed=0):
    """Random parameters; the statistics of each batch norm are those of random images, moved at random."""
    rng = np.random.default_rng(seed)
    params = random_params(network, rng)
    seen = nn.apply_train(network, params, images(network, 32, seed=5))[1]

    before, after = nn.by_layer(params), nn.by_layer(seen)
    for step in nn.graph(network):
        if not (isinstance(step, nn.Apply) and isinstance(step.layer, nn.BatchNorm)):
            continue
        keep, values = step.layer.momentum, before[step.path]
        mean, var = (
            (np.asarray(after[step.path][key]) - keep * values[key]) / (1 - keep) for key in ("mean", "var")
        )
        moved = mean + 0.2 * rng.normal(size=mean.shape) * np.sqrt(np.maximum(var, 0))
        values["mean"] = moved.astype(np.float32)
        values["var"] = (np.maximum(var, 1e-3) * rng.uniform(0.7, 1.4, var.shape)).astype(np.float32)
    return nn.fold_batch_norm(network, nn.nested(before))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, m, solver, count, skip, bound", CASES, ids=[f"{c[0]}-{type(c[2]).__name__}-{c[4]}" for c in CASES]
)
def test_outputs_agree(name, m, solver, count, skip, bound):
    target, params = trained_like(NETWORKS[name])
    x, calibration = images(target, 64), images(target, count, seed=1)
    source = source_of(target, m, constants=2 * m, copies_per_sign=2 * m, skip=skip)
    started = time.perf_counter()
    made = construct(Target(target, params), source, solver, calibration)
    seconds = time.perf_counter() - started
    wanted, outputs = made.target(x), made.ticket(x)
    error = np.linalg.norm(outputs - wanted) / np.linalg.norm(wanted - wanted.mean(0))
    agreement = (outputs.argmax(1) == wanted.argmax(1)).mean()
    classes = len(set(wanted.argmax(1)))
    print(
        f"{name}, {type(solver).__name__}, m = {m}, {skip} skips: error {error:.3f} of the spread,"
        f" agreement {agreement:.1%} ({classes} classes), {seconds:.0f} s"
    )
    assert np.isfinite(outputs).all()
    assert len(made.records) == len({record.path for record in made.records})
    assert error < bound
