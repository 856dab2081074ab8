"""Small base models with random weights and a tokenizer of words, as transformers saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

LINES = ["the cat sat on the mat", "a dog ran", "it was very far away and then sad", "the dog sat under a tree", "cat"]
WORDS = sorted({word for line in LINES for word in line.split()})
SIZES = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "num_labels": 3}


def write_base(folder: Path, kind: str = "LlamaForCausalLM", **config: Any) -> Path:
    """Write a model of that class, always with the same numbers, and its tokenizer; returns the folder."""
    import transformers

    torch.manual_seed(0)
    made = _tokenizer()
    family = kind.partition("For")[0].removesuffix("LMHeadModel").removesuffix("Model")
    sizes = {"vocab_size": len(made), "pad_token_id": None, "intermediate_size": 32} | SIZES | config
    model = getattr(transformers, kind)(getattr(transformers, f"{family}Config")(**sizes))
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: at for at, word in enumerate(["<s>", "<unk>", *WORDS])}, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", unk_token="<unk>", model_max_length=64)
