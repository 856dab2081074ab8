"""Advice: its reasons hold the figures, and its commands run."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from loramerge import api
from loramerge.api._rules import FALLBACKS, RULES, Facts
from loramerge.cli.main import cli
from loramerge.errors import BaseMismatch, LoramergeError, ShapeMismatch, UsageError
from loramerge.formats._format import open_adapter
from loramerge.methods._method import MERGE

MODULES = {f"model.layers.{i}.self_attn.q_proj": (48, 64) for i in range(2)}


def facts(**figures):
    plain = {
        "n": 3,
        "rank": 4,
        "cosine": 0.0,
        "closest": 0.0,
        "row_overlap": 0.1,
        "row_chance": 0.1,
        "column_overlap": 0.1,
        "column_chance": 0.1,
        "sign_conflict": 0.5,
        "weighted_conflict": 0.5,
        "norm_ratio": 1.0,
        "strongest": "a",
        "norms": (1.0, 1.0, 1.0),
    }
    return Facts(**{**plain, **figures})


def speaking_for(f):
    return list(dict.fromkeys(rule.method for rule in RULES if rule.when(f)))


@pytest.mark.parametrize(
    ("figures", "methods"),
    [
        ({"cosine": 0.02}, ["tsv", "pico", "linear"]),
        ({"cosine": 0.5}, []),
        ({"cosine": 0.95}, ["karcher", "model-stock", "linear"]),
        ({"cosine": 0.95, "n": 2}, ["slerp", "model-stock", "linear"]),
        ({"cosine": 0.5, "norm_ratio": 9.0}, ["linear", "karcher"]),
        ({"cosine": 0.5, "norm_ratio": 9.0, "n": 2}, ["linear", "slerp"]),
        ({"cosine": 0.3, "row_overlap": 0.6, "sign_conflict": 0.4}, ["ties", "knots"]),
        ({"cosine": 0.5, "row_overlap": 0.99, "sign_conflict": 0.2}, ["linear"]),
        ({"cosine": 0.5, "n": 200}, ["linear"]),
    ],
)
def test_figures_speak_for_methods(figures, methods):
    assert speaking_for(facts(**figures)) == methods


def test_every_reason_holds_a_figure():
    f = facts(cosine=0.123, n=17, rank=29)

    assert all(any(c.isdigit() for c in rule.why.format(f=f)) for rule in (*RULES, *FALLBACKS))


def test_what_always_holds_names_methods_that_are_there():
    assert len({rule.method for rule in FALLBACKS} & set(MERGE.names())) >= 2


def test_weights_even_out_norms():
    f = facts(norms=(1.0, 4.0, 16.0), norm_ratio=16.0)

    sizes = [float(weight) * norm for weight, norm in zip(f.evened, f.norms, strict=True)]

    assert sizes == pytest.approx([4 / 3**0.5] * 3, rel=1e-3)


def test_a_zero_adapter_weighs_nothing():
    assert facts(norms=(0.0, 2.0, 2.0)).evened[0] == "0"


@pytest.mark.parametrize(("cosine", "kept"), [(0.0, 0.5), (1.0, 1.0), (-1.0, 0.0)])
def test_what_a_mean_leaves_of_the_norm(cosine, kept):
    assert facts(n=4, cosine=cosine).shrunk == pytest.approx(kept)


def kin(folder, other, share):
    """Make an adapter the other's plus `share` of itself."""
    file = folder / "adapter_model.safetensors"
    theirs = load_file(other / "adapter_model.safetensors")
    save_file({key: theirs[key] + share * value for key, value in load_file(file).items()}, file)
    return folder


def scaled(folder, factor):
    file = folder / "adapter_model.safetensors"
    save_file({k: v * (factor if "lora_B" in k else 1) for k, v in load_file(file).items()}, file)
    return folder


@pytest.fixture
def group(make_adapter):
    """group(kind) -> folders of adapters that are so to one another."""

    def make(kind):
        a, b, c = (make_adapter(name, rank=4, modules=MODULES) for name in ("a", "b", "c"))
        if kind == "alike":
            return [a, kin(b, a, 0.05), kin(c, a, 0.05)]
        if kind == "two alike":
            return [a, kin(b, a, 0.05)]
        if kind == "kin":
            return [a, kin(b, a, 0.8), kin(c, a, 0.8)]
        if kind == "uneven":
            return [a, scaled(b, 10.0), c]
        if kind == "heads":
            heads = {"d": torch.zeros(2, 6), "e": torch.ones(2, 6)}
            how = {"modules": MODULES, "modules_to_save": ["score"]}
            return [make_adapter(name, extras={"score.weight": head}, **how) for name, head in heads.items()]
        return [a, b, c]

    return make


