"""The 2L construction: every linear layer through two source layers, for all kinds of networks."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from slth import Best, Compensated, Robust, Single, Source, Target, construct, nn
from slth.certificate import ball, certify
from slth.nn.graph import Sum, graph, linear_maps, sums, value_shapes
from slth.nn.layers import Activation, Conv
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMean
from slth.source import layer_scale, parameters, source_network
from slth.source.ranges import input_ranges
from slth.source.scales import alpha_factors
from tests.construction.nets import PLAIN, RESIDUAL, images, source_of, target_of
from tests.construction.reference import forward, linear, masked, run

M = 15
KINDS = tuple(nn.ACTIVATIONS)


def doubled(target, *, copies=2 * M, constants=1, skip="carried", **options):
    return source_of(target, M, copies_per_sign=copies, constants=constants, skip=skip, depth="2L", **options)


@pytest.mark.parametrize("name", [*PLAIN, *RESIDUAL])
def test_each_linear_layer_stands_behind_a_univariate_one(name):
    network, skip = RESIDUAL[name] if name in RESIDUAL else (PLAIN[name], "carried")
    target, _ = target_of(network)
    wide = source_network(target, 2, copies_per_sign=3, constants=1, skip=skip, depth="2L").network
    layers, steps, shapes = linear_maps(wide), graph(wide), value_shapes(target)
    for path, entry in linear_maps(target).items():
        own = layers[path]
        grouped = isinstance(entry.layer, Conv) and entry.layer.groups > 1
        beside = {"beside": (2 * 3 * 2, 0)} if grouped else {}  # the constants, which all groups read
        assert own.layer == replace(entry.layer, use_bias=False, **beside)
        before = steps[own.reads - 1]
        if isinstance(before.layer, Flatten):  # the univariate layer reads channels
            before = steps[before.value - 1]
        assert isinstance(before.layer, Activation)
        front = steps[before.value - 1]
        assert isinstance(front, Sum)
        assert front.name == f"{path}.univariate"
        channels = shapes[entry.reads][-1] if isinstance(entry.layer, Conv) else value_channels(target, entry)
        assert front.features == 2 * 3 * (channels + 2)
        assert front.maps[0].layer.use_bias
    skips = [step for step in sums(target) if step.skips]
    for step in skips:
        (solved,) = (one for one in sums(wide) if one.name == step.name)
        carried = skip == "carried" and not isinstance(step.skips[0].layer, nn.ChannelScale)
        assert (len(solved.maps), len(solved.skips)) == ((1, 1) if carried else (2, 0))
        assert not carried or solved.skips[0].layer == step.skips[0].layer
    random = [path for path in layers if path.endswith("/skip/skip.univariate")]
    assert len(layers) == 2 * (len(linear_maps(target)) + len(random))
    assert wide.output_shape == target.output_shape


def value_channels(network, entry):
    """Channels of what a dense layer reads, before flattening."""
    step = graph(network)[entry.reads - 1] if entry.reads else None
    value = step.value if isinstance(getattr(step, "layer", None), Flatten) else entry.reads
    return value_shapes(network)[value][-1]


@pytest.mark.parametrize("name", [*PLAIN, *RESIDUAL])
def test_tickets_compute_their_targets(name):
    network, skip = RESIDUAL[name] if name in RESIDUAL else (PLAIN[name], "carried")
    target = Target(*target_of(network))
    source, x = doubled(target.network, skip=skip), images(target.network, 6)
    made = construct(target, source, Best())
    y = forward(target.network, target.params, x)[""]
    ticket = made.factor * forward(source.network, masked(made.mask, parameters(source)), x)[""]
    assert np.linalg.norm(ticket - y) < 0.02 * np.linalg.norm(y)
    for path, columns in made.columns.items():
        assert columns.shape[1] == 1, path


@pytest.mark.parametrize("name", ["pooled", "dense block, projection"])
def test_positive_weights_leave_no_channel_dead_behind_a_relu(name):
    network, _ = RESIDUAL.get(name, (PLAIN.get(name), ""))
    target = Target(*target_of(network))
    x = images(target.network, 6)
    y = forward(target.network, target.params, x)[""]
    width = {}
    for signs in ("random", "positive"):
        source = Source.of(target, M, depth="2L", univariate_signs=signs)
        made = construct(target, source, Best())
        ticket = made.factor * forward(source.network, masked(made.mask, parameters(source)), x)[""]
        assert np.linalg.norm(ticket - y) < 0.02 * np.linalg.norm(y)
        proof = certify(made, ball(x, 0.01), "linear", slack=0.0)
        assert (np.abs(y - ticket) <= proof.bound).all()
        width[signs] = {one.path: one.first_constant for one in source.layout.univariate}
    others = list(width["random"])[1:]  # the first layer reads images, of either sign
    assert source.positive == tuple(others)
    assert width["positive"] == width["random"] | {path: width["random"][path] // 2 for path in others}
    kept = dict(nn.by_layer(made.mask))
    for path in others:
        alpha = np.asarray(kept[path]["kernel"])
        alpha = alpha.reshape(-1, alpha.shape[-1])[:, : width["positive"][path]]
        assert (alpha.sum(0) <= 1).all()
        assert alpha.sum() > 0.7 * alpha.shape[1], "with random signs at most half have a use"


@pytest.mark.parametrize("solver", [Robust(noise="measured"), Compensated(sweeps=2)], ids=["robust", "rows"])
def test_other_ways_to_choose(solver):
    target = Target(*target_of(RESIDUAL["dense block, projection"][0]))
    source, x = doubled(target.network), images(target.network, 60)
    made = construct(target, source, solver, x)
    y = forward(target.network, target.params, x)[""]
    ticket = made.factor * forward(source.network, masked(made.mask, parameters(source)), x)[""]
    assert np.linalg.norm(ticket - y) < 0.1 * np.linalg.norm(y)


def test_one_variable_a_weight_needs_many():
    target = Target(*target_of(PLAIN["vectors"]))
    errors, x = [], images(target.network, 20)
    y = forward(target.network, target.params, x)[""]
    for copies in (40, 640):
        source = doubled(target.network, copies=copies)
        made = construct(target, source, Single())
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
    target, params = target_of(_layers(kind))
    info = nn.activation_info(kind, 0.2)
    x = images(target, 8)
    reach = float(np.abs(x).max())
    source = doubled(target, scale=1.0)
    if not info.homogeneous:
        ranges = input_ranges(target, params, x, reach)
        smooth = doubled(target, scale=3.0)
        reaches = {path: one.reach for path, one in ranges.items()}
        factors = alpha_factors(target, smooth.layout, info, reaches, partial(layer_scale, smooth), he=True)
        source = replace(smooth, scales=factors)
    made = construct(Target(target, params), source, Robust(), x)
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
