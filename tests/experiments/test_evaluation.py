"""How runs evaluate: on which images, in which form, and on from where they were killed."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from scipy.stats import binomtest

from experiments import evaluation, ticket, verify
from experiments.command_line import CONF, interrupted
from experiments.evaluation import part_evaluated
from experiments.run_folder import config_hash, execute, folder_of
from experiments.stages import KEPT, Stages
from experiments.sweep import Sweep
from slth import Ticket, kept
from slth.data import Data, load

SMALL = (
    *("data.limit=60", "data.train_limit=64", "target=mlp", "target.widths=[6]", "train.epochs=2"),
    *("solver=independent", "solver.objective=best", "source.multiplicity=4"),
    *("evaluation.batch=8", "evaluation.layers=10"),
)
APART = ("seconds", "memory", "environment")
"""Sections that are not the same in two runs."""


def config(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, [*overrides])


def metrics_of(folder: Path) -> dict:
    """The metrics that two equal runs share."""
    metrics = json.loads((folder / "metrics.json").read_text())
    for name in ("images_per_second", "taken_over"):
        metrics["evaluation"].pop(name)
    return {name: section for name, section in metrics.items() if name not in APART}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs of this module go: they share a target."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(runs: Path) -> Path:
    """A run that nothing disturbs, on 40 of 60 images."""
    cfg = config("ticket", f"output_dir={runs}", *SMALL, "evaluation.images=40")
    return execute(ticket.run, cfg, "ticket")


def digits(**options) -> Data:
    return load("digits", **options)


def test_the_images_are_drawn_with_each_class_in_its_share():
    data = digits()
    cfg = config("ticket", "evaluation.images=100")
    part = part_evaluated(cfg, data)
    assert part.test_images.shape == (100, 8, 8, 1)
    counts, shares = np.bincount(part.test_labels), 100 * np.bincount(data.test_labels) / 360
    assert np.abs(counts - shares).max() < 1.5
    assert len({image.tobytes() for image in part.test_images}) == 100, "none is drawn twice"
    same = {image.tobytes(): label for image, label in zip(data.test_images, data.test_labels, strict=True)}
    assert all(same[x.tobytes()] == y for x, y in zip(part.test_images, part.test_labels, strict=True))
    fewer = part_evaluated(config("ticket", "evaluation.images=30"), data)
    np.testing.assert_array_equal(fewer.test_images, part.test_images[:30])
    other = part_evaluated(config("ticket", "evaluation.images=100", "data.seed=1"), data)
    assert (other.test_labels != part.test_labels).any()
    first = part_evaluated(config("ticket", "evaluation.images=100", "data.seed=null"), data)
    np.testing.assert_array_equal(first.test_images, data.test_images[:100])
    np.testing.assert_array_equal(part.train_images, data.train_images)


def test_all_images_stay_in_their_order_and_more_are_refused():
    data = digits(limit=60)
    assert part_evaluated(config("ticket"), data) is data
    every = part_evaluated(config("ticket", "evaluation.images=60"), data)
    np.testing.assert_array_equal(every.test_images, data.test_images)
    with pytest.raises(
        ValueError, match=r"^evaluation\.images: 61 asked of digits, which has 60 test images"
    ):
        part_evaluated(config("ticket", "evaluation.images=61"), data)


def test_the_images_and_their_seed_count_in_the_name():
    names = {
        config_hash(config(name, "data=digits", *more), name)
        for name in ("ticket", "verify")
        for more in ((), ("evaluation.images=40",), ("evaluation.images=40", "data.seed=1"))
    }
    assert len(names) == 6
    plain = config("ticket", "data.seed=1")
    assert config_hash(plain, "ticket") == config_hash(config("ticket"), "ticket"), "nothing is drawn"


def test_the_intervals_are_those_that_so_many_images_support(whole: Path):
    metrics = json.loads((whole / "metrics.json").read_text())
    assert (metrics["evaluation"]["images"], metrics["evaluation"]["of"]) == (40, 60)
    assert metrics["error"]["examples"] == 40
    for share in ("accuracy", "agreement"):
        successes = 40 * metrics["ticket"][share]
        assert successes == pytest.approx(round(successes))
        wanted = binomtest(round(successes), 40).proportion_ci(0.95, method="exact")
        assert metrics["ticket"][f"{share}_interval"] == pytest.approx([wanted.low, wanted.high], abs=1e-9)
    data = digits(limit=60, train_limit=64)
    part = part_evaluated(config("ticket", *SMALL, "evaluation.images=40"), data)
    outputs = Ticket.load(whole / "ticket.safetensors")(part.test_images)
    assert part.accuracy(outputs) == metrics["ticket"]["accuracy"]
    page = (whole / "report.html").read_text()
    low, high = (f"{100 * end:.2f}" for end in metrics["ticket"]["accuracy_interval"])
    assert "on 40 of the 60 test images" in page
    assert f"(95 % sure: {low} to {high} %)" in page
    assert "evaluation.images=40" in page


@pytest.mark.slow
def test_the_form_is_said_and_changes_nothing_but_rounding(runs: Path, whole: Path):
    cfg = config("ticket", f"output_dir={runs}", *SMALL, "evaluation.images=40", "evaluation.form=dense")
    dense = execute(ticket.run, cfg, "ticket")
    one, other = (json.loads((folder / "metrics.json").read_text()) for folder in (whole, dense))
    assert (one["evaluation"]["form"], other["evaluation"]["form"]) == ("compact", "dense")
    assert one["evaluation"]["multiply_adds"] < other["evaluation"]["multiply_adds"]
    assert other["evaluation"]["multiply_adds"] == one["evaluation"]["dense_multiply_adds"]
    assert 0 <= one["evaluation"]["difference"] < 1e-5
    assert other["evaluation"]["difference"] is None
    assert one["error"]["max"] == pytest.approx(other["error"]["max"], rel=1e-3)
    assert one["ticket"]["agreement"] == other["ticket"]["agreement"]
    files = [(folder / "layers.csv").read_text().splitlines() for folder in (whole, dense)]
    for ours, theirs in zip(*files, strict=True):
        assert len(ours.split(",")) == len(theirs.split(","))


class Killed(BaseException):
    """What ends a run as a kill does."""


@pytest.fixture
def killed_after(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Runs that end once so many batches are kept; every batch is kept."""
    monkeypatch.setattr(kept, "SECONDS", 0.0)

    def execute_until(batches: int, run, cfg: DictConfig, name: str) -> None:
        parts, real = [], kept.keep

        def keep(path, *rest):
            real(path, *rest)
            parts.extend([path] if "from" in path.name else [])
            if len(parts) == batches:
                raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(kept, "keep", keep)
            with pytest.raises(Killed):
                execute(run, cfg, name)

    return execute_until


