"""The command line: how it says what it cannot read, what it does in odd environments, and sweeps."""

import json
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from experiments.command_line import said
from tests.experiments.commands import command

SMALL = (
    *("data.limit=20", "data.train_limit=64", "target=mlp", "target.widths=[3]", "train.epochs=1"),
    *("source.multiplicity=3", "solver=independent", "solver.objective=best"),
)


UNREAD = ("~/nets/a.pth", "/nets/a=1.pth", "/nets/a (1).pth", "/nets/[a].pth", "/nets/{a}.pth", "a\\ b=c")


@pytest.mark.parametrize("path", UNREAD)
def test_an_override_that_hydra_cannot_read_says_how_to_quote_it(path: str):
    with pytest.raises(OverrideParseException) as raised:
        OverridesParser.create().parse_overrides([f"target.checkpoint={path}"])
    message = said(raised.value)
    assert message.startswith(f"target.checkpoint: cannot read {path}: ")
    quoted = message.rpartition(", '")[2].removesuffix("'")
    (parsed,) = OverridesParser.create().parse_overrides([quoted])
    assert parsed.value() == path


def test_what_is_no_setting_at_all_is_said():
    with pytest.raises(OverrideParseException) as raised:
        OverridesParser.create().parse_overrides(["checkpoint"])
    assert said(raised.value) == "checkpoint: expected a setting and its value, NAME=VALUE"


@pytest.fixture(scope="module")
def usual(root: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The ticket file of one small run."""
    done = command(root, f"output_dir={tmp_path_factory.mktemp('runs')}", *SMALL)
    assert done.returncode == 0, done.stderr
    return (Path(done.stdout.splitlines()[-1]) / "ticket.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["JAX_ENABLE_X64", "JAX_DISABLE_JIT"])
def test_settings_of_jax_change_no_bit(root: Path, tmp_path: Path, usual: bytes, name: str):
    done = command(root, f"output_dir={tmp_path}", *SMALL, **{name: "1"})
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.splitlines()[-1]) / "ticket.safetensors").read_bytes() == usual


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_device_that_is_not_there_is_one_line(root: Path, tmp_path: Path, platform: str):
    import jax

    if platform == jax.default_backend() or (platform == "cuda" and jax.default_backend() == "gpu"):
        pytest.skip("this device is there")
    done = command(root, f"output_dir={tmp_path}", *SMALL, JAX_PLATFORMS=platform)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: JAX_PLATFORMS={platform}: jax finds no such device here")
    assert "choose JAX_PLATFORMS=cpu" in line


def test_a_sweep_goes_on_after_a_point_that_is_refused(root: Path, tmp_path: Path):
    done = command(root, "-m", f"output_dir={tmp_path}", *SMALL, "source.seed=0,-1,1")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    (refusal,) = [line for line in lines if line.startswith("error: ")]
    assert "source.seed=-1: source.seed: expected an integer" in refusal
    assert lines[-1] == "of 3 points 1 were refused and 0 failed: see the lines above"
    finished = [json.loads(path.read_text()) for path in tmp_path.glob("ticket/*/metrics.json")]
    assert sorted(metrics["source"]["seed"] for metrics in finished) == [0, 1]
