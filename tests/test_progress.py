"""What is said of long work where there is no terminal, by a clock that the test moves."""

import pytest

from slth import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time; a test adds to it."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def told(clock: list[float], batches: list[tuple[float, int]], total: int, before: int = 0) -> list[str]:
    """The lines about batches: seconds that each takes, and images done after it."""
    lines: list[str] = []
    with progress.paced("evaluation", total, "images", lines.append) as tell:
        if before:
            tell(before, before)
        for seconds, done in batches:
            clock[0] += seconds
            tell(done, before)
    return lines


def test_the_rate_leaves_the_first_batch_out(clock):
    batches = [(60.0, 10), *((10.0, 10 * number) for number in range(2, 11))]
    assert told(clock, batches, 100) == [
        "evaluation: 20/100 images, 1 images/s, about 1 min 20 s left",
        "evaluation: 50/100 images, 1 images/s, about 50 s left",
        "evaluation: 80/100 images, 1 images/s, about 20 s left",
        "evaluation: 100 images in 2 min 30 s",
    ]


def test_what_an_earlier_process_did_does_not_count_for_the_rate(clock):
    batches = [(1.0, 60), (10.0, 70), (10.0, 80), (20.0, 100)]
    assert told(clock, batches, 100, before=50) == [
        "evaluation: took over 50 of 100 images from a run that was broken off",
        "evaluation: 70/100 images, 1 images/s, about 30 s left",
        "evaluation: 50 images in 41 s",
    ]


def test_of_what_is_quick_nothing_is_said(clock):
    assert told(clock, [(0.1, 50), (0.1, 100)], 100) == []


def test_all_taken_over(clock):
    assert told(clock, [], 100, before=100) == [
        "evaluation: took over 100 of 100 images from a run that was broken off"
    ]
