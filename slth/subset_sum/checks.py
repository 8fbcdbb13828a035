"""What `solve` refuses before it runs, with the index of the first offender."""

import numpy as np

from slth.subset_sum.problem import MAX_ENUMERATED, MAX_VARIABLES, Objective
from slth.types import AnyArray

LIMIT = 2.0**20
RATIO = 2.0**40

# The axes of every argument (m variables, n problems) and the range of its values.
ARGUMENTS = {
    "x": ("mn", -LIMIT, LIMIT),
    "t": ("n", -LIMIT, LIMIT),
    "residual_price": ("n", 1 / RATIO, RATIO),
    "price": ("mn", 0.0, RATIO),
    "gram": ("mmn", -RATIO, RATIO),
    "linear": ("mn", -RATIO, RATIO),
}


def check(
    objective: Objective, tolerance: float, size: int | None, **given: AnyArray | None
) -> dict[str, np.ndarray]:
    """The `ARGUMENTS` that the objective needs, float32 and checked."""
    arrays = {name: np.asarray(given[name], np.float32) for name in ARGUMENTS if given[name] is not None}
    m, n = _shapes(arrays, objective)
    any_size = size is None and objective in (Objective.BEST, Objective.SMALLEST)
    limit = MAX_VARIABLES if any_size else MAX_ENUMERATED
    if not 1 <= m <= limit:
        raise ValueError(
            f"{objective} solves problems of 1 to {limit} variables, got m = {m}: split them or use fewer"
        )
    if not 0 <= tolerance <= 32:
        raise ValueError(f"tolerance must be in [0, 32], got {tolerance}")
    if size is not None and not 0 <= size <= m:
        raise ValueError(f"size must be in [0, m = {m}], got {size}")
    for name, array in arrays.items():
        _inside(name, array)
    if objective is Objective.QUADRATIC:
        _symmetric(arrays["gram"])
    if objective is Objective.ROBUST:
        arrays.setdefault("price", np.broadcast_to(np.float32(0), (m, n)))
        if size:
            _affordable(arrays, tolerance, size)
    return arrays


def _shapes(arrays: dict, objective: Objective) -> tuple[int, int]:
    quadratic = objective is Objective.QUADRATIC
    needed = {"gram", "linear"} if quadratic else {"x", "t"}
    allowed = {"x", "t"} | needed | ({"residual_price", "price"} if objective is Objective.ROBUST else set())
    for name in needed - arrays.keys():
        raise ValueError(f"objective {objective} needs {name}")
    for name in arrays.keys() - allowed:
        raise ValueError(
            f"{name} means nothing to objective {objective}: leave it out or choose another objective"
        )
    if ("x" in arrays) != ("t" in arrays):
        raise ValueError("give both x and t, or neither")
    main = "linear" if quadratic else "x"
    if arrays[main].ndim != 2:
        raise ValueError(f"{main} must have shape (m, n), got {arrays[main].shape}")
    m, n = arrays[main].shape
    for name, array in arrays.items():
        wanted = tuple({"m": m, "n": n}[axis] for axis in ARGUMENTS[name][0])
        if array.shape != wanted:
            raise ValueError(f"{name} must have shape {wanted} beside {main} of {(m, n)}, got {array.shape}")
    return m, n


def _inside(name: str, array: np.ndarray) -> None:
    """Refuse NaN and values outside the argument's range; two reductions unless something is wrong."""
    _, low, high = ARGUMENTS[name]
    if array.size == 0 or (array.min() >= low and array.max() <= high):
        return
    index = tuple(int(v[0]) for v in np.nonzero(~((array >= low) & (array <= high))))
    raise ValueError(
        f"{name}[{', '.join(map(str, index))}] is {array[index]}: need a number in [{low:g}, {high:g}]"
    )


def _symmetric(gram: np.ndarray) -> None:
    different = gram != gram.swapaxes(0, 1)
    if different.any():
        i, j, k = (int(v[0]) for v in np.nonzero(different))
        raise ValueError(f"gram must be symmetric, but gram[{i}, {j}, {k}] differs from gram[{j}, {i}, {k}]")


def _affordable(arrays: dict, tolerance: float, size: int) -> None:
    """Refuse problems whose cheapest ``size`` variables cost more than the 60 bits of a grid's exact costs.

    Any size may stay below by choosing none of a dear variable; a fixed size may have to take some.
    """
    price = arrays["price"].astype(np.float64) / arrays.get("residual_price", 1.0)
    cheapest = np.sort(price, axis=0)[:size].sum(0)
    reach = np.abs(arrays["x"]).sum(0, dtype=np.float64) + np.abs(arrays["t"]) + tolerance
    limit = np.maximum(64.0, reach * (64 / 63)) ** 2 - reach**2
    dear = np.flatnonzero(cheapest > limit)
    if dear.size:
        k = dear[0]
        raise ValueError(
            f"the {size} cheapest variables of problem {k} have price / residual_price {cheapest[k]:g}:"
            f" a fixed size needs at most {limit[k]:g} there, lower the prices or scale the problem down"
        )
