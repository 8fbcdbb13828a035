"""What the chosen weights of a row miss of the target in the mean, found by running the ticket beside it."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Bool, Float

from slth.construction.state import Part, Problem, Rows, Stream


def seen(stream: Stream) -> tuple[Array, Array]:
    """Target's and ticket's values on the calibration images, of a stream that has them."""
    assert stream.x is not None
    assert stream.ticket is not None
    return stream.x, stream.ticket


def _means(stream: Stream) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " source_c"]]:
    """Means of target's and ticket's values by channel."""
    x, ticket = (np.asarray(a.mean(tuple(range(a.ndim - 1))), np.float64) for a in seen(stream))
    return x, ticket


def with_means(
    problem: Problem, masks: Sequence[Bool[np.ndarray, "taps source_cin source_cout"]]
) -> tuple[Problem, list[Float[np.ndarray, "taps rows"]]]:
    """What constants must add to a node whose weights are chosen, so that its rows have the right means.

    Args:
      masks: of the weights of each part.
    Returns: the problem, whose biases make up for what a carried skip's copies miss; and for each part what
      its chosen weights miss at each tap.
    """
    rows, skip = problem.rows, problem.carried
    if skip is not None:
        x, ticket = _means(skip)
        extra = (x[:, None] - ticket[rows.columns]).reshape(-1)
        problem = problem._replace(rows=rows._replace(extra=extra))
    return problem, [_missed(part, mask, rows) for part, mask in zip(problem.parts, masks, strict=True)]


def _missed(
    part: Part, mask: Bool[np.ndarray, "taps source_cin source_cout"], rows: Rows
) -> Float[np.ndarray, "taps rows"]:
    """Mean contribution of the target's channels at each tap less that of the chosen ones."""
    columns = rows.columns.reshape(-1)
    x, ticket = _means(part.stream)
    kept = np.where(mask[:, :, columns], part.random.some(columns=columns).whole(), 0)
    wanted = np.repeat(part.weight.transpose(0, 2, 1) @ x, rows.columns.shape[1], 1)
    return wanted - kept.transpose(0, 2, 1) @ ticket
