"""The ticket zoo, from its command line: a ticket built twice is the same, and one of another seed is not."""

import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from experiments import zoo as experiment
from experiments.command_line import CONF
from experiments.run_folder import execute
from slth.cli import zoo
from slth.data import load

pytestmark = pytest.mark.slow


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The embedded digits as an archive of the user's own."""
    held = load("digits", mean=[0], std=[1])
    parts = {
        "train_images": held.train_images,
        "train_labels": held.train_labels,
        "test_images": held.test_images[:40],
        "test_labels": held.test_labels[:40],
    }
    np.savez(tmp_path / "mnist.npz", **parts)
    return tmp_path / "mnist.npz"


def built(images: Path, root: Path, *settings: str, write: bool, only: str = "tiny") -> dict:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("zoo", [f"output_dir={images.parent}/out", f"write={write}", f"only=[{only}]"])
        with open_dict(cfg):
            cfg.files, cfg.mnist = str(root / "tests" / "fixtures"), str(images)
            shared = ["target.width=8", "source.multiplicity=6"]
            target = {"file": "digits_cnn.pth", "published": "nobody", "data": "mnist", "settings": shared}
            cfg.targets = OmegaConf.create({"digits_cnn": target})
            cfg.tickets = OmegaConf.create({"tiny": {"target": "digits_cnn", "settings": [*settings]}})
        folder = execute(experiment.run, cfg, "zoo", again=True)
    return {"folder": folder, **json.loads((folder / "metrics.json").read_text())}


def test_a_ticket_built_again_is_the_same(images: Path, root: Path, monkeypatch):
    monkeypatch.setattr(zoo, "TABLE", images.parent / "tickets.json")
    zoo.write([])
    first = built(images, root, write=True)
    entry = zoo.entries()["tiny"]
    assert entry.calibration_images == 256
    assert entry.test_images == 40
    assert entry.sha256 == zoo.identity(first["folder"] / "tiny.ticket")["sha256"]
    assert experiment.others(first) is None
    again = built(images, root, write=False)
    assert [row["same"] for row in again["tickets"]] == [True]
    other = built(images, root, "source.seed=1", write=False)
    assert "no ticket of the zoo has this source, of seed 1" in str(experiment.others(other))
    assert zoo.entries() == {"tiny": entry}


def test_what_is_not_there_is_said_before_any_work(images: Path, root: Path):
    with pytest.raises(ValueError, match=r"only: 'none' is not in the zoo: choose among tiny"):
        built(images, root, write=False, only="none")
