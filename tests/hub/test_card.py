from __future__ import annotations

import pytest
import yaml
from huggingface_hub import ModelCard

from loramerge.core.provenance import FilePin, Lineage, Parent, digest
from loramerge.hub.card import card

WEIGHTS = FilePin("adapter_model.safetensors", 10, "a" * 64)
MATH = Parent("math-lora", 0.6, (WEIGHTS,), repo="acme/math-lora", commit="c" * 40, licence="apache-2.0")
CODE = Parent("code-lora", 0.4, (WEIGHTS,), path="./code-lora", licence="apache-2.0")


def lineage(*parents: Parent, base: str | None = "acme/base", **options: object) -> Lineage:
    return Lineage("lego", options or {"k": 8}, parents or (MATH, CODE), base=base, versions={"torch": "2.13.0"})


def test_the_hub_reads_base_relation_library_tags_and_licence():
    data = ModelCard(card("lego-8", lineage())).data

    assert data.base_model == "acme/base"
    assert data.base_model_relation == "adapter"
    assert data.library_name == "peft"
    assert data.tags == ["lora", "loramerge", "merge", "lego"]
    assert data.license == "apache-2.0"


def test_machines_read_the_lineage_off_the_card():
    block = ModelCard(card("lego-8", lineage())).data.loramerge

    assert block["method"] == "lego"
    assert block["options"] == {"k": 8}
    assert block["parents"][0] == {
        "name": "math-lora",
        "repo": "acme/math-lora",
        "commit": "c" * 40,
        "sha256": digest([WEIGHTS]),
        "weight": 0.6,
    }


def test_people_read_what_it_was_made_of():
    text = card("lego-8", lineage(), [{"family": "attention", "error": 0.123456}], ["two dead units dropped"])

    assert f"| math-lora | acme/math-lora@{'c' * 12} | 0.6 | apache-2.0 | {'a' * 12} |" in text
    assert "| code-lora | a local adapter | 0.4 | apache-2.0 |" in text
    assert "| k | 8 |" in text
    assert "| attention | 0.1235 |" in text
    assert "- two dead units dropped" in text
    assert "PeftModel.from_pretrained" in text


@pytest.mark.parametrize("other", ["cc-by-nc-4.0", None])
def test_licences_that_differ_are_shown_and_not_decided(other):
    parent = Parent("code-lora", 0.4, (WEIGHTS,), repo="acme/code", commit="d" * 40, licence=other)

    text = card("x", lineage(MATH, parent))

    assert ModelCard(text).data.license == "other"
    assert "- math-lora: apache-2.0\n" in text
    assert f"- code-lora: {other or 'not stated'}\n" in text


def test_no_licence_is_claimed_where_no_parent_states_one():
    text = card("x", lineage(Parent("a", 1.0, (WEIGHTS,)), Parent("b", 1.0, (WEIGHTS,))))

    assert ModelCard(text).data.license is None


@pytest.mark.parametrize("base", [None, "../models/base", "/home/me/base", "./base", "a b"])
def test_a_base_that_is_no_repo_is_not_claimed_as_one(base):
    data = ModelCard(card("x", lineage(base=base))).data

    assert data.base_model is None
    assert "base_model_relation" not in data.to_dict()


def test_the_card_is_the_same_text_for_the_same_result():
    assert card("x", lineage()) == card("x", lineage())
    assert "2.13.0" not in card("x", lineage())


HOSTILE = (
    "<script>alert(1)</script>",
    "[click](javascript:x)",
    "![x](http://evil/x.png)",
    "a | b | c",
    "\x1b[31mred\x1b[0m",
    "\n---\nlicense: mit\n---\n# Owned",
    "```\n# out of the block",
    "${jndi}",
    "{{ x }}",
    "\u202egnp.exe",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_shown_as_text_wherever_they_stand(text):
    parent = Parent(text, 1.0, (WEIGHTS,), repo=text, commit=text, subfolder=text, licence=text)
    made = card(text, lineage(parent, base=text, option=text), [{text: text}], [text])
    front, body = made.split("\n---\n", 1)

    assert set(yaml.safe_load(front[4:])) <= {"library_name", "license", "tags", "loramerge"}
    assert all(character.isprintable() or character == "\n" for character in made)
    assert not any(bad in body for bad in ("<script", "k](", "x](", "\n# out", "\n---\n"))
    assert body.count("\n# ") == 1
    assert body.count("```") == 2
    assert all(line.count(" | ") == 4 for line in body.splitlines() if "| 1 |" in line)
