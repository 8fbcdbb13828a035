"""Training: the loss is minimised as stated, resumed exactly, and a target is good enough."""

import dataclasses
import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from slth import data, nn
from slth.interop import load_checkpoint
from slth.nn import zoo
from slth.train import SETTINGS, STATE, TARGET, Settings, accuracy, augment, train
from slth.train.progress import listened

DIGITS = data.load("digits")
NET = zoo.build("digits_resnet", (8, 8, 1), 10, width=2)
FLAT = nn.Network(  # quick to compile
    (8, 8, 1),
    (nn.Flatten(), nn.Dense("a", 6), nn.BatchNorm("bn"), nn.Activation("relu"), nn.Dense("b", 10)),
)
SHORT = Settings(epochs=4, batch=256, shift=1, mirror=True)


def small(count: int = 600) -> data.Data:
    return DIGITS._replace(train_images=DIGITS.train_images[:count], train_labels=DIGITS.train_labels[:count])


def same(a, b) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(np.asarray(x), np.asarray(y)), a, b))


@pytest.mark.parametrize("name", ["digits_cnn", "digits_resnet"])
def test_the_embedded_targets_are_good(name: str):
    net = zoo.build(name, DIGITS.shape, DIGITS.classes)
    trained = train(net, DIGITS)
    assert accuracy(net, trained.params, DIGITS.test_images, DIGITS.test_labels) >= 0.97
    assert trained.history[-1].loss < trained.history[0].loss / 10


def test_one_step_of_a_linear_network_is_the_closed_form():
    net = nn.Network((3,), (nn.Dense("linear", 4),))
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 3)).astype(np.float32), np.arange(6) % 4
    held = DIGITS._replace(
        train_images=x, train_labels=y, test_images=x, test_labels=y, classes=4, mean=np.zeros(3)
    )
    settings = Settings(epochs=2, batch=6, rate=0.3, warmup=0.5, momentum=0.8, weight_decay=0.1, seed=5)
    got = train(net, held, settings, report=lambda epoch: None)

    kernel = np.asarray(nn.init(net, jax.random.fold_in(jax.random.key(5), 0))["linear"]["kernel"], float)
    bias, losses, velocity = np.zeros(4), [], [0.0, 0.0]
    for rate in (0.0, 0.3):  # the rise: step 0 of 1, then the top
        logits = x @ kernel + bias
        chance = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        losses.append(-np.log(chance[np.arange(6), y]).mean())
        error = (chance - np.eye(4)[y]) / 6
        gradients = [x.T @ error + 0.1 * kernel, error.sum(0)]
        velocity = [g + 0.8 * v for g, v in zip(gradients, velocity, strict=True)]
        kernel = kernel - rate * (gradients[0] + 0.8 * velocity[0])
        bias = bias - rate * (gradients[1] + 0.8 * velocity[1])
    np.testing.assert_allclose([epoch.loss for epoch in got.history], losses, rtol=1e-5)
    np.testing.assert_allclose(got.params["linear"]["kernel"], kernel, rtol=1e-5)
    np.testing.assert_allclose(got.params["linear"]["bias"], bias, rtol=1e-5)


def test_a_seed_gives_the_same_parameters_and_another_seed_others():
    first = train(NET, small(), SHORT).params
    assert same(first, train(NET, small(), SHORT).params)
    assert not same(first, train(NET, small(), dataclasses.replace(SHORT, seed=1)).params)


