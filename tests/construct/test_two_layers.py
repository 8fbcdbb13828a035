"""The 2L construction: every linear layer through two source layers, for all kinds of networks."""

from dataclasses import replace

import numpy as np
import pytest

from slth import nn
from slth.construct import Solver, construct
from slth.construct.compensate import Compensation
from slth.construct.front import paired
from slth.construct.layout import MOST_CONSTANTS, source_network, split
from slth.construct.univariate import input_ranges, with_small_alpha
from slth.nn.layers import Activation, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMean
from slth.source import Source, parameters
from tests.construct.nets import PLAIN, RESIDUAL, images, target_of
from tests.construct.reference import forward, linear, masked, run

M = 15
KINDS = tuple(nn.ACTIVATIONS)


def doubled(target, *, copies=2 * M, constants=1, skip="carried", **options):
    network = source_network(target, M, copies_per_sign=copies, constants=constants, skip=skip, depth="2L")
    return Source(network, 0, M, **{"init": "he_uniform", "bias_scale": 4.0, **options})


@pytest.mark.parametrize("name", [*PLAIN, *RESIDUAL])
def test_each_linear_layer_stands_behind_a_univariate_one(name):
    network, skip = RESIDUAL[name] if name in RESIDUAL else (PLAIN[name], "carried")
    target, _ = target_of(network)
    source = source_network(target, 2, copies_per_sign=3, constants=1, skip=skip, depth="2L")

    def check(layers, wide, shape):
        for pair in paired(layers, wide):
            layer = pair.target
            if isinstance(layer, Conv | Dense):
                front, act = pair.front
                assert front.name == f"{layer.name}.univariate"
                assert front.features == 2 * 3 * (shape[-1] + 2)
                assert split(front.features, shape[-1], True) == (3, 6)
                assert (isinstance(act, Activation), front.use_bias) == (True, True)
                assert pair.source == replace(layer, use_bias=False)
                shape = (layer.features,) if isinstance(layer, Dense) else layer.output_shape(shape)
                continue
            if isinstance(layer, Flatten):
                continue
            if isinstance(layer, Residual):
                check(layer.branch, pair.source.branch, shape)
                names = [getattr(one, "name", None) for one in pair.source.skip]
                assert len(names) in (0, 1, 3)  # nothing, option A, or a layer behind its univariate one
                assert len(names) < 3 or names[0] == f"{names[2]}.univariate"
            else:
                assert layer == pair.source
            shape = layer.output_shape(shape)

    check(target.layers, source.layers, target.input_shape)
    assert source.output_shape == target.output_shape


@pytest.mark.parametrize("copies, cin", [(1, 1), (32, 3), (33, 3), (400, 1)])
def test_widths_say_how_they_are_split(copies, cin):
    constants = min(2 * copies, MOST_CONSTANTS)
    assert split(2 * (copies * cin + constants), cin, True) == (copies, constants)
    assert split(2 * copies * cin, cin, False) == (copies, 0)


@pytest.mark.parametrize("name", [*PLAIN, *RESIDUAL])
def test_tickets_compute_their_targets(name):
    network, skip = RESIDUAL[name] if name in RESIDUAL else (PLAIN[name], "carried")
    target, params = target_of(network)
    source, x = doubled(target, skip=skip), images(target, 6)
    made = construct(target, params, source, Solver())
    y = forward(target, params, x)[""]
    ticket = made.factor * forward(source.network, masked(made.mask, parameters(source)), x)[""]
    assert np.linalg.norm(ticket - y) < 0.02 * np.linalg.norm(y)
    for path, columns in made.columns.items():
        assert columns.shape[1] == 1, path


@pytest.mark.parametrize("choice", ["robust", "compensated"])
def test_other_ways_to_choose(choice):
    target, params = target_of(RESIDUAL["dense block, projection"][0])
    source, x = doubled(target), images(target, 60)
    few = Compensation(sweeps=2)
    solver = Solver(objective=choice, noise="measured")
    solver = solver if choice == "robust" else Solver(method=choice, compensation=few)
    made = construct(target, params, source, solver, x)
    y = forward(target, params, x)[""]
    ticket = made.factor * forward(source.network, masked(made.mask, parameters(source)), x)[""]
    assert np.linalg.norm(ticket - y) < 0.1 * np.linalg.norm(y)


