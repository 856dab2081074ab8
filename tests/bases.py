"""Small base models with random weights and a tokenizer of words, as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

LINES = ["the cat sat on the mat", "a dog ran", "it was very far away and then sad", "the dog sat under a tree", "cat"]
WORDS = sorted({word for line in LINES for word in line.split()})
SIZES = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "num_labels": 3}


def write_base(folder: Path, kind: str = "LlamaForCausalLM", *, spread: float | None = None, **config: Any) -> Path:
    """Write a model of that class, always with the same numbers, and its tokenizer; returns the folder.

    `spread`: the deviation of all its matrices' numbers, where they are not as the class draws them.
    """
    import transformers

    torch.manual_seed(0)
    answers = kind.endswith("ForConditionalGeneration")
    made = _tokenizer(ends=answers)
    family = kind.partition("For")[0].removesuffix("LMHeadModel").removesuffix("Model")
    tokens = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0} if answers else {"pad_token_id": None}
    sizes = {"vocab_size": len(made), "intermediate_size": 32} | tokens | SIZES | config
    model = getattr(transformers, kind)(getattr(transformers, f"{family}Config")(**sizes))
    if spread is not None:
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.data.normal_(0, spread)
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def _tokenizer(*, ends: bool = False) -> Any:
    """Every text begins with <s>; with `ends`, it ends with </s> instead."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<unk>", *(["</s>"] if ends else [])]
    inner = Tokenizer(models.WordLevel({word: at for at, word in enumerate([*special, *WORDS])}, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    single, token = ("$A </s>", ("</s>", 2)) if ends else ("<s> $A", ("<s>", 0))
    inner.post_processor = processors.TemplateProcessing(single=single, special_tokens=[token])
    named = {"bos_token": "<s>", "unk_token": "<unk>"} | ({"eos_token": "</s>"} if ends else {})
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=64, **named)
