"""Text as batches: every line once, none padded, in lots of one length."""

from __future__ import annotations

import pytest
from bases import LINES

from loramerge.errors import FormatError
from loramerge.models.model import open_model
from loramerge.models.text import read_lines, tokenized


@pytest.fixture
def tokenizer(base_of):
    return open_model(base_of("LlamaForCausalLM")).tokenizer


@pytest.mark.parametrize("size", [1, 3, 100])
def test_every_line_is_in_one_batch_and_none_is_padded(tokenizer, size):
    lines = LINES * 60  # more than are tokenized at once

    batches = tokenized(tokenizer, lines, batch_size=size, max_length=64)

    found = [tuple(ids) for batch in batches for ids in batch["input_ids"].tolist()]
    assert sorted(found) == sorted(tuple(tokenizer(line)["input_ids"]) for line in lines)
    assert all(len(batch["input_ids"]) <= size and batch["attention_mask"].all() for batch in batches)
    assert (batches.lines, batches.tokens, batches.cut) == (300, sum(map(len, found)), 0)


def test_blank_lines_are_left_out_and_others_kept_as_they_are(tmp_path):
    (tmp_path / "text").write_text("one \n\n  \n\ttwo\n", encoding="utf-8")

    assert list(read_lines(tmp_path / "text")) == ["one ", "\ttwo"]


def test_a_text_of_which_no_token_is_made_is_refused(tokenizer):
    tokenizer.backend_tokenizer.post_processor = None

    with pytest.raises(FormatError, match="makes no token"):
        tokenized(tokenizer, [" "], batch_size=1, max_length=64)
