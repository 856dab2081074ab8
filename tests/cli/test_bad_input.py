"""Bad input gets a clear error and nothing is lost: one row for each way to go wrong.

`python tests/cli/test_bad_input.py` runs all rows and prints them as a table.
"""

from __future__ import annotations

import logging
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import arrangements as given
import pytest
from place import NOBODY, Outcome, Place, difference, place

Run = Callable[[Place, str], Outcome]


def plainly(here: Place, command: str) -> Outcome:
    return here.run(command)


@dataclass(frozen=True)
class Row:
    """A case: what lies there, the command after `loramerge`, and how it has to end.

    `what`, `where` and `hint` are parts of the error's lines; an error without a `where` or `hint`
    has no such line. A command that succeeds says `what` somewhere. `after` is what is then other
    on disk and on the Hub.
    """

    case: str
    arrange: given.Arrange
    command: str
    code: int
    what: str
    where: str = ""
    hint: str = ""
    after: str = "as before"
    run: Run = plainly


# How the command is run


def as_nobody(here: Place, command: str) -> Outcome:
    """As a user who may write what anybody may. It may read all: the Python in use is often root's."""
    if os.geteuid():
        return here.run(command)
    ids = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    powers = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")
    if not shutil.which("setpriv") or subprocess.run(["setpriv", *ids, *powers, "true"]).returncode:
        pytest.skip("no process can be run as another user here")
    return here.run(command, before=("setpriv", *ids, *powers))


def with_small_files(here: Place, command: str) -> Outcome:
    """No file may grow beyond 10 KB, which is how a disk that fills up looks to a process."""
    return here.run(command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)))


def ctrl_c_when_written(here: Place, command: str) -> Outcome:
    return here.interrupt(command, lambda: any(here.work.glob(".out.*.partial/adapter_model.safetensors")))


def ctrl_c_at_start(here: Place, command: str) -> Outcome:
    return here.interrupt(command, lambda: any(here.work.glob(".out.*.partial")))


def ctrl_c_at(pattern: str) -> Run:
    return lambda here, command: here.interrupt(command, lambda: here.faults.count(pattern) > 0)


# The table. Messages are looked for in the line that they belong to.

PULL, PUSH = "pull me/math", "push me/out"
FORCED = "merge ./a ./b -o out --force"
LONG = "lego ./a ./b --k 8 -o out"
NOBODY_THERE = "--endpoint http://127.0.0.1:9"

MADE, REPLACED, PUSHED = "+loramerge.lock +out/", "~loramerge.lock ~out/", "~hub/me/out"
PULLED = "+cache/adapter_model.safetensors ~loramerge.lock"
ANOTHER = "~cache/adapter_model.safetensors ~loramerge.lock"

