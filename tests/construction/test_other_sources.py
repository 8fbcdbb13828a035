"""Sources of another kind: sparse ones, whose absent weights no mask keeps, and Glorot's."""

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from slth import Best, Compensated, Robust, Smallest, Target, construct
from slth.source import parameters
from tests.construction.nets import PLAIN, images, source_of, target_of

TARGET = Target(*target_of(PLAIN["vectors"]))
SOLVERS = {
    "smallest": Smallest(),
    "best": Best(),
    "robust": Robust(noise="fixed"),
    "compensated": Compensated(sweeps=2),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_no_mask_keeps_a_weight_that_is_absent(name: str):
    source = source_of(TARGET.network, 5, presence=0.6)
    calibration = images(TARGET.network, 32) if name == "compensated" else None
    mask = flatten_dict(construct(TARGET, source, SOLVERS[name], calibration).mask, sep="/")
    values = flatten_dict(parameters(source), sep="/")
    for path, kept in mask.items():
        assert not (kept & (np.asarray(values[path]) == 0)).any(), path
        assert kept.any() == path.endswith("kernel") or path == "univariate/bias"


@pytest.mark.parametrize("options", [{"presence": 0.9}, {"init": "glorot_uniform"}, {"scales": {"b": 1.5}}])
def test_tickets_of_such_sources_compute_their_target(options):
    source = source_of(TARGET.network, 15, copies_per_sign=30, constants=30, **options)
    made = construct(TARGET, source, Best())
    assert made.error(images(TARGET.network, 50)).relative < 0.05
