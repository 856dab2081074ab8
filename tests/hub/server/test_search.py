from __future__ import annotations

import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import HfHubHTTPError

from loramerge.hub.server.tags import derive, read_card


def make(api, repo, card, *extra):
    api.create_repo(repo)
    files = [CommitOperationAdd("README.md", f"---\n{card}\n---\n".encode())]
    api.create_commit(repo, [*files, *(CommitOperationAdd(name, b"{}") for name in extra)], commit_message="c")


@pytest.fixture
def models(api):
    make(api, "me/math-lora", "base_model: acme/base\ntags: [lora, math]", "adapter_config.json")
    make(api, "me/code-lora", "base_model: acme/base\npipeline_tag: text-generation", "adapter_config.json")
    make(api, "acme/merge", "base_model: [acme/base, acme/other]\nlicense: mit")


def ids(found):
    return [model.id for model in found]


def test_adapters_of_a_base_are_found(api, models):
    found = api.list_models(filter=["peft", "base_model:adapter:acme/base"])

    assert ids(found) == ["me/code-lora", "me/math-lora"]


def test_models_are_found_by_author_words_and_task(api, models):
    assert ids(api.list_models(author="acme")) == ["acme/merge"]
    assert ids(api.list_models(search="MATH lora")) == ["me/math-lora"]
    assert ids(api.list_models(pipeline_tag="text-generation")) == ["me/code-lora"]
    assert ids(api.list_models(filter="license:mit")) == ["acme/merge"]
    assert ids(api.list_models(gated=True)) == []


def test_models_are_sorted(api, models, tmp_path):
    api.hf_hub_download("me/math-lora", "adapter_config.json", cache_dir=tmp_path)

    assert ids(api.list_models()) == ["acme/merge", "me/code-lora", "me/math-lora"]
    assert ids(api.list_models(sort="downloads", limit=1)) == ["me/math-lora"]
    assert ids(api.list_models(sort="created_at", limit=2)) == ["acme/merge", "me/code-lora"]


def test_a_list_comes_in_pages(api, http, models):
    first = http.get("/api/models", params={"limit": 2})
    link = first.links["next"]["url"]

    assert [model["id"] for model in first.json()] == ["acme/merge", "me/code-lora"]
    assert [model["id"] for model in http.get(link).json()] == ["me/math-lora"]
    assert "next" not in http.get(link).links


def test_more_is_sent_when_asked_for(api, models):
    short = next(iter(api.list_models(search="math")))
    full = next(iter(api.list_models(search="math", full=True, cardData=True)))
    some = next(iter(api.list_models(search="math", expand=["sha", "siblings", "gated"])))

    assert (short.sha, short.siblings) == (None, None)
    assert full.sha == some.sha == api.model_info("me/math-lora").sha
    assert full.card_data.base_model == "acme/base"
    assert len(some.siblings) == 3
    assert some.tags is None


def test_searches_that_are_not_supported_say_so(api, hub):
    with pytest.raises(HfHubHTTPError, match="apps"):
        list(api.list_models(apps="vllm"))
    with pytest.raises(HfHubHTTPError, match="sorted"):
        list(api.list_models(sort="beauty"))


@pytest.mark.parametrize(
    ("card", "paths", "tags"),
    [
        ("base_model: a/b", ["adapter_config.json"], ["peft", "base_model:a/b", "base_model:adapter:a/b"]),
        ("base_model: a/b", ["m.safetensors"], ["safetensors", "base_model:a/b", "base_model:finetune:a/b"]),
        ("base_model: a/b", ["m.gguf"], ["gguf", "base_model:a/b", "base_model:quantized:a/b"]),
        ("base_model: a/b\nbase_model_relation: merge", [], ["base_model:a/b", "base_model:merge:a/b"]),
        ("license: [mit]\nlanguage: de\ndatasets: d/e\ntags: [x, x]", [], ["x", "de", "dataset:d/e", "license:mit"]),
        ("library_name: transformers\npipeline_tag: fill-mask", [], ["transformers", "fill-mask"]),
        ("base_model:\ntags:", [], []),
    ],
)
def test_tags_follow_from_card_and_files(card, paths, tags):
    data, mistakes = read_card(f"---\n{card}\n---\ntext")

    assert mistakes == []
    assert derive(data, paths) == tags


@pytest.mark.parametrize(
    "card",
    [
        "a: &x [1]\nb: *x",
        "a: " + "[" * 100 + "]" * 100,
        "- a list",
        "a: [",
        "a: 2024-99-99",
        "!!python/object/apply:os.system [ls]",
        "tags: [1]",
        "license: {mit: yes}",
        "pipeline_tag: [a]",
        "x" * (1 << 20) + "x",
    ],
    ids=lambda card: card[:16],
)
def test_cards_that_cannot_be_are_told(card):
    _, mistakes = read_card(f"---\n{card}\n---\n")

    assert mistakes


@pytest.mark.parametrize(
    "readme", ["", "# Title", "---\nnever closed: 1", "text\n---\na: 1\n---\n", "---\n---\n", "\ufeff"]
)
def test_a_readme_without_metadata_is_fine(readme):
    assert read_card(readme) == ({}, [])


def test_values_that_json_lacks_become_text():
    card, mistakes = read_card("---\na: 2024-01-02\nb: .inf\n3: .nan\nc: !!set {x: }\n---\n")

    assert (card, mistakes) == ({"a": "2024-01-02", "b": "inf", "3": "nan", "c": ["x"]}, [])


def test_metadata_is_validated_for_everybody(nobody, http):
    del http.headers["Authorization"]

    good = http.post("/api/validate-yaml", json={"content": "---\nlicense: mit\n---\n", "repoType": "model"})
    bare = http.post("/api/validate-yaml", json={"content": "# Title", "repoType": "model"})
    bad = http.post("/api/validate-yaml", json={"content": "---\na: [\n---\n", "repoType": "model"})

    assert (good.status_code, good.json()) == (200, {"errors": [], "warnings": []})
    assert bare.json()["warnings"][0]["message"]
    assert (bad.status_code, bool(bad.json()["errors"][0]["message"])) == (400, True)
