"""Trackers: what they are told, read back from their stores; a tracker that fails loses no run."""

import csv
import importlib.util
import json
import sqlite3
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image

from experiments import trackers
from experiments.command_line import CONF
from experiments.run_folder import config_hash, execute, folder_of
from experiments.tracking import tracked
from slth.train.progress import Epoch, reporter

METRICS = {
    "ticket": {"accuracy": 0.75, "kept": 12, "hash": "abc", "sizes": [1, 2]},
    "certificate": None,
    "proved": True,
    "error": {"max": float("inf"), "rms": np.float32(0.5)},
}
PICTURE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
SCALARS = {"ticket/accuracy": 0.75, "ticket/kept": 12, "metrics/proved": 1, "error/rms": 0.5}


@tracked("small")
def small(cfg, folder):
    """A run with two trainings, a table of layers and a figure."""
    for losses in ((3.0, 2.0), (1.0,)):
        with reporter(len(losses), 0, lambda epoch: None) as tell:
            for number, loss in enumerate(losses, 1):
                tell(Epoch(number, len(losses), loss, None if loss == 1 else loss / 4, 0.1))
    with (folder / "layers.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("layer", "unsolved", "gain"), ("conv", 3, 0.5), ("linear", 4, "")])
    Image.fromarray(PICTURE).save(folder / "kernels.png")
    return METRICS


def config(tmp_path: Path, name: str):
    chosen = OmegaConf.load(CONF / "tracker" / f"{name}.yaml")
    return OmegaConf.create(
        {
            "output_dir": str(tmp_path / "runs"),
            "source": {"seed": 3, "scales": {"dense*": 2.0}},
            "tracker": chosen,
        }
    )


def told(tmp_path: Path, name: str, package: str) -> Path:
    """The folder of outputs of a run that told this tracker."""
    pytest.importorskip(package, reason=f'needs the extra: pip install -e ".[{name}]"')
    cfg = config(tmp_path, name)
    folder = execute(small, cfg, "small")
    assert json.loads((folder / "metrics.json").read_text())["ticket"]["kept"] == 12
    assert "tracker" not in (folder / "log.txt").read_text()
    return tmp_path / "runs"


def test_tensorboard_files_say_what_the_run_said(tmp_path: Path):
    place = told(tmp_path, "tensorboard", "tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    label = folder_of(config(tmp_path, "tensorboard"), "small").name
    (path,) = (place / "tensorboard" / "small" / label).iterdir()
    content, events = path.read_bytes(), []
    while content:  # a length, its checksum, an event, its checksum
        (length,) = struct.unpack("<Q", content[:8])
        events.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    found = {}
    for event in events:
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, value))
    curves = {tag: [(step, one.simple_value) for step, one in own] for tag, own in found.items()}
    assert {tag: curves[tag] for tag in SCALARS} == {tag: [(0, value)] for tag, value in SCALARS.items()}
    assert curves["training/loss"] == [(1, 3), (2, 2)]
    assert curves["training/accuracy"] == [(1, 0.75), (2, 0.5)]
    assert curves["training_2/loss"] == [(1, 1)]
    assert "training_2/accuracy" not in curves
    assert curves["layers/unsolved"] == [(0, 3), (1, 4)]
    assert curves["layers/gain"] == [(0, 0.5)]
    assert not {"layers/layer", "ticket/hash", "error/max"} & set(curves)
    image = found["figures/kernels"][0][1].image
    assert (image.height, image.width) == PICTURE.shape[:2]
    table = found["config/text_summary"][0][1].tensor.string_val[0].decode()
    assert "| source.seed | 3 |" in table
    assert f"{place / 'small' / label}" in table
    assert "tracker" not in table


@pytest.mark.slow
def test_mlflow_has_what_the_run_said(tmp_path: Path):
    place = told(tmp_path, "mlflow", "mlflow")
    with sqlite3.connect(place / "mlflow.db") as store:
        points = store.execute("select key, step, value from metrics order by step").fetchall()
        settings = dict(store.execute("select key, value from params").fetchall())
        (run,) = store.execute("select name, status, artifact_uri from runs").fetchall()
    curves = {key: [(step, value) for name, step, value in points if name == key] for key, _, _ in points}
    assert {tag: curves[tag] for tag in SCALARS} == {tag: [(0, value)] for tag, value in SCALARS.items()}
    assert curves["training/loss"] == [(1, 3), (2, 2)]
    assert curves["layers/unsolved"] == [(0, 3), (1, 4)]
    label = folder_of(config(tmp_path, "mlflow"), "small").name
    assert settings == {
        "source.seed": "3",
        "source.scales.dense_": "2.0",  # MLflow has no names with a star
        "folder": str(place / "small" / label),
    }
    assert run[:2] == (f"small/{label}", "FINISHED")
    (figure,) = (place / "mlflow").rglob("*.png")
    np.testing.assert_array_equal(np.asarray(Image.open(figure)), PICTURE)


