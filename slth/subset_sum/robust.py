r"""The least :math:`E^2 + \sum_S p_k`, with :math:`E` an exact integer and prices :math:`p = q / r` in
squared grid steps.

The kernel compares costs in float32. Each is a sum of at most m + 1 non-negative terms, of which
:math:`E^2` is rounded twice, so it is within a factor :math:`1 \pm 2^{-18}` of the exact cost however the
sum is ordered and whether or not multiplication and addition are fused. If no other subset is within twice
that of the least, it is the optimum of the exact integer cost; else the exact search decides. So the mask
depends on neither device nor rounding.

Most variables are of no use, and only the others are enumerated. Some subset of at most three variables costs
C. For every slope :math:`\lambda`, as :math:`E^2 \ge \lambda E - \lambda^2 / 4`,

.. math:: E^2 + \sum_S p_k \ge \lambda t - \frac{\lambda^2}{4} + \sum_{k \in S} (p_k - \lambda x_k)
   \ge \lambda t - \frac{\lambda^2}{4} + \sum_k \min(0, p_k - \lambda x_k) = D(\lambda),

and a subset that holds variable k costs at least :math:`D(\lambda) + \max(0, p_k - \lambda x_k)`. Where that
exceeds C, no optimal subset holds k. (:math:`D` is the Lagrangian dual and this is known as fixing by reduced
costs.)
"""

import functools

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt32

from slth.subset_sum.grid import Snapped, power_of_two
from slth.subset_sum.rows import add_selected, apart, least_subset, leaves

WINDOW = np.float32(1 + 2.0**-16)
TABLE = 3  # variables whose subset sums are kept in memory
FORBIDDEN = np.float32(1e30)
BLOCK = 5  # third variables of triples in one loop
SLOPES = np.array([0.25, -0.25, 0.5, -0.5, 1, -1], np.float32)
"""The slopes tried, in units of the largest p / abs(x) that is left."""
SLACK = np.float32(2.0**-18)  # 64 roundings of all terms of D; at most m + 10 of them add up
NOWHERE = np.int32(31)  # the place of a variable of no use


def robust_chunk(
    p: Snapped, always: Bool[Array, ""], low: int, most: int, *, price: Float[Array, "m n"]
) -> tuple[UInt32[Array, " n"], Bool[Array, " n"]]:
    """Masks of ``robust`` and whether each is surely the one optimal subset; ``price`` is ``q / r``.

    Args:
      low: variables unrolled in the kernel.
      most: variables that are enumerated; a problem with more that may be of use is not sure.
    """
    price = apart(always, in_steps, p.x, price, p.exponent)
    if most >= p.x.shape[0]:
        subset, sure = enumerated(always, low, p.x, p.t, price)
        return subset.astype(jnp.uint32), sure
    limit = apart(always, few_cost, p.x, p.t, price) * WINDOW
    place, count = places(always, p.x, p.t, price, limit)
    x, price = apart(always, functools.partial(compacted, most), p.x, price, place)
    subset, sure = enumerated(always, low, x, p.t, price)
    mask = jnp.zeros_like(subset)
    for k, at in enumerate(place):
        mask = mask | ((subset >> at) & 1) << k
    return mask.astype(jnp.uint32), sure & (count <= most)


def in_steps(
    x: Int[Array, "m n"], price: Float[Array, "m n"], exponent: Int[Array, " n"]
) -> Float[Array, "m n"]:
    """Prices in squared grid steps."""
    scale = power_of_two(exponent)[None]
    # a variable that is zero repeats a sum at no less cost; barring it leaves the optimum and no tie
    return jnp.where(x == 0, FORBIDDEN, jnp.minimum(jnp.rint(price * scale * scale), FORBIDDEN))


def squares(errors: list[Int[Array, " n"]]) -> list[Float[Array, " n"]]:
    """Squares of integers, rounded twice."""
    return [lax.square(lax.convert_element_type(u, np.float32)) for u in errors]


def least(costs: list[Float[Array, " n"]]) -> Float[Array, " n"]:
    """The least of non-negative numbers."""
    return number(functools.reduce(lax.min, map(bits, costs)))


def few_cost(x: Int[Array, "m n"], t: Int[Array, " n"], price: Float[Array, "m n"]) -> Float[Array, " n"]:
    """The least cost of a subset of at most three variables.

    The last of them is looped over, in blocks: below the end of its block lie the other two.
    """

    def step(i, cost, stop):
        u = t - x[i]
        q = [jnp.where(k == i, FORBIDDEN, price[k]) for k in range(stop)]
        found = squares([u])
        for j in range(stop):
            one = u - x[j]
            pairs = squares([lax.sub(one, x[k]) for k in range(j)])
            found.append(least(squares([one]) + [lax.add(e, q[k]) for k, e in enumerate(pairs)]) + q[j])
        return jnp.minimum(cost, least(found) + price[i])

    cost = squares([t])[0]
    for stop in range(len(x), 0, -BLOCK):
        cost = lax.fori_loop(max(0, stop - BLOCK), stop, functools.partial(step, stop=stop), cost)
    return cost


