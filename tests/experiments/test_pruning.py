"""Methods of pruning from the command line: grounds, methods, presets, one run and a sweep of runs."""

import csv
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments import prune, when_do_pruners_succeed
from experiments.command_line import CONF
from experiments.grounds import check_ground, ground_of
from experiments.points import metrics_of
from experiments.pruners import METHODS, batch_of, pruner_of, rehearse
from experiments.run_folder import execute
from slth import nn, planting, pruning

TINY = ("samples.train=256", "samples.test=200", "+planted.options.pieces=2", "planted.density=0.3")
PRUNERS = sorted(path.stem for path in (CONF / "pruner").glob("*.yaml"))


def composed(*overrides: str, name: str = "prune"):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


@pytest.mark.parametrize("name", PRUNERS)
def test_each_file_describes_the_method_of_its_name(name: str):
    method = pruner_of(composed(f"pruner={name}"))
    assert isinstance(method, METHODS[name])
    assert isinstance(method, pruning.Method)


def test_every_method_has_a_file():
    assert sorted(METHODS) == PRUNERS


@pytest.mark.parametrize(
    "overrides, said",
    [
        (("+pruner.rounds=3",), "pruner.rounds: magnitude has no such option: it has"),
        (("pruner.name=obd",), "pruner.name: 'obd' is unknown: choose one of biprop, "),
        (("pruner.densities=all",), "pruner: densities: 'all' is unknown: choose one of balanced, "),
        (("pruner.densities=planted",), "pruner: densities: nothing is planted"),
        (
            ("pruner=edge_popup", "pruner.loss=outputs"),
            "pruner: loss: outputs: a planted target is asked, and",
        ),
        (("pruner=edge_popup", "+pruner.settings.rates=1"), "pruner: settings.rates: no such setting"),
        (("pruner=imp", "pruner.settings=null"), "pruner: settings: null means those of retrain"),
        (("pruner.floor=-1",), "pruner: floor: expected a whole number of at least 0, got -1"),
    ],
)
def test_what_is_no_method_is_refused_by_its_field(overrides: tuple[str, ...], said: str):
    with pytest.raises(ValueError, match=said):
        pruner_of(composed(*overrides))


@pytest.mark.parametrize(
    "overrides, said",
    [
        (("planted.kind=square",), "planted.kind: 'square' is unknown: choose one of circle, "),
        (("planted.density=null",), "planted.density: circle is planted at a density"),
        (("planted.density=1.5",), "planted.density: expected a number above 0 and of at most 1, got 1.5"),
        (("planted.kind=constructed",), "planted.density: the density of constructed is what comes of it"),
        (("planted.kind=none", "planted.density=null"), "density: nothing is planted that has one"),
        (("planted.size=0",), "planted.size: expected a positive number, got 0"),
        (("planted.of=circle",), "planted.of: expected null, or with planted.kind=constructed one of"),
        (
            ("refine.steps=5",),
            "refine.steps: only a constructed ticket is refined, and planted.kind is circle",
        ),
    ],
)
def test_what_is_no_ground_is_refused_by_its_field(overrides: tuple[str, ...], said: str):
    with pytest.raises(ValueError, match=said):
        check_ground(composed(*overrides))


def test_images_that_a_method_looks_at():
    cfg = composed("pruner=grasp", "pruner.examples=3")
    data = planting.samples("circle", 200, 10)
    method = pruner_of(cfg)
    batch = batch_of(cfg, method, data, data.train_labels)
    assert batch is not None
    assert np.bincount(np.asarray(batch.labels)).tolist() == [3, 3, 3, 3]
    assert batch_of(composed("pruner=magnitude"), pruner_of(composed()), data, data.train_labels) is None
    with pytest.raises(ValueError, match="pruner.images: expected a number from 1 to 200, got 201"):
        batch_of(composed("pruner=snip", "pruner.images=201"), method, data, data.train_labels)