def records(content: bytes):
    """The records of a file of W&B: a head of 7 bytes, then a log of LevelDB in blocks of 32,768 bytes.

    They hold pieces of records, each with a checksum (4 bytes), a length (2), and whether it is the whole,
    the first, a middle or the last one (1).
    """
    place, begun = 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        begun += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield begun
            begun = b""


@pytest.mark.slow
def test_wandb_offline_has_what_the_run_said(tmp_path: Path):
    place = told(tmp_path, "wandb", "wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = place.glob("wandb/offline-run-*/*.wandb")
    held = []
    for _ in range(100):  # W&B's own process writes the file, and may need a moment after the run has ended
        held = [Record.FromString(content) for content in records(path.read_bytes())]
        if any(record.HasField("exit") for record in held):
            break
        time.sleep(0.1)
    rows, summary, settings = [], {}, {}
    for record in held:
        for items, kept in (
            (record.history.item, row := {}),
            (record.summary.update, summary),
            (record.config.update, settings),
            (record.run.config.update, settings),
        ):
            for one in items:
                if one.value_json:
                    kept[one.key or "/".join(one.nested_key)] = json.loads(one.value_json)
        rows.append(row)
    assert {tag: summary[tag] for tag in SCALARS} == SCALARS
    losses = [(row["training/step"], row["training/loss"]) for row in rows if "training/loss" in row]
    assert losses == [(1, 3), (2, 2)]
    layers = [(row["layers/step"], row["layers/unsolved"]) for row in rows if "layers/unsolved" in row]
    assert layers == [(0, 3), (1, 4)]
    assert settings["source.seed"] == 3
    (figure,) = path.parent.rglob("*.png")
    np.testing.assert_array_equal(np.asarray(Image.open(figure)), PICTURE)


class Failing:
    """A tracker that fails in one thing."""

    def __init__(self, thing: str) -> None:
        self.thing, self.heard = thing, []

    def __getattr__(self, name: str):
        def hear(*arguments):
            self.heard.append(name)
            if name == self.thing:
                raise ConnectionError("no such\nserver")

        return hear


@pytest.mark.parametrize("thing", ["open", "config", "numbers", "picture", "end"])
def test_a_tracker_that_fails_loses_no_run(tmp_path: Path, monkeypatch, caplog, thing: str):
    failing = Failing(thing)

    def opened(*arguments):
        if thing == "open":
            raise ConnectionError("no such\nserver")
        return failing

    monkeypatch.setitem(trackers.OPEN, "tensorboard", opened)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there")
    folder = execute(small, config(tmp_path, "tensorboard"), "small")
    assert (folder / "metrics.json").is_file()
    said = [record.getMessage() for record in caplog.records if record.name == "experiments.tracking"]
    assert said == ["the tracker failed and is told no more; the run goes on: no such server"]
    assert failing.heard[-1:] == ([] if thing == "open" else [thing])


def test_a_run_that_fails_ends_its_tracker(tmp_path: Path, monkeypatch):
    ends = []
    failing = Failing("nothing")
    failing.end = ends.append
    monkeypatch.setitem(trackers.OPEN, "tensorboard", lambda *arguments: failing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there")

    @tracked("small")
    def refused(cfg, folder):
        raise ValueError("data.dir: is not there")

    with pytest.raises(ValueError, match=r"data\.dir: is not there"):
        execute(refused, config(tmp_path, "tensorboard"), "small")
    assert ends == [False]
    execute(small, config(tmp_path, "tensorboard"), "small")
    assert ends == [False, True]


def test_a_missing_package_is_said_before_any_work(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name, package in trackers.EXTRAS.items():
        with pytest.raises(ValueError) as raised:
            execute(small, config(tmp_path, name), "small")
        assert str(raised.value) == (
            f'tracker={name} needs the package {package}: pip install -e ".[{name}]", or tracker=none'
        )
    cfg = config(tmp_path, "none")
    cfg.tracker.name = "comet"
    with pytest.raises(ValueError, match=r"tracker\.name: 'comet' is unknown: choose one of none, tensorb"):
        execute(small, cfg, "small")
    assert not (folder_of(cfg, "small").exists())


EXPERIMENTS = (
    "width",
    "depth",
    "bits",
    "bounds",
    "compare_constructions",
    "prune",
    "rewinding",
    "subset_sum",
)
TRACKED = ("ticket", *(pytest.param(name, marks=pytest.mark.slow) for name in EXPERIMENTS))


@pytest.mark.parametrize("name", [*TRACKED, pytest.param("when_do_pruners_succeed", marks=pytest.mark.slow)])
def test_a_tracker_renames_no_run(name: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        plain = compose(name)
        others = [compose(name, [f"tracker={one}"]) for one in trackers.EXTRAS]
    assert plain.tracker.name == "none"
    assert {config_hash(one, name) for one in others} == {config_hash(plain, name)}
    older = OmegaConf.create({k: v for k, v in OmegaConf.to_container(plain).items() if k != "tracker"})
    assert config_hash(older, name) == config_hash(plain, name)
