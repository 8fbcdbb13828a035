"""Collected runs: what is read, what is named instead, means over seeds, and a page whose text stays text."""

import csv
import json
import logging
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from scipy import stats

from experiments import collect
from experiments.collect import listed
from experiments.command_line import CONF
from experiments.groups import groups_of, means
from experiments.pages import FILE, write_report
from experiments.rerun import overrides_of
from experiments.run_folder import execute, finished, settings
from experiments.runs import read, read_run

ENVIRONMENT = {"jax": "0.10", "python": "3.11", "device": "cpu", "precision": "highest", "slth": "0.1.0"}
NASTY = "</td><script>alert(1)</script>"


def metrics(accuracy: float | None = 0.9, unsolved: int = 0, **sections):
    """A small metrics.json of a ticket run; most of what it says is null."""
    empty = dict.fromkeys(("bound", "holds", "domain", "certified_fraction"))
    return {
        "target": {
            **dict.fromkeys(("accuracy", "activation", "depth", "rmse")),
            **{"name": "mlp", "parameters": 8, "nonzero": 8},
        },
        "source": {
            **{"parameters": 100, "depth": 4, "multiplicity": 5, "init": "he_uniform", "scale": 1.0},
            **{"knows_target": False, "seed": 0, "sha256": "ab" * 32, "univariate": None},
        },
        "ticket": {
            **{"nonzero": 10, "density": 0.1, "accuracy": accuracy, "agreement": None, "rmse": None},
            **{"agreement_interval": None, "bytes": 1000, "bits_per_weight": None},
        },
        "subset_sum": {
            **{"method": "independent", "objective": "robust", "tolerance": 0.01, "calibration": 0},
            **{"problems": 40, "unsolved": unsolved, "deviating": 0, "mean_size": 1.0},
            **{"mean_error": 0.0, "max_error": 0.0},
        },
        "error": dict.fromkeys(("max", "mean", "relative", "examples", "rmse", "quantiles")),
        "certificate": empty,
        "theorem": dict.fromkeys(("epsilon", "delta", "required_multiplicity", "C", "satisfied")),
        "seconds": dict.fromkeys(("train", "construct", "certify", "evaluate", "total")),
        "environment": ENVIRONMENT,
        **sections,
    }


def ticket_settings(*overrides: str) -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return settings(compose("ticket", ["target=mlp", *overrides]))


def stored(folder: Path, config: dict, numbers: object) -> Path:
    folder.mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    (folder / "metrics.json").write_text(numbers if isinstance(numbers, str) else json.dumps(numbers))
    return folder


@pytest.fixture(scope="module")
def base() -> dict:
    return ticket_settings()


def changed(base: dict, multiplicity: int = 5, seed: int = 0, **target) -> dict:
    source = base["source"] | {"multiplicity": multiplicity, "seed": seed}
    return base | {"source": source, "target": base["target"] | target}


ACCURACIES = {(5, 0): 0.90, (5, 1): 0.94, (5, 2): 0.92, (8, 0): 0.97, (8, 1): None}


def collected(folder: Path, out: Path, **changes):
    out.mkdir(parents=True, exist_ok=True)
    cfg = OmegaConf.create({"runs": [str(folder)], "only": None, "confidence": 0.95, **changes})
    return collect.run(cfg, out)


@pytest.fixture(scope="module")
def page(tmp_path_factory, base):
    """A folder of runs with everything that may be wrong in one, and what is collected of it."""
    runs, out = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("page")
    for (m, seed), accuracy in ACCURACIES.items():
        stored(runs / f"ticket/m{m}s{seed}", changed(base, m, seed), metrics(accuracy, unsolved=seed))
    shutil.copytree(runs / "ticket/m5s0", runs / "copy/ticket/m5s0")
    stored(runs / "ticket/nasty", changed(base, 12, checkpoint=NASTY), metrics())
    broken = {
        "nan": '{"a": NaN}',
        "cut": '{"target": {',
        "list": "[1, 2]",
        "short": json.dumps({"target": {}}),
        "text": json.dumps(
            metrics() | {"error": dict.fromkeys(("mean", "relative", "examples")) | {"max": "x"}}
        ),
    }
    for name, text in broken.items():
        stored(runs / "ticket" / name, base, text)
    (runs / "ticket/utf").mkdir()
    (runs / "ticket/utf/config.yaml").write_bytes(b"\xff\xfe")
    (runs / "ticket/utf/metrics.json").write_text("{}")
    stored(runs / "unheard/a1", {}, {})
    stored(
        runs / "depth/d1", {"seeds": [0]}, {"points": [{"unsolved": 3, "x": 1.5}, {"unsolved": 0, "x": 2}]}
    )
    stored(runs / "ticket/.half.12", base, metrics())
    (runs / "ticket/started").mkdir()
    (runs / "ticket/started/config.yaml").write_text("a: 1")
    stored(runs / "collect/c1", {}, {})
    return runs, out, collected(runs, out)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_finished_runs_are_read_and_all_else_is_named(page):
    _, out, found = page
    assert found["experiments"] == {"depth": 1, "ticket": 6}
    assert sorted(Path(path).name for path in found["unfinished"]) == [".half.12", "started"]
    said = {Path(one["folder"]).name: one["said"] for one in found["broken"]}
    assert set(said) == {"nan", "cut", "list", "short", "text", "utf", "a1"}
    assert "NaN is no number of JSON" in said["nan"]
    assert "no target.name" in said["short"]
    assert said["text"] == "error.max of metrics.json is a text, not a number or null"
    assert len(found["again"]) == 1
    text = (out / "index.html").read_text()
    assert all(
        f"ticket/{name} is not read" in text for name in ("nan", "cut", "list", "short", "text", "utf")
    )
    assert "ticket/started" in text


