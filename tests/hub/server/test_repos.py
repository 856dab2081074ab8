from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from loramerge.errors import BadOption
from loramerge.hub.server.serve import add_user


def test_a_user_is_told_who_they_are(api, other, nobody):
    api.create_repo("acme/shared")

    me = api.whoami()

    assert (me["name"], me["auth"]["accessToken"]["role"]) == ("me", "write")
    assert [org["name"] for org in me["orgs"]] == ["acme"]
    assert other.whoami()["name"] == "you"


@pytest.mark.parametrize("token", ["hf_wrongwrongwrong", "not-a-token"])
def test_a_wrong_token_is_refused_everywhere(http, adapter, token):
    http.headers["Authorization"] = f"Bearer {token}"

    answers = [http.get("/api/whoami-v2"), http.get("/api/models"), http.get(f"/{adapter[0]}/resolve/main/README.md")]

    assert [answer.status_code for answer in answers] == [401, 401, 401]
    assert {answer.headers["x-error-message"] for answer in answers} == {"Invalid credentials in Authorization header"}


def test_nobody_may_read_what_is_public_and_write_nothing(api, nobody, adapter, http, tmp_path):
    repo, _ = adapter
    del http.headers["Authorization"]

    assert nobody.model_info(repo).sha == api.model_info(repo).sha
    assert nobody.hf_hub_download(repo, "adapter_model.safetensors", cache_dir=tmp_path)
    writes = [
        http.post("/api/repos/create", json={"name": "x"}),
        http.post(f"/api/models/{repo}/commit/main", content=b"{}"),
        http.post(f"/api/models/{repo}/preupload/main", json={"files": []}),
        http.post(f"/{repo}.git/info/lfs/objects/batch", json={"operation": "upload", "objects": []}),
        http.put(f"/api/models/{repo}/settings", json={"private": True}),
        http.post(f"/api/models/{repo}/tag/main", json={"tag": "v1"}),
        http.post("/api/repos/move", json={"fromRepo": repo, "toRepo": "me/moved"}),
        http.request("DELETE", "/api/repos/delete", json={"name": repo.split("/")[1], "organization": "me"}),
    ]
    assert [answer.status_code for answer in writes] == [401] * len(writes)


def test_nobody_cannot_send_much(http):
    del http.headers["Authorization"]

    assert http.post("/api/validate-yaml", content=b"x" * 2_000_000).status_code == 413


def test_a_private_repo_is_not_there_for_others(api, other, nobody, adapter, tmp_path):
    repo, _ = adapter
    api.update_repo_settings(repo, private=True)

    for stranger, status in ((other, 404), (nobody, 401)):
        for ask in (
            lambda api: api.model_info(repo),
            lambda api: api.hf_hub_download(repo, "README.md", cache_dir=tmp_path),
            lambda api: api.auth_check(repo),
            lambda api: api.get_paths_info(repo, "README.md"),
        ):
            with pytest.raises(RepositoryNotFoundError) as caught:
                ask(stranger)
            assert caught.value.response.status_code == status
        assert repo not in [model.id for model in stranger.list_models()]
    assert api.model_info(repo).private
    assert repo in [model.id for model in api.list_models()]


def test_a_repo_may_be_private_from_the_start(api, other):
    api.create_repo("me/new", private=True)

    assert not other.repo_exists("me/new")


def test_a_gated_repo_shows_itself_but_not_its_files(api, other, nobody, adapter, tmp_path):
    repo, _ = adapter
    api.update_repo_settings(repo, gated="manual")

    assert nobody.model_info(repo).gated == "manual"
    assert len(list(other.list_repo_tree(repo))) == 4
    for stranger, status in ((other, 403), (nobody, 401)):
        for path in ("README.md", "adapter_model.safetensors"):
            with pytest.raises(GatedRepoError) as caught:
                stranger.hf_hub_download(repo, path, cache_dir=tmp_path / "theirs")
            assert caught.value.response.status_code == status
        with pytest.raises(GatedRepoError):
            stranger.auth_check(repo)
    api.auth_check(repo)
    assert api.hf_hub_download(repo, "README.md", cache_dir=tmp_path / "mine")


def test_access_to_a_gated_repo_is_granted_to_a_user(api, other, nobody, adapter, tmp_path):
    repo, _ = adapter
    api.update_repo_settings(repo, gated="auto")

    api.grant_access(repo, "you")

    assert other.hf_hub_download(repo, "README.md", cache_dir=tmp_path)
    with pytest.raises(GatedRepoError):
        nobody.auth_check(repo)
    with pytest.raises(HfHubHTTPError):
        api.grant_access(repo, "stranger")


