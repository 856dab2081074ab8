from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from loramerge.core import catalog
from loramerge.core.catalog import architecture, architectures, bases, canonical_base, family_of, papers, same_base
from loramerge.core.names import matches

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt2", "openai-community/gpt2"),
        ("GPT2", "openai-community/gpt2"),
        ("EleutherAI/gpt-neo-125M", "EleutherAI/gpt-neo-125m"),
        ("minilm-l6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("unsloth/llama-3-8b-bnb-4bit", "meta-llama/Meta-Llama-3-8B"),
        ("runwayml/stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
        ("somebody/Something", "somebody/Something"),
        (None, None),
    ],
)
def test_a_base_is_known_by_all_its_names(name, expected):
    assert canonical_base(name) == expected


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("meta-llama/Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-8B-Instruct"),
        ("unsloth/gemma-2b-bnb-4bit", "unsloth/gemma-2b-it-bnb-4bit"),
        ("Qwen/Qwen2.5-3B", "Qwen/Qwen2.5-3B-Instruct"),
        ("Qwen/Qwen3-8B", "Qwen/Qwen3-8B-Base"),
        ("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-chat-hf"),
        ("meta-llama/Llama-2-7b-hf", "TheBloke/Llama-2-7B-AWQ"),
    ],
)
def test_other_weights_are_another_base(a, b):
    assert not same_base(a, b)


def test_a_missing_name_contradicts_none():
    assert same_base(None, "gpt2")
    assert same_base("gpt2", None)


@pytest.mark.parametrize(
    ("aliases", "same"),
    [
        ({"minilm-l6-v2": "./model"}, ("./model", "sentence-transformers/all-MiniLM-L6-v2")),
        ({"my-gpt2": "openai-community/gpt2"}, ("my-gpt2", "gpt2")),
        ({"house/a": "./a", "house/b": "./a"}, ("house/a", "house/b")),
        ({"a": "b", "b": "c", "d": "a"}, ("c", "d")),
        ({"gpt2": "roberta-base"}, ("openai-community/gpt2", "FacebookAI/roberta-base")),
        ({"A": "a"}, ("A", "A")),
    ],
)
def test_users_aliases_join_names(aliases, same):
    assert same_base(*same, aliases)
    assert not same_base(same[0], "distilgpt2", aliases)


def test_a_known_id_stands_for_names_that_a_user_joins_to_it():
    assert canonical_base("./model", {"gpt2": "./model"}) == "openai-community/gpt2"
    assert canonical_base("my-gpt2", {"my-gpt2": "gpt2"}) == "openai-community/gpt2"
    assert canonical_base("./model", {"house/model": "./model"}) == "house/model"


def test_no_name_means_two_bases():
    names = [name.casefold() for base in bases().values() for name in (base.name, *base.aliases)]

    assert sorted({name for name in names if names.count(name) > 1}) == []


def test_bases_and_aliases_are_sorted():
    def ordered(names):
        return sorted(names, key=lambda name: (name.casefold(), name))

    assert list(bases()) == ordered(bases())
    assert [base.name for base in bases().values() if list(base.aliases) != ordered(base.aliases)] == []
    assert list(architectures()) == sorted(architectures())
    assert [paper.key for paper in papers()] == sorted(paper.key for paper in papers())


def test_every_base_has_a_known_architecture():
    assert {base.family for base in bases().values()} <= set(architectures())


def test_no_model_type_belongs_to_two_architectures():
    types = [name for scheme in architectures().values() for name in scheme.model_types]

    assert sorted({name for name in types if types.count(name) > 1}) == []


@pytest.mark.parametrize("scheme", architectures().values(), ids=lambda scheme: scheme.name)
def test_patterns_are_well_formed(scheme):
    names = {pattern: re.sub(r"\[(\d+)-\d+]", r"\1", pattern).replace("*", "x") for pattern, _ in scheme.patterns}

    assert [name for name in names.values() if not re.fullmatch(r"\w+(\.\w+)*", name)] == []
    assert [pattern for pattern, name in names.items() if not matches(pattern, name)] == []


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("gpt2", "gpt2"),
        ("roberta-base", "bert"),
        ("xlm-roberta", "bert"),
        ("unsloth/mistral-7b", "llama"),
        ("qwen3", "llama"),
    ],
)
def test_an_architecture_is_found_by_base_or_model_type(asked, expected):
    found = architecture(asked)

    assert found is not None
    assert found.name == expected


@pytest.mark.parametrize("asked", [None, "", "somebody/Something"])
def test_an_unknown_architecture_is_none(asked):
    assert architecture(asked) is None


@pytest.mark.parametrize(
    ("module", "base", "expected"),
    [
        ("model.layers.3.self_attn.q_proj", "meta-llama/Llama-2-7b-hf", "attention.q"),
        ("model.layers.3.self_attn.q_proj", None, "attention.q"),
        ("transformer.h.0.mlp.c_proj", "gpt2", "mlp.down"),
        ("transformer.h.0.attn.c_proj", "somebody/Something", "attention.out"),
        ("bert.encoder.layer.5.attention.output.dense", "minilm-l6-v2", "attention.out"),
        ("bert.encoder.layer.5.output.dense", "minilm-l6-v2", "mlp.down"),
        ("vit.encoder.layer.0.attention.attention.query", "vit", "attention.q"),
        ("text_model.encoder.layers.0.self_attn.q_proj", "runwayml/stable-diffusion-v1-5", "attention.q"),
        ("down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k", None, "cross.k"),
        ("score", "gpt2", "head"),
    ],
)
def test_a_module_has_the_family_of_its_role(module, base, expected):
    assert family_of(module, base) == expected


def test_an_unknown_module_is_its_own_family():
    names = [f"stages.{i}.blocks.{j}.odd" for i in range(2) for j in range(3)]

    assert {family_of(name) for name in names} == {"stages.blocks.odd"}
    assert family_of("model.layers.3.mlp.experts.7.down_proj") == "model.layers.mlp.experts.down_proj"


def test_a_wheels_catalogs_come_before_a_checkouts(tmp_path):
    package = tmp_path / "loramerge"
    package.mkdir()
    (tmp_path / "catalogs").mkdir()

    before = catalog.folder(package)
    (package / "catalogs").mkdir()
    after = catalog.folder(package)

    assert before == tmp_path / "catalogs"
    assert after == package / "catalogs"


def test_nothing_is_read_at_import():
    code = (
        "import sys, loramerge.core.catalog, loramerge.core.names; print('yaml' in sys.modules, 'torch' in sys.modules)"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert run.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("paper", papers(), ids=lambda paper: paper.key)
def test_a_papers_implementation_and_test_exist(paper):
    file, _, function = paper.test.partition("::")

    module = importlib.import_module(paper.implements)
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))

    assert module.__name__ == paper.implements
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("paper", papers(), ids=lambda paper: paper.key)
def test_a_paper_is_told_in_full(paper):
    told = (paper.title, paper.authors, paper.venue, paper.where, paper.differs)

    assert all(told)
    assert paper.source.startswith("https://")