@pytest.mark.parametrize("kind", ["unrelated", "alike", "two alike", "kin", "uneven", "heads"])
def test_every_command_runs_as_it_is_printed(session, group, kind):
    found = api.advise(session, [str(folder) for folder in group(kind)])

    assert 2 <= len(found.methods) <= 3
    for command in found.commands:
        words = shlex.split(command)
        ended = CliRunner().invoke(cli, words[1:], obj={})
        assert ended.exit_code == 0, (command, ended.output, ended.exception)
        assert open_adapter(session.folder / words[-1]).modules.keys() == MODULES.keys()


def test_without_references_the_commands_take_the_sources(session, group):
    api.pull(session, [str(folder) for folder in group("unrelated")])

    command = api.advise(session).commands[0]

    assert command.split(" merge ")[1].startswith("--method ")
    assert CliRunner().invoke(cli, shlex.split(command)[1:], obj={}).exit_code == 0


def test_outputs_do_not_meet_what_is_there(session, group):
    folders = [str(folder) for folder in group("unrelated")]
    first = api.advise(session, folders).commands[0]
    CliRunner().invoke(cli, shlex.split(first)[1:], obj={})

    again = api.advise(session, folders).commands[0]

    assert again == f"{first}-2"


def test_reasons_hold_the_figures(session, group):
    found = api.advise(session, [str(folder) for folder in group("uneven")])

    assert found.methods[0]["method"] == "linear"
    assert f"{found.facts.norm_ratio:.1f} times" in found.methods[0]["why"]
    assert found.facts.strongest == "b"
    assert found.facts.norm_ratio == pytest.approx(found.facts.norms[1] / min(found.facts.norms))


def test_the_data_are_plain_json(session, group):
    found = api.advise(session, [str(folder) for folder in group("unrelated")])

    data = json.loads(json.dumps(found.data, allow_nan=False))

    assert data["methods"][0].keys() == {"method", "why", "command"}
    assert data["figures"]["cosine"] == found.facts.cosine


def test_dora_is_left_out_and_that_is_said(session, make_adapter):
    magnitudes = {f"{name}.lora_magnitude_vector": torch.ones(48) for name in MODULES}
    folders = [str(make_adapter(n, modules=MODULES, extras=magnitudes, use_dora=True)) for n in ("a", "b")]

    found = api.advise(session, folders)

    assert all("--dora factors" in command for command in found.commands)
    assert any("approximate" in note for note in found.notes)
    assert CliRunner().invoke(cli, shlex.split(found.commands[0])[1:], obj={}).exit_code == 0


def test_extras_that_cannot_be_averaged_are_dropped_and_that_is_said(session, make_adapter):
    extras = [{"embed.weight": torch.ones(rows, 8)} for rows in (5, 6)]
    folders = [
        str(make_adapter(f"x{i}", modules=MODULES, extras=extra, modules_to_save=["embed"]))
        for i, extra in enumerate(extras)
    ]

    found = api.advise(session, folders)

    assert all("--extras drop" in command for command in found.commands)
    assert any("embed.weight" in note for note in found.notes)


def test_what_cannot_be_merged_gets_no_advice(session, make_adapter):
    name = next(iter(MODULES))
    folders = [make_adapter("a", modules={name: (8, 8)}), make_adapter("b", modules={name: (8, 9)}, base="acme/other")]

    with pytest.raises(BaseMismatch):
        api.advise(session, list(map(str, folders)))
    with pytest.raises(ShapeMismatch):
        api.advise(session, list(map(str, folders)), allow_base_mismatch=True)
    with pytest.raises(UsageError):
        api.advise(session, [str(folders[0])])


@pytest.mark.parametrize("group", ["gpt2-seqcls", "gpt2-causal", "sam-custom"])
def test_real_groups_get_advice_that_can_be_planned(session, shared, group):
    folders = sorted(str(path) for path in (shared / "data/adapters" / group).iterdir())

    try:
        found = api.advise(session, folders)
    except LoramergeError as error:
        pytest.skip(f"{group} cannot be read or merged: {error.message}")

    for command in found.commands:
        assert CliRunner().invoke(cli, [*shlex.split(command)[1:], "--plan"], obj={}).exit_code == 0
