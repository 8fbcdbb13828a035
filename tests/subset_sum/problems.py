"""Random and adversarial problems that several tests share."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays


def on_grid(a, step=2.0**-24):
    return (np.rint(a / step) * step).astype(np.float32)


def problems(m, n, seed=0):
    """Uniform problems; lattice values (ties), zeros, equal values, targets out of reach or met exactly."""
    rng = np.random.default_rng(seed)
    x, t = on_grid(rng.uniform(-1, 1, (m, n))), on_grid(rng.uniform(-1, 1, n))
    part = n // 8
    a, b, c, d, e, f = (slice(part * i, part * (i + 1)) for i in range(6))
    x[:, a], t[a] = on_grid(x[:, a], 1 / 8), on_grid(t[a], 1 / 8)
    x[:, b][rng.random((m, part)) < 0.4] = 0
    x[:, c] = x[:1, c]
    t[d] *= 1000
    t[e] = (x[:, e] * (rng.random((m, part)) < 0.5)).sum(0)
    x[:, f] = np.abs(x[:, f])
    t[f][::2] = 0
    return x, t


def prices(x, t, seed=0):
    """Robust terms: noise of every copy times its weight squared; some prices are zero, some huge."""
    rng = np.random.default_rng(seed)
    m, n = x.shape
    price = (x**2 * rng.uniform(0, 0.1, (m, n))).astype(np.float32)
    price[:, ::5] = 0
    price[:, 1::7] *= 1e6
    price[:, 2::9] = on_grid(price[:, 2::9], 2.0**-8)
    return {"residual_price": rng.choice([0.25, 1, 3.3, 100], n).astype(np.float32), "price": price}


def forms(m, n, seed=0):
    """Quadratic terms: Gram matrices, small integers (ties), indefinite ones, and idle variables."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(m, m + 2, n))
    gram = np.einsum("ikn,jkn->ijn", a, a).astype(np.float32)
    linear = (rng.normal(size=(m, n)) * m).astype(np.float32)
    gram[..., ::4], linear[:, ::4] = np.rint(gram[..., ::4] / 4), np.rint(linear[:, ::4] / 4)
    gram[..., 1::4] = rng.normal(size=(m, m, gram[..., 1::4].shape[-1]))
    gram[..., 1::4] += gram[..., 1::4].swapaxes(0, 1)
    idle = rng.random((m, n)) < 0.15
    linear[idle] = 0
    gram = np.where(idle[:, None] | idle[None], np.float32(0), gram)
    return {"gram": gram, "linear": linear}


QUARTERS = st.integers(-3, 3).map(lambda k: k / 4)
# met exactly, half-way between two sums (a tie from both sides), and out of reach
TARGETS = np.array([-2, -0.5, -0.125, 0, 0.25, 0.625, 1, 1000], np.float32)


@st.composite
def lattices(draw, objective, m):
    """Arguments of `solve` for 64 problems of few values, exact in float32: zeros, equal variables, ties.

    Eight drawn sets of variables meet eight targets; for ``quadratic`` these scale c, and G is indefinite
    with some rows of zeros. Prices are zero, on the lattice or huge.
    """

    def drawn(*shape, elements=QUARTERS):
        return draw(arrays(np.float32, (*shape, 8), elements=elements))

    def tiled(a):
        return np.tile(a, TARGETS.size)

    t = np.repeat(TARGETS, 8)
    if objective == "quadratic":
        half, idle = drawn(m, m), drawn(m, elements=st.sampled_from([0, 1, 1])) == 0
        gram = np.where(idle[:, None] | idle[None], np.float32(0), half + half.swapaxes(0, 1))
        return {"x": None, "t": None, "gram": tiled(gram), "linear": t * tiled(drawn(m))}
    problem = {"x": tiled(drawn(m)), "t": t}
    if objective == "robust":
        problem["residual_price"] = tiled(drawn(elements=st.sampled_from([0.25, 1, 4])))
        problem["price"] = tiled(drawn(m, elements=st.sampled_from([0, 1 / 64, 0.25, 2.0**20])))
    return problem
