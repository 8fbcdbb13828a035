"""Sources of another kind: sparse ones, whose absent weights no mask keeps, and Glorot's."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from slth import Best, Compensated, Robust, Smallest, Source, Target, construct
from slth.nn.layers import Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten
from slth.source import parameters
from tests.construction.nets import PLAIN, RELU, images, source_of, target_of
from tests.construction.reference import forward, masked

TARGET = Target(*target_of(PLAIN["vectors"]))
SOLVERS = {
    "smallest": Smallest(),
    "best": Best(),
    "robust": Robust(noise="fixed"),
    "compensated": Compensated(sweeps=2),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_no_mask_keeps_a_weight_that_is_absent(name: str):
    source = source_of(TARGET.network, 5, presence=0.6)
    calibration = images(TARGET.network, 32) if name == "compensated" else None
    mask = flatten_dict(construct(TARGET, source, SOLVERS[name], calibration).mask, sep="/")
    values = flatten_dict(parameters(source), sep="/")
    for path, kept in mask.items():
        assert not (kept & (np.asarray(values[path]) == 0)).any(), path
        assert kept.any() == path.endswith("kernel") or path == "univariate/bias"


@pytest.mark.parametrize("options", [{"presence": 0.9}, {"init": "glorot_uniform"}, {"scales": {"b": 1.5}}])
def test_tickets_of_such_sources_compute_their_target(options):
    source = source_of(TARGET.network, 15, copies_per_sign=30, constants=30, **options)
    made = construct(TARGET, source, Best())
    assert made.error(images(TARGET.network, 50)).relative < 0.05


# Blocks that read the network's input, and other shapes of blocks that are covered.
U, V = Dense("u", 4), Dense("v", 4)
BLOCKS = {
    "first, its skip solved": ((Residual("r", (U,)), RELU), "random"),
    "first, with a projection": ((Residual("r", (U,), (V,)), RELU), "carried"),
    "a skip that ends in an activation": ((Dense("a", 4), Residual("r", (U,), (RELU,)), RELU), "carried"),
    "a block in a branch": ((Dense("a", 4), Residual("r", (Residual("q", (U,)), V)), RELU), "carried"),
}


@pytest.mark.parametrize("depth", ["L+1", "2L"])
@pytest.mark.parametrize("layers, skip", BLOCKS.values(), ids=BLOCKS.keys())
def test_tickets_of_unusual_blocks_compute_their_targets(layers, skip, depth):
    target = Target(*target_of(Network((4,), (*layers, Dense("d", 3)))))
    # 18 copies: with fewer some weight of the output layer, of which there is one copy, has no subset.
    source = Source.of(target, 18, skip=skip, depth=depth)
    made = construct(target, source, Robust(), images(target.network, 64, seed=1))
    x = images(target.network, 30)
    wanted = forward(target.network, target.params, x)[""]
    found = made.factor * forward(source.network, masked(made.mask, parameters(source)), x)[""]
    assert np.linalg.norm(found - wanted) < 0.01 * np.linalg.norm(wanted)


@pytest.mark.parametrize("depth", ["L+1", "2L"])
def test_a_skip_past_a_flattened_value_is_solved(depth):
    block = Residual("r", (Dense("u", 12),))
    network = Network((6, 2), (Conv("a", 2, (1,)), RELU, Flatten("chw"), block, RELU, Dense("d", 3)))
    target = Target(*target_of(network))
    source = Source.of(target, 18, skip="random", depth=depth)
    made = construct(target, source, Robust(), images(network, 64, seed=1))
    assert made.error(images(network, 30)).relative < 0.01
