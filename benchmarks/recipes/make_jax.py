"""Small networks of the digits, trained and saved with flax (linen and nnx), equinox and haiku.

``python benchmarks/recipes/make_jax.py FOLDER`` needs jax, flax, orbax, equinox, dm-haiku, optax and
scikit-learn, and nothing of slth; the networks are in `jax_nets.py`. NAME.outputs.npz stands beside.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.recipes import jax_nets

STEPS, BATCH = 600, 64


def main() -> None:
    """Train and write all of them."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(exist_ok=True)
    digits = load_digits()
    images = ((digits.images[..., None] / 16 - 0.3053) / 0.3761).astype(np.float32)
    x, x_test, y, y_test = train_test_split(
        images, digits.target, test_size=360, random_state=0, stratify=digits.target
    )
    for name, net in jax_nets.NETS.items():
        params, apply, save = net(x)
        trained = fitted(apply, params, x, y)
        save(folder, name, trained)
        outputs = np.asarray(apply(trained, x_test))
        np.savez(folder / f"{name}.outputs.npz", images=x_test, outputs=outputs, known=x[:256], labels=y_test)
        print(name, f"{(outputs.argmax(-1) == y_test).mean():.4f}", flush=True)


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
