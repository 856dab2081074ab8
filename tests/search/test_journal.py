import resource

import numpy as np
import pytest

from loramerge.errors import BadConfig, BadOption, LoramergeError
from loramerge.search.journal import Journal, Noted, trials

IDENTITY = {"space": "scale=0..1", "seed": "0", "sources": "3f1a"}
ONE, OTHER = {"scale": 0.25}, {"scale": 0.5}


def observed(points, rows, seed=0):
    return {"sst2": np.random.default_rng(seed).random((points, rows, 2))}


def test_what_was_observed_is_there_again_in_the_order_of_the_rows(tmp_path):
    first, second = observed(2, 4), observed(2, 6, seed=1)
    with Journal(tmp_path / "j", IDENTITY) as journal:
        journal.add([ONE, OTHER], range(4), first)
        journal.add([OTHER, ONE], range(4, 10), second)

    with Journal(tmp_path / "j", IDENTITY) as again:
        found = again.observed([OTHER, ONE], 10)["sst2"]

        np.testing.assert_array_equal(found[0], np.concatenate([first["sst2"][1], second["sst2"][0]]))
        np.testing.assert_array_equal(again.observed([OTHER], 4)["sst2"][0], first["sst2"][1])
        assert again.missing([ONE, OTHER, {"scale": 1}], range(4)) == [{"scale": 1}]


def test_a_task_that_has_no_more_rows_keeps_those_it_had(tmp_path):
    with Journal(None, IDENTITY) as journal:
        journal.add([ONE], range(4), observed(1, 4) | {"short": np.ones((1, 3, 2))})
        journal.add([ONE], range(4, 8), observed(1, 4) | {"short": np.ones((1, 0, 2))})

        found = journal.observed([ONE], 8)

    assert {task: array.shape for task, array in found.items()} == {"sst2": (1, 8, 2), "short": (1, 3, 2)}


def test_another_searchs_journal_is_refused_by_what_differs(tmp_path):
    Journal(tmp_path / "j", IDENTITY).close()

    with pytest.raises(BadOption, match=r"seed was 0, now 1; tasks was nothing, now trec\.") as caught:
        Journal(tmp_path / "j", IDENTITY | {"seed": "1", "tasks": "trec"})

    assert caught.value.where == str(tmp_path / "j")
    Journal(tmp_path / "j", IDENTITY).close()


def test_another_searchs_journal_is_emptied_where_that_is_asked_for_and_ones_own_is_not(tmp_path):
    with Journal(tmp_path / "j", IDENTITY) as journal:
        journal.add([ONE], range(4), observed(1, 4), {0: "no rank"})

    with Journal(tmp_path / "j", IDENTITY, anew=True) as same:
        kept = same.missing([ONE], range(4)), same.why(ONE)
    with Journal(tmp_path / "j", IDENTITY | {"seed": "1"}, anew=True) as other:
        found = other.missing([ONE], range(4)), other.why(ONE)

    assert kept == ([], "no rank")
    assert found == ([ONE], "")
    Journal(tmp_path / "j", IDENTITY | {"seed": "1"}).close()


@pytest.mark.parametrize("anew", [False, True])
def test_a_journal_is_not_shared(tmp_path, anew):
    with Journal(tmp_path / "j", IDENTITY), pytest.raises(BadOption, match="locked"):
        Journal(tmp_path / "j", IDENTITY | {"seed": "1"}, anew=anew)


def test_the_first_reason_of_a_point_is_kept_by_its_place(tmp_path):
    with Journal(tmp_path / "j", IDENTITY) as journal:
        journal.add([ONE, OTHER], range(4), observed(2, 4), {1: "no rank"})
        journal.add([OTHER], range(4, 8), observed(1, 4), {0: "no number"})

    with Journal(tmp_path / "j", IDENTITY) as again:
        assert [again.why(ONE), again.why(OTHER)] == ["", "no rank"]


def test_a_full_disk_is_said_and_what_was_kept_stays(tmp_path):
    with Journal(tmp_path / "j", IDENTITY) as journal:
        journal.add([ONE], range(4), observed(1, 4))
        most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / "j").stat().st_size + 10_000, hard))
        try:
            with pytest.raises(LoramergeError, match="cannot be used") as caught:
                journal.add([OTHER], range(4), observed(1, 10_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
        left = journal.missing([ONE, OTHER], range(4))

    assert caught.value.where == str(tmp_path / "j")
    assert "disk" in caught.value.hint
    assert left == [OTHER]


def test_what_is_no_journal_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("not a database, but a text that is long enough to be one")

    with pytest.raises(BadConfig, match="no journal"):
        Journal(tmp_path / "notes.txt", IDENTITY)


def test_a_place_where_no_file_can_be_is_refused(tmp_path):
    with pytest.raises(BadOption):
        Journal(tmp_path / "no" / "such" / "folder", IDENTITY)


def test_trials_are_told_in_order(tmp_path):
    noted = [Noted(1, OTHER, "dropped", 4, 0.5, 0.4, 0.6), Noted(0, ONE, "finished", 10, 0.75, 0.7, 0.8)]
    with Journal(tmp_path / "j", IDENTITY) as journal:
        journal.note(noted)

    assert trials(tmp_path / "j") == noted[::-1]
