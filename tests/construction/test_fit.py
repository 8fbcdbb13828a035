"""The fit of the least predicted error: predictions against constructions, and where nothing is predicted."""

import numpy as np
import pytest

import slth
from slth import Best, Robust, Rounded, Source, Target, nn
from slth.construction import fit, plan_of
from slth.construction.fit import FITS, UNPREDICTED
from tests.construction.nets import images, target_of

PAD = ((1, 1), (1, 1))


def deep(kind: str = "relu", *, heavy: bool = False) -> tuple[Target, np.ndarray, np.ndarray]:
    """A net of five convolutions; with ``heavy``, most weights are small beside a few."""
    act = nn.Activation(kind)
    layers = [layer for n in "abcde" for layer in (nn.Conv(n, 10, (3, 3), padding=PAD), act)]
    target = Target(*target_of(nn.Network((6, 6, 2), (*layers, nn.GlobalMean(), nn.Dense("out", 5)))))
    x = images(target.network, 192)
    random = np.random.default_rng(0)
    params = {
        name: {**own, "kernel": own["kernel"] * np.abs(random.normal(size=own["kernel"].shape))}
        for name, own in target.params.items()
    }
    return Target(target.network, params) if heavy else target, x[:128], x[128:]


def test_the_fit_that_is_predicted_best_is_better(monkeypatch: pytest.MonkeyPatch):
    target, x, held = deep(heavy=True)
    source = Source.of(target, copies=12)
    usual = slth.construct(target, source, Robust(), x, fit=FITS[0])
    monkeypatch.setattr(fit, "GAIN", 0.8)
    made = slth.construct(target, source, Robust(), x)
    assert made.fit.value in FITS[1:]
    assert made.error(held).relative < 0.8 * usual.error(held).relative


def test_the_usual_fit_stays_where_another_gains_little(monkeypatch: pytest.MonkeyPatch):
    target, x, _ = deep()
    monkeypatch.setattr(fit, "GAIN", 0.01)
    found = plan_of(target, Source.of(target, copies=12), Robust(), x).fit
    assert found.value == FITS[0]
    assert found.predicted is not None


@pytest.mark.parametrize("depth", ["L+1", "2L"])
def test_equal_arguments_have_equal_fits(depth: str):
    target, x, _ = deep()
    source = Source.of(target, copies=6, depth=depth, images=x)
    assert plan_of(target, source, Robust(), x).fit == plan_of(target, source, Robust(), x).fit


def test_nothing_is_predicted_where_nothing_can_be():
    target, x, _ = deep()
    source = Source.of(target, copies=6)
    assert plan_of(target, source, Best()).fit == UNPREDICTED
    assert plan_of(target, source, Robust(), x, fit=2.0).fit == (2.0, None, False)
    shallow = Target(
        *target_of(nn.Network((4,), (nn.Dense("a", 3), nn.Activation("relu"), nn.Dense("b", 2))))
    )
    assert plan_of(shallow, Source.of(shallow, copies=6), Robust(), np.ones((8, 4))).fit == UNPREDICTED
    smooth, x, _ = deep("tanh")
    assert plan_of(smooth, Source.of(smooth, copies=6), Robust(), x).fit == UNPREDICTED
    two = Source.of(target, depth="2L", univariate=12, scale=2.0)
    assert plan_of(target, two, Rounded(), x).fit == UNPREDICTED


@pytest.mark.parametrize(("reach", "scale"), [(None, 4.0), (2.0, 4.0), (16.0, 4.0), (256.0, 64.0)])
def test_constants_grow_with_the_inputs(reach: float | None, scale: float):
    target, _, _ = deep()
    assert Source.of(target, copies=3, reach=reach).bias_scale == scale
    x = np.full((2, 6, 6, 2), reach or 1.0, np.float32)
    assert Source.of(target, copies=3, images=x).bias_scale == scale
    assert Source.of(target, copies=3, reach=reach, bias_scale=7.0).bias_scale == 7.0
    assert Source.of(target, depth="2L", reach=reach).bias_scale == max(4.0, reach or 0.0)


def test_two_layers_reach_the_biases_of_a_target_of_pixels():
    """A ResNet-8 that reads 0 to 255 lost a fifth of a layer's power with the constants of L+1."""
    target, x, _ = deep()
    pixels = target.params | {"a": {**target.params["a"], "kernel": target.params["a"]["kernel"] / 64}}
    target, x = Target(target.network, pixels), 64 * x
    usual, found = (
        slth.construct(
            target, Source.of(target, depth="2L", univariate=8, images=x, bias_scale=b), Rounded(), x
        )
        for b in (16.0, None)
    )
    assert found.error(x).relative < 0.7 * usual.error(x).relative
