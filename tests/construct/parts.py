"""One linear node made by hand: a convolution on a short axis, m copies of each input, constants."""

import numpy as np

from slth.construct.layout import copies
from slth.construct.node import Part, Stream
from slth.nn.layers import Conv


def on_grid(a):
    return (np.rint(np.asarray(a) * 2**24) / 2**24).astype(np.float32)


def make_part(
    seed, *, m=5, cin=2, cout=3, taps=3, constants=(), rows=None, noise=None, usable=None, **stream
):
    """Random and target weights U[-1, 1] (a tenth of the target's 0); constants through the middle tap."""
    rng = np.random.default_rng(seed)
    slots = copies(np.arange(cin * m).reshape(cin, m))
    if usable is not None:
        slots = slots._replace(usable=usable)
    width = cin * m + len(constants)
    weight = on_grid(rng.uniform(-1, 1, (taps, cin, cout)))
    weight[rng.random(weight.shape) < 0.1] = 0
    rows = cout * m + len(constants) if rows is None else rows
    random = on_grid(rng.uniform(-1, 1, (taps, width, rows)))
    where = Stream(
        (9, cin),
        slots,
        cin * m + np.arange(len(constants)),
        np.array(constants, np.float64),
        np.zeros((cin, m)) if noise is None else noise,
        **stream,
    )
    layer = Conv("a", cout, (taps,), padding=((taps // 2, taps // 2),))
    safe = np.arange(taps) == taps // 2
    return Part("a", layer, weight, random, where, safe, rng.uniform(0.5, 2, cin), np.zeros(cin), 1.0)
