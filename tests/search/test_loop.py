import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bernoulli import OBJECTIVE, PLAN, SPACE, Evaluator, chance, searched

from loramerge.errors import BadOption
from loramerge.search.journal import Journal, trials
from loramerge.search.loop import Plan, Seen, run
from loramerge.search.samplers._sampler import SAMPLERS
from loramerge.search.space import read


@pytest.mark.parametrize("sampler", ["random", "cma", "tpe"])
def test_the_winner_is_nearly_as_good_as_can_be(sampler):
    found = searched(None, sampler, Evaluator())

    assert chance(found.winner.point) > 0.87
    assert found.winner.last.rows == PLAN.rows
    assert found.winner.last.low < found.winner.last.value < found.winner.last.high


def test_the_winner_is_the_best_of_all_that_ran_to_the_end():
    found = searched(None, "random", Evaluator())

    finished = [trial.last.value for trial in found.trials if trial.last.rows == PLAN.rows]
    assert found.winner.last.value == max(finished)
    assert len(found.trials) > 3 * PLAN.budget


def test_the_passes_told_are_those_made():
    evaluate = Evaluator()

    found = searched(None, "random", evaluate)

    assert found.spent == pytest.approx(evaluate.rows / PLAN.rows)
    assert PLAN.budget - 1 < found.spent < PLAN.budget + 1


@pytest.mark.parametrize("sampler", ["cma", "tpe"])
@pytest.mark.parametrize("calls", [1, 8])
def test_a_search_that_was_killed_goes_on_to_the_same_result(tmp_path, sampler, calls):
    whole = Evaluator()
    expected = searched(None, sampler, whole)
    script = [sys.executable, str(Path(__file__).with_name("bernoulli.py"))]

    killed = subprocess.run([*script, tmp_path / "j", sampler, str(calls)], check=False).returncode
    rest = Evaluator()
    found = searched(tmp_path / "j", sampler, rest)

    assert killed == 9
    assert found == expected
    assert 0 < rest.rows < whole.rows


def test_a_search_that_is_over_evaluates_nothing_when_it_is_run_again(tmp_path):
    first = searched(tmp_path / "j", "tpe", Evaluator())
    again = Evaluator()

    found = searched(tmp_path / "j", "tpe", again)

    assert found == first
    assert again.rows == 0
    assert [(t.number, t.point) for t in trials(tmp_path / "j")] == [(t.number, t.point) for t in found.trials]


def test_more_budget_goes_on_where_less_had_ended(tmp_path):
    few = Evaluator()
    searched(tmp_path / "j", "random", few)
    more = Evaluator()

    found = searched(tmp_path / "j", "random", more, replace(PLAN, budget=40))

    assert found == searched(None, "random", Evaluator(), replace(PLAN, budget=40))
    assert 0 < more.rows / PLAN.rows < 25  # the batch that the small budget had cut short is another one now


def test_a_grid_smaller_than_the_budget_is_gone_through_once():
    found = searched(None, "grid", Evaluator(), replace(PLAN, budget=1000))

    assert len(found.trials) == 25
    assert found.winner.point == max((t.point for t in found.trials), key=chance)


def test_points_that_come_twice_are_evaluated_once():
    class Twice:
        def __init__(self):
            self.left = 2
            self.told = []

        def ask(self, count):
            self.left -= 1
            return [{"scale": 0.7, "weight.a": 0.4}, {"scale": 0.1, "weight.a": 0.4}] * 2 if self.left >= 0 else []

        def tell(self, points, values):
            self.told.append(values)

    search, evaluate = Twice(), Evaluator()

    with Journal(None, {}) as journal:
        found = run(search, evaluate, OBJECTIVE, PLAN, journal)

    assert evaluate.rows <= 2 * PLAN.rows
    assert len(found.trials) == 2
    assert all(values[:2] == values[2:] for values in search.told)


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_space_that_is_used_up_ends_the_search(sampler):
    space = read(["scale=0.2,0.7", "weight.a=0.4"], {})

    with Journal(None, {}) as journal:
        found = run(SAMPLERS[sampler].start(space, 0), Evaluator(), OBJECTIVE, PLAN, journal)

    assert sorted(trial.point["scale"] for trial in found.trials) == [0.2, 0.7]
    assert found.winner.point["scale"] == 0.7
    assert found.spent < 3


def test_candidates_whose_scores_are_no_numbers_do_not_stop_the_search():
    class Breaks(Evaluator):
        def __call__(self, points, rows):
            found = super().__call__(points, rows)
            for i, point in enumerate(points):
                if point["scale"] > 0.5:
                    found.observed["one"][i] = np.nan
            return found

    with Journal(None, {}) as journal:
        found = run(SAMPLERS["cma"].start(SPACE, 0), Breaks(), OBJECTIVE, PLAN, journal)

    assert found.winner.point["scale"] <= 0.5
    assert any(math.isnan(trial.last.value) for trial in found.trials)


def test_the_reason_why_a_point_has_no_score_is_told_after_a_resume_too(tmp_path):
    class Refuses(Evaluator):
        def __call__(self, points, rows):
            found = super().__call__(points, rows)
            bad = [at for at, point in enumerate(points) if point["scale"] > 0.5]
            for task in found.observed.values():
                task[bad] = np.nan
            return Seen(found.observed, {at: f"{points[at]['scale']!r} is too much" for at in bad})

    first, again = (searched(tmp_path / "j", "random", evaluate) for evaluate in (Refuses(), Evaluator()))

    told = {trial.point["scale"]: trial.why for trial in first.trials}
    assert told == {scale: f"{scale!r} is too much" if scale > 0.5 else "" for scale in told}
    assert str(again) == str(first)  # a NaN is not equal to itself


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_races_over_few_rows_keep_to_the_budget(rows):
    found = searched(None, "random", Evaluator(), replace(PLAN, rows=rows, budget=10))

    assert 8 < found.spent < 11


def test_progress_is_told_after_every_batch():
    seen = []
    with Journal(None, {}) as journal:
        run(SAMPLERS["random"].start(SPACE, 0), Evaluator(), OBJECTIVE, PLAN, journal, seen.append)

    assert [len(found.trials) for found in seen] == sorted({len(found.trials) for found in seen})
    assert all(found.winner for found in seen)


@pytest.mark.parametrize(
    "wrong", [{"rows": 0}, {"budget": 0.5}, {"batch": 0}, {"budget": math.nan}, {"budget": math.inf}]
)
def test_plans_that_cannot_be_are_refused(wrong):
    with pytest.raises(BadOption, match=f"{next(iter(wrong))} is .* no number from 1 up") as caught:
        Plan(**{"rows": 10, "budget": 5} | wrong)

    assert caught.value.hint.startswith("--")
