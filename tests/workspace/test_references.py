from __future__ import annotations

import pytest

from loramerge.core.provenance import FilePin
from loramerge.errors import NotFound, UnknownName, UsageError
from loramerge.hub.reference import HubRef
from loramerge.workspace.lock import Entry
from loramerge.workspace.references import resolve
from loramerge.workspace.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path)
    pins = (FilePin("adapter_config.json", 1, "a" * 64),)
    workspace.add(Entry("math-lora", "source", pins, repo="acme/math-lora", commit="c" * 40))
    return workspace


@pytest.mark.parametrize("text", ["./mine", "../other", "/", "~", ".", "..", "./a/../mine"])
def test_what_begins_like_a_path_is_one(workspace, text):
    for folder in ("mine", "a", "../other"):
        (workspace.root / folder).mkdir(exist_ok=True)

    found = resolve(text, workspace)

    assert found.is_absolute()
    assert found.is_dir()


def test_a_path_that_is_not_there_is_not_found(workspace):
    with pytest.raises(NotFound, match="no such folder"):
        resolve("./nowhere", workspace)


def test_a_short_name_is_a_name_of_the_workspace(workspace):
    assert resolve("math-lora", workspace).repo == "acme/math-lora"


def test_a_short_name_wins_over_a_folder_of_that_name(workspace):
    (workspace.root / "math-lora").mkdir()

    assert isinstance(resolve("math-lora", workspace), Entry)


def test_an_unknown_short_name_offers_its_neighbours(workspace):
    with pytest.raises(UnknownName) as caught:
        resolve("maths-lora", workspace)

    assert caught.value.hint == "math-lora"


def test_a_folder_named_without_its_dot_is_told_how_to_be_named(workspace):
    (workspace.root / "mine").mkdir()

    with pytest.raises(UnknownName) as caught:
        resolve("mine", workspace)

    assert caught.value.hint.startswith("./mine")


HUB = {
    "acme/code": HubRef("acme/code"),
    "acme/code@v2": HubRef("acme/code", "v2"),
    "acme/code@refs/pr/1": HubRef("acme/code", "refs/pr/1"),
    "acme/code:best": HubRef("acme/code", None, "best"),
    "acme/code@feature/x:deep/er": HubRef("acme/code", "feature/x", "deep/er"),
    "hf://acme/code@v2/best": HubRef("acme/code", "v2", "best"),
}


@pytest.mark.parametrize("text", HUB)
def test_everything_else_is_a_repo_of_the_hub(workspace, text):
    assert resolve(text, workspace) == HUB[text]


def test_a_folder_in_a_repo_names_the_adapter():
    assert HubRef("acme/code", "v2", "deep/er").name == "er"
    assert str(HubRef("acme/code", "v2", "deep/er")) == "acme/code@v2:deep/er"


@pytest.mark.parametrize(
    "text",
    [
        "a/b/c",
        "a/b@",
        "a/b:",
        "a/b@..",
        "a/b@x y",
        "a/b@v1?x=1",
        "a/b:../x",
        "a/b:/etc",
        "a/b:x\\y",
        "a/b:CON",
        "a/b\x1b[2J",
        "a/b\n",
        "-a/b",
        "a/--b",
        "hf://datasets/a/b",
        "https://example.org/a/b",
        "a/" + "b" * 200,
    ],
)
def test_hostile_text_is_refused_without_being_echoed_raw(workspace, text):
    with pytest.raises(UsageError) as caught:
        resolve(text, workspace)

    assert caught.value.message.isprintable()
    assert "user/name" in caught.value.hint
