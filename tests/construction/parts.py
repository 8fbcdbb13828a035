"""One linear node made by hand: a convolution on a short axis, m copies of each input, constants."""

import numpy as np

from slth.construction.state import Part, Problem, Read, Rows, Stream, copied_slots
from slth.nn.layers import Conv
from slth.source.drawn import held


def on_grid(a):
    return (np.rint(np.asarray(a) * 2**24) / 2**24).astype(np.float32)


def make_part(
    seed, *, m=5, cin=2, cout=3, taps=3, constants=(), rows=None, noise=None, usable=None, **stream
):
    """Random and target weights U[-1, 1] (a tenth of the target's 0); constants through the middle tap."""
    rng = np.random.default_rng(seed)
    slots = copied_slots(np.arange(cin * m).reshape(cin, m))
    if usable is not None:
        slots = slots._replace(usable=usable)
    width = cin * m + len(constants)
    weight = on_grid(rng.uniform(-1, 1, (taps, cin, cout)))
    weight[rng.random(weight.shape) < 0.1] = 0
    rows = cout * m + len(constants) if rows is None else rows
    random = on_grid(rng.uniform(-1, 1, (taps, width, rows)))
    where = Stream(
        slots,
        cin * m + np.arange(len(constants)),
        np.array(constants, np.float64),
        np.zeros((cin, m)) if noise is None else noise,
        **stream,
    )
    layer = Conv("a", cout, (taps,), padding=((taps // 2, taps // 2),))
    safe = np.arange(taps) == taps // 2
    rms = rng.uniform(0.5, 2, cin)
    return Part("a", layer, weight, held(random), Read((9, cin)), where, safe, rms, np.zeros(cin), 1.0)


def problem_of(parts, *, m=5, bias=None, constant=None, carried=None):
    """The problems of a node of these parts, whose rows are copies in their natural order."""
    cout = parts[0].weight.shape[2]
    spare = len(parts[0].stream.constants)
    rows = Rows(
        np.zeros(cout) if bias is None else bias,
        np.arange(cout * m).reshape(cout, m),
        np.full(spare, np.nan) if constant is None else constant,
    )
    return Problem(tuple(parts), rows, carried, m, center=False)
