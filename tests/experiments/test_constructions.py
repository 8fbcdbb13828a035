"""Constructions from the command line: what they make of a source, what they refuse, how they compare."""

import csv
import json

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from experiments import compare_constructions
from experiments import compose as settings
from experiments.command_line import CONF
from experiments.settings import check
from experiments.targets import data_of, spec_of
from slth import Single, Target
from slth.source.ranges import input_ranges
from tests.construction.nets import random_params

PIXELS = ("data.mean=[0.0]", "data.std=[1.0]")


def composed(*overrides: str, name: str = "ticket"):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(name, list(overrides))
    check(cfg)
    data = data_of(cfg)
    return cfg, spec_of(cfg, data), data


def source_of(cfg, spec, data):
    params = random_params(spec, np.random.default_rng(0))
    return settings.source_of(cfg, Target.of(spec, params), data)


def test_one_variable_a_weight_is_the_preset_of_malach():
    cfg, spec, data = composed("target=mlp", "construction=malach2020", "source.univariate=70")
    settings.refuse_uncovered(cfg, spec, data)
    assert settings.solver_of(cfg) == Single()
    names = [layer.name for layer in source_of(cfg, spec, data).network.layers if hasattr(layer, "name")]
    assert names == [f"{name}{end}" for name in ("dense1", "dense2", "linear") for end in (".univariate", "")]
    with pytest.raises(ValueError, match="construction=malach2020 takes one variable for each weight"):
        settings.solver_of(composed("target=mlp", "construction=malach2020", "solver=compensated")[0])


def test_inputs_not_below_0_are_what_the_pixels_say():
    cfg, spec, data = composed("target=digits_cnn", "construction=dacunha2021")
    with pytest.raises(ValueError, match="inputs below 0: choose construction=burkholz2022"):
        settings.refuse_uncovered(cfg, spec, data)
    cfg, spec, data = composed("target=digits_cnn", "construction=dacunha2021", *PIXELS)
    settings.refuse_uncovered(cfg, spec, data)
    assert settings.nonnegative_of(cfg)


def test_constants_of_two_layers_cannot_be_asked_for():
    cfg, spec, data = composed("target=mlp", "construction.depth=2L", "source.constants=9")
    with pytest.raises(ValueError, match="source.constants: 9 is of L\\+1"):
        source_of(cfg, spec, data)


@pytest.mark.parametrize("kind, exact", [("sigmoid", True), ("gelu", False)])
def test_small_alpha_of_each_layer_fits_the_range_of_its_inputs(kind: str, exact: bool):
    cfg, spec, data = composed("target=digits_cnn", f"target.activation={kind}", "construction.depth=2L")
    target = Target.of(spec, random_params(spec, np.random.default_rng(0)))
    ranges = input_ranges(target.network, target.params, data.calibration(16), 3.0)
    assert list(ranges) == ["conv1", "conv2", "linear"]
    assert ranges["conv1"].exact
    assert [ranges[name].exact for name in ("conv2", "linear")] == [exact, exact]
    source = settings.source_of(cfg, target, data)
    assert set(dict(source.scales)) == {name + end for name in ranges for end in ("", ".univariate")}
    assert source.knows_target is not exact, "ranges that were seen are knowledge of the target"


def test_homogeneous_activations_need_no_ranges():
    cfg, spec, data = composed("target=mlp", "construction.depth=2L")
    source = source_of(cfg, spec, data)
    assert source.scales == ()
    assert not source.knows_target


def test_the_smallest_source_that_reaches_the_error_is_chosen(tmp_path, monkeypatch):
    """Errors of 1 / width for L+1 and 10 / width for 2L, and twice that with seed 1."""

    def run(cfg, construction, source):
        width = source.get("univariate") or source["multiplicity"]
        error = (1 if construction["depth"] == "L+1" else 10) / width * (1 + source["seed"])
        where = tmp_path / f"{construction['name']}-{width}-{source['seed']}"
        where.mkdir()
        metrics = {
            "source": {"depth": 4, "parameters": 100 * width},
            "ticket": {"nonzero": width, "agreement": 1.0},
            "subset_sum": {"problems": 7, "unsolved": 1},
            "error": {"max": error, "relative": error},
            "seconds": {"construct": 2.0},
        }
        (where / "metrics.json").write_text(json.dumps(metrics))
        return where

    monkeypatch.setattr(compare_constructions, "ticket_run", run)
    cfg, *_ = composed("target=digits_cnn", "seeds=[0,1]", "error=0.25", name="compare_constructions")
    metrics = compare_constructions.run(cfg, tmp_path)
    assert set(metrics["uncovered"]) == {"malach2020", "pensia2020", "burkholz2022_fc"}
    found = {row["construction"]: row for row in metrics["constructions"]}
    widest = max(cfg.constructions.dacunha2021.widths)
    assert (found["dacunha2021"]["width"], found["dacunha2021"]["reached"]) == (widest, False)
    assert (found["burkholz2022"]["width"], found["burkholz2022"]["reached"]) == (8, True)
    assert found["burkholz2022"]["max_error"] == pytest.approx(1.5 / 8)
    with open(tmp_path / "points.csv", newline="") as file:
        points = list(csv.DictReader(file))
    assert len(points) == 2 * sum(len(cfg.constructions[name].widths) for name in found)
    assert (tmp_path / "constructions.png").stat().st_size > 0
