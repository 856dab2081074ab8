"""Bad input gets a clear error and nothing is lost: one row for each way to go wrong.

`python tests/cli/test_bad_input.py` runs all rows and prints them as a table.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from place import NOBODY, Outcome, Place, difference, place, write_adapter
from safetensors.torch import load_file, save_file

from loramerge import api

Arrange = Callable[[Place], object]
Run = Callable[[Place, str], Outcome]


def plainly(here: Place, command: str) -> Outcome:
    return here.run(command)


@dataclass(frozen=True)
class Row:
    """A case: what lies there, the command, and how it has to end.

    `what`, `where` and `hint` are parts of the error's lines; an error without a `where` or `hint`
    has no such line. A command that succeeds says `what` somewhere. `after` is what is then other
    on disk and on the Hub.
    """

    case: str
    arrange: Arrange
    command: str
    code: int
    what: str
    where: str = ""
    hint: str = ""
    after: str = "as before"
    run: Run = plainly


# What lies there


def nothing(here: Place) -> None:
    pass


def two(here: Place) -> None:
    """./a and ./b, of one base and of ranks 4 and 2."""
    write_adapter(here.work / "a", rank=4, seed=1)
    write_adapter(here.work / "b", rank=2, seed=2)


def locked(here: Place) -> None:
    """Both recorded in the lock."""
    two(here)
    api.pull(here.session, ["./a", "./b"])


def merged(here: Place) -> None:
    """And a result of both in ./out."""
    locked(here)
    api.merge(here.session, out=Path("out"))


def copied(here: Place) -> None:
    """./a recorded, and copied to ./to/a."""
    two(here)
    api.pull(here.session, ["./a"], to=Path("to"))


def copied_and_changed(here: Place) -> None:
    copied(here)
    change_config(here.work / "to" / "a", r=5)


def other_base(here: Place) -> None:
    two(here)
    write_adapter(here.work / "b", base="acme/other")


def other_shape(here: Place) -> None:
    two(here)
    write_adapter(here.work / "b", shape=(8, 16))


def mixed(here: Place) -> None:
    write_adapter(here.work / "a", rank=1, dtype=torch.float16)
    write_adapter(here.work / "b", rank=3, use_rslora=True)
    write_adapter(here.work / "c", rank=6, dtype=torch.float64)


def dora(here: Place) -> None:
    two(here)
    weights = here.work / "a" / "adapter_model.safetensors"
    tensors = load_file(weights)
    for layer in (0, 1):
        key = f"base_model.model.layers.{layer}.q"
        tensors[f"{key}.lora_magnitude_vector"] = tensors[f"{key}.lora_B.weight"][:, 0].clone()
    save_file(tensors, weights, {"format": "pt"})
    change_config(here.work / "a", use_dora=True)


def uneven(here: Place) -> None:
    """Six units in two modules, four in the third."""
    two(here)
    write_adapter(here.work / "a", layers=3)


def not_a_number(here: Place) -> None:
    two(here)
    weights = here.work / "a" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8] + b"\xff" * 8)


def empty(here: Place) -> None:
    two(here)
    write_adapter(here.work / "a", layers=0)


def cut_weights(here: Place) -> None:
    two(here)
    weights = here.work / "a" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def broken_config(here: Place) -> None:
    two(here)
    (here.work / "a" / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4,')


def no_rank(here: Place) -> None:
    two(here)
    change_config(here.work / "a", r="four")


def broken_lock(here: Place) -> None:
    locked(here)
    lock = here.work / "loramerge.lock"
    lock.write_text(lock.read_text().replace("sha256", "sha257", 1))


def newer_lock(here: Place) -> None:
    locked(here)
    lock = here.work / "loramerge.lock"
    lock.write_text(lock.read_text().replace("schema = 1", "schema = 9"))


def changed_source(here: Place) -> None:
    locked(here)
    write_adapter(here.work / "a", seed=99)


def half_a_lock(here: Place) -> None:
    locked(here)
    lock = here.work / "loramerge.lock"
    lock.write_bytes(lock.read_bytes()[:-40])


def only_a_pickle(here: Place) -> None:
    two(here)
    weights = here.work / "a" / "adapter_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()


def a_recipe(text: str) -> Arrange:
    def arrange(here: Place) -> None:
        two(here)
        (here.work / "recipe.yaml").write_text(text)

    return arrange


def a_folder_of_mine(here: Place) -> None:
    two(here)
    (here.work / "out").mkdir()
    (here.work / "out" / "thesis.tex").write_text("years of work")


def a_file_as_output(here: Place) -> None:
    two(here)
    (here.work / "out").write_text("years of work")


def read_only(here: Place) -> None:
    locked(here)
    (here.work / "theirs").mkdir()
    (here.work / "theirs").chmod(0o555)


def read_only_workspace(here: Place) -> None:
    two(here)
    here.work.chmod(0o555)


def then_not_a_number(here: Place) -> None:
    """The lock pins ./a as it is, with NaN in it."""
    merged(here)
    not_a_number(here)
    api.pull(here.session, ["./a"])


def big(here: Place) -> None:
    for name in "ab":
        write_adapter(here.work / name, rank=64, shape=(256, 256))


def small_disk(here: Place) -> None:
    """./disk has room for a little only."""
    big(here)
    mount(here, here.work / "disk")


def full_disk(here: Place) -> None:
    """./disk has room for nothing; the lock there is as old as the disk."""
    two(here)
    mount(here, here.work / "disk")
    api.pull(replace(here.session, folder=here.work / "disk"), ["../b"])
    with suppress(OSError), (here.work / "disk" / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def small_cache(here: Place) -> None:
    big_on_hub(here)
    mount(here, here.home / "hub")


def big_on_hub(here: Place) -> None:
    published(here, rank=64, shape=(256, 256))


def published(here: Place, **options: object) -> None:
    """me/math is on the Hub, and the lock holds ./a."""
    write_adapter(here.work / "a", seed=1)
    api.pull(here.session, ["./a"])
    publish(here, "me/math", **options)


def pulled(here: Place) -> None:
    published(here)
    api.pull(here.session, ["me/math"])


def gated(here: Place) -> None:
    published(here)
    here.api.update_repo_settings("me/math", gated="manual")
    here.token = ""


def private(here: Place) -> None:
    published(here, private=True)
    here.token = ""


def wrong_token(here: Place) -> None:
    published(here)
    here.token = "hf_" + "x" * 34


def deleted(here: Place) -> None:
    pulled(here)
    here.api.delete_repo("me/math")


def renamed(here: Place) -> None:
    published(here)
    here.api.move_repo("me/math", "me/maths")


def two_of_one_name(here: Place) -> None:
    pulled(here)
    publish(here, "acme/math", seed=5)


def moved_tag(here: Place) -> None:
    published(here)
    here.api.create_tag("me/math", tag="v1")
    api.pull(here.session, ["me/math@v1"])
    publish(here, "me/math", seed=9)
    here.api.delete_tag("me/math", tag="v1")
    here.api.create_tag("me/math", tag="v1")


def corrupted_cache(here: Place) -> None:
    pulled(here)
    (weights,) = (here.home / "hub").glob("models--me--math/snapshots/*/adapter_model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.resolve().write_bytes(data)


def to_push(here: Place) -> None:
    """A result in ./out, and on the Hub me/out with something older in it."""
    merged(here)
    publish(here, "me/out", seed=3)


def changed_result(here: Place) -> None:
    to_push(here)
    change_config(here.work / "out", r=5)


def long_merge(here: Place) -> None:
    """A merge that takes a while."""
    for seed, name in enumerate("ab"):
        write_adapter(here.work / name, rank=16, shape=(64, 64), layers=400, seed=seed)


def long_merge_over(here: Place) -> None:
    """The same over a result."""
    merged(here)
    long_merge(here)


def to_push_elsewhere(here: Place) -> None:
    from loramerge.hub.server.serve import add_user

    to_push(here)
    add_user(here.root / "hub", "you")


def then(arrange: Arrange, fault: str, pattern: str, *numbers: float, times: int = 99, **headers: str) -> Arrange:
    """That, and a fault in front of the Hub from then on."""

    def arranged(here: Place) -> None:
        arrange(here)
        getattr(here.faults, fault)(pattern, *numbers, times=times, **headers)

    return arranged


def cut_upload(here: Place) -> None:
    """The connection breaks while a file is sent, and the Hub does not come back to its senses."""
    then(to_push, "cut", "PUT ", times=1)(here)
    here.faults.refuse("PUT ", times=99, retry_after="0")


# Pieces of the above


def change_config(folder: Path, **fields: object) -> None:
    config = folder / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **fields}))


def publish(here: Place, repo: str, private: bool = False, **options: Any) -> None:
    folder = write_adapter(here.root / "published", **{"seed": 7, **options})
    here.api.create_repo(repo, private=private, exist_ok=True)
    here.api.upload_folder(repo_id=repo, folder_path=folder)


def mount(here: Place, folder: Path) -> None:
    """A file system with room for 100 KB; the case is skipped where none can be mounted."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k,mode=777", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("no file system can be mounted here")
    here.stack.callback(subprocess.run, ["umount", "-l", folder], check=True)


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