def test_a_killed_run_goes_on_to_the_same_numbers(
    runs: Path, whole: Path, tmp_path: Path, killed_after, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "target").symlink_to(runs / "target")
    asked = (*SMALL, "evaluation.images=40")
    cfg = config("ticket", f"output_dir={tmp_path}", *asked)
    killed_after(3, ticket.run, cfg, "ticket")  # two for the 10 images of the layers
    killed_after(2, ticket.run, cfg, "ticket")
    broken = folder_of(cfg, "ticket").parent / f".{whole.name}"
    assert len(list(broken.glob("evaluation/*/*"))) == 5
    # With another size of batches it is another run, which takes nothing over.
    other = execute(
        ticket.run, config("ticket", f"output_dir={tmp_path}", *asked, "evaluation.batch=7"), "ticket"
    )
    assert json.loads((other / "metrics.json").read_text())["evaluation"]["taken_over"] == 0
    with caplog.at_level("INFO"):
        folder = execute(ticket.run, cfg, "ticket")
    assert "evaluation: took over 34 of 40 images from a run that was broken off" in caplog.messages
    assert json.loads((folder / "metrics.json").read_text())["evaluation"]["taken_over"] == 34
    assert metrics_of(folder) == metrics_of(whole)
    assert (folder / "layers.csv").read_text().splitlines()[0] == (
        whole / "layers.csv"
    ).read_text().splitlines()[0]
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}