def test_one_run_says_what_its_mask_is_worth(tmp_path: Path):
    cfg = composed(
        *TINY, f"output_dir={tmp_path}", "pruner=snip", "pruner.floor=1", "retrain.epochs=1", "seed=3"
    )
    folder = execute(prune.run, cfg, "prune")
    metrics = metrics_of(folder)
    flat = safetensors.numpy.load_file(folder / prune.MASK)
    ground = ground_of(cfg, tmp_path)
    layers = nn.by_layer(ground.params)
    kept = {
        path: {name: own * flat[f"{path}/{name}"] for name, own in layer.items()}
        for path, layer in layers.items()
    }
    outputs = nn.predict(ground.network, nn.nested(kept), ground.data.test_images)
    assert metrics["found"]["score"] == pytest.approx((outputs.argmax(1) == ground.data.test_labels).mean())
    planted = ground.planted
    assert planted is not None
    assert metrics["found"]["density"] == pytest.approx(planted.density)
    names = [f"{path}/kernel" for path in pruning.prunable(ground.network)]
    own = nn.by_layer(planted.mask)
    common = sum(int((flat[name] & own[name.removesuffix("/kernel")]["kernel"]).sum()) for name in names)
    assert metrics["overlap"]["common"] == common
    assert metrics["overlap"]["jaccard"] == pytest.approx(common / (2 * planted.kept - common))
    assert 0 < metrics["found"]["trained"] < 1
    assert metrics["planted"]["score"] > 0.9
    with open(folder / "layers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == ["dense1", "dense2", "dense3"]
    assert sum(int(row["common"]) for row in rows) == common


def sweep(tmp_path: Path, *overrides: str):
    told = "{label: told, file: magnitude, densities: planted}"
    pruners = f"pruners=[{{label: random, file: random, floor: 1}}, {told}]"
    grounds = "grounds=[{label: circle, kind: circle}, {label: seen, kind: circle, size: 8.0, density: 0.3}]"
    small = ("samples.train=64", "samples.test=100", "+planted.options.pieces=2", "retrain.epochs=0")
    asked = (pruners, grounds, *small, "densities=[0.3,0.15]", "seeds=[0,1]", f"output_dir={tmp_path}")
    return composed(*asked, *overrides, name="when_do_pruners_succeed")


@pytest.mark.parametrize(
    "override, said",
    [
        ("pruners=[{label: a, file: obd}]", "pruners.a.file: there is no 'obd': choose one of biprop"),
        ("pruners=[{label: a, file: snip, rounds: 3}]", "pruners.a.rounds: snip.yaml has no such setting"),
        ("pruners=[{label: a, file: snip}, {label: a, file: grasp}]", "pruners: 'a' stands there twice"),
        ("pruners=[snip]", "pruners: expected entries with a label, got 'snip'"),
        (
            "grounds=[{label: a, kind: square}]",
            "grounds.a, pruners.random: planted.kind: 'square' is unknown",
        ),
        ("grounds=[{label: a, colour: red}]", "grounds.a: planted.colour: there is no such setting"),
        ("grounds=[{label: a, config: {kind: red}}]", "grounds.a: kind: expected a group of settings"),
        (
            "grounds=[{label: a, kind: circle, every: true}]",
            "grounds.a.every: expected true or false, and",
        ),
        ("seeds=[]", "seeds: expected one or more"),
    ],
)
def test_what_is_no_sweep_is_refused_before_any_run(tmp_path: Path, override: str, said: str):
    cfg = sweep(tmp_path)
    name, _, value = override.partition("=")
    cfg[name] = OmegaConf.create(f"x: {value}").x
    with pytest.raises(ValueError, match=said):
        when_do_pruners_succeed.run(cfg, tmp_path)
    assert not (tmp_path / "prune").exists()


def test_constructed_tickets_are_pruned_to_their_density_and_to_every_other_if_asked(tmp_path: Path):
    cfg = sweep(tmp_path)
    for every, densities in ((False, [None]), (True, [None, 0.3, 0.15])):
        cfg.grounds = [{"label": "a", "kind": "constructed", "of": "circle", "every": every}]
        points = list(when_do_pruners_succeed.points_of(cfg))
        told = [(key, point) for key, point in points if (key["pruner"], key["seed"]) == ("told", 0)]
        assert [key["density"] for key, _ in told] == densities
        assert [point.density for _, point in told] == densities
        assert all(point.planted.density is None for _, point in told)


def test_outputs_that_a_method_is_told_have_the_factor_of_the_ticket():
    planted = planting.plant(planting.relu(), density=0.1)
    cfg = composed("pruner=edge_popup", "pruner.loss=outputs", "pruner.densities=planted")
    method = pruner_of(cfg, planted.densities, planted.target, planted.factor)
    assert isinstance(method, pruning.EdgePopup)
    assert isinstance(method.loss, pruning.Distilled)
    assert method.loss.factor == planted.factor > 0, "not one fitted to each batch, which may be negative"
    assert method.densities == pruning.Given(planted.densities)


@pytest.mark.parametrize(
    "word, factor, temperature", [("outputs", 3.0, None), ("direction", None, None), ("classes", 3.0, 1.0)]
)
def test_what_a_search_asks_of_a_target(word: str, factor: float | None, temperature: float | None):
    cfg = composed("pruner=edge_popup", f"pruner.loss={word}")
    rehearse(cfg)
    method = pruner_of(cfg, target=planting.circle(), factor=3.0)
    assert isinstance(method, pruning.EdgePopup)
    assert isinstance(method.loss, pruning.Distilled)
    assert (method.loss.factor, method.loss.temperature) == (factor, temperature)


def test_classes_of_a_target_that_has_none_are_refused_before_any_work():
    for settings in (("planted.kind=helix",), ("planted.kind=constructed", "planted.of=relu")):
        with pytest.raises(
            ValueError, match="pruner: distilled.temperature: 1 needs a factor and outputs that are"
        ):
            rehearse(composed("pruner=edge_popup", "pruner.loss=classes", *settings))


def test_a_refined_ticket_is_in_the_source_of_the_constructed_one(tmp_path: Path):
    constructed = (
        "planted.kind=constructed",
        "planted.density=null",
        "planted.of=circle",
        "samples.train=512",
    )
    narrow = ("source.multiplicity=2", "source.scale=2", "solver=compensated", "solver.calibration=256")
    few = ("samples.train=512", "samples.test=100")
    plain = ground_of(composed(*constructed, *narrow, *few), tmp_path)
    refined = ground_of(composed(*constructed, *narrow, *few, "refine.steps=100"), tmp_path)
    assert plain.unrefined is None
    assert plain.planted is not None
    assert refined.planted is not None
    assert refined.unrefined is not None
    own, others = (nn.by_layer(one.params) for one in (plain, refined))
    assert all((own[path]["kernel"] == others[path]["kernel"]).all() for path in own), "no weight moves"
    unrefined, mask = (nn.by_layer(one.mask) for one in (refined.unrefined, plain.planted))
    assert all((mask[path]["kernel"] == unrefined[path]["kernel"]).all() for path in mask)
    images, target = plain.data.train_images, plain.planted.target
    off = [np.mean((one(images) - target(images)) ** 2) for one in (refined.unrefined, refined.planted)]
    assert off[1] < off[0]


def test_a_wrong_method_is_refused_before_anything_is_planted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(prune, "ground_of", lambda *args: pytest.fail("work before the check"))
    with pytest.raises(ValueError, match="pruner: densities: 'all' is unknown"):
        prune.run(composed("pruner.densities=all"), tmp_path)
    told = composed("planted.kind=none", "planted.density=null", "density=0.5", "pruner.densities=planted")
    with pytest.raises(ValueError, match="pruner: densities: nothing is planted"):
        prune.run(told, tmp_path)
