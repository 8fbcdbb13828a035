"""Each score against its formula, of networks written out by hand, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from slth import nn, pruning
from slth.nn.layers import Dense
from slth.nn.network import Network
from tests.pruning.nets import CASES, PLAIN, batch_of, double, params_of, parts


def cross_entropy(case, p, batch):
    """The mean of -log of the label's share, as a function of the kernels and the temperature."""
    labels = double(np.eye(3)[np.asarray(batch.labels)])

    def loss(w, temperature=1.0):
        powers = jnp.exp(case.outputs(w, p, double(batch.images)) / temperature)
        return -jnp.log((powers * labels).sum(1) / powers.sum(1)).mean()

    return loss


def assert_close(scores, expected):
    assert set(scores) == set(expected)
    for path, values in expected.items():
        assert scores[path].dtype == np.float64
        np.testing.assert_allclose(scores[path], values, rtol=1e-9, atol=1e-15, err_msg=path)


@pytest.mark.parametrize("name", CASES)
def test_snip_is_the_product_of_weight_and_gradient(name):
    case = CASES[name]
    params, batch = params_of(case.network), batch_of(case.network)
    scores = pruning.snip_scores(case.network, params, batch)
    with jax.enable_x64(True):
        w, p = parts(case, params)
        gradient = jax.jit(jax.grad(cross_entropy(case, p, batch)))(w)
        assert_close(scores, {path: np.abs(np.asarray(w[path]) * np.asarray(gradient[path])) for path in w})


@pytest.mark.parametrize("name", CASES)
def test_grasp_is_the_weight_times_the_whole_hessian_times_the_gradient(name):
    case = CASES[name]
    params, batch = params_of(case.network), batch_of(case.network)
    scores = {t: pruning.grasp_scores(case.network, params, batch, t) for t in (1.0, 200.0)}
    with jax.enable_x64(True):
        w, p = parts(case, params)
        flat, unflat = ravel_pytree(w)
        loss = cross_entropy(case, p, batch)

        @jax.jit
        def score(values, temperature):
            gradient = jax.grad(lambda own: loss(unflat(own), temperature))
            return unflat(values * (jax.jacfwd(gradient)(values) @ gradient(values)))

        for temperature, found in scores.items():
            assert_close(found, score(flat, temperature))


def test_grasp_keeps_what_the_gradient_would_shrink_without():
    """S = -score: to first order the squared gradient changes by 2 S where a weight goes a little to 0."""
    case = CASES["batch norm"]
    params, batch = params_of(case.network), batch_of(case.network)
    score = pruning.grasp_scores(case.network, params, batch, 1.0)["a"]
    with jax.enable_x64(True):
        w, p = parts(case, params)
        gradient = jax.jit(jax.grad(cross_entropy(case, p, batch)))

        def square(kernel):
            return sum(float((g**2).sum()) for g in gradient(w | {"a": kernel}).values())

        for place in ((0, 0), (1, 3), (2, 4)):
            step = 1e-5 * jnp.zeros_like(w["a"]).at[place].set(w["a"][place])
            change = (square(w["a"] - step) - square(w["a"] + step)) / 2e-5
            np.testing.assert_allclose(change, -2 * score[place], rtol=1e-6, atol=1e-12)


def test_numbers_as_labels_have_the_squared_error():
    network = Network((3,), (Dense("a", 2, use_bias=False),))
    params, x, y = params_of(network), *np.random.default_rng(1).normal(size=(2, 5, 3))
    batch, w = pruning.Batch(x, y[:, :2]), np.asarray(params["a"]["kernel"], np.float64)
    gradient = 2 * x.T @ (x @ w - y[:, :2]) / 10
    assert_close(pruning.snip_scores(network, params, batch), {"a": np.abs(w * gradient)})
    along = 2 * x.T @ (x @ gradient) / 10
    assert_close(pruning.grasp_scores(network, params, batch, 1.0), {"a": w * along})


@pytest.mark.parametrize("name", CASES)
def test_synflow_is_the_weight_times_the_derivative_of_the_flow(name):
    case = CASES[name]
    params = params_of(case.network)
    scores = pruning.synflow_scores(case.network, params)
    with jax.enable_x64(True):
        w, p = parts(case, params)
        w = jax.tree.map(jnp.abs, w)
        flow, gradient = jax.jit(jax.value_and_grad(lambda own: case.flow(own, p).sum()))(w)
        assert_close(
            scores, {path: np.asarray(w[path]) * np.asarray(gradient[path]) / float(flow) for path in w}
        )


def test_magnitudes():
    params = params_of(PLAIN)
    for path, score in pruning.magnitude_scores(PLAIN, params).items():
        kernel = params[path]["kernel"]
        assert all(score[place] == abs(float(kernel[place])) for place in np.ndindex(kernel.shape))


def test_lamp_divides_by_all_that_is_not_smaller():
    params = params_of(PLAIN)
    params["c"]["kernel"] = np.zeros((3, 2), np.float32)
    scores = pruning.lamp_scores(PLAIN, params)
    for path in ("a", "b"):
        kernel = np.asarray(params[path]["kernel"], np.float64)
        for place in np.ndindex(kernel.shape):
            larger = sum(w**2 for w in kernel.reshape(-1) if abs(w) >= abs(kernel[place]))
            np.testing.assert_allclose(scores[path][place], kernel[place] ** 2 / larger, rtol=1e-12)
        assert scores[path].max() == 1
    assert (scores["c"] == 0).all()


def test_scores_do_not_depend_on_how_jax_is_set():
    case = CASES["convolution"]
    params, batch = params_of(case.network), batch_of(case.network)

    def scores():
        return [
            pruning.snip_scores(case.network, params, batch),
            pruning.grasp_scores(case.network, params, batch),
            pruning.synflow_scores(case.network, params),
        ]

    single = scores()
    with jax.enable_x64(True):
        assert jax.tree.all(jax.tree.map(np.array_equal, single, scores()))


def test_random_scores_depend_on_the_key_alone():
    network = nn.Network((40,), (Dense("a", 50), Dense("b", 40)))
    first, again = (pruning.random_scores(network, jax.random.key(3)) for _ in range(2))
    other = pruning.random_scores(network, jax.random.key(4))
    assert np.array_equal(first["a"], again["a"])
    assert (first["a"] != other["a"]).mean() > 0.99
    assert (first["a"] != first["b"].reshape(40, 50)).mean() > 0.99