def test_means_and_intervals_are_those_of_students_t(page):
    _, out, _ = page
    table = [row for row in rows(out / "summary.csv") if row["measure"] == "ticket.accuracy"]
    by_m = {row["source.multiplicity"]: row for row in table}
    values = [0.90, 0.94, 0.92]
    wanted = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert float(by_m["5"]["mean"]) == pytest.approx(np.mean(values), rel=1e-5)
    assert [float(by_m["5"][end]) for end in ("low", "high")] == pytest.approx(list(wanted), rel=1e-5)
    assert (by_m["5"]["n"], by_m["5"]["runs"]) == ("3", "3")
    assert (by_m["8"]["n"], by_m["8"]["runs"], by_m["8"]["low"]) == ("1", "2", "")


def test_one_row_a_run_with_all_it_says(page):
    _, out, _ = page
    table = {row["run"]: row for row in rows(out / "runs.csv")}
    assert len(table) == 7
    assert table["m8s1"]["metrics.ticket.accuracy"] == ""
    assert table["m8s1"]["settings.source.seed"] == "1"
    assert "1 of 40 subset-sum problems" in table["m8s1"]["problems"]
    assert table["d1"]["problems"] == "1 of 2 points have unsolved subset-sum problems"
    assert [row["x"] for row in rows(out / "rows.csv")] == ["1.5", "2"]


def test_text_of_settings_is_text(page):
    _, out, _ = page
    text = (out / "index.html").read_text()
    assert NASTY not in text
    assert "&lt;script&gt;alert(1)" in text


