"""Pools and upsampling in front of, between and behind layers: they act on copies as on channels."""

import pytest

from slth.nn.layers import Activation, Conv, Dense, Residual
from slth.nn.network import Network
from slth.nn.pooling import Flatten, GlobalMax, GlobalMean, Pool, Upsample
from tests.construction.nets import PAD, RELU
from tests.construction.published import OTHERS, case, check_case
from tests.dealt import dealt

SLOW = pytest.mark.slow
FIRST, SECOND = Conv("a", 3, (3, 3), padding=PAD), Conv("b", 3, (2, 2))
BLOCK = Residual("r", (Conv("u", 3, (3, 3), padding=PAD), RELU, Conv("v", 3, (3, 3), padding=PAD)))


def mean(*, counted):
    return Pool("mean", (3, 3), (2, 2), PAD, count_padding=counted)


# Without biases behind a mean that counts its padding: there constants differ from place to place.
TAIL = (Conv("b", 3, (2, 2), use_bias=False), RELU, Flatten("chw"), Dense("out", 4, use_bias=False))
NETS = {
    "global max": Network((5, 5, 2), (FIRST, RELU, BLOCK, RELU, GlobalMax(), Dense("out", 4))),
    "global max before the activation": Network(
        (5, 5, 2), (FIRST, GlobalMax(), Activation("tanh"), Dense("out", 4))
    ),
    "global max of one axis": Network((7, 2), (Conv("a", 3, (3,)), RELU, GlobalMax(), Dense("out", 4))),
    "padded mean": Network(
        (5, 5, 2), (FIRST, RELU, mean(counted=False), SECOND, RELU, GlobalMean(), Dense("out", 4))
    ),
    "padded mean, counted": Network((5, 5, 2), (FIRST, RELU, BLOCK, RELU, mean(counted=True), *TAIL)),
    "padded means in front": Network(
        (8, 8, 2), (mean(counted=True), FIRST, RELU, mean(counted=False), Flatten(), Dense("out", 4))
    ),
    "upsampled": Network((3, 3, 2), (FIRST, RELU, Upsample((2, 2)), BLOCK, RELU, Conv("out", 2, (1, 1)))),
    "upsampled in front": Network(
        (3, 2), (Upsample((2,)), Conv("a", 3, (3,)), RELU, Upsample((3,)), Flatten(), Dense("out", 4))
    ),
    "upsampled sides": Network(
        (3, 3, 2),
        (
            *(
                FIRST,
                RELU,
                Residual("r", (Upsample((2, 2)), Conv("u", 3, (3, 3), padding=PAD)), (Upsample((2, 2)),)),
            ),
            *(RELU, GlobalMean(), Dense("out", 4)),
        ),
    ),
}
KINDS = [(depth, skip) for depth in ("L+1", "2L") for skip in ("carried", "random")]
QUICK = {
    *(("global max", kind) for kind in (("L+1", "carried"), ("2L", "random"))),
    *((name, ("L+1", "carried")) for name in ("padded mean, counted", "upsampled in front")),
    ("upsampled sides", ("2L", "carried")),
}
CASES = [
    pytest.param(name, *kind, marks=() if (name, kind) in QUICK else SLOW)
    for name, kind in dealt(list(NETS), KINDS, 4, QUICK)
]
LARGEST = {"global max before the activation": 0.1}


@pytest.mark.parametrize("name, depth, skip", CASES)
def test_tickets_compute_their_targets(name, depth, skip, tmp_path):
    made, x = case(NETS[name], depth=depth, skip=skip)
    check_case(made, x, LARGEST.get(name, 0.05), tmp_path, rounding=5e-3 if "activation" in name else 2e-4)


@SLOW
@pytest.mark.parametrize(
    "name, solver, depth",
    [(name, *kind) for name, kind in dealt(["global max", "upsampled sides", "padded mean"], OTHERS, 2)],
)
def test_every_solver_takes_them(name, solver, depth, tmp_path):
    check_case(*case(NETS[name], solver, depth=depth), 0.3, tmp_path)
