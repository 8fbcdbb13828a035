"""What captions say, against numbers that the tests work out themselves: supported, contradicted, open."""

import math

import numpy as np
import pytest

from experiments import bits, bounds, compare_constructions, depth, epsilon, layer, subset_sum, width
from experiments.claims import Claim, band_of, caption, means_of, recorded


def verdicts(claims: list[Claim]) -> list[bool | None]:
    return [claim.supported for claim in claims]


def test_a_caption_names_every_claim_with_its_verdict_and_numbers():
    claims = [Claim("A holds.", True, "1 of 1"), Claim("B holds.", False, "0 of 1"), Claim("C.", None, "–")]
    said = caption("Shown is X.", claims)
    assert said == "Shown is X. Supported: A holds. 1 of 1. Contradicted: B holds. 0 of 1. Open: C. –."
    assert [one["verdict"] for one in recorded(claims, {"x": said})["claims"]] == [
        *("supported", "contradicted", "open")
    ]


def test_means_and_bands_are_those_of_numpy():
    rows = [{"m": m, "seed": s, "error": m + s**2} for m in (5, 3) for s in (0, 1, 3)]
    assert means_of(rows, ("m",), ("error",)) == [
        {"m": 5, "error": pytest.approx(np.mean([5, 6, 14]))},
        {"m": 3, "error": pytest.approx(np.mean([3, 4, 12]))},
    ]
    band = band_of("a", rows, "m", "error", scale=10)
    assert (band.x, band.low, band.high) == ([3, 5], [30, 50], [120, 140])
    assert band.y == pytest.approx([10 * 19 / 3, 10 * 25 / 3])
    assert means_of([{"m": 1, "a": None}, {"m": 1, "a": 2.0}], ("m",), ("a",)) == [{"m": 1, "a": None}]


def widths(accuracy: dict[str, dict[int, tuple[float, ...]]]) -> list[dict]:
    return [
        {
            **{"solver": solver, "multiplicity": m, "seed": seed, "accuracy": value},
            **{"relative_error": 1 - value, "problems": 1000 * m},
        }
        for solver, by_width in accuracy.items()
        for m, values in by_width.items()
        for seed, value in enumerate(values)
    ]


def test_width_says_from_which_m_on_tickets_are_as_good_and_what_the_lemma_asks():
    rows = widths(
        {
            "good": {4: (0.5, 0.6), 10: (0.94, 0.96), 15: (0.95, 0.97)},  # means .95 and .96
            "bad": {4: (0.5, 0.6), 10: (0.93, 0.94), 15: (0.95, 0.97)},  # .935 is not within a point of .95
        }
    )
    asked = width.asked_of(rows, 0.01, 0.05)
    assert asked["problem"] == math.ceil(3 * math.log(1 / 0.01))  # epsilon is below delta
    m = asked["network"]  # the least m that is enough for its own number of problems

    def enough(m: int) -> bool:
        return m >= 3 * math.log(1 / min(0.05 / (1000 * m), 0.01))

    assert enough(m)
    assert not enough(m - 1)
    found = width.claims_of(rows, 0.95, asked | {"theorem": 99, "theorem_epsilon": 0.1})
    assert verdicts(found) == [True, False, True]
    assert "good is so from m = 10 on; 95.00 % at m = 10 and 96.00 % at m = 15" in found[0].found
    assert "bad is so from m = 15 on; 93.50 % at m = 10" in found[1].found
    assert f"m = {m} for all of the network at once and m = 99 for Theorem 2" in found[2].found
    hopeless = width.claims_of(widths({"bad": {4: (0.1,), 10: (0.2,)}}), 0.95, asked)
    assert verdicts(hopeless) == [False, None]
    assert "no measured width does" in hopeless[1].found
    narrow = width.claims_of(widths({"good": {4: (0.95,)}}), 0.95, asked)
    assert verdicts(narrow) == [None, True]
    numbers = width.claims_of(widths({"good": {10: (0.96,)}, "bad": {10: (0.94,)}}), None, asked)
    assert verdicts(numbers) == [True, False, True]  # a relative error of .04 and of .06


def test_epsilon_says_whether_a_smaller_one_helps_and_whether_prices_help_more():
    def points(errors: dict[tuple[int, float | None], float], accuracy: float) -> list[dict]:
        return [
            {
                **{"multiplicity": m, "tolerance": e, "solver": "robust" if e is None else "smallest"},
                **{"relative_error": error + wobble, "accuracy": accuracy, "target_accuracy": 0.9},
            }
            for (m, e), error in errors.items()
            for wobble in (-0.01, 0.01)
        ]

    helps = {(6, 0.05): 0.4, (6, 0.01): 0.2, (6, None): 0.1, (9, 0.05): 0.3, (9, 0.01): 0.1, (9, None): 0.05}
    found = epsilon.claims_of(points(helps, 0.9), "net")
    assert verdicts(found) == [True, True, True]
    assert "from 0.4 to 0.2 (m = 6) and from 0.3 to 0.1 (m = 9)" in found[1].found
    assert found[2].found == "0.1 against 0.2 (m = 6) and 0.05 against 0.1 (m = 9)"
    hurts = helps | {(9, 0.01): 0.35, (9, None): 0.31}
    assert verdicts(epsilon.claims_of(points(hurts, 0.88), "net")) == [False, False, False]
    coarse = {(6, 0.05): 0.4, (6, None): 0.1}
    assert verdicts(epsilon.claims_of(points(coarse, 0.9), "net")) == [True], "ε = 0.05 says nothing of 0.01"


