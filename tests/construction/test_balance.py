"""Balancing changes no output: checked with the NumPy evaluator on random networks with every skip."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slth.construction.balance import balance
from slth.nn import parameter_shapes
from slth.nn.layers import Activation, ChannelScale, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMean, Pool, Subsample
from slth.source import source_network
from tests.construction.nets import PLAIN, RESIDUAL, images, random_params, target_of
from tests.construction.reference import forward, leaves


def scales_of(network, rng=None):
    """A source scale for each linear layer by its path in the source."""
    paths = [p.removesuffix("/kernel") for p in parameter_shapes(network) if p.endswith("/kernel")]
    return {path: 1.0 if rng is None else float(rng.uniform(0.1, 2)) for path in paths}


def check_same_function(network, params, balanced, count=3):
    x = images(network, count)
    before, after = forward(network, params, x)[""], forward(network, balanced.params, x)[""]
    np.testing.assert_allclose(balanced.factor * after, before, rtol=1e-5, atol=1e-5 * np.abs(before).max())


@pytest.mark.parametrize("name", [*PLAIN, *RESIDUAL])
@pytest.mark.parametrize("skip", ["carried", "random"])
def test_every_target_keeps_its_function(name, skip):
    network = PLAIN[name] if name in PLAIN else RESIDUAL[name][0]
    target, params = target_of(network)
    source = source_network(target, 3, copies_per_sign=3, constants=3, skip=skip).network
    check_same_function(target, params, balance(target, params, scales_of(source, np.random.default_rng(1))))


@pytest.mark.parametrize("last", [("relu",), ("tanh",)])
def test_a_subsampling_outside_of_a_skip_keeps_the_function(last):
    layers = (Conv("a", 3, (3,)), Activation("relu"), Subsample((2,), (1, -1, 2, 1)), Activation(*last))
    network = Network(
        (8, 2), (*layers, Conv("b", 4, (2,)), Activation("relu"), Flatten("chw"), Dense("c", 2))
    )
    params = random_params(network, np.random.default_rng(0))
    balanced = balance(network, params, {"a": 0.5, "b": 1.5, "c": 1.0})
    check_same_function(network, params, balanced)
    assert (balanced.scales["a"] != 1).any() == (last == ("relu",))


@st.composite
def residual_networks(draw):
    """Stem, two blocks with any skip and stride, in 1-D or 2-D, and a tail."""
    rank = draw(st.integers(1, 2))
    width = draw(st.integers(1, 4))
    act = Activation(*draw(st.sampled_from([("relu",), ("leaky_relu", 0.3)])))
    layers = [Conv("stem", width, (2,) * rank, use_bias=draw(st.booleans())), act]
    for name in ("r", "s"):
        kind = draw(st.sampled_from(["identity", "scale", "subsample", "projection"]))
        stride, wide = (1, width) if kind in ("identity", "scale") else (2, draw(st.integers(1, 4)))
        pad = ((1, 1),) * rank
        branch = (
            Conv("u", draw(st.integers(1, 3)), (3,) * rank, (stride,) * rank, pad),
            act,
            Conv("v", wide, (1,) * rank),
        )
        channels = tuple(draw(st.integers(-1, width - 1)) for _ in range(wide))
        skip = {
            "identity": (),
            "scale": (ChannelScale("w"),),
            "subsample": (Subsample((stride,) * rank, channels),),
            "projection": (Conv("w", wide, (1,) * rank, (stride,) * rank),),
        }[kind]
        layers += [Residual(name, branch, skip), act]
        width = wide
    tail = [(GlobalMean(),), (Flatten("chw"),), (Pool("max", (2,) * rank, (1,) * rank), Flatten("hwc"))]
    layers += draw(st.sampled_from(tail))
    return Network((*(7, 8)[:rank], 2), (*layers, Dense("d", 3)))


@settings(max_examples=25)
@given(residual_networks(), st.integers(0, 99), st.sampled_from([0.5, 1.0, 2.0]))
def test_random_residual_networks_keep_their_function(network, seed, fit):
    rng = np.random.default_rng(seed)
    params = random_params(network, rng)
    skip = ("carried", "random")[seed % 2]
    source = source_network(network, 2, copies_per_sign=2, constants=2, skip=skip).network
    scales = scales_of(source, rng)
    balanced = balance(network, params, scales, fit=fit)
    check_same_function(network, params, balanced, count=2)
    assert [path for path, _ in leaves(balanced.params)] == [path for path, _ in leaves(params)]
    last = np.abs(np.asarray(balanced.params["d"]["kernel"])).max()
    np.testing.assert_allclose(last / scales["d"], fit, rtol=0.1)  # sweeps end before all is equal