def test_the_page_has_figures_and_refuses_to_load_anything(page):
    _, out, _ = page
    text = (out / "index.html").read_text()
    assert (out / "ticket_ticket_accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert text.count("data:image/png;base64,") >= len(list(out.glob("*.png"))) >= 2
    assert "default-src 'none'" in text
    assert all(f"ticket-m{m}s{seed}" in text for m, seed in ACCURACIES)


def test_versions_and_repeated_seeds_are_kept_apart(tmp_path: Path, base):
    for name, version in {"a": "0.1.0", "b": "0.2.0"}.items():
        stored(tmp_path / "ticket" / name, base, metrics(environment=ENVIRONMENT | {"slth": version}))
    older = {key: value for key, value in base.items() if key != "refine"}
    stored(tmp_path / "ticket/c", older, metrics())
    stored(tmp_path / "ticket/d", older, metrics(0.8))
    groups = groups_of("ticket", read([tmp_path]).runs)
    found = {tuple(run.name for run in members) for _, members in groups.members}
    assert found == {("a",), ("b",), ("c", "d")}
    twice = [found["ticket.accuracy"] for _, found in means(groups, 0.95) if found["ticket.accuracy"].n == 2]
    assert [(one.low, one.high) for one in twice] == [(None, None)]


def test_one_run_is_a_page_without_figures(tmp_path: Path, base):
    stored(tmp_path / "runs/ticket/a", base, metrics())
    found = collected(tmp_path / "runs", tmp_path / "out")
    assert found["runs"] == 1
    assert list((tmp_path / "out").glob("*.png")) == []


def test_no_run_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="runs: no finished run in"):
        collected(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="is no folder"):
        collected(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(ValueError, match="only: 'tickets' is no experiment"):
        collected(tmp_path, tmp_path / "out", only=["tickets"])
    with pytest.raises(ValueError, match="runs: name the folders"):
        collected(tmp_path, tmp_path / "out", runs=None)
    with pytest.raises(ValueError, match="confidence: expected"):
        collected(tmp_path, tmp_path / "out", confidence=95)


def test_a_missing_library_is_named_before_any_work(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(collect.importlib.util, "find_spec", lambda name: None if name == "itables" else 1)
    with pytest.raises(ValueError, match="itables is not installed"):
        collected(tmp_path, tmp_path / "out")


def test_several_folders_are_a_list():
    assert listed(["runs=a,b"]) == ['runs=["a","b"]']
    assert listed(["runs=a", "runs=[a,b]", "x=1,2"]) == ["runs=a", "runs=[a,b]", "x=1,2"]


COMMANDS = (
    ("source.seed=3", "solver=compensated", "source.multiplicity=4", "solver.tolerance=1e-5"),
    pytest.param(
        ("target=resnet20", "data=cifar10", "data.dir='/a b/c,d'", "data.mean=[0.1,0.2,0.3]"),
        marks=pytest.mark.slow,
    ),
    ("construction=pensia2020", "certificate=box", "target.widths=[8]", "source.scales={linear:2}"),
    pytest.param(
        ('target.checkpoint="a=\\"b\\" (1).npz"', "data.dir='null'", "source=uniform"), marks=pytest.mark.slow
    ),
)


@pytest.mark.parametrize("overrides", COMMANDS, ids=range(len(COMMANDS)))
def test_the_command_of_a_run_makes_its_settings_again(overrides):
    wanted = ticket_settings(*overrides)
    found = overrides_of("ticket", wanted)
    assert len(found) <= len(overrides) + 1
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert settings(compose("ticket", shlex.split(shlex.join(found)))) == wanted


def test_a_run_leaves_a_page_and_a_page_that_fails_leaves_the_run(tmp_path: Path, base, caplog, monkeypatch):
    cfg = OmegaConf.create({**changed(base, checkpoint=NASTY), "output_dir": str(tmp_path)})
    folder = execute(lambda cfg, folder: metrics(unsolved=2), cfg, "ticket")
    text = (folder / FILE).read_text()
    assert "keeps 10 of the 100 weights" in text
    assert "2 of 40 subset-sum problems" in text
    assert "python -m experiments.ticket target=mlp" in text
    assert NASTY not in text

    monkeypatch.setitem(sys.modules, "jinja2", None)
    other = OmegaConf.create({**changed(base, seed=1), "output_dir": str(tmp_path)})
    with caplog.at_level(logging.WARNING):
        failed = execute(lambda cfg, folder: metrics(), other, "ticket")
    assert finished(failed)
    assert not (failed / FILE).exists()
    assert [record.message for record in caplog.records if FILE in record.message] != []
    assert "\n" not in caplog.records[-1].message


def test_a_page_shows_layers_and_how_to_verify(tmp_path: Path, base):
    folder = stored(tmp_path / "ticket/a", base, metrics())
    (folder / "layers.csv").write_text("layer,problems,unsolved,bound\nfirst,30,4,\nlast,10,0,\n")
    (folder / "ticket.safetensors").write_bytes(b"ticket")
    (folder / "target.safetensors").write_bytes(b"target")
    write_report(folder, "ticket", Path("outputs/ticket/a"))
    text = (folder / FILE).read_text()
    assert "⚠ 4" in text
    assert ">bound<" not in text
    assert "experiments.verify data=digits target=mlp ticket=outputs/ticket/a/ticket.safetensors" in text
    assert "target.checkpoint=outputs/ticket/a/target.safetensors" in text


def test_a_ticket_of_a_given_checkpoint_is_verified_against_it(tmp_path: Path, base):
    folder = stored(tmp_path / "ticket/a", changed(base, checkpoint="net.pth"), metrics())
    (folder / "ticket.safetensors").write_bytes(b"ticket")
    write_report(folder, "ticket", Path("outputs/ticket/a"))
    (command,) = re.findall(r"[^\n>]*experiments\.verify[^\n<]*", (folder / FILE).read_text())
    assert "target=mlp" in command
    assert "target.checkpoint=net.pth" in command


def test_exponents_are_numbers(tmp_path: Path):
    folder = stored(tmp_path / "depth/a", {}, {"points": []})
    (folder / "config.yaml").write_text("rate: 1e-05\nname: 'off'\n")
    assert read_run(folder).settings == {"rate": 1e-5, "name": "off"}