def test_depth_names_the_worst_layer():
    found = depth.claims_of({"a": [0.01, 0.05, 0.02], "b": [0.01, 0.5, 0.2]}, ["x", "y", "z"])
    assert verdicts(found) == [True, False]
    assert found[1].found == "It is 0.01 in x and 0.2 in z, and at most 0.5 (y)"


def test_bounds_that_are_broken_empty_or_out_of_budget_are_contradicted():
    row = {"solver": "best", "multiplicity": 8, "error_found": 1.0, "data_bound": 4.0, "box_bound": 10.0}
    row |= {"box_certified": 0.25, "holds": True, "budgets_met": True, "required_multiplicity": 40}
    found = bounds.claims_of([row, row | {"error_found": 2.0}])
    assert verdicts(found) == [True, True, True]
    assert "comes closest is 50.00 % of its bound" in found[0].found
    assert "At best 25.00 % of them are certified" in found[1].found
    assert "at least 5 times the error found" in found[1].found
    worse = row | {"error_found": 5.0, "holds": False, "budgets_met": False, "box_certified": 0.0}
    found = bounds.claims_of([worse])
    assert verdicts(found) == [False, False, False]
    assert "Of 1 tickets 0 keep" in found[0].found
    assert verdicts(bounds.claims_of([row | {"box_certified": None}])) == [True, None, True]


def test_constructions_are_compared_by_the_sources_that_reach_the_error():
    def row(name: str, parameters: int, *, reached: bool = True) -> dict:
        return {"name": name, "parameters": parameters, "reached": reached, "worst_error": 0.5}

    def verdict(*rows: dict) -> list[bool | None]:
        return verdicts(compare_constructions.claims_of(rows, 0.1))

    small, large = row("burkholz2022_fc", 100), row("pensia2020", 200)
    assert verdict(small, large) == [True]
    assert verdict(row("burkholz2022_fc", 300), large) == [False]
    # A source that misses the error needs more than its widest.
    assert verdict(small, row("pensia2020", 200, reached=False)) == [True]
    assert verdict(row("burkholz2022_fc", 300, reached=False), large) == [False]
    assert verdict(row("burkholz2022_fc", 150, reached=False), large) == [None]
    assert verdict(row("burkholz2022_fc", 300), row("pensia2020", 200, reached=False)) == [None]
    assert verdict(*(row(n, 1, reached=False) for n in ("burkholz2022_fc", "pensia2020"))) == [None]
    assert verdict(small) == []


def test_bits_compares_the_fewest_that_are_as_good():
    def row(kind: str, bits: float, accuracy: float) -> dict:
        return {"kind": kind, "label": f"{kind} {bits}", "bits": bits, "accuracy": accuracy}

    rounded = [row("target rounded, nearest", b, a) for b, a in ((1, 0.2), (4, 0.895), (8, 0.9))]
    means = [row("few", 3, 0.892), row("few", 2, 0.7), row("many", 5, 0.9), row("poor", 9, 0.5), *rounded]
    found = bits.claims_of([*means, row("published", 1, 0.9)], 0.9)
    assert verdicts(found) == [True, False, False]
    assert "few 3 needs 3.00 bits a weight (89.20 %)" in found[0].found
    assert "target rounded, nearest 4 4.00 (89.50 %)" in found[0].found
    assert "No ticket measured comes so near" in found[2].found


def test_subset_sums_are_held_against_the_lemma():
    def row(m: int, failure: float, size: float) -> dict:
        implied = m / math.log(1 / min(failure, 0.01)) if failure else None
        low, high = failure / 2, 2 * failure
        return {
            **{"distribution": "uniform", "m": m, "failure": failure, "C": implied, "mean_size": size},
            **{"failure_low": low, "failure_high": high, "problems": 1000},
        }

    good = [row(8, 0.3, 3.2), row(15, 0.004, 2.3), row(20, 0.0002, 2.0)]  # 15 / log 250 = 2.72, 2.35
    found = subset_sum.claims_of(good, 0.01)
    assert verdicts(found) == [True, True, True]
    assert "at most C = 2.72 (m = 15)" in found[0].found
    bad = subset_sum.claims_of([row(15, 0.03, 3.4)], 0.01)
    assert verdicts(bad) == [False, False, False]
    assert verdicts(subset_sum.claims_of([row(8, 0.3, 3.2)], 0.01)) == [None]


def test_a_layer_is_said_to_be_near_only_if_all_its_sums_are():
    counts = {"mean_size": 2.5, "sums": 100, "sums_within": 100, "largest_error": 0.009, "tolerance": 0.01}
    assert verdicts(layer.claims_of(counts)) == [True, True]
    assert verdicts(layer.claims_of(counts | {"mean_size": 3.1, "sums_within": 99})) == [False, False]
    assert verdicts(layer.claims_of(counts | {"mean_size": None, "sums": 0})) == [None, None]
