"""How wide a source is: the theorem's widths, biases, what a skip carries, and what is not covered."""

import numpy as np
import pytest

from slth.nn.graph import linear_maps, sums
from slth.nn.layers import Activation, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, Pool, Subsample
from slth.source import source_network
from slth.source.widths import carried_channels, first_activation
from tests.construction.nets import PLAIN, RESIDUAL, target_of


@pytest.mark.parametrize("m", [1, 3])
@pytest.mark.parametrize("constants", [0, 2])
def test_option_a_carries_copy_to_copy_and_constants_to_constants(m, constants):
    channels, cin = (-1, 2, 0, -1, 1), 3
    wide = Subsample((2,), carried_channels(channels, cin, m, constants))
    width = cin * m + constants
    x = np.random.default_rng(0).normal(size=(1, 5, width)).astype(np.float32)
    y = np.asarray(wide.apply({}, x))
    assert y.shape == (1, 3, len(channels) * m + constants)
    for j, i in enumerate(channels):
        for k in range(m):
            expected = x[:, ::2, i * m + k] if i >= 0 else 0 * x[:, ::2, 0]
            np.testing.assert_array_equal(y[..., j * m + k], expected)
    np.testing.assert_array_equal(y[..., len(channels) * m :], x[:, ::2, cin * m :])


@pytest.mark.parametrize("name", [*PLAIN, *RESIDUAL])
def test_widths_are_those_of_the_theorem(name):
    network, skip = RESIDUAL[name] if name in RESIDUAL else (PLAIN[name], "carried")
    target, _ = target_of(network)
    m = 3
    source = source_network(target, m, copies_per_sign=m, constants=m, skip=skip).network
    first, act, *rest = source.layers
    cin = target.input_shape[-1]
    assert (first.name, first.features) == ("univariate", 2 * m * cin + 2 * m)
    assert act == first_activation(target)

    def check(layers, wide, last):
        assert len(layers) == len(wide)
        for layer, source_layer in zip(layers, wide, strict=True):
            if isinstance(layer, Residual):
                check(layer.branch, source_layer.branch, last)
                features = layer.branch[-1].features
                for skipped in source_layer.skip:
                    width = len(skipped.channels) if isinstance(skipped, Subsample) else skipped.features
                    assert width == m * (features + 1)
                carried = not source_layer.skip or isinstance(source_layer.skip[0], Subsample)
                parametric = bool(layer.skip) and not isinstance(layer.skip[0], Subsample)
                assert carried == (skip == "carried" and not parametric)
            elif isinstance(layer, Conv | Dense):
                expected = layer.features if layer == last else m * (layer.features + 1)
                assert source_layer.features == expected
                assert not source_layer.use_bias
                if isinstance(layer, Conv):
                    same = ("kernel", "stride", "padding", "dilation")
                    assert all(getattr(layer, f) == getattr(source_layer, f) for f in same)
            else:
                assert layer == source_layer

    check(target.layers, rest, sums(target)[-1].maps[0].layer)


def test_every_layer_has_biases_of_its_own_where_asked_for():
    target, _ = target_of(RESIDUAL["projection"][0])
    for own in (False, True):
        wide = source_network(target, 2, copies_per_sign=2, constants=3, own_biases=own).network
        first, *rest = linear_maps(wide).values()
        assert first.layer.use_bias
        assert {entry.layer.use_bias for entry in rest if "/skip/" not in entry.path} == {own}
        assert not any(entry.layer.use_bias for entry in rest if "/skip/" in entry.path)
    without = source_network(target, 2, copies_per_sign=2, constants=0).network
    assert not any(entry.layer.use_bias for entry in linear_maps(without).values())


TANH = Activation("tanh")
BEFORE = {  # layers before the first linear one, and where the univariate layer then stands
    "an activation": (Network((3,), (TANH, Dense("a", 4), Activation("relu"), Dense("b", 2))), 1),
    "pooling": (
        Network((4, 4, 2), (Pool("mean", (2, 2)), Conv("a", 3, (2, 2)), TANH, Flatten(), Dense("b", 2))),
        1,
    ),
    "flattening": (Network((2, 2, 2), (TANH, Flatten(), Dense("a", 3), TANH, Dense("b", 2))), 1),
    "only at the front": (Network((3,), (TANH, Dense("a", 4))), 1),
}


@pytest.mark.parametrize("target, place", BEFORE.values(), ids=BEFORE.keys())
def test_what_stands_before_the_first_layer_stands_before_the_univariate_one(target, place):
    wide = source_network(target, 2, copies_per_sign=3, constants=4).network
    assert wide.layers[:place] == target.layers[:place]
    first, act = wide.layers[place : place + 2]
    channels = target.layers[0].output_shape(target.input_shape)[-1]
    assert (first.name, first.features) == ("univariate", 2 * 3 * channels + 2 * 4)
    behind = [layer for layer in target.layers[place:] if isinstance(layer, Activation)]
    assert act == first_activation(target) == (behind or [TANH])[0]
    assert wide.output_shape == target.output_shape
