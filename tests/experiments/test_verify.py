"""Verification of ticket files from the command line."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from slth import Ticket, nn, ticket
from slth.data import load
from slth.interop import load_network, save_checkpoint
from slth.nn.zoo import build
from slth.source import Source, source_network


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A ticket (with a mask at random) and its target's checkpoint."""
    folder = tmp_path_factory.mktemp("files")
    spec = build("digits_cnn", (8, 8, 1), 10, width=2)
    params = nn.init(spec, jax.random.key(0))
    target, _ = nn.fold_batch_norm(spec, params)
    wide = source_network(target, 2, copies_per_sign=2, constants=2)
    source = Source(wide.network, seed=1, multiplicity=2)
    draw = np.random.default_rng(0)
    mask: dict = {}
    for path, shape in nn.parameter_shapes(source.network).items():
        layer, name = path.split("/")
        mask.setdefault(layer, {})[name] = draw.random(shape) < 0.5
    ticket.make(source, mask, 2.0, target).save(folder / "t.safetensors")
    save_checkpoint(folder / "target.safetensors", params)
    return folder / "t.safetensors", folder / "target.safetensors"


def verify(overrides: list[str], tmp_path: Path) -> dict:
    from hydra import compose, initialize_config_dir

    from experiments import verify as experiment
    from experiments.command_line import CONF
    from experiments.run_folder import execute

    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("verify", [f"output_dir={tmp_path}", *overrides])
    return json.loads((execute(experiment.run, cfg, "verify", again=True) / "metrics.json").read_text())


def test_a_ticket_alone(files, tmp_path: Path):
    metrics = verify([f"ticket={files[0]}"], tmp_path)
    assert metrics["verified"] is True
    assert metrics["ticket"]["accuracy"] is metrics["ticket"]["agreement"] is metrics["error"]["max"] is None
    assert metrics["ticket"]["nonzero"] == Ticket.load(files[0]).nonzero


def test_a_ticket_on_data_against_its_target(files, tmp_path: Path):
    compared = ["data=digits", "data.limit=40", "target=digits_cnn", "target.width=2"]
    metrics = verify([f"ticket={files[0]}", *compared, f"target.checkpoint={files[1]}"], tmp_path)
    assert metrics["error"]["examples"] == 40
    assert 0 <= metrics["ticket"]["agreement"] <= 1
    assert metrics["error"]["max"] > 0


def test_the_compact_network_is_written_and_gives_the_same_outputs(files, tmp_path: Path):
    path = tmp_path / "small.safetensors"
    metrics = verify([f"ticket={files[0]}", f"compact={path}", "data=digits", "data.limit=40"], tmp_path)
    network, params, factor = load_network(path)
    kept = Ticket.load(files[0])
    images = load("digits", limit=40).test_images
    wanted = kept(images)
    found = factor * np.asarray(nn.apply(network, params, images))
    assert factor == 2.0
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6 * float(np.abs(wanted).max()))
    assert metrics["compact"]["difference"] <= 1e-5 * np.abs(wanted).max()
    assert metrics["compact"]["difference_float64"] <= 1e-13 * np.abs(wanted).max()
    assert metrics["compact"]["parameters"] == nn.count(params) < kept.parameters
    assert metrics["compact"]["bytes"] == path.stat().st_size
    assert metrics["ticket"]["channels_kept"] <= metrics["ticket"]["channels"]
    alone = verify([f"ticket={files[0]}", f"compact={path}"], tmp_path)
    assert alone["compact"] == metrics["compact"] | {"difference": None, "difference_float64": None}


REFUSED = {  # what is wrong: (overrides, message)
    "another target": (["data=digits", "target=digits_cnn", "target.checkpoint={1}"], "target"),
    "target without data": (["target=digits_cnn"], "data: name the images"),
    "no folder": (["compact={0}/no/small.safetensors"], "compact"),
    "target without a checkpoint": (["data=digits", "target=digits_cnn"], "target.checkpoint"),
}


@pytest.mark.parametrize("overrides, message", REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_refused(files, tmp_path: Path, overrides, message):
    with pytest.raises(ValueError, match=message):
        verify([f"ticket={files[0]}", *(one.format(*files) for one in overrides)], tmp_path)


def test_an_altered_file_is_refused_also_after_it_was_verified(files, tmp_path: Path):
    copy = tmp_path / "t.safetensors"
    content = files[0].read_bytes()
    copy.write_bytes(content)
    assert verify([f"ticket={copy}"], tmp_path)["verified"]
    copy.write_bytes(content[:-1] + bytes([content[-1] ^ 128]))
    with pytest.raises(ticket.TicketError, match=r"t\.safetensors: checksum"):
        verify([f"ticket={copy}"], tmp_path)
    assert list((tmp_path / "verify").iterdir()) == []
