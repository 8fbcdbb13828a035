"""What weights miss of the means is taken up by constants: means of the copies' errors, in NumPy."""

import numpy as np
import pytest

import slth
from slth import Compensated, Robust, Solver, Source, Target, nn
from slth.source import parameters
from tests.construction.nets import images, target_of
from tests.construction.reference import forward, masked

PAD = ((1, 1), (1, 1))


def net(kind: str) -> nn.Network:
    act = nn.Activation(kind, 0.2)
    layers = (nn.Conv("a", 4, (3, 3), padding=PAD), act, nn.Conv("b", 4, (3, 3), (2, 2), PAD), act)
    return nn.Network((6, 6, 2), (*layers, nn.Flatten(), nn.Dense("c", 3)))


def mean_errors(solver: Solver, kind: str, depth: str) -> tuple[float, slth.Construction]:
    """Root mean square, over the first layer's copies, of the mean error on images far from 0."""
    network = net(kind)
    target = Target(*target_of(network))
    x = 3 + images(network, 64)
    source = Source.of(target, 5, depth=depth, images=x, univariate=8)
    made = slth.construct(target, source, solver, x)
    assert made.absorbs == bool(getattr(solver, "means", False))
    wanted = forward(network, made.params, x)["a"]
    found = forward(source.network, masked(made.mask, parameters(source)), x)["a"]
    error = found[..., made.columns["a"]] - wanted[..., None]
    return float(np.sqrt((error.mean((0, 1, 2)) ** 2).mean())), made


@pytest.mark.parametrize(
    "solver", [Robust(means=True), Compensated(means=True)], ids=["robust", "compensated"]
)
@pytest.mark.parametrize("depth", ["L+1", "2L"])
@pytest.mark.parametrize("kind", ["relu", "leaky_relu"])
def test_copies_have_the_means_of_their_channels(kind: str, depth: str, solver: Solver):
    before, _ = mean_errors(Robust(noise="fixed", price=1e-6), kind, depth)
    after, _ = mean_errors(solver, kind, depth)
    assert after < 0.3 * before


def test_means_of_whole_rows_are_asked_for():
    assert Compensated().means is False
    with pytest.raises(ValueError, match="solver.means: expected True or False, got None"):
        Compensated(means=None)  # pyright: ignore[reportArgumentType]


def test_a_run_on_images_off_centre_is_better():
    network = net("relu")
    target = Target(*target_of(network))
    x = 3 + images(network, 96)
    source = Source.of(target, 6)
    fixed, found = (
        slth.construct(target, source, solver, x[:64]).error(x[64:]).relative
        for solver in (Robust(means=False), Robust(means=True))
    )
    assert found < fixed
