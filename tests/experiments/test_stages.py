"""What the stages of a run took."""

import time

import numpy as np

from experiments import stages


def test_a_stage_has_its_own_peak():
    measured = stages.Stages()
    with measured("large"):
        np.ones(2**26).sum()
    with measured("small"):
        time.sleep(0.05)
    assert list(measured.seconds) == ["large", "small"]
    assert measured.seconds["small"] >= 0.05
    large, small = measured.memory["large"], measured.memory["small"]
    if large is not None and small is not None:
        assert large > small + 0.4  # 0.54 GB of ones


def test_no_memory_where_the_system_does_not_say(monkeypatch, tmp_path):
    monkeypatch.setattr(stages, "PROCESS", tmp_path / "absent")
    measured = stages.Stages()
    with measured("any"):
        pass
    assert measured.memory == {"any": None}
