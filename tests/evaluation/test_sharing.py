"""Blocks below the first difference run once for all candidates, and nothing is other for it."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from peft_models import base, save_adapter

from loramerge.evaluation.applied import Applied
from loramerge.evaluation.candidate import of_adapter
from loramerge.evaluation.passes import repeated
from loramerge.evaluation.sharing import first_stack
from loramerge.formats._format import open_adapter

ITEMS, LENGTH, BLOCKS = 2, 6, 3
KINDS = {
    "LlamaForCausalLM": ["q_proj", "down_proj"],
    "Gemma3ForCausalLM": ["q_proj", "down_proj"],
    "BloomForCausalLM": ["query_key_value"],
    "MptForCausalLM": ["Wqkv"],
    "GPT2LMHeadModel": ["c_attn", "c_fc"],
    "BertForSequenceClassification": ["query", "dense"],
    "T5ForConditionalGeneration": ["q", "wo"],
}
CAUSAL = [kind for kind in KINDS if "Causal" in kind or "LMHead" in kind]


def candidates_from(folder, kind, first, count=3, **config):
    """Adapters of all blocks from `first` on; of T5, of the encoder's."""
    made = base(kind)
    name, blocks = first_stack(made)
    assert len(blocks) == BLOCKS
    wanted = [
        f"{name}.{at}.{inner}"
        for at in range(first, BLOCKS)
        for inner, _ in blocks[at].named_modules()
        if inner.rpartition(".")[2] in KINDS[kind]
    ]
    found = []
    for seed in range(count):
        target = {"target_modules": wanted, "r": 2, **config}
        found.append(
            of_adapter(open_adapter(save_adapter(lambda: base(kind), folder / f"{seed}", seed=seed, **target)))
        )
    return found


def inputs_of(kind, count):
    draw = torch.Generator().manual_seed(2)
    ids = torch.randint(3, 40, (ITEMS, LENGTH), generator=draw)
    made = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if kind.startswith("T5"):
        made["decoder_input_ids"] = ids[:, :3]
    return {name: repeated(value, count) for name, value in made.items()}


