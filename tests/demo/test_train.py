"""The demo's pieces: they learn what they should, and a second run gives the same bits."""

from __future__ import annotations

import torch
from safetensors.torch import load_file

from loramerge.demo import digits, train

SHORT = train.Schedule(epochs=2, rate=3e-3)


def test_digits_are_split_alike_every_time():
    first, again = digits.load()[0], digits.load()[0]

    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)


def test_training_and_test_digits_are_all_the_digits_there_are():
    training, test = digits.load()

    assert len(training.labels) + len(test.labels) == 1797
    assert set(test.labels.tolist()) == set(range(10))


def test_a_shift_changes_images_and_keeps_labels_and_range():
    _, test = digits.load()

    for shift in digits.SHIFTS:
        shifted = test.shifted(shift)
        assert shifted.images.shape == test.images.shape
        assert not torch.allclose(shifted.images, test.images, atol=0.1)
        assert 0 <= shifted.images.min() <= shifted.images.max() <= 1
        assert torch.equal(shifted.labels, test.labels)


def test_a_worn_stroke_has_no_more_ink_than_any_of_its_four_pixels():
    image = torch.zeros(1, 8, 8)
    image[0, 2:4, 2:5] = 1.0

    worn = digits.thin(image)

    assert worn.nonzero().tolist() == [[0, 2, 2], [0, 2, 3]]


def test_training_twice_gives_the_same_bits(tmp_path):
    training, _ = digits.load()
    few = training.first(256)

    for run in ("first", "second"):
        model = train.base(few, SHORT)
        train.adapter(model, few.shifted("thin"), 4, tmp_path / run, SHORT)

    first, second = (load_file(tmp_path / run / "adapter_model.safetensors") for run in ("first", "second"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_training_leaves_the_global_generator_and_threads_alone():
    training, _ = digits.load()
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    train.base(training.first(64), SHORT)

    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_training_an_adapter_leaves_the_base_alone(tmp_path):
    training, test = digits.load()
    few = training.first(128)
    model = train.base(few, SHORT)
    before = model(test.images)

    train.adapter(model, few.shifted("faint"), 4, tmp_path, SHORT)

    assert torch.equal(model(test.images), before)
    assert not torch.equal(train.adapted(model, tmp_path)(test.images), before)
