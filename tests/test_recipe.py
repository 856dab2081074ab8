"""Recipes: strict where they are read, complete where they are written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loramerge.errors import BadConfig, BadOption, UsageError
from loramerge.recipe import Ingredient, Recipe, Rule, dump, from_mapping, read, to_mapping

ADAPTERS = "adapters: [./a, ./b]\n"

FULL = """
base: meta-llama/Llama-2-7b-hf
adapters:
  - {ref: acme/math-lora@3f2c, weight: 0.6, name: math}
  - {ref: ./code-lora, weight: -1}
  - plain-name
method: lego
options: {k: 8, reweight: none}
modules:
  - {match: "*.mlp.*", options: {k: 4}}
  - {match: "*.q", method: ties, options: {density: 0.3}, weights: {math: 1.0, code-lora: 0}, rank: 16}
  - {match: "*", options: {gauge: raw}}
rank: energy:0.9
weights: sqrt
normalize: true
scale: 0.5
rescale: norm
seed: 3
dtype: BF16
extras: first:math
dora: factors
aliases: {a/b: ./base}
base_weights: ./base
allow_base_mismatch: true
allow_pickle: yes
profile: vllm
data: {math: grams.safetensors}
metric: all.safetensors
"""

EXPECTED = Recipe(
    base="meta-llama/Llama-2-7b-hf",
    adapters=(
        Ingredient("acme/math-lora@3f2c", 0.6, "math"),
        Ingredient("./code-lora", -1.0),
        Ingredient("plain-name"),
    ),
    method="lego",
    options={"k": 8, "reweight": "none"},
    modules=(
        Rule("*.mlp.*", options={"k": 4}),
        Rule("*.q", "ties", {"density": 0.3}, {"math": 1.0, "code-lora": 0}, "16"),
        Rule("*", options={"gauge": "raw"}),
    ),
    rank="energy:0.9",
    weights="sqrt",
    normalize=True,
    scale=0.5,
    rescale="norm",
    seed=3,
    dtype="BF16",
    extras="first:math",
    dora="factors",
    aliases={"a/b": "./base"},
    base_weights="./base",
    allow_base_mismatch=True,
    allow_pickle=True,
    profile="vllm",
    data={"math": "grams.safetensors"},
    metric="all.safetensors",
)


@pytest.fixture
def written(tmp_path):
    """written(text) -> the path of a recipe file with it."""

    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_every_key_is_read(written):
    assert read(written(FULL)) == EXPECTED


def test_a_list_of_adapters_is_a_recipe(written):
    assert read(written(ADAPTERS)) == Recipe((Ingredient("./a"), Ingredient("./b")))


def test_a_number_is_a_rank(written):
    assert read(written(ADAPTERS + "rank: 16")).rank == "16"


def test_order_of_rules_is_kept(written):
    rules = "modules: [{match: z, options: {}}, {match: a, options: {}}]"

    assert [rule.match for rule in read(written(ADAPTERS + rules)).modules] == ["z", "a"]


def test_what_is_written_is_read_back(written):
    assert read(written(dump(EXPECTED))) == EXPECTED


def test_what_is_left_at_its_default_is_not_written():
    assert to_mapping(Recipe((Ingredient("./a"),))) == {"adapters": [{"ref": "./a"}], "method": "linear"}


NAMES = st.text(st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
WEIGHTS = st.just(0.0) | st.floats(1e-20, 1e20) | st.floats(-1e20, -1e-20)


@settings(max_examples=30, deadline=None)
@given(
    st.builds(
        Recipe,
        adapters=st.lists(st.builds(Ingredient, NAMES, st.none() | WEIGHTS, st.none() | NAMES)).map(tuple),
        method=NAMES,
        options=st.dictionaries(NAMES, NAMES | NUMBERS | st.booleans() | st.integers()),
        modules=st.lists(
            st.builds(
                Rule, NAMES, options=st.dictionaries(NAMES, st.integers()), weights=st.dictionaries(NAMES, WEIGHTS)
            ),
            unique_by=lambda rule: rule.match,
        ).map(tuple),
        rank=NAMES,
        scale=WEIGHTS,
        seed=st.integers(),
        base=NAMES.filter(lambda name: name.lower() != "none"),
        normalize=st.booleans(),
    )
)
def test_any_recipe_survives_yaml(recipe):
    import yaml

    assert from_mapping(yaml.safe_load(dump(recipe))) == _without_none(recipe)


def _without_none(recipe):
    """A name that spells None is None: so options are read everywhere."""
    items = (Ingredient(i.ref, i.weight, None if str(i.name).lower() == "none" else i.name) for i in recipe.adapters)
    return Recipe(**{**vars(recipe), "adapters": tuple(items)})


@pytest.mark.parametrize(
    ("line", "complaint", "hint"),
    [
        ("metod: lego", "no option 'metod'", "method"),
        ("zzz: 1", "no option 'zzz'", "adapters, method, options"),
        ("modules: [{match: '*', option: {k: 3}}]", "no option 'option'", "options"),
        ("modules: [{match: '*', weights: {a: x}}]", "A weight of x has no meaning", ""),
        ("modules: [{match: '*', weights: {a: .nan}}]", "A weight of nan has no meaning", ""),
        ("modules: [{match: '*', weights: 1}]", "weights is 1, which is not a table", ""),
        ("rescale: yes", "rescale is True", "norm, none"),
        ("modules: [{options: {k: 3}}]", "match is missing", "match, method"),
        ("modules: [{match: '*', options: 3}]", "options is 3, which is not a table", ""),
        ("modules: [5]", "A mapping is wanted here, not int", ""),
        ("modules: [{match: q, options: {}}, {match: q, options: {}}]", "given twice", "the first match wins"),
        ("options: [1]", r"options is \[1\], which is not a table", ""),
        ("method: [1]", r"method is \[1\], which is not a text", ""),
        ("scale: much", "scale is 'much', which is not a number", ""),
        ("scale: .nan", "scale of nan has no meaning", ""),
        ("scale: .inf", "scale of inf has no meaning", ""),
        ("seed: 1.5", "seed is 1.5, which is not a whole number", ""),
        ("seed: true", "seed is True, which is not a whole number", ""),
        ("normalize: maybe", "normalize is 'maybe'", "true or false"),
        ("weights: median", "weights is 'median'", "mean, sqrt, sum"),
        ("dtype: float32", "dtype is 'float32'", "F64, F32, F16, BF16"),
        ("dora: exact", "dora is 'exact'", "error, factors"),
        ("profile: tgi", "profile is 'tgi'", "vllm"),
        ("aliases: x", "aliases is 'x', which is not a table", ""),
    ],
)
def test_what_cannot_be_is_refused_with_what_could(written, line, complaint, hint):
    path = written(ADAPTERS + line)

    with pytest.raises(BadConfig, match=complaint) as caught:
        read(path)

    assert caught.value.hint.startswith(hint)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("adapters", "complaint"),
    [
        ("", "lists its adapters"),
        ("adapters:", "lists its adapters"),
        ("adapters: ./a", "lists its adapters"),
        ("adapters: {ref: ./a}", "lists its adapters"),
        ("adapters: [5]", "A mapping is wanted here, not int"),
        ("adapters: [{weight: 1}]", "ref is missing"),
        ("adapters: [{ref: [x]}]", "which is not a text"),
        ("adapters: [{ref: ./a, weight: yes}]", "weight is True"),
        ("adapters: [{ref: ./a, weight: .inf}]", "weight of inf has no meaning"),
        ("adapters: [{ref: ./a, weight: 1.0e+30}]", r"weight of 1e\+30 is out of range"),
        ("adapters: [{ref: ./a, weight: 1.0e-30}]", "weight of 1e-30 is out of range"),
        ("adapters: [{ref: ./a, weight: heavy}]", "weight is 'heavy'"),
        ("adapters: [{ref: ./a, wieght: 1}]", "no option 'wieght'"),
        ("adapters: [{ref: ./a, name: [x]}]", "name is"),
    ],
)
def test_what_is_no_list_of_adapters_is_refused(written, adapters, complaint):
    with pytest.raises(BadConfig, match=complaint):
        read(written(f"method: linear\n{adapters}"))


BOMB = "adapters:\n  - &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"  - &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not NoneType"),
        ("just words", "not str"),
        ("- 1", "not list"),
        ("\tadapters: []", "cannot start any token"),
        ("adapters: [./a]\n---\nadapters: [./b]", "another document"),
        ("adapters: ['./a\0']", "not allowed"),
        (b"adapters: ['\xff']", "decode"),
        ("adapters: [./a]\nseed: 1\nseed: 2", "stands twice"),
        ("adapters: [./a]\noptions: {k: 1, k: 2}", "stands twice"),
        ("adapters: [./a]\n? [1]\n: 2", "unhashable"),
        ("adapters: [!!python/object/apply:os.system ['true']]", "could not determine a constructor"),
        (BOMB, "no aliases"),
        ("adapters: &a [*a]", "no aliases"),
        ("adapters: [./a]\noptions: &o {x: *o}", "no aliases"),
        ("adapters: " + "[" * 900, "recursion|expected"),
        ("adapters: [./a]\nseed: " + "9" * 5000, "4300 digits"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_hostile_yaml_is_refused_in_one_line(written, text, complaint):
    with pytest.raises(BadConfig, match=complaint) as caught:
        read(written(text))

    assert "\n" not in caught.value.message


def test_the_line_of_a_mistake_is_named(written):
    with pytest.raises(BadConfig) as caught:
        read(written("adapters:\n  - ./a\nmethod: [\n"))

    assert caught.value.where.endswith("recipe.yaml:4")


def test_a_file_of_megabytes_is_no_recipe(written):
    with pytest.raises(BadConfig, match="more than a megabyte"):
        read(written("#" * 1_000_001))


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_recipe_that_is_not_there_is_a_mistake_of_the_command(tmp_path, name):
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / name)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_make_no_recipe(number):
    with pytest.raises(BadOption):
        Recipe((), scale=number)
    with pytest.raises(BadOption):
        Ingredient("./a", number)
