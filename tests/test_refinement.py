"""Refined masks: never worse, the same twice, and only bits that may flip have flipped."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slth import Compensated, Robust, Source, Target, construct, nn, refine
from slth.nn.graph import by_layer
from slth.refinement import loop
from slth.refinement.steps import FIRST, SECOND, State, step_of

RELU = nn.Activation("relu")
NETWORKS = {
    "dense": nn.Network((8,), (nn.Dense("a", 16), RELU, nn.Dense("b", 4))),
    "smooth": nn.Network((8,), (nn.Dense("a", 12), nn.Activation("tanh"), nn.Dense("b", 4))),
    "residual": nn.Network(
        (6, 6, 2),
        (
            *(nn.Conv("a", 4, (3, 3), padding=((1, 1), (1, 1))), RELU),
            *(nn.Residual("r", (nn.Conv("b", 4, (3, 3), padding=((1, 1), (1, 1))),)), RELU),
            *(nn.GlobalMean(), nn.Dense("c", 3)),
        ),
    ),
}


@cache
def made_of(name, depth="L+1", copies=2):
    network = NETWORKS[name]
    target = Target(network, nn.init(network, jax.random.key(0)))
    x = np.asarray(jax.random.normal(jax.random.key(1), (512, *network.input_shape)))
    source = Source.of(target, copies, depth=depth, images=x, univariate=2 if depth == "2L" else None)
    return construct(target, source, Robust() if name == "smooth" else Compensated(sweeps=2), x[:128]), x


CASES = [
    ("dense", "L+1", "outputs"),
    ("dense", "L+1", "classes"),
    pytest.param("residual", "2L", "outputs", marks=pytest.mark.slow),
    pytest.param("smooth", "L+1", "outputs", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("name, depth, loss", CASES)
def test_a_refined_mask_is_nearer_to_its_target(name, depth, loss):
    made, x = made_of(name, depth)
    found = refine(made, x, steps=60, batch=32, loss=loss, rate=0.02)
    assert found.after < found.before
    assert found.changed > 0
    fresh = np.asarray(jax.random.normal(jax.random.key(2), (500, *x.shape[1:])))
    if loss == "outputs":
        assert found.made.error(fresh).relative < made.error(fresh).relative
    again = refine(made, x, steps=60, batch=32, loss=loss, rate=0.02)
    assert again.made.ticket == found.made.ticket
    kept, given = by_layer(found.made.mask), by_layer(made.mask)
    for path in kept:
        if path.endswith("univariate") or "bias" in kept[path]:  # pruning may drop more, nothing is added
            name = "kernel" if path.endswith("univariate") else "bias"
            assert not (kept[path][name] & ~given[path][name]).any()


def test_the_given_mask_stays_where_no_step_helps():
    made, x = made_of("dense", copies=12)
    found = refine(made, x, steps=5, rate=100.0)  # flips all that it can
    assert found.changed == 0
    assert found.after == found.before
    assert found.made is made


def test_a_step_is_the_rule_of_the_page():
    """Two steps by hand, in float64, of one dense layer whose gradient is known."""
    network = nn.Network((3,), (nn.Dense("a", 2, use_bias=False),))
    random, x = np.random.default_rng(0), np.random.default_rng(1).standard_normal((5, 3))
    v, wanted = random.uniform(-1, 1, (3, 2)), random.standard_normal((5, 2))
    bits, debt, first, second = (random.random((3, 2)) < 0.5).astype(float), *np.zeros((3, 3, 2))
    state = State(*({"a": jnp.asarray(a, jnp.float32)} for a in (bits, debt, first, second)))
    for number in (1, 2):
        gradient = 2 * x.T @ (x @ (bits * v) - wanted) / wanted.size / (wanted**2).mean()
        first = FIRST * first + (1 - FIRST) * gradient
        second = SECOND * second + (1 - SECOND) * gradient**2
        debt = debt - 0.3 * first / (1 - FIRST**number) / np.sqrt(second / (1 - SECOND**number))
        jump = (1 - 2 * bits) * v
        flips = (np.sign(debt) == np.sign(jump)) & (np.abs(debt) > np.abs(jump) / 2)
        assert flips.any()
        bits, debt = np.where(flips, 1 - bits, bits), np.where(flips, debt - jump, debt)
        state = step_of(
            network,
            "outputs",
            {"a": {}},
            np.float32(1),
            {"a": jnp.asarray(v, jnp.float32)},
            state,
            jnp.asarray(x, jnp.float32),
            jnp.asarray(wanted, jnp.float32),
            {"a": jnp.float32(0.3)},
            number,
        )
        np.testing.assert_array_equal(state.bits["a"], bits)
        np.testing.assert_allclose(state.debt["a"], debt, rtol=1e-4, atol=1e-5)


WRONG = {
    "steps": ({"steps": 0}, "refine.steps: expected an integer of at least 1, got 0"),
    "rate": ({"rate": -1.0}, "refine.rate: expected a positive number, got -1.0"),
    "loss": ({"loss": "kl"}, "refine.loss: expected one of classes, outputs, got 'kl'"),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("options, message", WRONG.values(), ids=WRONG.keys())
def test_wrong_arguments_are_refused(options, message):
    made, x = made_of("dense")
    with pytest.raises(ValueError) as caught:
        refine(made, x, **options)
    assert str(caught.value) == message


def test_classes_of_one_output_are_refused():
    network = nn.Network((8,), (nn.Dense("a", 4), RELU, nn.Dense("b", 1)))
    target = Target(network, nn.init(network, jax.random.key(0)))
    made = construct(target, Source.of(target, 4), Robust(noise="fixed"))
    with pytest.raises(
        ValueError, match="^refine.loss: 'classes' means nothing for outputs that are none: choose"
    ):
        refine(made, np.zeros((10, 8), np.float32))


def test_images_that_do_not_fit_are_refused():
    made, x = made_of("dense")
    with pytest.raises(ValueError, match="images"):
        refine(made, x[:, :4])
    with pytest.raises(ValueError, match="^images: refinement needs 2 at least"):
        refine(made, x[:1])


class Killed(Exception):
    """What ends a refinement in the middle."""


@pytest.mark.parametrize("moved", [None, lambda key, x: x + 0.01 * jax.random.normal(key, x.shape)])
def test_a_killed_refinement_goes_on_to_the_same_mask(tmp_path, monkeypatch, moved):
    monkeypatch.setattr(loop, "KEPT_EACH", 0.0)
    made, x = made_of("dense")
    asked = {"steps": 40, "batch": 32, "rate": 0.02, "loss": "outputs", "every": 5, "augment": moved}
    whole = refine(made, x, **asked)
    looks = []

    def kill(look):
        looks.append(look)
        if look.step in (10, 25) and look.taken_over < look.step:
            raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            refine(made, x, **asked, folder=tmp_path, report=kill)
    found = refine(made, x, **asked, folder=tmp_path, report=looks.append)
    assert [(look.step, look.taken_over) for look in looks] == [
        *((5, 0), (10, 0), (10, 10), (15, 10), (20, 10), (25, 10), (25, 25), (30, 25), (35, 25), (40, 25))
    ]
    assert found.made.ticket == whole.made.ticket
    assert found[1:] == whole[1:]
    assert min(look.loss for look in looks) == found.after
    looks.clear()
    again = refine(made, x, **asked, folder=tmp_path, report=looks.append)
    assert [(look.step, look.taken_over) for look in looks] == [(40, 40)], "nothing is left to do"
    assert again.made.ticket == whole.made.ticket
    looks.clear()
    refine(made, x, **(asked | {"rate": 0.01}), folder=tmp_path, report=looks.append)
    assert looks[0].taken_over == 0, "the state of another refinement is not taken over"