@pytest.mark.slow
def test_a_run_done_anew_takes_over_what_was_begun(runs: Path, whole: Path, killed_after):
    cfg = config("ticket", f"output_dir={runs}", *SMALL, "evaluation.images=40", "force=true")
    before = (whole / "metrics.json").read_bytes()
    killed_after(4, ticket.run, cfg, "ticket")
    assert (whole / "metrics.json").read_bytes() == before, "the old run stays until the new one is whole"
    wanted = metrics_of(whole)
    folder = execute(ticket.run, cfg, "ticket")
    assert folder == whole
    assert metrics_of(folder) == wanted
    assert json.loads((folder / "metrics.json").read_text())["evaluation"]["taken_over"] == 26


@pytest.mark.slow
def test_a_run_on_a_part_is_verified_on_the_same_images(
    runs: Path, whole: Path, tmp_path: Path, killed_after
):
    made = metrics_of(whole)
    asked = (
        *(f"ticket={whole / 'ticket.safetensors'}", "data=digits", "data.limit=60", "target=mlp"),
        *("target.widths=[6]", f"target.checkpoint={whole / 'target.safetensors'}", f"output_dir={tmp_path}"),
    )
    cfg = config("verify", *asked, "evaluation.images=40", "evaluation.batch=8")
    killed_after(2, verify.run, cfg, "verify")
    found = json.loads((execute(verify.run, cfg, "verify", again=True) / "metrics.json").read_text())
    assert found["evaluation"]["taken_over"] == 16
    for name in ("accuracy", "accuracy_interval", "agreement", "agreement_interval"):
        assert found["ticket"][name] == made["ticket"][name]
    assert found["error"]["max"] == pytest.approx(made["error"]["max"], rel=1e-4)
    assert {"verify", "evaluate"} <= set(found["seconds"]) & set(found["memory"])


def test_outputs_that_are_no_numbers_are_reported(
    runs: Path, whole: Path, tmp_path: Path, killed_after, monkeypatch: pytest.MonkeyPatch
):
    real = verify.part_evaluated

    def spoilt(cfg: DictConfig, data: Data) -> Data:
        part = real(cfg, data)
        part.test_images[[3, 21]] = np.nan
        return part

    monkeypatch.setattr(verify, "part_evaluated", spoilt)
    target = ("target=mlp", "target.widths=[6]", f"target.checkpoint={whole / 'target.safetensors'}")
    cfg = config(
        *("verify", f"ticket={whole / 'ticket.safetensors'}", "data=digits", "data.limit=60", *target),
        *(f"output_dir={tmp_path}", "evaluation.images=40", "evaluation.batch=8"),
    )
    killed_after(2, verify.run, cfg, "verify")
    folder = execute(verify.run, cfg, "verify", again=True)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["evaluation"]["taken_over"] == 16
    assert metrics["error"]["not_finite"] == 2
    assert metrics["ticket"]["agreement"] <= 38 / 40
    assert metrics["error"]["max"] is None
    assert (
        "on 2 of 40 images outputs of the ticket are infinite or not numbers"
        in (folder / "report.html").read_text()
    )


def test_forms_that_differ_are_remarked_on(whole: Path, caplog: pytest.LogCaptureFixture):
    kept_ticket = Ticket.load(whole / "ticket.safetensors")
    form = evaluation.form_of(config("ticket"), kept_ticket)
    images = digits(limit=4).test_images
    assert evaluation.difference(form, kept_ticket, images) < 1e-5
    assert caplog.messages == []
    broken = form._replace(
        params={path: {k: 1.1 * v for k, v in own.items()} for path, own in form.params.items()}
    )
    assert evaluation.difference(broken, kept_ticket, images) > 1e-2
    assert "evaluation.form=dense evaluates the source itself" in caplog.text


@pytest.mark.parametrize("stage", ["prepare", "construct", "refine", "evaluate", "certify"])
def test_ctrl_c_says_in_which_stage_and_what_is_kept(stage: str, tmp_path: Path):
    sweep = Sweep("ticket")
    sweep.runs = tmp_path / "ticket"
    with pytest.raises(KeyboardInterrupt) as caught, Stages()(stage):
        raise KeyboardInterrupt
    line = interrupted(sweep, *caught.value.args)
    assert line.startswith(f"interrupted in the stage {stage}: finished runs and what this one has made")
    assert line.endswith(f"kept in {tmp_path / 'ticket'}: the same command goes on")
    if stage in KEPT:
        assert KEPT[stage].format(targets=tmp_path / "target") in line
