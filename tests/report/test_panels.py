"""Curves with bands: which densities an axis names."""

import numpy as np

from slth.report.panels import MOST_TICKS, _apart


def test_ticks_are_so_far_apart_that_their_labels_do_not_touch():
    ticks = [0.8**level for level in range(14)][::-1]
    kept = _apart(ticks)
    assert kept[-1] == 1
    assert set(kept) <= set(ticks)
    assert len(kept) <= MOST_TICKS + 1
    assert (np.diff(np.log(kept)) > np.log(ticks[-1] / ticks[0]) / MOST_TICKS - 1e-9).all()


def test_few_ticks_all_stay():
    assert _apart([0.1, 0.3, 1.0]) == [0.1, 0.3, 1.0]
    assert _apart([0.5]) == [0.5]