def places(
    always: Bool[Array, ""],
    x: Int[Array, "m n"],
    t: Int[Array, " n"],
    price: Float[Array, "m n"],
    limit: Float[Array, " n"],
) -> tuple[Int[Array, "m n"], Int[Array, " n"]]:
    """The place of each variable among those that may be of use, and how many there are.

    Args:
      limit: what an optimal subset costs at most.
    """

    def begin(x, t, price, limit):
        return x.astype(jnp.float32), t.astype(jnp.float32), jnp.where(price <= limit[None], price, FORBIDDEN)

    def scales(x, t, price):
        steep, reach = jnp.zeros_like(t), jnp.abs(t)
        for v, q in zip(x, price, strict=True):
            steep = jnp.maximum(steep, jnp.where(q < FORBIDDEN, q / jnp.abs(v), 0))
            reach = reach + jnp.abs(v)
        return steep, reach

    def dual(x, t, price, reach, slope):
        value = slope * t - slope * slope / 4 - SLACK * (jnp.abs(slope) * reach + slope * slope)
        for v, q in zip(x, price, strict=True):
            value = value + jnp.minimum(q - slope * v, 0)
        return value

    x, t, price = apart(always, begin, x, t, price, limit)
    steep, reach = apart(always, scales, x, t, price)

    def fix(i, price):
        slope = jnp.asarray(SLOPES)[i] * steep
        without = apart(always, dual, x, t, price, reach, slope)
        cost = without[None] + jnp.maximum(price - slope[None] * x, 0)
        return jnp.where(cost <= limit[None], price, FORBIDDEN)

    price = lax.fori_loop(0, len(SLOPES), fix, price)

    def rank(k, state):
        place, count = state
        use = price[k] < FORBIDDEN
        return place.at[k].set(jnp.where(use, count, NOWHERE)), count + use

    return lax.fori_loop(0, len(x), rank, (jnp.zeros(x.shape, jnp.int32), jnp.zeros(t.shape, jnp.int32)))


def compacted(
    most: int, x: Int[Array, "m n"], price: Float[Array, "m n"], place: Int[Array, "m n"]
) -> tuple[Int[Array, "k n"], Float[Array, "k n"]]:
    """The variables of the first ``most`` places and their prices; places that are left over are barred."""
    order = jnp.arange(most, dtype=jnp.int32)[:, None]
    values, prices = jnp.zeros((most, x.shape[1]), jnp.int32), jnp.full((most, x.shape[1]), FORBIDDEN)
    for v, q, at in zip(x, price, place, strict=True):
        here = at[None] == order
        values, prices = jnp.where(here, v[None], values), jnp.where(here, q[None], prices)
    return values, prices


def enumerated(
    always: Bool[Array, ""],
    low: int,
    x: Int[Array, "m n"],
    t: Int[Array, " n"],
    price: Float[Array, "m n"],
) -> tuple[Int[Array, " n"], Bool[Array, " n"]]:
    """The optimal subset of these variables and whether it surely is the only one."""
    m, n = x.shape
    low = min(low, m)

    def terms(x, price):
        sums, prices = [jnp.zeros(n, jnp.int32)], [jnp.zeros(n)]
        for k in range(TABLE):
            sums, prices = sums + [s + x[k] for s in sums], prices + [q + price[k] for q in prices]
        return list(x), list(price), sums, prices

    x, q, sums, prices = apart(always, terms, x, price)
    outer = list(zip(x[TABLE:low], q[TABLE:low], strict=True))

    def branch(state, variable):
        return lax.sub(state[0], variable[0]), lax.add(state[1], variable[1])

    def start(row):
        return add_selected(t, [-v for v in x[low:]], row), add_selected(jnp.zeros(n), q[low:], row)

    def costs(u):
        """Costs of the inner variables' subsets, their own prices included."""
        errors = squares([lax.sub(u, s) for s in sums])
        return [lax.add(e, z) for e, z in zip(errors, prices, strict=True)]

    def kernel(row):
        found = [lax.add(least(costs(u)), paid) for _, (u, paid) in leaves(start(row), outer, branch)]
        return bits(least(found))

    def matches(row, limit):
        for index, (u, paid) in leaves(start(row), outer, branch):
            for j, cost in enumerate(costs(u)):
                yield index << TABLE | j, lax.le(bits(lax.add(cost, paid)), limit)

    return least_subset(
        always, n, m - low, low, kernel, matches, window=lambda cost: bits(number(cost) * WINDOW)
    )


def bits(value: Float[Array, "*n"]):
    """The bits of a non-negative float32, an integer of the same order (integer minima are faster)."""
    return lax.bitcast_convert_type(value, jnp.int32)


def number(value):
    """Inverse of `bits`."""
    return lax.bitcast_convert_type(value, jnp.float32)
