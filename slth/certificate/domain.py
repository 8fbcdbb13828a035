"""Where a certificate holds: a box of inputs, a ball around each of some images, or the images alone."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from slth.types import Shape


class Domain(NamedTuple):
    r"""Sets of inputs, :math:`\{x : low_i \le x \le high_i\}` for i = 1..n, entry by entry.

    A box is one set, n = 1. Balls are one set for each image, each with a bound of its own. Examples are
    single points, ``low = high``.

    Example:
      >>> import numpy as np, slth
      >>> domain = slth.ball(np.zeros((3, 4)), 0.5)      # three images of four entries
      >>> domain.kind, domain.low.shape, float(domain.low.min()), float(domain.high.max())
      ('ball', (3, 4), -0.5, 0.5)
    """

    kind: Literal["box", "ball", "examples"]
    low: Float[np.ndarray, "n *shape"]
    high: Float[np.ndarray, "n *shape"]
    text: str
    """What a table calls it."""

    def check(self, shape: Shape) -> "Domain":
        """The domain with bounds of a network's input shape.

        Raises: ValueError if they do not broadcast to it.
        """
        try:
            low, high = (np.broadcast_to(a, (len(a), *shape)) for a in (self.low, self.high))
        except ValueError as error:
            raise ValueError(
                f"domain: bounds of shape {self.low.shape[1:]} do not fit inputs of shape {shape}: give"
                " images, or bounds of one number, one a channel, or one an entry"
            ) from error
        return self._replace(low=low, high=high)


def box(low: Float[np.ndarray, "..."] | float, high: Float[np.ndarray, "..."] | float) -> Domain:
    r"""All inputs with :math:`low \le x \le high`, such as the range of the pixels.

    Args:
      low, high: numbers, one a channel, or one an entry of the input, in the units that the network reads
        (after normalisation).
    Raises: ValueError unless both are finite and low <= high everywhere.

    Example:
      >>> import numpy as np, slth
      >>> slth.box(0, 1).text
      'box [0, 1]'
      >>> slth.box(np.array([-1.0, 0.0]), np.array([1.0, 2.0])).low.tolist()  # one number for each channel
      [[-1.0, 0.0]]
    """
    below, above = np.broadcast_arrays(np.asarray(low, np.float64)[None], np.asarray(high, np.float64)[None])
    return _checked(Domain("box", below, above, f"box [{below.min():.4g}, {above.max():.4g}]"))


def ball(
    images: Float[np.ndarray, "n *shape"],
    radius: Float[np.ndarray, "..."] | float,
    low: Float[np.ndarray, "..."] | float | None = None,
    high: Float[np.ndarray, "..."] | float | None = None,
) -> Domain:
    r"""For each image all inputs with :math:`|x - image|_\infty \le radius`, within [low, high] if given.

    Args:
      images: the centres, shape (n, *input_shape).
      radius: in the units that the network reads; one number, one for each channel or one for each entry.
      low, high: range of the inputs, to which the balls are cut.
    Raises: ValueError for no image, a radius below 0 or anything that is not finite.

    Example:
      >>> import numpy as np, slth
      >>> slth.ball(np.ones((2, 3)), 0.25, high=1.0).high.tolist()
      [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    centre = np.asarray(images, np.float64)
    size = np.asarray(radius, np.float64)
    if not (size >= 0).all():
        raise ValueError(f"domain: the radius of a ball must be at least 0, got {radius}")
    least, most = (
        np.asarray(none if end is None else end, np.float64) for end, none in ((low, -np.inf), (high, np.inf))
    )
    below, above = (
        np.clip(np.nextafter(centre + sign * size, sign * np.inf), least, most) for sign in (-1, 1)
    )
    text = f"balls of radius {size.max():.4g} around {len(centre)} images"
    return _checked(Domain("ball", below, above, text))


def examples(images: Float[np.ndarray, "n *shape"]) -> Domain:
    """Single images: the claim is about these images and no others.

    Args:
      images: shape (n, *input_shape), in the units that the network reads.
    Raises: ValueError for no image, or entries that are not finite.

    Example:
      >>> import numpy as np, slth
      >>> domain = slth.examples(np.ones((5, 3)))
      >>> domain.kind, bool((domain.low == domain.high).all())
      ('examples', True)
    """
    points = np.asarray(images, np.float64)
    return _checked(Domain("examples", points, points, f"{len(points)} images"))


def _checked(domain: Domain) -> Domain:
    if len(domain.low) == 0:
        raise ValueError("domain: there are no images, a certificate needs at least one")
    if not (np.isfinite(domain.low).all() and np.isfinite(domain.high).all()):
        raise ValueError("domain: bounds and images must be finite numbers")
    if (domain.low > domain.high).any():
        raise ValueError(f"domain: low {domain.low.min()} exceeds high {domain.high.max()} somewhere")
    return domain