@contextmanager
def rows_of_blocks(model):
    """The rows that each block of the first stack is given, call by call."""
    seen = [[] for _ in range(BLOCKS)]
    hooks = []
    for block, rows in zip(first_stack(model)[1], seen, strict=True):
        inner = next(
            module for module in block.modules() if isinstance(module, torch.nn.Linear) or "Conv1D" in str(type(module))
        )
        hooks.append(
            inner.register_forward_hook(
                lambda _, given, __, rows=rows: rows.append(given[0].numel() // given[0].shape[-1])
            )
        )
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_below_the_first_difference_run_for_one_candidate_only(tmp_path, kind, first):
    model, candidates = base(kind), candidates_from(tmp_path, kind, first)
    applied, inputs = Applied(model, candidates), inputs_of(kind, 3)

    with torch.inference_mode(), rows_of_blocks(model) as seen, applied.on(range(3)):
        found = model(**inputs).logits
    with torch.inference_mode(), rows_of_blocks(model) as all_rows, applied.on(range(3), sharing=False):
        wanted = model(**inputs).logits

    one, three = ITEMS * LENGTH, 3 * ITEMS * LENGTH
    assert seen == [[one]] * first + [[three]] * (BLOCKS - first)
    assert all_rows == [[three]] * BLOCKS
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
    assert not torch.allclose(found[:ITEMS], found[-ITEMS:], atol=0.01)


def test_of_an_encoder_decoder_only_the_encoder_is_shared():
    """A decoder's blocks are no first stack, not even where the encoder has only one block."""
    kind = "T5ForConditionalGeneration"

    assert first_stack(base(kind))[0] == "encoder.block"
    assert first_stack(base(kind, num_layers=1, num_decoder_layers=3)) == ("", [])


@pytest.mark.parametrize("kind", CAUSAL)
def test_a_second_call_goes_on_with_the_keys_and_values_of_the_first(tmp_path, kind):
    """A prompt, then two choices after each; the lower blocks' cache has the rows of one candidate."""
    model, candidates = base(kind), candidates_from(tmp_path, kind, 1)
    applied, draw = Applied(model, candidates), torch.Generator().manual_seed(3)
    prompt = inputs_of(kind, 1)["input_ids"]
    choices = torch.randint(3, 40, (2 * ITEMS, 4), generator=draw)

    with torch.inference_mode(), rows_of_blocks(model) as seen, applied.on(range(3)):
        cache = model(input_ids=repeated(prompt, 3), use_cache=True).past_key_values
        cache.batch_repeat_interleave(2)
        found = model(input_ids=repeated(choices, 3), past_key_values=cache, use_cache=True).logits.chunk(3)

    assert seen[0] == [ITEMS * LENGTH, 2 * ITEMS * 4]
    assert seen[1] == seen[2] == [3 * ITEMS * LENGTH, 3 * 2 * ITEMS * 4]
    for at, one in enumerate(found):
        with torch.inference_mode(), applied.on([at]):
            whole = torch.cat([prompt.repeat_interleave(2, dim=0), choices], dim=1)
            wanted = model(input_ids=whole).logits[:, LENGTH:]
        torch.testing.assert_close(one, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("target", [["embed_tokens"], ["embed_tokens", "layers.2.self_attn.q_proj"]])
def test_nothing_is_shared_where_candidates_differ_before_the_blocks(tmp_path, target):
    model = base("LlamaForCausalLM")
    candidates = candidates_from(tmp_path, "LlamaForCausalLM", 2, target_modules=target)
    applied, inputs = Applied(model, candidates), inputs_of("LlamaForCausalLM", 3)

    with torch.inference_mode(), rows_of_blocks(model) as seen, applied.on(range(3)):
        found = model(**inputs).logits.chunk(3)

    assert seen == [[3 * ITEMS * LENGTH]] * BLOCKS
    for at, one in enumerate(found):
        with torch.inference_mode(), applied.on([at]):
            wanted = model(**inputs_of("LlamaForCausalLM", 1)).logits
        torch.testing.assert_close(one, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


def test_an_embedding_that_all_candidates_have_alike_is_no_difference(tmp_path):
    """One adapter of an embedding, at several heads: what differs comes after the blocks."""
    model = base("LlamaForCausalLM")
    (candidate,) = candidates_from(tmp_path, "LlamaForCausalLM", 0, 1, target_modules=["embed_tokens", "q_proj"])
    heads = [torch.randn(40, 16, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    applied = Applied(model, [candidate.with_weights({"lm_head.weight": head}) for head in heads])

    with torch.inference_mode(), rows_of_blocks(model) as seen, applied.on(range(3)):
        found = model(**inputs_of("LlamaForCausalLM", 3)).logits.chunk(3)

    assert seen == [[ITEMS * LENGTH]] * 2 + [[3 * ITEMS * LENGTH]]
    for at, one in enumerate(found):
        with torch.inference_mode(), applied.on([at]):
            wanted = model(**inputs_of("LlamaForCausalLM", 1)).logits
        torch.testing.assert_close(one, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("kind", ["BloomForCausalLM", "MptForCausalLM"])
def test_tables_as_long_as_the_batch_are_not_taken_for_rows(tmp_path, kind):
    """Slopes of two heads, and two rows for two candidates; a text of as many tokens as there are rows."""
    model, candidates = base(kind), candidates_from(tmp_path, kind, 2, 2)
    applied = Applied(model, candidates)

    for items, length in ((1, 2), (2, 4), (1, 4), (2, 2), (3, 6)):
        ids = torch.randint(3, 40, (items, length), generator=torch.Generator().manual_seed(items))
        with torch.inference_mode(), applied.on(range(2)):
            found = model(input_ids=repeated(ids, 2)).logits.chunk(2)
        for at, one in enumerate(found):
            with torch.inference_mode(), applied.on([at]):
                wanted = model(input_ids=ids).logits
            torch.testing.assert_close(one, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize(
    "kind", ["LlamaForCausalLM", "GPT2LMHeadModel", "BertForSequenceClassification", "T5ForConditionalGeneration"]
)
def test_as_many_tokens_as_rows_make_no_difference(tmp_path, kind):
    model, candidates = base(kind), candidates_from(tmp_path, kind, 2, 2)
    applied = Applied(model, candidates)
    for items, length in ((1, 2), (2, 4), (2, 2), (4, 8)):
        ids = torch.randint(3, 40, (items, length), generator=torch.Generator().manual_seed(items))
        more = {"decoder_input_ids": ids} if kind.startswith("T5") else {}
        with torch.inference_mode(), applied.on(range(2)):
            found = model(input_ids=repeated(ids, 2), **{k: repeated(v, 2) for k, v in more.items()}).logits.chunk(2)
        for at, one in enumerate(found):
            with torch.inference_mode(), applied.on([at]):
                wanted = model(input_ids=ids, **more).logits
            torch.testing.assert_close(one, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
