"""The paper's figures by name: what is asked of each experiment, and what all of them leave, at tiny size."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from experiments import figures, layer
from experiments.command_line import CONF
from experiments.points import metrics_of
from experiments.run_folder import execute
from slth import Ticket, report

SMALL = ("data.limit=40", "data.train_limit=96")
BEST = "solvers: {best: {method: independent, objective: best}}"
TINY = {  # one network and one width, so that little is compiled
    "subset_sum": "{multiplicity: [3, 5], problems: 500, best_subsets: 10000}",
    "width": f"{{seeds: [0, 1], multiplicities: [3], {BEST}}}",
    "epsilon": "{seeds: [0], multiplicities: [3], tolerances: [0.1, 0.01]}",
    "depth": f"{{seeds: [0], source: {{multiplicity: 3}}, {BEST}}}",
    "constructions": "{constructions: {burkholz2022: {name: burkholz2022, widths: [3]}}}",
    "layer": "{source: {multiplicity: 3}, outputs: 1}",
    "bounds": f"{{multiplicities: [3], {BEST}}}",
    "bits": "{rounding_images: 32, quantised: {nearest: [4]}, tickets: {a: {label: L+1, points: [{source: "
    "{multiplicity: 3}, solver: {method: independent, objective: best}}]}}}",
}


def config(folder: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("figures", [f"output_dir={folder}", *overrides])


def test_each_figure_has_its_own_network_unless_one_is_named(tmp_path: Path):
    cfg = config(tmp_path, *SMALL)
    assert figures.names_of(cfg) == list(cfg.figures)
    own = {name: figures.config_of(cfg, name) for name in cfg.figures}
    targets = {name: one.target.name for name, one in own.items() if "target" in one}
    assert targets["epsilon"] == "digits_resnet"
    assert list(own["epsilon"].beside) == ["digits_cnn"]
    assert (targets["bounds"], targets["constructions"]) == ("digits_cnn", "mlp")
    assert all(one.data.limit == 40 and one.data.name == "digits" for n, one in own.items() if n in targets)
    assert list(own["constructions"].data.mean) == [0.0], "its own settings of the data stay"
    assert all(one.output_dir == str(tmp_path) for one in own.values())


def test_a_named_network_and_its_data_are_those_of_all_figures(tmp_path: Path):
    named = ("data=cifar10", "data.dir=DIR", "data.limit=256", "target=resnet22", "target.checkpoint=FILE")
    cfg = config(tmp_path, *named, "target.width=8", "+figures.epsilon.settings.tolerances=[0.1]")
    for name in set(cfg.figures) - {"subset_sum"}:
        own = figures.config_of(cfg, name)
        assert (own.target.name, own.target.checkpoint, own.target.width) == ("resnet22", "FILE", 8)
        assert (own.data.name, own.data.dir, own.data.limit) == ("cifar10", "DIR", 256)
    own = figures.config_of(cfg, "epsilon")
    assert own.beside is None
    vgg = config(tmp_path, *named, "figures.epsilon.named.beside={vgg11: {checkpoint: OTHER}}")
    assert figures.config_of(vgg, "epsilon").beside == {"vgg11": {"checkpoint": "OTHER"}}
    assert list(own.tolerances) == [0.1]
    assert list(own.seeds) == [0, 1, 2]


@pytest.mark.parametrize(
    "override, said",
    [
        ("names=[width,widht]", "names: 'widht' is no figure: choose among subset_sum, width, epsilon"),
        ("names=[]", "names: expected figures, such as"),
        (
            "+figures.width.settings.seds=[0]",
            r"figures.width.settings.seds: there is no such setting: did you mean seeds\?",
        ),
    ],
)
def test_what_does_not_exist_is_refused_before_any_work(tmp_path: Path, override: str, said: str):
    with pytest.raises(ValueError, match=said):
        execute(figures.run, config(tmp_path, override), "figures")
    assert [path.name for path in tmp_path.iterdir()] == ["figures"]


def test_figures_as_markdown_keep_their_tables_whole():
    claim = {"text": "Small |S|.", "verdict": "supported", "found": "|S| = 2"}
    made = {"a": {"command": "python", "captions": {"a": "Shown."}, "claims": [claim]}}
    assert "| supported | Small \\|S\\|. | \\|S\\| = 2. |" in figures.text_of(made)


def test_broken_bounds_end_the_command():
    assert figures.broken({"figures": {"a": {"broken": None}}}) is None
    assert figures.broken({"figures": {"a": {"broken": None}, "b": {"broken": "off"}}}) == "b: off"


@pytest.mark.slow
def test_all_figures_at_tiny_size(tmp_path: Path):
    network = ("target=digits_cnn", "target.width=2")
    asked = [f"++figures.{name}.settings={text}" for name, text in TINY.items()]
    trained = [f"++figures.{name}.settings.train={{epochs: 2}}" for name in TINY if name != "subset_sum"]
    cfg = config(tmp_path, *SMALL, *network, *asked, *trained)
    folder = execute(figures.run, cfg, "figures")
    metrics = metrics_of(folder)
    assert list(metrics["figures"]) == list(cfg.figures)
    pictures = {stem for one in metrics["figures"].values() for stem in one["captions"]}
    assert pictures >= {"subset_sum", "width", "epsilon", "depth", "constructions", "layer", "bounds"}
    page = (folder / "index.html").read_text()
    for name in pictures:
        assert (folder / f"{name}.png").stat().st_size > 5000
    assert page.count("data:image/png;base64,") == len(pictures)
    assert "http" not in page.replace('http-equiv="Content', "")
    with open(folder / "figures.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["verdict"] for row in rows} <= {"supported", "contradicted", "open"}
    assert {row["figure"] for row in rows} >= set(cfg.figures) - {"bits", "constructions"}
    assert [row["verdict"] for row in rows] == [claim["verdict"] for claim in metrics["claims"]]
    for name, one in metrics["figures"].items():
        own = metrics_of(tmp_path / one["experiment"] / one["run"])
        assert one["captions"] == own["captions"]
        assert one["command"].startswith(f"python -m experiments.{one['experiment']}")
        assert f"## {name}" in (folder / "figures.md").read_text()
    assert metrics["figures"]["depth"]["seconds"] < metrics["figures"]["width"]["seconds"], "runs are shared"

    # The layer's counts, against the mask in the file of its ticket.
    one = metrics["figures"]["layer"]
    found = metrics_of(tmp_path / "layer" / one["run"])["layer"]
    mask = np.asarray(
        Ticket.load(tmp_path / "ticket" / found["run"] / "ticket.safetensors").mask["conv1"]["kernel"]
    )
    channels = mask[:, :, : found["channels"], : found["rows"]]
    assert found["weights"] == channels.size
    assert found["weights_kept"] == channels.sum()
    assert found["kernels_kept"] == channels.any((0, 1)).sum()
    assert found["channels_kept"] == channels.any((0, 1, 3)).sum()
    assert json.loads((folder / "metrics.json").read_text())["processor_seconds"] > 0


def test_counts_leave_out_copies_that_nothing_reads():
    def picture(live: tuple[bool, bool]) -> report.LayerPicture:
        target, sums = np.array([[[0.5, 0.0]]]), np.array([[[[0.5, 0.1]], [[0.0, 0.0]]]])
        kept = np.array([[[True, True]], [[False, False]]])
        return report.LayerPicture(
            "a", target, np.ones((2, 1, 2)), kept, np.array([0, 0]), np.array(live), np.array([0]),
            sums, kept.astype(int)[None], None, None,
        )  # fmt: skip

    read = layer.counts_of(picture((True, False)), 0.01)
    assert (read["sums"], read["sums_within"], read["mean_size"]) == (1, 1, 1.0)
    both = layer.counts_of(picture((True, True)), 0.01)
    assert (both["sums"], both["sums_within"], both["largest_error"]) == (2, 1, 0.5)
    assert (both["weights_kept"], both["kernels_kept"], both["channels_kept"], both["rows_kept"]) == (
        2,
        1,
        1,
        2,
    )
