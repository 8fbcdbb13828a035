"""Small networks of the digits, trained and saved with flax (linen and nnx), equinox and haiku.

``python -m benchmarks.recipes.make_jax FOLDER`` needs jax, flax, orbax, equinox, dm-haiku, optax and
scikit-learn, and nothing of slth; the networks are in `jax_nets.py`. NAME.outputs.npz stands beside.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.recipes import digits, jax_nets

STEPS, BATCH = 600, 64


def main() -> None:
    """Train and write all of them."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(exist_ok=True)
    x, x_test, y, y_test = digits.split()
    for name, net in jax_nets.NETS.items():
        params, apply, save = net(x)
        trained = fitted(apply, params, x, y)
        save(folder, name, trained)
        outputs = np.asarray(apply(trained, x_test))
        digits.store(folder, name, x, x_test, outputs, y_test)


def fitted(apply, params, x, y):
    """Adam on the cross entropy of all floating-point leaves."""
    optimiser = optax.adam(optax.cosine_decay_schedule(3e-3, STEPS))
    state, rng = optimiser.init(params), np.random.default_rng(0)

    @jax.jit
    def step(params, state, x, y):
        def loss(params):
            return optax.softmax_cross_entropy_with_integer_labels(apply(params, x), y).mean()

        updates, state = optimiser.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    for _ in range(STEPS):
        rows = rng.integers(len(x), size=BATCH)
        params, state = step(params, state, jnp.asarray(x[rows]), jnp.asarray(y[rows]))
    return params


if __name__ == "__main__":
    main()
