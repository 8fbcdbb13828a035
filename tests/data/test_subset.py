"""What a limit takes: each class in its share, by a seed, and more with a larger limit."""

import numpy as np
import pytest

from slth import data
from slth.data.formats import part_of
from slth.data.subset import stratified, taken


@pytest.mark.parametrize("classes", [1, 2, 10, 37])
@pytest.mark.parametrize("size", [1, 5, 100])
def test_every_class_has_its_share_of_every_prefix(classes, size):
    labels = np.sort(np.arange(classes * size) % classes)
    order = stratified(labels, 3)
    assert sorted(order.tolist()) == list(range(len(labels)))
    counts = np.cumsum(np.eye(classes, dtype=int)[labels[order]], 0)
    share = np.arange(1, len(labels) + 1)[:, None] / classes
    assert (abs(counts - share) < 1).all()


def test_unequal_classes_have_their_shares():
    labels = np.repeat([0, 1, 2, 4], [700, 200, 90, 10])
    for count in (10, 100, 500):
        found = np.bincount(labels[stratified(labels, 0)[:count]], minlength=5)
        np.testing.assert_allclose(found, count * np.array([0.7, 0.2, 0.09, 0, 0.01]), atol=1.01)


def test_seeds_draw_and_nothing_else_does():
    labels = np.arange(1000) % 10
    draws = [stratified(labels, seed)[:100] for seed in range(200)]
    np.testing.assert_array_equal(draws[5], stratified(labels, 5)[:100])
    # Each image is drawn with probability 1/10, so 20 times in 200 draws; a binomial number is off by over 25
    # with probability below 1e-7, one of 1,000 below 1e-4.
    often = np.bincount(np.concatenate(draws), minlength=1000)
    assert often.sum() == 20_000
    assert abs(often - 20).max() <= 25
    first = np.bincount([draw[0] for draw in draws], minlength=1000)
    assert first.max() <= 5  # the order within the subset is random too


def test_all_is_taken_in_its_own_order_and_without_a_seed_the_first():
    part = part_of(np.arange(12).reshape(12, 1), np.arange(12) % 3)
    for limit in (None, 12, 50):
        assert taken(part, limit, 0, True)[0][:, 0].tolist() == list(range(12))
    assert taken(part, 5, None, True)[0][:, 0].tolist() == list(range(5))
    images, labels = taken(part, 6, 0, True)
    np.testing.assert_array_equal(images[:, 0] % 3, labels)
    assert np.bincount(labels).tolist() == [2, 2, 2]


def test_numbers_as_labels_are_drawn_alike():
    part = part_of(np.arange(100).reshape(100, 1), np.arange(100) / 7)
    images, labels = taken(part, 20, 1, False)
    assert len(set(images[:, 0].tolist())) == 20
    assert images[:, 0].tolist() != sorted(images[:, 0].tolist())
    np.testing.assert_array_equal(images[:, 0] / 7, labels)
    np.testing.assert_array_equal(taken(part, 30, 1, False)[0][:20], images)


def test_prepared_data_give_the_images_of_their_labels(data_dir):
    folder = data_dir / "tensorflow_datasets"
    whole = data.load("cifar10", folder, train_limit=1)
    part = data.load("cifar10", folder, limit=30, train_limit=1)
    numbers = stratified(whole.test_labels, 0)[:30]
    np.testing.assert_array_equal(part.test_images, whole.test_images[numbers])
    np.testing.assert_array_equal(part.test_labels, whole.test_labels[numbers])
    assert len(set(part.test_labels.tolist())) == 10