def test_one_variable_a_weight_needs_many():
    target, params = target_of(PLAIN["vectors"])
    errors, x = [], images(target, 20)
    y = forward(target, params, x)[""]
    for copies in (40, 640):
        source = doubled(target, copies=copies)
        made = construct(target, params, source, Solver(objective="single"))
        mask, info = made.mask, made.records
        ticket = made.factor * forward(source.network, masked(mask, parameters(source)), x)[""]
        errors.append(np.linalg.norm(ticket - y) / np.linalg.norm(y))
        first = np.asarray(mask["a"]["kernel"])[: 2 * copies * 4]
        assert first.sum(0).max() <= 2 * 4, "one of each sign of each input"
        assert sum(record.stats.problems for record in info) > 150
    assert errors[1] < errors[0] / 4
    assert errors[1] < 0.05


def _layers(kind):
    """A strided convolution with padding on one side alone, and one whose every tap reads padding."""
    act = Activation(kind, 0.2)
    first = Conv("a", 3, (3, 3), (2, 1), ((1, 0), (0, 1)))
    return Network((6, 5, 2), (first, act, Conv("b", 2, (3, 2), (1, 2), ((1, 1), (1, 0))), GlobalMean()))


def _slopes(kernel, alpha, info):
    """What a layer's weights on univariate channels are to inputs above and below 0, and Σ |v| r(|α| R) at
    R = ``reach``: arrays (*taps, cin, cout)."""
    above = alpha * np.where(alpha > 0, info.mu_plus, info.mu_minus)
    below = alpha * np.where(alpha < 0, info.mu_plus, info.mu_minus)
    return np.einsum("cn,xyno->xyco", above, kernel), np.einsum("cn,xyno->xyco", below, kernel)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_within_the_bound_of_what_its_sums_miss(kind):
    """Theorem 1 for one layer: |s± - w| R± + Σ |v| r(|α| R) + |e_b(p)|, strides and borders included."""
    network = _layers(kind)
    target, params = target_of(network)
    info = nn.activation_info(kind, 0.2)
    x = images(target, 8)
    reach = float(np.abs(x).max())
    source = doubled(target, scale=1.0)
    if not info.homogeneous:
        ranges = input_ranges(target, params, x, reach)
        smooth = doubled(target, scale=3.0)
        source = with_small_alpha(smooth, info, {k: r.reach for k, r in ranges.items()})
    made = construct(target, params, source, Solver(objective="robust"), x)
    kept = masked(made.mask, parameters(source))
    seen = forward(source.network, kept, x)
    silent = forward(source.network, kept, np.zeros_like(x))
    inputs = {"a": (x.astype(np.float64), np.zeros(x.shape)), "b": None}
    inputs["b"] = tuple(run((Activation(kind, 0.2),), {}, values["a"]) for values in (seen, silent))
    layers = {layer.name: layer for layer in target.layers if isinstance(layer, Conv)}
    for name, (z, _) in inputs.items():
        layer, values = layers[name], made.params[name]
        w = np.asarray(values["kernel"], np.float64)
        alpha, kernel = kept[f"{name}.univariate"]["kernel"][0, 0], kept[name]["kernel"]
        assert ((alpha != 0).sum(0) <= 1).all(), "a univariate channel reads one input"
        above, below = _slopes(kernel, alpha, info)
        # The layer alone, at its own input and at zeros: what is left there is what its constants miss.
        two = [one for one in source.network.layers if getattr(one, "name", "").split(".")[0] == name]
        wide = (two[0], Activation(kind, 0.2), two[1])
        zero = run(wide, kept, 0 * z) - np.asarray(values["bias"])
        ticket = run(wide, kept, z)
        wanted = linear(layer, w, z) + np.asarray(values["bias"])
        r = np.array(
            [info.remainder(abs(a) * np.abs(z[..., i]).max()) for i, row in enumerate(alpha) for a in row]
        )
        rest = np.einsum("cn,xyno->xyco", r.reshape(alpha.shape) * (alpha != 0), np.abs(kernel))
        bound = linear(layer, np.abs(above - w), np.maximum(z, 0))
        bound = bound + linear(layer, np.abs(below - w), np.maximum(-z, 0))
        bound = bound + linear(layer, rest, np.ones_like(z)) + np.abs(zero)
        assert (np.abs(ticket - wanted) <= bound * (1 + 1e-6) + 1e-9).all()
        used = (z > 0).any() * np.abs(above - w).max(), (z < 0).any() * np.abs(below - w).max()
        assert max(used) < 0.05 * np.abs(w).max(), "the sums are near the weights"
        assert np.abs(zero).max() < 0.02 * np.abs(wanted).max(), "offsets cancel at the borders too"
