"""Sources of another kind: sparse ones, whose absent weights no mask keeps, and Glorot's."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from slth import Solver, nn
from slth.construct import construct
from slth.source import parameters
from tests.construct.nets import PLAIN, images, source_of, target_of

TARGET, PARAMS = target_of(PLAIN["vectors"])
SOLVERS = {
    "smallest": Solver(objective="smallest"),
    "best": Solver(objective="best"),
    "robust": Solver(objective="robust", noise="fixed"),
    "compensated": Solver(method="compensated"),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_no_mask_keeps_a_weight_that_is_absent(name: str):
    source = source_of(TARGET, 5, presence=0.6)
    calibration = jnp.asarray(images(TARGET, 32)) if name == "compensated" else None
    mask = flatten_dict(construct(TARGET, PARAMS, source, SOLVERS[name], calibration).mask, sep="/")
    values = flatten_dict(parameters(source), sep="/")
    for path, kept in mask.items():
        assert not (kept & (np.asarray(values[path]) == 0)).any(), path


@pytest.mark.parametrize("options", [{"presence": 0.9}, {"init": "glorot_uniform"}, {"scales": {"b": 1.5}}])
def test_tickets_of_such_sources_compute_their_target(options):
    source = source_of(TARGET, 15, copies_per_sign=30, constants=30, **options)
    made = construct(TARGET, PARAMS, source, Solver(objective="best"))
    values = flatten_dict(parameters(source), sep="/")
    kept = {
        tuple(path.split("/")): jnp.where(mask, values[path], 0)
        for path, mask in flatten_dict(made.mask, sep="/").items()
    }
    x = images(TARGET, 50)
    tree: dict = {}
    for (layer, leaf), value in kept.items():
        tree.setdefault(layer, {})[leaf] = value
    wanted = np.asarray(nn.apply(TARGET, PARAMS, x))
    found = made.factor * np.asarray(nn.apply(source.network, tree, x))
    assert np.linalg.norm(found - wanted) < 0.05 * np.linalg.norm(wanted)