ROWS = [
    # Adapters that do not go together
    Row("no adapters", given.nothing, "merge", 2, "no adapters to work on", "{work}", "pull USER/ADAPTER"),
    Row("no sources to restore", given.nothing, "pull", 2, "nothing to restore", "{work}/loramerge.lock", "pull"),
    Row("different bases", given.other_base, "merge ./a ./b", 4, "acme/base and acme/other", "a, b", "--base"),
    Row(
        "a base that is none of theirs",
        given.recipe("adapters: [./a, ./b]\nbase: acme/other\n"),
        "merge recipe.yaml",
        4,
        "acme/other and acme/base",
        "a",
        "--allow-base-mismatch",
    ),
    Row("shapes that disagree", given.other_shape, "merge ./a ./b", 4, "8×8 and linear 8×16", "a, b", "one base"),
    Row(
        "shapes that disagree, bases allowed to",
        given.other_shape,
        "merge ./a ./b --allow-base-mismatch",
        4,
        "8×8 and linear 8×16",
        "a, b",
        "one base",
    ),
    Row("an empty adapter", given.empty, "merge ./a ./b", 3, "None of its 0 tensors", "{work}/a/", "full model"),
    Row("DoRA", given.dora, "merge ./a ./b", 4, "DoRA update depends on the base", "a", "--dora factors"),
    Row("DoRA, factors only", given.dora, "merge ./a ./b --dora factors -o out", 0, "Merged", after=MADE),
    Row("one adapter", given.two, "lego ./a --k 2 -o out", 0, "Merged", after=MADE),
    Row("mixed ranks and types", given.mixed, "merge ./a ./b ./c -o out", 0, "Merged", after=MADE),
    Row("one adapter twice", given.two, "merge ./a ./a -o out", 0, "Merged", after=MADE),
    # Options
    Row("k < 1", given.two, "lego ./a ./b --k 0", 2, "k is 0, below 1", "", "1 or more"),
    Row("k above all units", given.two, "lego ./a ./b --k 100", 2, "no module has more than 6 units", "", "--k 6"),
    Row("k above some units", given.uneven, "lego ./a ./b --k 5 -o out", 0, "keep them all", after=MADE),
    Row("unknown method", given.two, "merge ./a ./b --method liner", 2, "no merge method named 'liner'", "", "linear"),
    Row("unknown option", given.two, "merge ./a ./b --method lego -O kk=3", 2, "no option 'kk'", "", "k"),
    Row("option of a wrong type", given.two, "merge ./a ./b --method lego -O k=x", 2, "'x', which is not a whole"),
    Row("unknown flag", given.two, "merge ./a ./b --methd lego", 2, "No such option '--methd'", "", "merge --help"),
    Row("unknown command", given.two, "lgo ./a ./b", 2, "no command named 'lgo'", "", "lego"),
    Row("a way beyond its end", given.two, "interpolate ./a ./b --at 1.5", 2, "t is 1.5, outside", "", "linear"),
    Row("a way of one point", given.two, "interpolate ./a ./b --points 1", 2, "no two ends", "", "--points 2"),
    Row("a way to nowhere", given.two, "interpolate ./a --at 0.5", 2, "Missing argument 'B'", "", "interpolate --help"),
    Row("a way without a place", given.two, "interpolate ./a ./b", 2, "One point or many", "", "--at 0.5"),
    Row(
        "an arc of factors",
        given.two,
        "interpolate ./a ./b --at 0.5 --space factors --path slerp",
        2,
        "arc is one of updates",
        "",
        "--space update",
    ),
    Row(
        "points of a way",
        given.merged,
        "interpolate a b --points 2 -o way",
        0,
        "way-001",
        after="+way-000/ +way-001/ ~loramerge.lock",
    ),
    Row("an average of one", given.two, "ema ./a", 2, "ema takes 2 or more adapters, not 1", "", "linear"),
    Row("an average of none", given.two, "ema", 2, "Missing argument 'CKPT...'", "", "ema --help"),
    Row("beta above 1", given.two, "ema ./a ./b --beta 2", 2, "beta is 2, outside", "", "0.9"),
    Row("an analogy of two", given.two, "merge ./a ./b --method analogy", 2, "analogy takes 3 adapters, not 2"),
    Row("unknown rank rule", given.two, "merge ./a ./b --rank big", 2, "'big' is not a rank", "", "sum"),
    Row("too few weights", given.two, "merge ./a ./b -w 1", 2, "1 weights for 2 adapters", "a, b", "one -w each"),
    Row("weight of a stranger", given.two, "merge ./a ./b -w c=1", 2, "No adapter here is named 'c'", "", "a, b"),
    Row("too little memory", given.two, "merge ./a ./b --max-memory 1KB", 2, "--max-memory", "layers", "MiB"),
    Row("no such folder", given.two, "merge ./a ./bb", 5, "no such folder", "{work}/bb", "{work}/b"),
    Row("a name for a path", given.two, "merge a b", 2, "no adapter named 'a'", "{work}", "./a, for the path"),
    Row("a name misspelt", given.locked, "show aa", 2, "no adapter named 'aa'", "{work}", "a"),
    Row("a result named as a source", given.locked, "merge -o x/a", 2, "the name of a source", "lock", "another -o"),
    Row(
        "a recipe with an unknown key",
        given.recipe("adapters: [./a, ./b]\nmethods: lego\n"),
        "merge recipe.yaml",
        3,
        "'methods'",
        "recipe.yaml",
        "method",
    ),
    Row(
        "a recipe with a wrong type",
        given.recipe("adapters: [./a, ./b]\nscale: big\n"),
        "merge recipe.yaml",
        3,
        "scale is 'big'",
        "recipe.yaml",
    ),
    Row(
        "a recipe without adapters",
        given.recipe("method: lego\n"),
        "merge recipe.yaml",
        3,
        "lists its adapters",
        "recipe.yaml",
        "adapters:",
    ),
    Row("a recipe cut off", given.recipe("adapters: [./a,\n"), "merge recipe.yaml", 3, "YAML", "recipe.yaml:2"),
    Row("no recipe", given.two, "merge recipe.yaml", 2, "cannot be read", "recipe.yaml"),
    # Files
    Row("NaN", given.not_a_number, "merge ./a ./b", 3, "holds 2 elements that are NaN", "{work}/a/", "leave it out"),
    Row("truncated safetensors", given.cut_weights, "merge ./a ./b", 3, "file is cut off", "{work}/a/", "again"),
    Row("damaged config", given.broken_config, "merge ./a ./b", 3, "not valid JSON", "{work}/a/adapter_config.json"),
    Row("config of a wrong type", given.no_rank, "merge ./a ./b", 3, "r is 'four'", "{work}/a/adapter_config.json"),
    Row("a pickle", given.only_a_pickle, "merge ./a ./b", 3, "can run code", "adapter_model.bin", "--allow-pickle"),
    Row("a pickle, allowed", given.only_a_pickle, "merge ./a ./b --allow-pickle -o out", 0, "Merged", after=MADE),
    Row("no adapter in a folder", given.a_folder_of_mine, "pull ./out", 3, "thesis.tex", "{work}/out", "PEFT"),
    Row("damaged lock", given.broken_lock, "ls", 7, "lock is damaged", "{work}/loramerge.lock", "git checkout"),
    Row("truncated lock", given.half_a_lock, "pull ./a", 7, "lock is damaged", "{work}/loramerge.lock", "delete it"),
    Row("a lock from the future", given.newer_lock, "ls", 7, "schema is not 1", "{work}/loramerge.lock", "newer"),
    Row("a changed local source", given.changed_source, "merge", 7, "is not what was pinned", "{work}/a", "pull ./"),
    # Outputs
    Row("output exists", given.merged, "merge -o out", 2, "output is there already", "{work}/out", "--force"),
    Row("output exists, --force", given.merged, "lego --k 3 -o out --force", 0, "Merged", after=REPLACED),
    Row("output of mine", given.a_folder_of_mine, "merge ./a ./b -o out", 2, "is there already", "{work}/out", "-o"),
    Row(
        "output of mine, --force",
        given.a_folder_of_mine,
        FORCED,
        2,
        "not a result, and is not replaced",
        "out",
        "another -o",
    ),
    Row(
        "output is a file, --force",
        given.a_file_as_output,
        FORCED,
        2,
        "not a result, and is not replaced",
        "out",
        "another",
    ),
    Row("--force, and the merge fails", given.then_not_a_number, FORCED, 3, "NaN", "{work}/a/", "leave it out"),
    Row(
        "read-only output",
        given.read_only,
        "merge -o theirs/out",
        1,
        "cannot be written: Permission denied",
        "{work}/theirs/out",
        "-o",
        run=as_nobody,
    ),
    Row(
        "read-only workspace: pull",
        given.read_only_workspace,
        "pull ./a",
        1,
        "lock cannot be written: Permission denied",
        "{work}/loramerge.lock",
        "-C",
        run=as_nobody,
    ),
    Row(
        "read-only workspace: merge",
        given.read_only_workspace,
        "merge ./a ./b",
        1,
        "cannot be written: Permission denied",
        "{work}/linear-4",
        "-o",
        run=as_nobody,
    ),
    Row("full disk: output", given.small_disk, "merge ./a ./b -o disk/out", 1, "No space left", "{work}/disk", "-o"),
    Row("full disk: workspace", given.small_disk, "-C disk merge ../a ../b", 1, "No space left", "{work}/disk", "-o"),
    Row("full disk: lock", given.full_disk, "-C disk pull ../a", 1, "lock cannot be written: No space", "disk", "-C"),
    Row("full disk: cache", given.small_cache, "pull me/math", 1, "102,400 are free", "{home}/hub", "HF_HOME"),
    Row(
        "file limit: output",
        given.big,
        "merge ./a ./b -o out",
        1,
        "cannot be written: File too large",
        "{work}/out",
        "-o",
        run=with_small_files,
    ),
    Row(
        "file limit: cache",
        given.big_on_hub,
        "pull me/math",
        1,
        "cannot be stored: File too large",
        "cache",
        "HF_HOME",
        run=with_small_files,
    ),
    Row("a copy that is there", given.copied, "pull ./a --to to", 0, "a"),
    Row(
        "a copy over other files", given.copied_and_changed, "pull ./a --to to", 2, "is there already", "/to/a", "--to"
    ),
    # The Hub
    Row("missing repo", given.published, "pull me/nothing", 5, "There is no me/nothing", "{url}", "spelling"),
    Row("one of two repos missing", given.published, "pull me/math me/no", 5, "no me/no", "{url}", after=PULLED),
    Row("missing revision", given.published, "pull me/math@v9", 5, "not have the revision", "{url}", "branch, tag"),
    Row("missing folder", given.published, "pull me/math:best", 5, "no folder 'best'"),
    Row("gated repo", given.gated, "pull me/math", 5, "me/math is gated", "{url}", "ask for access at {url}/me/math"),
    Row("private repo", given.private, "pull me/math", 5, "or it is private", "{url}", "hf auth login"),
    Row("deleted repo", given.deleted, "pull me/math", 5, "There is no me/math", "{url}", "spelling"),
    Row("deleted repo, pinned before", given.deleted, "pull", 0, "math"),
    Row("renamed repo", given.renamed, "pull me/math", 0, "me/math is now called me/maths", after=PULLED),
    Row("wrong token", given.wrong_token, "pull me/math", 5, "does not accept the token", "{url}", "hf auth login"),
    Row("ambiguous name", given.two_of_one_name, "pull acme/math", 2, "name of me/math already", "lock", "--as NAME"),
    Row("ambiguous name, --as", given.two_of_one_name, "pull acme/math --as other", 0, "other", after=ANOTHER),
    Row("moved tag", given.moved_tag, "pull --frozen", 7, "v1 of me/math is not what", "math", "pull me/math@v1"),
    Row("moved tag, not frozen", given.moved_tag, "pull", 0, "math"),
    Row("pull cut half-way", given.pull_meets("reset"), PULL, 6, "connection failed", "{url}", "network"),
    Row("Hub dies during a pull", given.pull_meets("refuse"), PULL, 6, "(503", "{url}", "later"),
    Row("corrupted bytes", given.pull_meets("flip"), PULL, 7, "they were removed", "adapter_model", "pull"),
    Row("a truncated file", given.pull_meets("truncate"), PULL, 7, "not whole", "{url}", "pull again"),
    Row("corrupted cache: merge", given.corrupted_cache, "merge", 7, "not what was pinned", "{home}", "pull"),
    Row("corrupted cache: verify", given.corrupted_cache, "verify", 7, "not what the lock pins", "{home}", "pull math"),
    Row(
        "Hub down: pull",
        given.published,
        f"{PULL} {NOBODY_THERE}",
        6,
        "connection failed",
        "http://127.0.0.1:9",
        "--endpoint",
    ),
    Row("Hub down, pinned before", given.pulled, f"pull {NOBODY_THERE}", 0, "math"),
    Row("--offline", given.published, "--offline pull me/math", 6, "--offline forbids", "{url}", "without --offline"),
    Row("--offline, pinned before", given.pulled, "--offline pull", 0, "math"),
    Row("push cut half-way: upload", given.cut_upload, PUSH, 6, "(503", "{url}", "later"),
    Row("push cut half-way: commit", given.push_meets("cut"), PUSH, 6, "connection failed", "{url}", "network"),
    Row("push whose answer is lost", given.push_meets("drop"), PUSH, 0, "after the commit was made", after=PUSHED),
    Row("Hub dies during a push", given.push_meets("refuse"), PUSH, 6, "(503", "{url}", "later"),
    Row("push of a changed result", given.changed_result, PUSH, 7, "not what the lock pins", "{work}/out", "--force"),
    Row("push to another's name", given.to_push_elsewhere, "push you/out", 5, "may not", "{url}", "hf auth login"),
    Row("push without a result", given.locked, "push me/out", 2, "no result in this", "{work}", "merge"),
    Row(
        "Hub down: push",
        given.to_push,
        f"{PUSH} {NOBODY_THERE}",
        6,
        "connection failed",
        "http://127.0.0.1:9",
        "--endpoint",
    ),
    # What is compared
    Row("one adapter to compare", given.two, "compare ./a", 2, "One adapter cannot be compared", "a", "two or more"),
    Row(
        "different bases to compare",
        given.other_base,
        "compare ./a ./b",
        4,
        "acme/base and acme/other",
        "a, b",
        "--base",
    ),
    Row(
        "shapes to compare",
        given.other_shape,
        "compare ./a ./b --allow-base-mismatch",
        0,
        "2 modules (layers.0.q …) have",
    ),
    Row("a picture that is no PNG", given.two, "compare ./a ./b --plot x.jpg", 2, "written as PNG", "x.jpg", "x.png"),
    Row("a picture nowhere", given.two, "compare ./a ./b --plot no/x.png", 2, "no such folder", "{work}/no", "mkdir"),
    Row("advice on what disagrees", given.other_shape, "advise ./a ./b", 4, "8×8 and linear 8×16", "a, b", "one base"),
    # Methods and what they are asked for
    Row("a weight too large", given.two, "merge ./a ./b -w 1e308 -w 1", 2, "weight of 1e+308 is out", "./a", "1e+20"),
    Row("a weight too small", given.two, "merge ./a ./b -w 1 -w 1e-300", 2, "weight of 1e-300 is out", "./b", "1e+20"),
    Row("a scale too large", given.two, "merge ./a ./b --scale 1e300", 2, "scale of 1e+300 is out", "", "1e+20"),
    Row("weights that sum to zero", given.two, "merge ./a ./b -w 1 -w -1 --normalize", 2, "sum to zero"),
    Row("a weight that is no number", given.two, "merge ./a ./b -w nan -w 1", 2, "weight of nan", "./a", "0.3"),
    Row("a weight of no adapter, in a rule", given.two, "merge ./a ./b --for *.q:weight.c=1", 2, "'c'", "*.q", "a, b"),
    Row("density 0", given.two, "merge ./a ./b --method ties -O density=0", 2, "density is 0.0, outside", "", "0.2"),
    Row(
        "density above 1",
        given.two,
        "merge ./a ./b --method dare -O density=1.5",
        2,
        "density is 1.5, outside",
        "",
        "0.",
    ),
    Row("rank 0", given.two, "merge ./a ./b --rank 0", 2, "0 is not a rank", "", "sum"),
    Row("a rank above all units", given.two, "merge ./a ./b --rank 99 -o out", 0, "Merged", after=MADE),
    Row(
        "a rank that the method decides",
        given.two,
        "merge ./a ./b --method cat --rank 2",
        2,
        "decides its rank",
        "",
        "linear",
    ),
    Row(
        "a rule that matches nothing",
        given.two,
        "merge ./a ./b --for *.qq:rank=1",
        2,
        "No module matches '*.qq'",
        "",
        "layers.0.q",
    ),
    Row("a rule without a value", given.two, "merge ./a ./b --for *.q", 2, "not PATTERN:KEY=VALUE", "", "--for"),
    Row(
        "a rule with an unknown option",
        given.two,
        "merge ./a ./b --for *.q:dens=1",
        2,
        "no option 'dens'",
        "",
        "no -O at all",
    ),
    Row(
        "a recipe's rule that matches nothing",
        given.recipe("adapters: [./a, ./b]\nmodules: [{match: layers.7.q, rank: 1}]\n"),
        "merge recipe.yaml",
        2,
        "No module matches 'layers.7.q'",
        "",
        "layers.0.q",
    ),
    Row(
        "more adapters than a method takes",
        given.mixed,
        "merge ./a ./b ./c --method slerp",
        2,
        "takes 2 adapters, not 3",
        "",
        "linear",
    ),
    Row("t outside its range", given.two, "interpolate ./a ./b --at 1.5", 2, "1.5", "", "0"),
    Row(
        "statistics that nobody gave",
        given.two,
        "merge ./a ./b --method regmean",
        2,
        "needs grams of a",
        "a",
        "loramerge stats a",
    ),
    Row("statistics of no adapter", given.two, "merge ./a ./b --method regmean --data c=x", 2, "'c'", "", "a, b"),
    Row(
        "statistics that are none",
        given.two,
        "merge ./a ./b --method regmean --data a=a/adapter_model.safetensors",
        3,
        "holds no statistics",
        "a/adapter_model",
        "loramerge stats",
    ),
    Row("an adapter of zeros, linear", given.dead, "merge ./a ./b -o out", 0, "Merged", after=MADE),
    Row("an adapter of zeros, ties", given.dead, "merge ./a ./b --method ties -o out", 0, "Merged", after=MADE),
    Row(
        "an adapter of zeros, knots",
        given.dead,
        "merge ./a ./b --method knots -O inner=ties -o out",
        0,
        "Merged",
        after=MADE,
    ),
    Row("an adapter of zeros, karcher", given.dead, "merge ./a ./b --method karcher -o out", 0, "Merged", after=MADE),
    Row("an adapter of zeros, norms restored", given.dead, "merge ./a --rescale norm -o out", 0, "Merged", after=MADE),
    Row("two that cancel, linear", given.opposite, "merge ./a ./b -o out", 0, "Merged", after=MADE),
    Row("two that cancel, ties", given.opposite, "merge ./a ./b --method ties -o out", 0, "Merged", after=MADE),
    Row("two that cancel, tsv", given.opposite, "merge ./a ./b --method tsv -o out", 0, "Merged", after=MADE),
    Row("two that cancel, slerp", given.opposite, "merge ./a ./b --method slerp -o out", 0, "Merged", after=MADE),
    Row(
        "two that cancel, norms restored",
        given.opposite,
        "merge ./a ./b --rescale norm -o out",
        0,
        "Merged",
        after=MADE,
    ),
    Row("one adapter twice, knots", given.two, "merge ./a ./a --method knots -o out", 0, "Merged", after=MADE),
    Row(
        "too little memory for one tile",
        given.two,
        "merge ./a ./b --method ties --max-memory 100KB",
        2,
        "--max-memory",
        "layers",
        "MiB",
    ),
    Row(
        "full disk: dense result",
        given.small_disk,
        "merge ./a ./b --method ties -o disk/out",
        1,
        "No space left",
        "{work}/disk",
        "-o",
    ),
    # Ctrl-C
    Row("Ctrl-C: merge", given.long_merge, f"{LONG} --workers 1", 130, "Interrupted", run=ctrl_c_when_written),
    Row(
        "Ctrl-C: merge, at its start", given.long_merge, f"{LONG} --workers 1", 130, "Interrupted", run=ctrl_c_at_start
    ),
    Row("Ctrl-C: merge, threads", given.long_merge, f"{LONG} --workers 2", 130, "Interrupted", run=ctrl_c_when_written),
    Row(
        "Ctrl-C: merge, processes",
        given.long_merge,
        f"{LONG} --workers 2 --executor processes",
        130,
        "Interrupted",
        run=ctrl_c_when_written,
    ),
    Row(
        "Ctrl-C: merge, --force", given.long_merge_over, f"{LONG} --force", 130, "Interrupted", run=ctrl_c_when_written
    ),
    Row("Ctrl-C: pull", given.pull_meets("slow", 20), PULL, 130, "Interrupted", run=ctrl_c_at(given.LFS)),
    Row("Ctrl-C: push", given.push_meets("slow", 20), PUSH, 130, "Interrupted", run=ctrl_c_at(given.COMMIT)),
]


