"""What can lie at a place before a command is run: adapters, locks, results, repos on the Hub, and what is wrong there.

An arrangement is a function of the place; functions that take anything else return one.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from place import Place, write_adapter  # first: it puts the folders of the next two on the path

# isort: split
from adapters import CONFIG, WEIGHTS
from changes import Tensors, change_config, change_tensors
from safetensors.torch import load_file

from loramerge import api

Arrange = Callable[[Place], object]
LOCK = "loramerge.lock"
LFS, COMMIT = "GET .*/lfs/", "POST .*/commit/"
"""The requests for weights, and those that make a commit."""


def in_turn(*steps: Arrange) -> Arrange:
    """One after the other."""

    def arrange(here: Place) -> None:
        for step in steps:
            step(here)

    return arrange


# On this machine, and nothing wrong


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


def mixed(here: Place) -> None:
    """Three of other ranks, types and scales."""
    write_adapter(here.work / "a", rank=1, dtype=torch.float16)
    write_adapter(here.work / "b", rank=3, use_rslora=True)
    write_adapter(here.work / "c", rank=6, dtype=torch.float64)


def dora(here: Place) -> None:
    """./a has DoRA magnitudes."""

    def with_magnitudes(tensors: Tensors) -> Tensors:
        columns = {key: tensor[:, 0].clone() for key, tensor in tensors.items() if "lora_B" in key}
        return tensors | {key.replace("lora_B.weight", "lora_magnitude_vector"): c for key, c in columns.items()}

    two(here)
    change_tensors(here.work / "a", with_magnitudes)
    change_config(here.work / "a", use_dora=True)


def only_a_pickle(here: Place) -> None:
    """./a has its weights as a pickle."""
    two(here)
    weights = here.work / "a" / WEIGHTS
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()


def big(here: Place) -> None:
    """./a and ./b, of 256 KB each."""
    for name in "ab":
        write_adapter(here.work / name, rank=64, shape=(256, 256))


def long_merge(here: Place) -> None:
    """A merge that takes a while."""
    for seed, name in enumerate("ab"):
        write_adapter(here.work / name, rank=16, shape=(64, 64), layers=400, seed=seed)


long_merge_over = in_turn(merged, long_merge)


# Other than it should be


def adapter(name: str, **what: Any) -> Arrange:
    """An adapter in that folder, over one that is there."""
    return lambda here: write_adapter(here.work / name, **what)


def config(name: str, **fields: object) -> Arrange:
    """Other fields in that adapter's config."""
    return lambda here: change_config(here.work / name, **fields)


def file(path: str, change: Callable[[bytes], bytes]) -> Arrange:
    """Other bytes in that file."""

    def arrange(here: Place) -> None:
        (here.work / path).write_bytes(change((here.work / path).read_bytes()))

    return arrange


def text(path: str, content: str) -> Arrange:
    """A file with that text."""

    def arrange(here: Place) -> None:
        (here.work / path).parent.mkdir(exist_ok=True)
        (here.work / path).write_text(content)

    return arrange


def recipe(content: str) -> Arrange:
    """./a, ./b, and a recipe with that text."""
    return in_turn(two, text("recipe.yaml", content))


def dead(here: Place) -> None:
    """./a is an update of zero: its B is."""
    two(here)
    change_tensors(here.work / "a", lambda found: {k: t * (0.0 if "lora_B" in k else 1.0) for k, t in found.items()})


def opposite(here: Place) -> None:
    """./b is minus ./a."""
    two(here)
    write_adapter(here.work / "b", rank=4, seed=1)
    change_tensors(here.work / "b", lambda found: {k: t * (-1.0 if "lora_B" in k else 1.0) for k, t in found.items()})


other_base = in_turn(two, adapter("b", base="acme/other"))
other_shape = in_turn(two, adapter("b", shape=(8, 16)))
uneven = in_turn(two, adapter("a", layers=3))  # six units in two modules, four in the third
empty = in_turn(two, adapter("a", layers=0))
changed_source = in_turn(locked, adapter("a", seed=99))

no_rank = in_turn(two, config("a", r="four"))
copied_and_changed = in_turn(copied, config("to/a", r=5))

