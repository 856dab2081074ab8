from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from loramerge.linalg.cluster import kmeans, minibatch, singletons


@pytest.fixture
def random():
    return np.random.default_rng(0)


def inertia(rows, labels, signs=None):
    """By the definition alone."""
    rows = rows if signs is None else rows * signs[:, None]
    return sum(((rows[labels == c] - rows[labels == c].mean(0)) ** 2).sum() for c in np.unique(labels))


def blobs(random, count, groups, spread, dims=30):
    centres = random.standard_normal((groups, dims))
    truth = random.integers(0, groups, count)
    return centres[truth] + spread * random.standard_normal((count, dims)), truth


def best_by_trying_all(rows, k, signed=False):
    """The lowest inertia of any partition (and any signs) of a few rows."""
    turns = itertools.product((1.0, -1.0), repeat=len(rows)) if signed else [np.ones(len(rows))]
    partitions = [np.array(p) for p in itertools.product(range(k), repeat=len(rows)) if p[0] == 0]
    return min(inertia(rows, labels, np.array(signs)) for signs in turns for labels in partitions)


@pytest.mark.parametrize("k", [2, 5, 11])
@pytest.mark.parametrize("signed", [False, True])
def test_the_inertia_told_is_that_of_the_labels(random, k, signed):
    rows = random.standard_normal((40, 12))

    found = kmeans(rows @ rows.T, k, signed=signed)

    assert found.inertia == pytest.approx(inertia(rows, found.labels, found.signs))
    assert found.explained == pytest.approx(1 - found.inertia / (rows**2).sum())
    assert sorted(set(found.labels)) == list(range(k))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_few_units_are_clustered_as_well_as_can_be(random, k):
    rows = random.standard_normal((8, 3))

    assert kmeans(rows @ rows.T, k).inertia == pytest.approx(best_by_trying_all(rows, k))


def test_few_lines_are_clustered_as_well_as_can_be(random):
    rows = random.standard_normal((6, 3))

    found = kmeans(rows @ rows.T, 2, signed=True)

    assert found.inertia == pytest.approx(best_by_trying_all(rows, 2, signed=True))


@pytest.mark.parametrize(("count", "k"), [(24, 8), (80, 8), (80, 16), (200, 12)])
@pytest.mark.parametrize("spread", [0.3, 2.0])
def test_inertia_is_no_higher_than_scikit_learns(random, count, k, spread):
    rows, _ = blobs(random, count, k + 3, spread)

    found = kmeans(rows @ rows.T, k, n_init=10)

    assert found.inertia <= 1.01 * KMeans(k, n_init=10, random_state=0).fit(rows).inertia_


def test_inertia_is_no_higher_than_scikit_learns_on_real_units(shared):
    folders = [shared / "data/trained" / f"minilm-{task}-r8" for task in ("sst2", "subj", "trec", "sms-spam")]
    files = [load_file(folder / "adapter_model.safetensors") for folder in folders]
    assert all(json.loads((folder / "adapter_config.json").read_text())["r"] == 8 for folder in folders)
    ours, theirs = [], []

    for key in sorted(key for key in files[0] if key.endswith("lora_A.weight"))[::3]:
        halves = [(file[key], file[key.replace("lora_A", "lora_B")].T) for file in files]
        rows = np.concatenate([np.concatenate(pair, axis=1) for pair in halves]).astype(float)
        ours.append(kmeans(rows @ rows.T, 8).inertia)
        theirs.append(KMeans(8, n_init=10, random_state=0).fit(rows).inertia_)

    assert sum(ours) <= sum(theirs)
    assert max(np.array(ours) / theirs) <= 1.01


def test_groups_that_stand_apart_are_found(random):
    rows, truth = blobs(random, 300, 9, 0.05)

    assert adjusted_rand_score(truth, kmeans(rows @ rows.T, 9).labels) == 1.0


def test_lines_are_found_whatever_the_signs(random):
    rows, truth = blobs(random, 90, 6, 0.05)
    turned = rows * random.choice([-1.0, 1.0], len(rows))[:, None]

    plain, lines = kmeans(rows @ rows.T, 6, signed=True), kmeans(turned @ turned.T, 6, signed=True)

    assert adjusted_rand_score(truth, lines.labels) == 1.0
    assert lines.inertia == plain.inertia
    assert np.array_equal(lines.labels, plain.labels)


def test_no_single_move_helps(random):
    rows = random.standard_normal((60, 10))

    found = kmeans(rows @ rows.T, 7, n_init=1)

    for unit, cluster in itertools.product(range(60), range(7)):
        moved = found.labels.copy()
        moved[unit] = cluster
        assert inertia(rows, moved) >= found.inertia - 1e-9


def test_the_same_call_gives_the_same_bytes(random):
    rows = random.standard_normal((70, 10))

    one, two = kmeans(rows @ rows.T, 9, seed=5), kmeans(rows @ rows.T, 9, seed=5)

    assert np.array_equal(one.labels, two.labels)
    assert one.inertia == two.inertia


def test_copies_are_never_parted(random):
    rows = np.repeat(random.standard_normal((5, 10)), 4, axis=0)[random.permutation(20)]

    found = kmeans(rows @ rows.T, 12)

    assert found.k == 5
    assert found.inertia == pytest.approx(0.0, abs=1e-9)
    assert found.explained == pytest.approx(1.0)


def test_units_that_are_all_the_same_are_one_cluster():
    rows = np.ones((6, 3))

    assert kmeans(rows @ rows.T, 4).k == 1


def test_clusters_are_numbered_as_they_come(random):
    rows, _ = blobs(random, 50, 6, 0.1)

    _, first = np.unique(kmeans(rows @ rows.T, 6).labels, return_index=True)

    assert (np.diff(first) > 0).all()


def test_as_many_clusters_as_units_part_them_all():
    found = kmeans(np.eye(4), 9)

    assert found.labels.tolist() == [0, 1, 2, 3]
    assert np.array_equal(found.labels, singletons(4).labels)


def test_many_units_go_to_scikit_learn_in_batches(random):
    rows, truth = blobs(random, 3000, 5, 0.05)

    found = minibatch(rows, 5)

    assert adjusted_rand_score(truth, found.labels) == 1.0
    assert found.inertia == pytest.approx(inertia(rows, found.labels))
    assert found.explained == pytest.approx(1 - found.inertia / (rows**2).sum())
