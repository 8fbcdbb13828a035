"""Targets that do not fit their source: shares out of reach against all subset sums, and what is said."""

import itertools
import warnings

import jax
import numpy as np
import pytest

import slth
from slth import Best, Robust, Source, Target, nn
from slth.construction.fit import Fit
from slth.construction.misfit import Lost, misfits
from slth.source import layer_scale, parameters

RELU = nn.Activation("relu")
NETWORK = nn.Network((4,), (nn.Dense("a", 6), RELU, nn.Dense("m", 5), RELU, nn.Dense("b", 2)))
IMAGES = np.random.default_rng(0).normal(size=(32, 4)).astype(np.float32)


def target_of(kernel: float = 1.0, bias: float = 0.0) -> Target:
    """A net whose middle layer is this many times as large, and has biases this much larger."""
    params = nn.init(NETWORK, jax.random.key(0))
    params["m"] = {"kernel": kernel * params["m"]["kernel"], "bias": params["m"]["bias"] + bias}
    return Target(NETWORK, params)


def made_of(target: Target, solver=None, copies: int = 12):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return slth.construct(target, Source.of(target, copies), solver or Best(), IMAGES)


def test_what_is_lost_of_weights_is_what_no_subset_has():
    m = 3
    made = made_of(target_of(), copies=m)
    kernel, random = made.params["m"]["kernel"], np.asarray(parameters(made.source)["m"]["kernel"])
    lost = 0.0
    for i, j, k in np.ndindex(*kernel.shape, m):
        x = random[made.columns["a"][i], made.columns["m"][j, k]].astype(np.float64)
        sums = [sum(s) for size in range(m + 1) for s in itertools.combinations(x, size)]
        lost += max(0.0, kernel[i, j] - max(sums), min(sums) - kernel[i, j]) ** 2
    share = lost / (m * (np.asarray(kernel, np.float64) ** 2).sum())
    assert share > 0.01
    assert made.records[1].lost.weights == pytest.approx(share, rel=1e-4)


def test_a_bias_is_lost_where_it_exceeds_all_constants():
    made = made_of(target_of(bias=1e4))
    error = made.error(IMAGES).relative
    assert error > 0.5
    assert made.records[1].lost.biases > 0.5
    assert [(one.kind, one.layer) for one in made.misfits] == [("biases", "m")]


@pytest.mark.parametrize("solver", [Best(), Robust(), slth.Compensated(sweeps=1)], ids=str)
def test_a_middle_layer_that_is_out_of_reach_is_warned_of_and_named(solver):
    target = target_of(kernel=1e6)
    with pytest.warns(UserWarning, match=r"^the target does not fit its source: in m .*source\.multiplicity"):
        made = slth.construct(target, Source.of(target, 12), solver, IMAGES)
    assert made.misfits[0].value == max(record.lost.weights for record in made.records)


def test_nothing_is_said_of_a_target_that_fits():
    target = target_of()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        made = slth.construct(target, Source.of(target, 12), Best())
    assert made.misfits == ()


def test_one_misfit_of_each_kind_at_its_worst_layer():
    lost = [("a", Lost(0.2, 0.0)), ("b", Lost(0.4, float("nan"))), ("c", Lost(0.0, 0.01))]
    first, second, third = misfits(lost, Fit(1.25, 0.9))
    assert (first.kind, first.layer, first.value) == ("weights", "b", 0.4)
    assert "in b (and 1 more), 0.4 of its weights" in first.text
    assert (second.kind, second.layer) == ("biases", "b")
    assert (third.kind, third.layer, third.value) == ("predicted", None, 0.9)
    assert all("\n" not in one.text for one in (first, second, third))
    assert misfits([("a", Lost(0.04, 0.04))], Fit(1.25, 0.2)) == ()


def test_scales_of_the_source_are_what_is_advised():
    """The advice helps: with a source scale three times as large less is out of reach."""
    target = target_of()
    usual, wide = Source.of(target, 3), Source.of(target, 3, scale=3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        lost = [
            max(r.lost.weights for r in slth.construct(target, source, Best()).records)
            for source in (usual, wide)
        ]
    assert layer_scale(wide, "m") == pytest.approx(3 * layer_scale(usual, "m"))
    assert lost[1] < lost[0]