not_a_number = in_turn(two, file(f"a/{WEIGHTS}", lambda data: data[:-8] + b"\xff" * 8))
cut_weights = in_turn(two, file(f"a/{WEIGHTS}", lambda data: data[:-100]))
broken_lock = in_turn(locked, file(LOCK, lambda data: data.replace(b"sha256", b"sha257", 1)))
newer_lock = in_turn(locked, file(LOCK, lambda data: data.replace(b"schema = 1", b"schema = 9")))
half_a_lock = in_turn(locked, file(LOCK, lambda data: data[:-40]))

broken_config = in_turn(two, text(f"a/{CONFIG}", '{"peft_type": "LORA", "r": 4,'))
a_folder_of_mine = in_turn(two, text("out/thesis.tex", "years of work"))
a_file_as_output = in_turn(two, text("out", "years of work"))


def then_not_a_number(here: Place) -> None:
    """A result of both in ./out; since then ./a has NaN in it, and the lock pins it so."""
    in_turn(merged, not_a_number)(here)
    api.pull(here.session, ["./a"])


# Nowhere to write


def mount(here: Place, folder: Path) -> None:
    """A file system with room for 100 KB; the case is skipped where none can be mounted."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k,mode=777", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("no file system can be mounted here")
    here.stack.callback(subprocess.run, ["umount", "-l", folder], check=True)


def read_only(here: Place) -> None:
    locked(here)
    (here.work / "theirs").mkdir()
    (here.work / "theirs").chmod(0o555)


def read_only_workspace(here: Place) -> None:
    two(here)
    here.work.chmod(0o555)


def full_disk(here: Place) -> None:
    """./disk has room for nothing; the lock there is as old as the disk."""
    two(here)
    mount(here, here.work / "disk")
    api.pull(replace(here.session, folder=here.work / "disk"), ["../b"])
    with suppress(OSError), (here.work / "disk" / "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass


small_disk = in_turn(big, lambda here: mount(here, here.work / "disk"))  # ./disk has room for a little only


# On the Hub


def publish(here: Place, repo: str, private: bool = False, **what: Any) -> None:
    folder = write_adapter(here.root / "published", **{"seed": 7, **what})
    here.api.create_repo(repo, private=private, exist_ok=True)
    here.api.upload_folder(repo_id=repo, folder_path=folder)


def published(here: Place, **options: Any) -> None:
    """me/math is on the Hub, and the lock holds ./a."""
    write_adapter(here.work / "a", seed=1)
    api.pull(here.session, ["./a"])
    publish(here, "me/math", **options)


def big_on_hub(here: Place) -> None:
    published(here, rank=64, shape=(256, 256))


small_cache = in_turn(big_on_hub, lambda here: mount(here, here.home / "hub"))


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
    (weights,) = (here.home / "hub").glob(f"models--me--math/snapshots/*/{WEIGHTS}")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.resolve().write_bytes(data)


def to_push(here: Place) -> None:
    """A result in ./out, and on the Hub me/out with something older in it."""
    merged(here)
    publish(here, "me/out", seed=3)


def to_push_elsewhere(here: Place) -> None:
    """And another user of the Hub, "you"."""
    from loramerge.hub.server.serve import add_user

    to_push(here)
    add_user(here.root / "hub", "you")


changed_result = in_turn(to_push, config("out", r=5))


# A Hub with faults


def fault(kind: str, pattern: str, *numbers: float, **options: Any) -> Arrange:
    """That method of `Faults`, for all requests from then on."""
    return lambda here: getattr(here.faults, kind)(pattern, *numbers, **{"times": 99, **options})


def pull_meets(kind: str, *numbers: float) -> Arrange:
    return in_turn(published, fault(kind, LFS, *numbers))


def push_meets(kind: str, *numbers: float) -> Arrange:
    return in_turn(to_push, fault(kind, COMMIT, *numbers))


# The connection breaks while a file is sent, and the Hub does not come back to its senses.
cut_upload = in_turn(to_push, fault("cut", "PUT ", times=1), fault("refuse", "PUT ", retry_after="0"))