def test_a_gate_is_opened_again(api, other, nobody, adapter, tmp_path):
    repo, files = adapter
    strangers = {"other": other, "nobody": nobody}
    api.update_repo_settings(repo, gated="auto")
    for stranger in strangers.values():
        with pytest.raises(GatedRepoError):
            stranger.hf_hub_download(repo, "README.md", cache_dir=tmp_path / "shut")

    api.update_repo_settings(repo, gated=False)

    for name, stranger in strangers.items():
        path = stranger.hf_hub_download(repo, "README.md", cache_dir=tmp_path / name)
        assert Path(path).read_bytes() == files["README.md"]


@pytest.mark.parametrize("setting", [{"gated": "sometimes"}, {"gated": True}, {"gated": []}, {"visibility": "hidden"}])
def test_settings_that_do_not_exist_are_refused(http, adapter, setting):
    assert http.put(f"/api/models/{adapter[0]}/settings", json=setting).status_code == 400


def test_a_deleted_repo_is_gone_and_its_name_is_free(api, adapter):
    repo, _ = adapter

    api.delete_repo(repo)

    with pytest.raises(RepositoryNotFoundError):
        api.model_info(repo)
    with pytest.raises(RepositoryNotFoundError):
        api.delete_repo(repo)
    api.delete_repo(repo, missing_ok=True)
    api.create_repo(repo)
    assert api.list_repo_files(repo) == [".gitattributes"]


def test_a_renamed_repo_is_found_under_its_old_name(api, http, adapter, tmp_path):
    repo, files = adapter

    api.move_repo(repo, "me/renamed")

    moved = http.get(f"/{repo}/resolve/main/a%20b?x=1")
    assert (moved.status_code, moved.headers["location"]) == (307, "/me/renamed/resolve/main/a%20b?x=1")
    assert api.model_info(repo).id == "me/renamed"
    path = api.hf_hub_download(repo, "adapter_model.safetensors", cache_dir=tmp_path)
    assert Path(path).read_bytes() == files["adapter_model.safetensors"]
    api.create_commit(repo, [CommitOperationAdd("a.bin", b"\0" * 99)], commit_message="under the old name")
    assert "a.bin" in api.list_repo_files("me/renamed")


def test_an_old_name_can_be_taken_again(api, adapter):
    repo, _ = adapter
    api.move_repo(repo, "me/renamed")

    api.create_repo(repo)

    assert api.model_info(repo).id == repo
    assert api.list_repo_files(repo) == [".gitattributes"]


def test_a_name_is_one_name_in_any_case(api, adapter):
    assert api.model_info("me/ADAPTER").id == "me/adapter"


def test_moving_onto_another_repo_is_refused(api, adapter):
    api.create_repo("me/taken")

    with pytest.raises(HfHubHTTPError, match="409"):
        api.move_repo(adapter[0], "me/taken")


def test_a_user_writes_in_their_own_namespace_and_in_organisations(api, other, adapter):
    repo, _ = adapter
    api.create_repo("acme/shared", private=True)

    other.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id="acme/shared")

    assert "a.txt" in api.list_repo_files("acme/shared")
    for forbidden in (
        lambda: other.create_repo("me/theirs"),
        lambda: other.delete_repo(repo),
        lambda: other.move_repo(repo, "you/stolen"),
        lambda: api.move_repo(repo, "you/gift"),
        lambda: other.create_tag(repo, tag="v1"),
        lambda: other.update_repo_settings(repo, private=True),
        lambda: other.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id=repo),
    ):
        with pytest.raises(HfHubHTTPError, match="403"):
            forbidden()
    api.auth_check(repo, write=True)
    with pytest.raises(HfHubHTTPError, match="403"):
        other.auth_check(repo, write=True)


@pytest.mark.parametrize("name", ["a..b", "a--b", ".a", "a.git", "a b", "a/b", "../a", "x" * 97, "", "ä"])
def test_names_that_no_client_could_use_are_refused(http, name):
    assert http.post("/api/repos/create", json={"name": name}).status_code == 400


def test_only_models_are_kept(http):
    assert http.post("/api/repos/create", json={"name": "x", "type": "dataset"}).status_code == 400


def test_users_have_several_tokens_and_each_token_one_user(api, root):
    first, second = add_user(root, "you"), add_user(root, "you")
    given = add_user(root, "ann", "hf_given_by_hand")

    assert first != second
    assert given == "hf_given_by_hand"
    with pytest.raises(BadOption, match="another user"):
        add_user(root, "ben", given)
    with pytest.raises(BadOption, match="not a token"):
        add_user(root, "ben", "secret")
    with pytest.raises(BadOption, match="name of a user"):
        add_user(root, "../ben")
    api.create_repo("acme/shared")
    with pytest.raises(BadOption, match="organisation"):
        add_user(root, "Acme")


def test_tokens_are_not_in_the_folder(hub, root):
    content = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())

    assert hub.token.encode() not in content
