r"""Which images a limit takes: every class as often as in the whole, up to one image."""

import numpy as np
from jaxtyping import Int

from slth.data.formats import Arrays, Index, Part


def stratified(labels: Int[np.ndarray, " n"], seed: int) -> Int[np.ndarray, " n"]:
    r"""An order of all images whose first k have each class in its share, for every k.

    The :math:`n_c` images of class c are put in a random order; the one at place r is given the number
    :math:`(r + 1/2) / n_c`, and all images are sorted by it, equal numbers in random order. So the first k
    have :math:`k\, n_c / n` images of class c, up to less than one where the classes are equally large; and
    what a small limit takes, a larger one takes too.

    Args:
      labels: the classes, shape (n,).
      seed: of the random orders.
    Returns: numbers of images, shape (n,).
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, starts, counts = np.unique(labels[by_class], return_index=True, return_counts=True)
    ranks = np.arange(len(labels)) - np.repeat(starts, counts)
    places = np.empty(len(labels))
    places[by_class] = (ranks + 0.5) / np.repeat(counts, counts)
    return np.lexsort((rng.permutation(len(labels)), places))


def chosen(part: Part, limit: int | None, seed: int | None, classes: bool) -> Index:
    """The images of a part that a limit takes: all in their own order where it takes all.

    Args:
      limit: how many; None: all.
      seed: of the draw, `stratified` of classes, plain of numbers and where the part says so; None: the first
        so many.
      classes: whether the labels are classes.
    """
    if limit is None or limit >= part.count:
        return slice(None)
    if seed is None:
        return slice(limit)
    if not classes or part.plain:
        return np.random.default_rng(seed).permutation(part.count)[:limit]
    return stratified(part.labels(), seed)[:limit]


def taken(part: Part, limit: int | None, seed: int | None, classes: bool) -> Arrays:
    """Images and labels that a limit takes of a part, as `chosen` says."""
    return part.read(chosen(part, limit, seed, classes))