def test_running_statistics_move_towards_those_of_the_batch():
    net = nn.Network((8, 8, 1), (nn.Conv("conv1", 2, (3, 3)), nn.BatchNorm("bn1"), *NET.layers[-2:]))
    images = DIGITS.train_images[:300]
    trained = train(net, small(300), Settings(epochs=1, batch=300)).params
    start = nn.init(net, jax.random.fold_in(jax.random.key(0), 0))
    values = np.asarray(nn.trace(net, start, jnp.asarray(images))[1]["conv1"], float).reshape(-1, 2)
    np.testing.assert_allclose(trained["bn1"]["mean"], 0.1 * values.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(trained["bn1"]["var"], 0.9 + 0.1 * values.var(0, ddof=1), rtol=1e-4)


class Broken(Exception):
    pass


@pytest.mark.parametrize("after", [1, 3])
def test_a_broken_run_goes_on_to_the_same_parameters(tmp_path: Path, after: int):
    whole = train(NET, small(), SHORT)

    def stop(epoch):
        if epoch.epoch == after:
            raise Broken

    with pytest.raises(Broken):
        train(NET, small(), SHORT, folder=tmp_path, report=stop)
    assert not (tmp_path / TARGET).exists()
    seen = []
    resumed = train(NET, small(), SHORT, folder=tmp_path, report=seen.append)
    assert [epoch.epoch for epoch in seen] == list(range(after + 1, 5))
    assert same(resumed.params, whole.params)
    assert [e.loss for e in resumed.history] == [e.loss for e in whole.history]
    assert same(load_checkpoint(tmp_path / TARGET, NET), whole.params)

    seen.clear()
    assert same(train(NET, small(), SHORT, folder=tmp_path, report=seen.append).params, whole.params)
    assert seen == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([STATE, TARGET])


def test_another_training_in_the_folder_is_refused(tmp_path: Path):
    one = dataclasses.replace(SHORT, epochs=1)
    train(NET, small(), one, folder=tmp_path)
    with pytest.raises(ValueError, match=r"another settings: remove it or use another folder"):
        train(NET, small(), SHORT, folder=tmp_path)
    with pytest.raises(ValueError, match=r"another data:"):
        train(NET, small(599), one, folder=tmp_path)
    wider = zoo.build("digits_resnet", (8, 8, 1), 10, width=3)
    with pytest.raises(ValueError, match=r"another network:"):
        train(wider, small(), one, folder=tmp_path)
    (tmp_path / STATE).write_bytes((tmp_path / STATE).read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"training\.safetensors is damaged .* remove it"):
        train(NET, small(), one, folder=tmp_path)


def test_what_cannot_be_trained_is_named():
    with pytest.raises(ValueError, match=r"data digits has no training part: name a checkpoint"):
        train(NET, small(0))
    with pytest.raises(ValueError, match=r"images \(8, 8, 1\) and 10 classes; the network reads \(9, 8, 1\)"):
        train(zoo.build("digits_cnn", (9, 8, 1), 10), DIGITS)
    wild = Settings(epochs=3, rate=1e30, warmup=0.0)
    with pytest.raises(ValueError, match=r"diverged in epoch \d: the loss is .*; lower train.rate"):
        train(zoo.build("mlp", (8, 8, 1), 10), small(), wild)
    with pytest.raises(ValueError, match=r"images: there are none to evaluate"):
        accuracy(NET, {}, DIGITS.test_images[:0], DIGITS.test_labels[:0])


@pytest.mark.parametrize(
    "field, value",
    [
        *[("epochs", 0), ("batch", 0), ("rate", 0.0), ("rate", float("nan")), ("shift", -1)],
        *[("momentum", 1.0), ("warmup", 1.0), ("warmup", -0.1), ("weight_decay", -1e-4)],
    ],
)
def test_settings_out_of_range_are_named(field: str, value: float):
    with pytest.raises(ValueError, match=rf"train {field} .* got {value}"):
        Settings(**{field: value})
    assert set(SETTINGS) == set(data.NAMES)


def test_augmentation_moves_and_mirrors_and_does_nothing_else(getkey):
    images = np.arange(1.0, 301).reshape(60, 5, 1, 1) * np.ones((1, 1, 4, 1)) * (1 + np.arange(4))[:, None]
    out = np.asarray(augment(getkey(), jnp.asarray(images, jnp.float32), 2, True))
    seen = set()
    for image, moved in zip(images.astype(np.float32), out, strict=True):
        padded = [np.pad(x, ((2, 2), (2, 2), (0, 0))) for x in (image, image[:, ::-1])]
        ways = [
            (m, r, c)
            for m in (0, 1)
            for r in range(5)
            for c in range(5)
            if np.array_equal(padded[m][r : r + 5, c : c + 4], moved)
        ]
        assert len(ways) == 1
        seen.add(ways[0])
    # 60 draws of 50 ways: fewer than 20 different ones happen with probability below 1e-9.
    assert len(seen) > 20


def test_predictions_do_not_depend_on_the_batch(getkey):
    params = nn.init(NET, getkey())
    whole = np.asarray(nn.apply(NET, params, jnp.asarray(DIGITS.test_images)))
    for batch in (7, 360, 1000):
        np.testing.assert_allclose(nn.predict(NET, params, DIGITS.test_images, batch), whole, atol=1e-5)
    truth = (whole.argmax(1) == DIGITS.test_labels).mean()
    assert accuracy(NET, params, DIGITS.test_images, DIGITS.test_labels, 100) == truth


def test_progress_is_logged_where_there_is_no_terminal(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="slth.train"):
        train(NET, small(), SHORT)
    assert len(caplog.messages) == 4
    assert caplog.messages[-1].startswith("epoch 4/4: loss ")


def test_two_spans_without_momentum_are_the_whole_training():
    plain = dataclasses.replace(SHORT, momentum=0.0)  # 2 steps an epoch: the spans meet inside one
    whole = train(FLAT, small(), plain, report=lambda epoch: None)
    early = train(FLAT, small(), plain, last=3, report=lambda epoch: None)
    late = train(FLAT, small(), plain, start=early.params, first=3, report=lambda epoch: None)
    assert same(late.params, whole.params)
    assert [e.epoch for e in early.history] == [1, 2]
    assert [e.epoch for e in late.history] == [2, 3, 4]
    assert late.history[1:] != early.history[1:]
    assert late.history[-1].loss == whole.history[-1].loss


def test_what_a_mask_drops_stays_0_and_the_rest_moves():
    start = nn.init(FLAT, jax.random.key(3))
    rng = np.random.default_rng(3)
    mask = jax.tree.map(lambda w: rng.random(w.shape) < 0.5 if w.ndim > 1 else np.ones(w.shape, bool), start)
    trained = train(FLAT, small(), dataclasses.replace(SHORT, epochs=1), start=start, mask=mask).params
    for keep, old, new in zip(*map(jax.tree.leaves, (mask, start, trained)), strict=True):
        assert (new[~keep] == 0).all()
        assert keep.ndim == 1 or (new[keep] != np.asarray(old)[keep]).mean() > 0.9


def test_a_masked_training_is_that_of_the_smaller_network():
    wide, slim = (
        nn.Network((8, 8, 1), (nn.Flatten(), nn.Dense("a", n), nn.Activation("relu"), nn.Dense("b", 10)))
        for n in (6, 4)
    )
    start = nn.init(wide, jax.random.key(4))
    mask = jax.tree.map(lambda w: np.ones(w.shape, bool), start)
    mask["a"]["kernel"][:, 4:] = mask["a"]["bias"][4:] = mask["b"]["kernel"][4:] = False
    cut = {"a": jax.tree.map(lambda w: w[..., :4], start["a"]), "b": dict(start["b"])}
    cut["b"]["kernel"] = start["b"]["kernel"][:4]
    got = train(wide, small(), SHORT, start=start, mask=mask).params
    want = train(slim, small(), SHORT, start=cut).params
    np.testing.assert_allclose(got["a"]["kernel"][:, :4], want["a"]["kernel"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got["b"]["kernel"][:4], want["b"]["kernel"], rtol=1e-4, atol=1e-6)


def test_another_start_in_the_folder_is_refused(tmp_path: Path):
    one = dataclasses.replace(SHORT, epochs=1)
    start = nn.init(FLAT, jax.random.key(3))
    first = train(FLAT, small(), one, folder=tmp_path, start=start).params
    assert same(train(FLAT, small(), one, folder=tmp_path, start=start).params, first)
    with pytest.raises(ValueError, match=r"another start: remove it"):
        train(FLAT, small(), one, folder=tmp_path)
    with pytest.raises(ValueError, match=r"another start: remove it"):
        train(FLAT, small(), one, folder=tmp_path, start=start, last=1)


def test_starts_masks_and_steps_that_do_not_fit_are_named():
    start = nn.init(FLAT, jax.random.key(3))
    with pytest.raises(ValueError, match=r"train start: b/bias has shape None, and \(10,\) in the network"):
        train(FLAT, small(), SHORT, start=start | {"b": {"kernel": start["b"]["kernel"]}})
    with pytest.raises(ValueError, match=r"train mask: b/bias has shape \(\), and \(10,\)"):
        train(FLAT, small(), SHORT, mask=start | {"b": start["b"] | {"bias": True}})
    with pytest.raises(ValueError, match=r"steps 9 to 8 asked of a training of 8: choose"):
        train(FLAT, small(), SHORT, first=9)
    assert train(FLAT, small(), SHORT, start=start, first=8).history == ()


def test_a_listener_hears_of_the_epochs_of_each_training():
    heard, shown = [], []
    digits = data.load("digits", train_limit=64)
    network = nn.Network((8, 8, 1), (nn.Flatten(), nn.Dense("linear", 10)))

    def start():
        heard.append([])
        return heard[-1].append

    quick = dataclasses.replace(SETTINGS["digits"], epochs=2, shift=0)
    with listened(start):
        for _ in range(2):
            train(network, digits, quick, report=shown.append)
    train(network, digits, quick, report=lambda epoch: None)
    assert [[one.epoch for one in own] for own in heard] == [[1, 2], [1, 2]]
    assert [*heard[0], *heard[1]] == shown
