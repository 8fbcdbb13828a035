"""Random and adversarial problems that several tests share."""

import numpy as np


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