def tried(row: Row) -> tuple[Outcome, str, dict[str, str]]:
    """How the command ended, what is other than before, and what the placeholders stand for."""
    with place() as here:
        row.arrange(here)
        before = here.snapshot()
        here.faults.requests.clear()
        outcome = row.run(here, f"loramerge {row.command}")
        return outcome, difference(before, here.snapshot()), here.names


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.case)
def test_bad_input_gets_a_clear_error_and_nothing_is_lost(row):
    outcome, after, names = tried(row)

    assert (outcome.code, after) == (row.code, row.after), outcome.stderr
    assert "Traceback" not in outcome.stderr
    if row.code:
        for label, wanted in (("Error:", row.what), ("at:", row.where), ("try:", row.hint)):
            assert wanted.format(**names) in outcome.part(label), outcome.stderr
    else:
        assert outcome.line(row.what), outcome.stderr


def table(rows: Sequence[Row]) -> None:
    """All rows, really run, as a table in Markdown."""
    logging.disable()  # what the server says of connections that were cut on purpose
    print("| case | command | exit code | what it says | on disk afterwards |\n|---|---|---|---|---|")
    for row in rows:
        try:
            outcome, after, names = tried(row)
            said = outcome.line(row.what).replace(names["work"], "WORK").replace(names["home"], "HOME")
            cells = (row.case, f"`loramerge {row.command}`", outcome.code, said.replace("|", "¦"), after)
        except pytest.skip.Exception as reason:
            cells = (row.case, f"`loramerge {row.command}`", "", f"skipped: {reason}", "")
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    table(ROWS)