PULL, PUSH = "loramerge pull me/math", "loramerge push me/out"
FORCED = "loramerge merge ./a ./b -o out --force"
LONG = "loramerge lego ./a ./b --k 8 -o out"
NOBODY_THERE = "--endpoint http://127.0.0.1:9"
LFS, COMMIT = "GET .*/lfs/", "POST .*/commit/"

MADE, REPLACED, PUSHED = "+loramerge.lock +out/", "~loramerge.lock ~out/", "~hub/me/out"
PULLED = "+cache/adapter_model.safetensors ~loramerge.lock"
ANOTHER = "~cache/adapter_model.safetensors ~loramerge.lock"

ROWS = [
    # Adapters that do not go together
    Row(
        "no adapters", nothing, "loramerge merge", 2, "no adapters to work on", "{work}", "loramerge pull USER/ADAPTER"
    ),
    Row("no sources to restore", nothing, "loramerge pull", 2, "nothing to restore", "{work}/loramerge.lock", "pull"),
    Row("different bases", other_base, "loramerge merge ./a ./b", 4, "acme/base and acme/other", "a, b", "--base"),
    Row(
        "a base that is none of theirs",
        a_recipe("adapters: [./a, ./b]\nbase: acme/other\n"),
        "loramerge merge recipe.yaml",
        4,
        "acme/other and acme/base",
        "a",
        "--allow-base-mismatch",
    ),
    Row("shapes that disagree", other_shape, "loramerge merge ./a ./b", 4, "8×8 and linear 8×16", "a, b", "one base"),
    Row(
        "shapes that disagree, bases allowed to",
        other_shape,
        "loramerge merge ./a ./b --allow-base-mismatch",
        4,
        "8×8 and linear 8×16",
        "a, b",
        "one base",
    ),
    Row("an empty adapter", empty, "loramerge merge ./a ./b", 3, "None of its 0 tensors", "{work}/a/", "full model"),
    Row("DoRA", dora, "loramerge merge ./a ./b", 4, "DoRA update depends on the base", "a", "--dora factors"),
    Row("DoRA, factors only", dora, "loramerge merge ./a ./b --dora factors -o out", 0, "Merged", after=MADE),
    Row("one adapter", two, "loramerge lego ./a --k 2 -o out", 0, "Merged", after=MADE),
    Row("mixed ranks and types", mixed, "loramerge merge ./a ./b ./c -o out", 0, "Merged", after=MADE),
    Row("one adapter twice", two, "loramerge merge ./a ./a -o out", 0, "Merged", after=MADE),
    # Options
    Row("k < 1", two, "loramerge lego ./a ./b --k 0", 2, "k is 0, below 1", "", "1 or more"),
    Row("k above all units", two, "loramerge lego ./a ./b --k 100", 2, "no module has more than 6 units", "", "--k 6"),
    Row("k above some units", uneven, "loramerge lego ./a ./b --k 5 -o out", 0, "keep them all", after=MADE),
    Row(
        "unknown method",
        two,
        "loramerge merge ./a ./b --method liner",
        2,
        "no merge method named 'liner'",
        "",
        "linear",
    ),
    Row("unknown option", two, "loramerge merge ./a ./b --method lego -O kk=3", 2, "no option 'kk'", "", "k"),
    Row("option of a wrong type", two, "loramerge merge ./a ./b --method lego -O k=x", 2, "'x', which is not a whole"),
    Row("unknown flag", two, "loramerge merge ./a ./b --methd lego", 2, "No such option '--methd'", "", "merge --help"),
    Row("unknown command", two, "loramerge lgo ./a ./b", 2, "no command named 'lgo'", "", "lego"),
    Row("unknown rank rule", two, "loramerge merge ./a ./b --rank big", 2, "'big' is not a rank", "", "sum"),
    Row("too few weights", two, "loramerge merge ./a ./b -w 1", 2, "1 weights for 2 adapters", "a, b", "one -w each"),
    Row("weight of a stranger", two, "loramerge merge ./a ./b -w c=1", 2, "No adapter here is named 'c'", "", "a, b"),
    Row("too little memory", two, "loramerge merge ./a ./b --max-memory 1KB", 2, "--max-memory", "layers", "MiB"),
    Row("no such folder", two, "loramerge merge ./a ./bb", 5, "no such folder", "{work}/bb", "{work}/b"),
    Row("a name for a path", two, "loramerge merge a b", 2, "no adapter named 'a'", "{work}", "./a, for the path"),
    Row("a name misspelt", locked, "loramerge show aa", 2, "no adapter named 'aa'", "{work}", "a"),
    Row(
        "a result named as a source", locked, "loramerge merge -o x/a", 2, "the name of a source", "lock", "another -o"
    ),
    Row(
        "a recipe with an unknown key",
        a_recipe("adapters: [./a, ./b]\nmethods: lego\n"),
        "loramerge merge recipe.yaml",
        3,
        "'methods'",
        "recipe.yaml",
        "method",
    ),
    Row(
        "a recipe with a wrong type",
        a_recipe("adapters: [./a, ./b]\nscale: big\n"),
        "loramerge merge recipe.yaml",
        3,
        "scale is 'big'",
        "recipe.yaml",
    ),
    Row(
        "a recipe without adapters",
        a_recipe("method: lego\n"),
        "loramerge merge recipe.yaml",
        3,
        "lists its adapters",
        "recipe.yaml",
        "adapters:",
    ),
    Row("a recipe cut off", a_recipe("adapters: [./a,\n"), "loramerge merge recipe.yaml", 3, "YAML", "recipe.yaml:2"),
    Row("no recipe", two, "loramerge merge recipe.yaml", 2, "cannot be read", "recipe.yaml"),
    # Files
    Row(
        "NaN", not_a_number, "loramerge merge ./a ./b", 3, "holds 2 elements that are NaN", "{work}/a/", "leave it out"
    ),
    Row("truncated safetensors", cut_weights, "loramerge merge ./a ./b", 3, "file is cut off", "{work}/a/", "again"),
    Row(
        "damaged config", broken_config, "loramerge merge ./a ./b", 3, "not valid JSON", "{work}/a/adapter_config.json"
    ),
    Row("config of a wrong type", no_rank, "loramerge merge ./a ./b", 3, "r is 'four'", "{work}/a/adapter_config.json"),
    Row("a pickle", only_a_pickle, "loramerge merge ./a ./b", 3, "can run code", "adapter_model.bin", "--allow-pickle"),
    Row("a pickle, allowed", only_a_pickle, "loramerge merge ./a ./b --allow-pickle -o out", 0, "Merged", after=MADE),
    Row("no adapter in a folder", a_folder_of_mine, "loramerge pull ./out", 3, "thesis.tex", "{work}/out", "PEFT"),
    Row("damaged lock", broken_lock, "loramerge ls", 7, "lock is damaged", "{work}/loramerge.lock", "git checkout"),
    Row(
        "truncated lock", half_a_lock, "loramerge pull ./a", 7, "lock is damaged", "{work}/loramerge.lock", "delete it"
    ),
    Row("a lock from the future", newer_lock, "loramerge ls", 7, "schema is not 1", "{work}/loramerge.lock", "newer"),
    Row(
        "a changed local source", changed_source, "loramerge merge", 7, "is not what was pinned", "{work}/a", "pull ./"
    ),
    # Outputs
    Row("output exists", merged, "loramerge merge -o out", 2, "output is there already", "{work}/out", "--force"),
    Row("output exists, --force", merged, "loramerge lego --k 3 -o out --force", 0, "Merged", after=REPLACED),
    Row(
        "output of mine", a_folder_of_mine, "loramerge merge ./a ./b -o out", 2, "is there already", "{work}/out", "-o"
    ),
    Row(
        "output of mine, --force", a_folder_of_mine, FORCED, 2, "not a result, and is not replaced", "out", "another -o"
    ),
    Row(
        "output is a file, --force", a_file_as_output, FORCED, 2, "not a result, and is not replaced", "out", "another"
    ),
    Row("--force, and the merge fails", then_not_a_number, FORCED, 3, "NaN", "{work}/a/", "leave it out"),
    Row(
        "read-only output",
        read_only,
        "loramerge merge -o theirs/out",
        1,
        "cannot be written: Permission denied",
        "{work}/theirs/out",
        "-o",
        run=as_nobody,
    ),
    Row(
        "read-only workspace: pull",
        read_only_workspace,
        "loramerge pull ./a",
        1,
        "lock cannot be written: Permission denied",
        "{work}/loramerge.lock",
        "-C",
        run=as_nobody,
    ),
    Row(
        "read-only workspace: merge",
        read_only_workspace,
        "loramerge merge ./a ./b",
        1,
        "cannot be written: Permission denied",
        "{work}/linear-4",
        "-o",
        run=as_nobody,
    ),
    Row(
        "full disk: output", small_disk, "loramerge merge ./a ./b -o disk/out", 1, "No space left", "{work}/disk", "-o"
    ),
    Row(
        "full disk: workspace", small_disk, "loramerge -C disk merge ../a ../b", 1, "No space left", "{work}/disk", "-o"
    ),
    Row(
        "full disk: lock", full_disk, "loramerge -C disk pull ../a", 1, "lock cannot be written: No space", "disk", "-C"
    ),
    Row("full disk: cache", small_cache, "loramerge pull me/math", 1, "102,400 are free", "{home}/hub", "HF_HOME"),
    Row(
        "file limit: output",
        big,
        "loramerge merge ./a ./b -o out",
        1,
        "cannot be written: File too large",
        "{work}/out",
        "-o",
        run=with_small_files,
    ),
    Row(
        "file limit: cache",
        big_on_hub,
        "loramerge pull me/math",
        1,
        "cannot be stored: File too large",
        "cache",
        "HF_HOME",
        run=with_small_files,
    ),
    Row("a copy that is there", copied, "loramerge pull ./a --to to", 0, "a"),
    Row(
        "a copy over other files",
        copied_and_changed,
        "loramerge pull ./a --to to",
        2,
        "is there already",
        "/to/a",
        "--to",
    ),
    # The Hub
    Row("missing repo", published, "loramerge pull me/nothing", 5, "There is no me/nothing", "{url}", "spelling"),
    Row("one of two repos missing", published, "loramerge pull me/math me/no", 5, "no me/no", "{url}", after=PULLED),
    Row("missing revision", published, "loramerge pull me/math@v9", 5, "not have the revision", "{url}", "branch, tag"),
    Row("missing folder", published, "loramerge pull me/math:best", 5, "no folder 'best'"),
    Row(
        "gated repo", gated, "loramerge pull me/math", 5, "me/math is gated", "{url}", "ask for access at {url}/me/math"
    ),
    Row("private repo", private, "loramerge pull me/math", 5, "or it is private", "{url}", "hf auth login"),
    Row("deleted repo", deleted, "loramerge pull me/math", 5, "There is no me/math", "{url}", "spelling"),
    Row("deleted repo, pinned before", deleted, "loramerge pull", 0, "math"),
    Row("renamed repo", renamed, "loramerge pull me/math", 0, "me/math is now called me/maths", after=PULLED),
    Row("wrong token", wrong_token, "loramerge pull me/math", 5, "does not accept the token", "{url}", "hf auth login"),
    Row(
        "ambiguous name", two_of_one_name, "loramerge pull acme/math", 2, "name of me/math already", "lock", "--as NAME"
    ),
    Row("ambiguous name, --as", two_of_one_name, "loramerge pull acme/math --as other", 0, "other", after=ANOTHER),
    Row("moved tag", moved_tag, "loramerge pull --frozen", 7, "v1 of me/math is not what", "math", "pull me/math@v1"),
    Row("moved tag, not frozen", moved_tag, "loramerge pull", 0, "math"),
    Row(
        "pull cut half-way",
        then(published, "reset", LFS),
        PULL,
        6,
        "connection failed",
        "{url}",
        "network",
    ),
    Row("Hub dies during a pull", then(published, "refuse", LFS), PULL, 6, "(503", "{url}", "later"),
    Row(
        "corrupted bytes",
        then(published, "flip", LFS),
        PULL,
        7,
        "they were removed",
        "adapter_model",
        "pull",
    ),
    Row("a truncated file", then(published, "truncate", LFS), PULL, 7, "not whole", "{url}", "pull again"),
    Row(
        "corrupted cache: merge",
        corrupted_cache,
        "loramerge merge",
        7,
        "not what was pinned",
        "{home}",
        "loramerge pull",
    ),
    Row(
        "corrupted cache: verify",
        corrupted_cache,
        "loramerge verify",
        7,
        "not what the lock pins",
        "{home}",
        "pull math",
    ),
    Row(
        "Hub down: pull",
        published,
        f"{PULL} {NOBODY_THERE}",
        6,
        "connection failed",
        "http://127.0.0.1:9",
        "--endpoint",
    ),
    Row("Hub down, pinned before", pulled, f"loramerge pull {NOBODY_THERE}", 0, "math"),
    Row(
        "--offline", published, "loramerge --offline pull me/math", 6, "--offline forbids", "{url}", "without --offline"
    ),
    Row("--offline, pinned before", pulled, "loramerge --offline pull", 0, "math"),
    Row("push cut half-way: upload", cut_upload, PUSH, 6, "(503", "{url}", "later"),
    Row("push cut half-way: commit", then(to_push, "cut", COMMIT), PUSH, 6, "connection failed", "{url}", "network"),
    Row("push whose answer is lost", then(to_push, "drop", COMMIT), PUSH, 0, "after the commit was made", after=PUSHED),
    Row("Hub dies during a push", then(to_push, "refuse", COMMIT), PUSH, 6, "(503", "{url}", "later"),
    Row("push of a changed result", changed_result, PUSH, 7, "not what the lock pins", "{work}/out", "--force"),
    Row("push to another's name", to_push_elsewhere, "loramerge push you/out", 5, "may not", "{url}", "hf auth login"),
    Row("push without a result", locked, "loramerge push me/out", 2, "no result in this", "{work}", "loramerge merge"),
    Row(
        "Hub down: push", to_push, f"{PUSH} {NOBODY_THERE}", 6, "connection failed", "http://127.0.0.1:9", "--endpoint"
    ),
    # Ctrl-C
    Row("Ctrl-C: merge", long_merge, f"{LONG} --workers 1", 130, "Interrupted", run=ctrl_c_when_written),
    Row("Ctrl-C: merge, at its start", long_merge, f"{LONG} --workers 1", 130, "Interrupted", run=ctrl_c_at_start),
    Row("Ctrl-C: merge, threads", long_merge, f"{LONG} --workers 2", 130, "Interrupted", run=ctrl_c_when_written),
    Row(
        "Ctrl-C: merge, processes",
        long_merge,
        f"{LONG} --workers 2 --executor processes",
        130,
        "Interrupted",
        run=ctrl_c_when_written,
    ),
    Row("Ctrl-C: merge, --force", long_merge_over, f"{LONG} --force", 130, "Interrupted", run=ctrl_c_when_written),
    Row("Ctrl-C: pull", then(published, "slow", LFS, 20), PULL, 130, "Interrupted", run=ctrl_c_at(LFS)),
    Row("Ctrl-C: push", then(to_push, "slow", COMMIT, 20), PUSH, 130, "Interrupted", run=ctrl_c_at(COMMIT)),
]


def tried(row: Row) -> tuple[Outcome, str, dict[str, str]]:
    """How the command ended, what is other than before, and what the placeholders stand for."""
    with place() as here:
        row.arrange(here)
        before = here.snapshot()
        here.faults.requests.clear()
        outcome = row.run(here, row.command)
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


def table() -> None:
    """All rows, really run, as a table in Markdown."""
    logging.disable()  # what the server says of connections that were cut on purpose
    print("| case | command | exit code | what it says | on disk afterwards |\n|---|---|---|---|---|")
    for row in ROWS:
        try:
            outcome, after, names = tried(row)
            said = outcome.line(row.what).replace(names["work"], "WORK").replace(names["home"], "HOME")
            cells = (row.case, f"`{row.command}`", outcome.code, said.replace("|", "¦"), after)
        except pytest.skip.Exception as reason:
            cells = (row.case, f"`{row.command}`", "", f"skipped: {reason}", "")
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    table()
