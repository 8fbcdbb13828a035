"""Iterative magnitude pruning: its schedule, what it rewinds to, and the same bits after a break."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from slth import data, nn, pruning, train
from slth.pruning.protocol import kernels
from slth.pruning.search import data_of, seeded

DIGITS = data.load("digits")
BATCH = pruning.Batch(DIGITS.train_images[:512], DIGITS.train_labels[:512])
NET = nn.Network(
    (8, 8, 1),
    (nn.Flatten(), nn.Dense("a", 16), nn.BatchNorm("bn"), nn.Activation("relu"), nn.Dense("b", 10)),
)
TOTAL = 64 * 16 + 16 * 10
SHORT = train.Settings(epochs=3, batch=64, rate=0.1)  # 8 steps an epoch
START = nn.init(NET, jax.random.key(0))
KEY = jax.random.key(1)


def same(a, b) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(np.asarray(x), np.asarray(y)), a, b))


def levels(method: pruning.IMP, density: float = 0.3, **options) -> tuple[pruning.Level, ...]:
    options = {"key": KEY, "batch": BATCH, "report": lambda epoch: None} | options
    return tuple(method.levels(NET, START, density, **options))


def flat(tree) -> np.ndarray:
    return np.concatenate([np.ravel(own) for own in kernels(NET, tree).values()])


@pytest.mark.parametrize(
    "rate, density, expected",
    [
        *[(0.2, 0.8, (0.8,)), (0.2, 0.64, (0.8, 0.64)), (0.2, 0.6, (0.8, 0.64, 0.6))],
        *[(0.5, 0.1, (0.5, 0.25, 0.125, 0.1)), (0.9, 0.95, (0.95,))],
    ],
)
def test_the_schedule_ends_at_the_density(rate: float, density: float, expected: tuple[float, ...]):
    np.testing.assert_allclose(pruning.IMP(rate=rate).schedule(density), expected, rtol=1e-12)


@pytest.mark.parametrize("densities", [None, pruning.Uniform()], ids=["global", "by layer"])
def test_each_level_keeps_the_largest_of_what_the_last_one_kept(densities):
    found = levels(pruning.IMP(SHORT, rate=0.4, densities=densities))
    assert [one.number for one in found] == [0, 1, 2, 3]
    kept = [flat(one.mask) for one in found]
    assert [int(own.sum()) for own in kept] == [round(d * TOTAL) for d in (1, 0.6, 0.36, 0.3)]
    for before, after in pairwise(found):
        pairs = [(flat(before.params), flat(before.mask), flat(after.mask))]
        if densities is not None:
            trees = (before.params, before.mask, after.mask)
            pairs = list(zip(*(kernels(NET, tree).values() for tree in trees), strict=True))
        for weights, old, new in pairs:
            size = np.abs(weights)
            assert not (new & ~old).any()
            assert size[old & ~new].max() <= size[new].min()
    for one in found:
        assert not flat(one.params)[~flat(one.mask)].any()
        assert one.density == pytest.approx(flat(one.mask).mean())
        if densities is not None:
            assert one.densities == pytest.approx(dict.fromkeys("ab", one.density), abs=0.01)


@pytest.mark.parametrize("rewind", [0, 5])
def test_weights_go_back_to_those_of_iteration_k(rewind: int):
    found = levels(pruning.IMP(SHORT, rate=0.5, rewind=rewind))
    settings = seeded(SHORT, KEY)
    digits = data_of(NET, BATCH)
    early = train.train(NET, digits, settings, start=START, last=rewind, report=lambda epoch: None).params
    assert same(early, START) == (rewind == 0)
    assert all(same(one.start, early) for one in found)
    last = found[-1]
    again = train.train(
        NET, digits, settings, start=early, mask=last.mask, first=rewind, report=lambda epoch: None
    )
    assert same(again.params, last.params)
    assert len(last.history) == 3
    assert not same(found[0].params, last.params)


def test_with_the_rate_rewound_weights_stay_as_they_are_trained():
    found = levels(pruning.IMP(SHORT, rate=0.5, rewind=16, rewinds="rate"))
    for before, after in pairwise(found):
        assert same(after.start, before.params)
        assert len(after.history) == 1  # the last of three epochs


class Broken(Exception):
    pass


@pytest.mark.parametrize("after", [2, 5, 10])  # in the early training's level, at an edge, inside a level
def test_a_broken_run_goes_on_to_the_same_bits(tmp_path: Path, after: int):
    method = pruning.IMP(SHORT, rate=0.5, rewind=5)
    whole = levels(method)
    seen = []

    def stop(epoch):
        seen.append(epoch)
        if len(seen) == after:
            raise Broken

    with pytest.raises(Broken):
        levels(method, folder=tmp_path, report=stop)
    rest = []
    found = method.prune(NET, START, 0.3, key=KEY, batch=BATCH, folder=tmp_path, report=rest.append)
    assert len(rest) == sum(len(one.history) for one in whole) + 1 - after  # one epoch holds iteration 5
    assert same([one.params for one in found.record], [one.params for one in whole])
    assert same(found.mask, whole[-1].mask)
    assert same(found.params, whole[-1].params)
    assert [e.loss for one in found.record for e in one.history] == [
        e.loss for one in whole for e in one.history
    ]
    kept = safetensors.numpy.load_file(tmp_path / "level02" / "mask.safetensors")
    assert np.array_equal(kept["a/kernel"], whole[2].mask["a"]["kernel"])
    with pytest.raises(ValueError, match=r"another start: remove it or use another folder"):
        levels(dataclasses.replace(method, rate=0.6), folder=tmp_path)


def test_a_tenth_of_the_weights_still_knows_the_digits():
    longer = dataclasses.replace(SHORT, epochs=10, rate=0.3)
    found = pruning.IMP(longer, rate=0.55, rewind=8).prune(
        NET, START, 0.1, key=KEY, batch=BATCH, report=lambda epoch: None
    )
    assert found.density == pytest.approx(0.1, abs=1 / TOTAL)
    assert train.accuracy(NET, found.params, DIGITS.test_images, DIGITS.test_labels) > 0.8
    assert len(found.record) == 4


def test_controls_change_places_and_no_number_of_weights(getkey):
    mask = pruning.Magnitude().prune(NET, START, 0.2).mask
    other = pruning.shuffled(NET, mask, getkey())
    assert pruning.densities(NET, other) == pruning.densities(NET, mask)
    overlap = (flat(other) & flat(mask)).sum() / flat(mask).sum()
    assert overlap < 0.5
    assert same(other["bn"], mask["bn"])
    drawn = pruning.reinitialised(NET, START, getkey())
    for path, w in kernels(NET, START).items():
        new = kernels(NET, drawn)[path]
        assert np.array_equal(np.sort(new, None), np.sort(np.asarray(w), None))
        assert (new == np.asarray(w)).mean() < 0.05
    assert same(drawn["bn"], START["bn"])


def test_what_cannot_be_is_named(unchecked):
    with pytest.raises(ValueError, match=r"rewind: iteration 24 of a training of 24: choose less"):
        levels(pruning.IMP(SHORT, rewind=24))
    with pytest.raises(ValueError, match=r"key: IMP draws random numbers and got none"):
        levels(pruning.IMP(SHORT), key=None)
    with pytest.raises(ValueError, match=r"batch: IMP looks at data and got none"):
        levels(pruning.IMP(SHORT), batch=None)
    for options, message in (
        ({"rate": 1.0}, r"rate: expected a number between 0 and 1, got 1.0"),
        ({"rewind": -1}, r"rewind: expected a whole number of at least 0"),
        ({"rewinds": "all"}, r"rewinds: expected one of weights, rate"),
        ({"densities": "layer"}, r"densities: expected a rule"),
        ({"settings": None}, r"settings: expected a slth.train.Settings, got NoneType"),
    ):
        with pytest.raises(ValueError, match=message):
            pruning.IMP(**options)
