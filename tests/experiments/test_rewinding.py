"""Iterative magnitude pruning from the command line: levels, controls, and what is refused."""

import csv
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from experiments import rewinding
from experiments.command_line import CONF
from experiments.points import metrics_of
from experiments.run_folder import execute

TINY = (
    *("target=mlp", "target.widths=[8]", "data.limit=200", "settings.epochs=2", "seeds=[0,1]"),
    *("rewinds=[0,2]", "density=0.3", "rate=0.5", "controls=2"),
)


def composed(*overrides: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("rewinding", list(overrides))


def test_every_seed_and_k_has_its_levels_and_controls(tmp_path: Path, monkeypatch):
    trained = []
    real = rewinding.train
    monkeypatch.setattr(
        rewinding, "train", lambda *args, **options: trained.append(options) or real(*args, **options)
    )
    folder = execute(rewinding.run, composed(*TINY, f"output_dir={tmp_path}"), "rewinding")
    with open(folder / "levels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["rewind"], row["level"]) for row in rows] == [
        (seed, k, level) for seed in "01" for k in "02" for level in "012"
    ]
    np.testing.assert_allclose([float(row["density"]) for row in rows[:3]], [1, 0.5, 0.3], atol=0.01)
    assert [row["shuffled"] != "" for row in rows[:3]] == [False, False, True]
    assert [options["first"] for options in trained] == [0, 0, 2, 0] * 2  # reinitialised: all steps
    means = metrics_of(folder)["means"]
    tickets = [row for row in means if row["trained"] == "ticket" and row["rewind"] == 0]
    for level, row in enumerate(tickets):
        own = [float(r["accuracy"]) for r in rows if r["rewind"] == "0" and r["level"] == str(level)]
        assert row["mean"] == pytest.approx(np.mean(own))
        assert (row["min"], row["max"], row["seeds"]) == (min(own), max(own), 2)
    assert (folder / "rewinding.png").stat().st_size > 1000
    assert not (folder / rewinding.STATE).exists()


def test_a_run_that_breaks_goes_on_with_the_same_numbers(tmp_path: Path, monkeypatch):
    cfg = composed(*TINY, "seeds=[0]", "controls=0", f"output_dir={tmp_path}")
    whole = metrics_of(execute(rewinding.run, cfg, "rewinding"))["levels"]
    again = composed(*TINY, "seeds=[0]", "controls=0", f"output_dir={tmp_path / 'again'}")
    real, calls = rewinding.accuracy, []

    def breaks(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(rewinding, "accuracy", breaks)
    with pytest.raises(KeyboardInterrupt):
        execute(rewinding.run, again, "rewinding")
    assert metrics_of(execute(rewinding.run, again, "rewinding"))["levels"] == whole


@pytest.mark.parametrize(
    "override, said",
    [
        ("seeds=[]", "seeds: expected different whole numbers of at least 0, got \\[\\]"),
        ("rewinds=[0,0]", "rewinds: expected different whole numbers"),
        ("controls=-1", "controls: expected 0 \\(none\\) or every how many levels, got -1"),
        ("density=1.0", "density: expected a number between 0 and 1, got 1.0"),
        ("+settings.rates=1", "settings.rates: no such setting: there are epochs"),
        ("rewinds=[5000]", "rewind: iteration 5000 of a training of"),
        ("rate=2", "rate: expected a number between 0 and 1, got 2"),
    ],
)
def test_bad_settings_are_refused_by_their_field(tmp_path: Path, override: str, said: str):
    with pytest.raises(ValueError, match=said):
        rewinding.run(composed(*TINY, override), tmp_path)
