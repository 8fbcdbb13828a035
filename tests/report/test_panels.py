"""Curves with bands: which densities an axis names, and how curves are told apart."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from slth.report import Band, Panel, draw_panels
from slth.report.figures import style_of
from slth.report.panels import MOST_TICKS, _apart, _plot


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


def test_curves_differ_in_colour_and_marker_and_an_equal_one_is_dashed():
    looks = [style_of(number) for number in range(24)]
    assert len(set(looks)) == 24
    x, y = [1, 2], [0.5, np.inf]
    bands = [
        Band("a", x, y, y, y),
        Band("b", x, y, y, y),
        Band("c", x, [1, 2], [0, 1], [2, 3], like="a"),
        Band("d", x, y, y, y, reference=True),
    ]
    lines = _plot(Figure().subplots(), bands, {"a": looks[0], "b": looks[1]})
    assert [lines[name].get_linestyle() for name in "abcd"] == ["-", "--", ":", "--"]
    assert lines["c"].get_color() == lines["a"].get_color() != lines["b"].get_color()
    assert lines["a"].get_marker() != lines["b"].get_marker()
    assert np.isnan(lines["a"].get_ydata()[1]), "what is not finite is not drawn"


def test_panels_of_different_quantities_are_one_figure(tmp_path: Path):
    band = Band("a", [1, 2, 4], [3, 2, 1], [2, 1, 0.5], [4, 3, 2])
    panels = [Panel([band], "error", log=True), Panel([band._replace(label="b")], "size", "title")] * 2
    sizes = []
    for columns in (1, 2):
        path = tmp_path / f"{columns}.png"
        marks = {"asked": 3.0}
        draw_panels(
            path, panels[:3], title="t", x_label="x", columns=columns, marks=marks, within=("w", 1.5, 2)
        )
        sizes.append(int.from_bytes(path.read_bytes()[20:24], "big"))  # of a PNG, its height
    assert sizes[0] > sizes[1]
