"""The name of a run: which settings count, and that it stays what it is when fields are added."""

import copy
import hashlib

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from experiments import defaults, ticket, when_do_pruners_succeed
from experiments.defaults import CONF, counted, missing
from experiments.points import point
from experiments.run_folder import config_hash, execute, folder_of


def composed(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, [*overrides])


# What counts, as JSON; the name is the beginning of its SHA-256.
NAMES = {
    ("ticket",): ("44136fa355b3", "{}"),
    ("ticket", "solver=robust", "source.seed=0", "train.seed=0", "output_dir=x"): ("44136fa355b3", "{}"),
    ("ticket", "source.multiplicity=8", "source.seed=2"): (
        *("cd202e8e07c2", '{"source": {"multiplicity": 8, "seed": 2}}'),
    ),
    ("ticket", "solver=compensated"): (
        *("0bdfacc3f072", '{"solver": {"method": "compensated", "objective": "best"}}'),
    ),
    ("ticket", "solver.objective=best", "solver.method=compensated"): (
        *("0bdfacc3f072", '{"solver": {"method": "compensated", "objective": "best"}}'),
    ),
    ("ticket", "target=mlp", "certificate=box", "source.scale=2.0"): (
        "e7909b5e1e42",
        '{"certificate": {"name": "box"}, "source": {"scale": 2}, "target": {"name": "mlp"}}',
    ),
    ("width", "seeds=[0,1]"): ("e9587d11c0ad", '{"seeds": [0, 1]}'),
    ("width", "~solvers.best", "~solvers.compensated", "~solvers.smallest"): (
        "5852b517900f",
        '{"solvers": {"robust": {"method": "independent", "objective": "robust"}}}',
    ),
    ("prune", "pruner=snip"): ("4f44fe32a9b0", '{"pruner": {"name": "snip"}}'),
    ("subset_sum", "problems=1000"): ("d6c888b7a2a3", '{"problems": 1000}'),
}


@pytest.mark.parametrize("given", NAMES, ids=" ".join)
def test_names_are_those_that_they_always_were(given: tuple[str, ...]):
    name, counts = NAMES[given]
    assert hashlib.sha256(counts.encode()).hexdigest()[:12] == name
    assert config_hash(composed(*given), given[0]) == name


@pytest.mark.slow
def test_every_field_has_its_first_default_recorded():
    assert missing() == {}, "new fields: run python -m experiments.defaults"


def changed(monkeypatch: pytest.MonkeyPatch, name: str, value) -> None:
    """Have the YAML files say this of a field of `ticket`, from now on."""
    real = defaults.composed

    def other(of: str):
        cfg = OmegaConf.create(copy.deepcopy(real(of)))
        if of == "ticket" or (of.partition("/")[0] == name.partition(".")[0] and of.endswith("/mlp")):
            OmegaConf.update(cfg, name, value)
        return OmegaConf.to_container(cfg)

    monkeypatch.setattr(defaults, "composed", other)


@pytest.mark.parametrize("name", ["source.twist", "evaluation.twist", "colour", "target.dropout"])
def test_a_new_field_renames_no_run(monkeypatch: pytest.MonkeyPatch, name: str):
    cfg = composed("ticket", "target=mlp", "source.seed=4")
    before = config_hash(cfg, "ticket")
    changed(monkeypatch, name, 1.5)
    new = OmegaConf.create(OmegaConf.to_container(cfg))
    OmegaConf.update(new, name, 1.5)
    assert config_hash(new, "ticket") == before
    OmegaConf.update(new, name, 1.6)
    assert config_hash(new, "ticket") != before


@pytest.mark.parametrize(
    "name, value", [("evaluation.batch", 64), ("target.widths", [8]), ("data.name", "npz")]
)
def test_a_changed_default_renames_the_runs_that_rely_on_it(monkeypatch: pytest.MonkeyPatch, name, value):
    cfg = composed("ticket", "target=mlp")
    before = config_hash(cfg, "ticket")
    changed(monkeypatch, name, value)
    assert config_hash(cfg, "ticket") == before, "who asks for the old value has the old run"
    new = OmegaConf.create(OmegaConf.to_container(cfg))
    OmegaConf.update(new, name, value)
    assert config_hash(new, "ticket") != before


def test_an_entry_that_is_added_to_a_list_of_runs_counts():
    cfg = composed("width")
    before = config_hash(cfg, "width")
    cfg = composed("width", "+solvers.more.method=rounded")
    assert config_hash(cfg, "width") != before


def test_a_field_that_is_taken_away_counts():
    settings = {"target": {"name": "mlp"}, "data": {"name": "digits"}}
    assert counted(settings, None)["deleted"][:2] == ["data.dir", "data.limit"]
    assert config_hash(composed("ticket", "~refine"), "ticket") != config_hash(composed("ticket"), "ticket")


def test_of_a_file_of_ones_own_everything_counts():
    settings = {"target": {"name": "own", "width": 3, "checkpoint": None}}
    assert counted(settings, None) == settings


@pytest.mark.parametrize("other", [True, 1.5, "1", None])
def test_true_and_text_are_no_numbers(other):
    assert counted({"retrain": 1, "train": {"seed": other}}, None) == {
        **{"retrain": 1, "train": {"seed": other}}
    }
    assert not defaults.same(1, other)
    assert defaults.same([1, {"a": 2.0}], [1.0, {"a": 2}])


def test_points_of_sweeps_are_the_runs_of_the_command_line(monkeypatch: pytest.MonkeyPatch):
    ran = []
    monkeypatch.setattr("experiments.points.execute", lambda run, cfg, name: ran.append(folder_of(cfg, name)))
    where = ("data.limit=7", "target=mlp")
    for name in ("width", "depth", "bounds"):
        given = (*where, "data=digits", "certificate=box")
        point(composed(name, *given), "best", seed=3, multiplicity=5)
        asked = ("solver=independent", "source.seed=3", "source.multiplicity=5")
        assert ran.pop() == folder_of(composed("ticket", *given, *asked), "ticket")


def test_points_of_pruners_are_the_runs_of_the_command_line():
    small = ("densities=[0.3]", "seeds=[4]", "retrain.epochs=0", "grounds=[{label: a, kind: helix}]")
    cfg = composed(
        "when_do_pruners_succeed", *small, "pruners=[{label: b, file: snip, floor: 1}]", "retrain.rate=0.1"
    )
    ((_, made),) = when_do_pruners_succeed.points_of(cfg)
    asked = ("planted.kind=helix", "planted.density=0.3", "seed=4", "pruner=snip", "pruner.floor=1")
    assert folder_of(made, "prune") == folder_of(composed("prune", *asked), "prune")


def test_a_default_that_was_changed_before_it_was_recorded_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path):
    def new(value):
        changed(monkeypatch, "colour", value)
        return composed("ticket", f"output_dir={tmp_path}", f"+colour={value}")

    first = new("none")
    folder = execute(lambda cfg, folder: {"colour": cfg.colour}, first, "ticket")
    second = new("all")
    assert folder_of(second, "ticket") == folder
    with pytest.raises(
        ValueError, match=r"colour: 'all' here and 'none' in .*: force=true does the run anew"
    ):
        execute(ticket.run, second, "ticket")
    second.force = True
    assert execute(lambda cfg, folder: {"colour": cfg.colour}, second, "ticket") == folder
    assert '"all"' in (folder / "metrics.json").read_text()
