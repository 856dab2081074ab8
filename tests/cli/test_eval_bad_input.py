"""Evaluations of bad input get a clear error and leave nothing behind: one row for each way to go wrong.

`python tests/cli/test_eval_bad_input.py` runs all rows and prints them as a table.
"""

from __future__ import annotations

import io
import json
import os
import resource
import shlex
import shutil
import tempfile
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from place import Outcome, Place  # first: it puts the folders of the next ones on the path

# isort: split
import adapters
from bases import write_base
from changes import change_tensors
from test_bad_input import Row, as_nobody, table, tried

Arrange = Callable[[Place], object]

TEXT = "the cat sat on the mat\na dog ran far away and then sat\n" * 20
CAUSAL = {"model.layers.0.self_attn.q_proj": (16, 16), "model.layers.1.mlp.down_proj": (16, 32)}
CLASSES = {"bert.encoder.layer.0.attention.self.query": (16, 16)}


# How the command is run


def here_and_now(here: Place, command: str) -> Outcome:
    """In this process, which has imported all that takes long to import."""
    from loramerge.cli.main import main

    words = shlex.split(command.format(**here.names))[1:]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with chdir(here.work), redirect_stdout(out), redirect_stderr(err):
        try:
            main(["--workers", "1", *words])
        except SystemExit as left:
            code = int(left.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


def over_many(here: Place, command: str) -> Outcome:
    """With all of `many` named too."""
    return here_and_now(here, " ".join([command, *(f"./{path.name}" for path in sorted(here.work.glob("many*")))]))


def with_little_memory(more: int) -> Callable[[Place, str], Outcome]:
    """The process may have so many bytes more than it has now."""

    def run(here: Place, command: str) -> Outcome:
        here_and_now(here, f"{command.replace(' -o out.json', '')} --limit 1")  # all that is needed once is there then
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + more, hard))
        try:
            return here_and_now(here, command)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    return run


# What lies there


@cache
def base(kind: str, **config: Any) -> Path:
    return write_base(Path(tempfile.mkdtemp(prefix="loramerge-base-")), kind, **config)


def llama(here: Place, **config: int) -> None:
    """./base is a language model, ./a and ./b are adapters for it, ./text.txt is a text."""
    (here.work / "base").symlink_to(base("LlamaForCausalLM", **config))
    for seed, name in enumerate("ab"):
        adapters.write_adapter(here.work / name, modules=CAUSAL, seed=seed, task_type="CAUSAL_LM")
    (here.work / "text.txt").write_text(TEXT)


def bert(here: Place) -> None:
    """./base is an encoder, ./a a classifier with a head of two classes, ./b one with five, ./sst2 a task."""
    import torch

    (here.work / "base").symlink_to(base("BertModel"))
    for name, labels in (("a", 2), ("b", 5)):
        head = {"classifier.weight": torch.randn(labels, 16), "classifier.bias": torch.zeros(labels)}
        more = {"task_type": "SEQ_CLS", "modules_to_save": ["classifier"]}
        adapters.write_adapter(here.work / name, modules=CLASSES, extras=head, **more)
    task({}, [{"text": "the cat", "label": 1}, {"text": "a dog", "label": 0}])(here)


def t5(here: Place, task: str = "SEQ_2_SEQ_LM", kind: str = "T5ForConditionalGeneration", **config: Any) -> None:
    """./base is an encoder-decoder, ./a an adapter for it; or the one says that it is another, or the other does."""
    (here.work / "base").symlink_to(base(kind, d_kv=8, **config))
    modules = {f"{side}.block.1.layer.0.SelfAttention.q": (16, 16) for side in ("encoder", "decoder")}
    adapters.write_adapter(here.work / "a", modules=modules, task_type=task)


def task(info: object, rows: object = "") -> Arrange:
    """./sst2, whose INFO.json and rows those are; None is no file, a text is the file."""

    def arrange(here: Place) -> None:
        folder = here.work / "sst2"
        folder.mkdir(exist_ok=True)
        usual = {"kind": "classification", "labels": ["no", "yes"], "splits": {"test": {"file": "test.jsonl"}}}
        found = info if info is None or isinstance(info, str) else json.dumps(usual | info)
        text = rows if isinstance(rows, str | bytes) else "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "test.jsonl").write_bytes(text if isinstance(text, bytes) else text.encode())
        if found is None:
            (folder / "INFO.json").unlink(missing_ok=True)
        else:
            (folder / "INFO.json").write_text(found)

    return arrange


def rows(*found: object, kind: str = "classification") -> Arrange:
    """A classifier and a task with these rows after a good one."""
    return in_turn(bert, task({"kind": kind}, [{"text": "the cat", "label": 1}, *found]))


def causal_rows(*found: object) -> Arrange:
    """A language model and a file of these rows."""

    def arrange(here: Place) -> None:
        llama(here)
        (here.work / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))

    return arrange


def in_turn(*steps: Arrange) -> Arrange:
    def arrange(here: Place) -> None:
        for step in steps:
            step(here)

    return arrange


def written(path: str, content: str | bytes) -> Arrange:
    return lambda here: (here.work / path).write_bytes(content if isinstance(content, bytes) else content.encode())


def without_special_tokens(here: Place) -> None:
    """The base's tokenizer makes nothing of an empty text."""
    folder = here.work / "base"
    copied = folder.resolve()
    folder.unlink()
    shutil.copytree(copied, folder)
    found = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(found | {"post_processor": None}))


def times(factor: float) -> Arrange:
    """./a's B is multiplied."""
    change = lambda found: {k: t * (factor if "lora_B" in k else 1) for k, t in found.items()}  # noqa: E731
    return lambda here: change_tensors(here.work / "a", change)


def many(here: Place) -> None:
    llama(here)
    for number in range(200):
        adapters.write_adapter(here.work / f"many{number}", modules=CAUSAL, rank=1, seed=number, task_type="CAUSAL_LM")


def wide(here: Place) -> None:
    """A model whose activations are large, and a long text."""
    folder = base("LlamaForCausalLM", intermediate_size=1 << 14, num_hidden_layers=1)
    (here.work / "base").symlink_to(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 2048}))
    modules = {"model.layers.0.self_attn.q_proj": (16, 16)}
    adapters.write_adapter(here.work / "a", modules=modules, task_type="CAUSAL_LM")
    (here.work / "text.txt").write_text("the cat sat on the mat under a\n" * 300)


def read_only(here: Place) -> None:
    llama(here)
    (here.work / "theirs").mkdir()
    (here.work / "theirs").chmod(0o555)


# The table

LM = "eval ./a ./b --base base --task perplexity:text.txt -T block=16"
CLS = "eval ./a --base base --task sst2"
CAT = written("rows.jsonl", '{"prompt": "a", "choices": ["cat"], "label": 0}')
TUNE = "tune ./a ./b --base base --task perplexity:text.txt -T block=16 --objective score --sampler grid -o best"
CHOICE, GENERATION = (f"eval ./a --base base --task {kind}:rows.jsonl" for kind in ("choice", "generation"))
RowHere = partial(Row, run=here_and_now)

ROWS = [
    # Base and adapters
    RowHere("all is well", llama, f"{LM} --limit 2", 0, "perplexity of 2"),
    RowHere(
        "no base", llama, "eval ./a --base ./nowhere --task perplexity:text.txt", 5, "no model here", "nowhere", "base"
    ),
    RowHere(
        "a base that is no repo",
        llama,
        "eval ./a --base nowhere --task perplexity:text.txt",
        2,
        "not a repo of the Hub",
    ),
    RowHere("tokenizer of another base", partial(llama, vocab_size=9), LM, 4, "tokens and the model 9", "base"),
    RowHere(
        "a base without the modules",
        in_turn(
            llama,
            lambda here: adapters.write_adapter(
                here.work / "a",
                modules={f"model.layers.{n}.attn.qkv": (16, 16) for n in range(9)},
                task_type="CAUSAL_LM",
            ),
        ),
        LM,
        4,
        "model.layers.3.attn.qkv, model.layers.4.attn.qkv and 4 more.",
        "base",
        "--base names the model",
    ),
    RowHere(
        "a base without the modules of the second",
        in_turn(
            llama,
            lambda here: adapters.write_adapter(
                here.work / "b",
                modules={f"model.layers.{n}.attn.qkv": (16, 16) for n in range(9)},
                task_type="CAUSAL_LM",
            ),
        ),
        LM,
        4,
        "lacks 9 of the modules of b: model.layers.0.attn.qkv, model.layers.1.attn.qkv",
        "base",
        "--base",
    ),
    RowHere(
        "modules of another width",
        in_turn(
            llama,
            lambda here: adapters.write_adapter(
                here.work / "a", modules={"model.layers.0.self_attn.q_proj": (16, 32)}, task_type="CAUSAL_LM"
            ),
        ),
        LM,
        4,
        "16×16 and 16×32",
        "base",
    ),
    RowHere("NaN in an adapter", in_turn(llama, times(float("nan"))), LM, 3, "NaN or infinite", "{work}/a", "earlier"),
    RowHere("NaN in the outputs", in_turn(llama, times(1e38)), LM, 0, "a: the model's output is not finite at item 1"),
    RowHere(
        "no adapters", llama, "eval --base base --task perplexity:text.txt", 2, "nothing to evaluate", "", "--with-base"
    ),
    RowHere("no adapters, --with-base", llama, "eval --base base --task perplexity:text.txt --with-base", 0, "base"),
    RowHere(
        "an adapter that is not there",
        llama,
        "eval ./c --base base --task perplexity:text.txt",
        5,
        "no such folder",
        "{work}/c",
        "USER",
    ),
    RowHere(
        "200 adapters",
        many,
        "eval --base base --task perplexity:text.txt -T block=16 --limit 2",
        0,
        "many199",
        run=over_many,
    ),
    # Tasks
    RowHere(
        "no such task", llama, "eval ./a --base base --task perplexity:no.txt", 5, "no such task", "no.txt", "INFO.json"
    ),
    RowHere(
        "a file without a kind",
        llama,
        "eval ./a --base base --task text.txt",
        2,
        "What kind of task",
        "",
        "classification:text.txt",
    ),
    RowHere(
        "unknown kind",
        bert,
        "eval ./a --base base --task clasification:sst2/test.jsonl",
        2,
        "clasification",
        "",
        "classification",
    ),
    RowHere(
        "empty task",
        in_turn(llama, written("text.txt", " \n")),
        LM,
        3,
        "The task is empty",
        "{work}/text.txt",
        "one example",
    ),
    RowHere(
        "not UTF-8",
        in_turn(llama, written("text.txt", b"the \xff cat")),
        LM,
        3,
        "not UTF-8 (byte 4)",
        "{work}/text.txt",
    ),
    RowHere(
        "less than a block",
        in_turn(llama, written("text.txt", "the cat")),
        LM,
        3,
        "has 2 tokens, and a block 16",
        "text.txt",
        "block=32",
    ),
    RowHere(
        "rows for a text",
        in_turn(bert, written("x.txt", "the cat")),
        "eval ./a --base base --task classification:x.txt",
        3,
        "rows of JSON",
        "x.txt",
        "jsonl",
    ),
    RowHere(
        "bad JSON",
        in_turn(bert, task({}, '{{"text": "a", "label": 1}}\n\n{{"text"\n')),
        CLS,
        3,
        "This is no JSON",
        "sst2/test.jsonl:1",
    ),
    RowHere(
        "bad JSON in the third line",
        in_turn(bert, task({}, '{"text": "a", "label": 1}\n\n{"text"\n')),
        CLS,
        3,
        "This is no JSON",
        "sst2/test.jsonl:3",
    ),
    RowHere(
        "a row that is no object",
        in_turn(bert, task({}, '["a", 1]\n')),
        CLS,
        3,
        "A row is an object",
        "sst2/test.jsonl:1",
        '"label": 0',
    ),
    RowHere("JSON too deep", in_turn(bert, task({}, "[" * 100_000)), CLS, 3, "This is no JSON", "sst2/test.jsonl:1"),
    RowHere(
        "a field is missing",
        rows({"sentence": "a dog", "label": 0}),
        CLS,
        3,
        "'text': this has sentence, label",
        "sst2/test.jsonl:2",
    ),
    RowHere(
        "a label that is a word",
        rows({"text": "a dog", "label": "yes"}),
        CLS,
        3,
        "'label' is 'yes', which is no whole number",
        "sst2/test.jsonl:2",
    ),
    RowHere("a label out of range", rows({"text": "a dog", "label": 2}), CLS, 3, "no label 2", "sst2/test.jsonl:2"),
    RowHere("no INFO.json", in_turn(bert, task(None)), CLS, 5, "no INFO.json", "{work}/sst2", "KIND:FILE"),
    RowHere("broken INFO.json", in_turn(bert, task('{"kind": ')), CLS, 3, "INFO.json cannot be read", "{work}/sst2"),
    RowHere("INFO.json is a list", in_turn(bert, task("[]")), CLS, 3, "INFO.json is no table", "{work}/sst2"),
    RowHere(
        "INFO.json without splits",
        in_turn(bert, task({"splits": {}})),
        CLS,
        3,
        "names no splits",
        "{work}/sst2/INFO.json",
        "test",
    ),
    RowHere(
        "INFO.json without a kind",
        in_turn(bert, task({"kind": None}, "{}")),
        CLS,
        3,
        "names no kind",
        "{work}/sst2/INFO.json",
        "classification",
    ),
    RowHere(
        "INFO.json with labels of its own",
        in_turn(bert, task({"labels": 3}, "{}")),
        CLS,
        3,
        "labels is no list",
        "{work}/sst2/INFO.json",
    ),
    RowHere(
        "INFO.json names no file",
        in_turn(bert, task({"splits": {"test": {}}}, "{}")),
        CLS,
        5,
        "is not there",
        "{work}/sst2",
    ),
    RowHere("a split that is not there", bert, f"{CLS} --split tset", 2, "no split 'tset'", "{work}/sst2", "test"),
    RowHere("two tasks of one name", bert, f"{CLS} --task sst2", 2, "Two tasks are called 'sst2'", "", "NAME=PATH"),
    RowHere(
        "a limit that leaves nothing", bert, f"{CLS} --limit 1 --rows-taken odd", 2, "None of 2 items", "", "--limit"
    ),
    # Tasks and models
    RowHere(
        "a classification by a language model",
        in_turn(llama, task({}, [{"text": "a", "label": 1}])),
        CLS,
        4,
        "needs a classifier",
        "base",
        "--task",
    ),
    RowHere(
        "perplexity by a classifier",
        in_turn(bert, written("text.txt", TEXT)),
        "eval ./a --base base --task perplexity:text.txt",
        4,
        "needs a language model, and this is a classifier",
        "base",
    ),
    RowHere(
        "perplexity by an encoder-decoder",
        in_turn(t5, written("text.txt", TEXT)),
        "eval ./a --base base --task perplexity:text.txt",
        4,
        "perplexity needs a language model, and this is an encoder-decoder",
        "base",
        "--task",
    ),
    RowHere(
        "similarity by an encoder-decoder",
        in_turn(t5, written("rows.jsonl", "{}")),
        "eval ./a --base base --task similarity:rows.jsonl",
        4,
        "and this is an encoder-decoder",
        "base",
        "--task",
    ),
    RowHere("a choice by an encoder-decoder", in_turn(t5, CAT), CHOICE, 0, "1 (0.025–1)"),
    RowHere(
        "an encoder-decoder that does not say how its decoder begins",
        in_turn(partial(t5, decoder_start_token_id=None), CAT),
        CHOICE,
        3,
        "with which token its decoder begins",
        "base",
        "decoder_start_token_id",
    ),
    RowHere(
        "a classifier's adapter on an encoder-decoder",
        in_turn(partial(t5, task="SEQ_CLS"), CAT),
        CHOICE,
        3,
        "SEQ_CLS cannot be run on an encoder-decoder",
        "a",
        "SEQ_2_SEQ_LM",
    ),
    RowHere(
        "an encoder-decoder's adapter on another base",
        in_turn(partial(t5, task="SEQ_2_SEQ_LM", kind="LlamaForCausalLM"), CAT),
        CHOICE,
        3,
        "SEQ_2_SEQ_LM cannot be run over plain text",
        "a",
        "CAUSAL_LM",
    ),
    RowHere(
        "a choice longer than the context",
        causal_rows({"prompt": "a", "choices": ["cat " * 99], "label": 0}),
        CHOICE,
        3,
        "A choice has 99 tokens",
        "rows.jsonl:1",
        "shorter",
    ),
    RowHere(
        "a choice that is not there",
        causal_rows({"prompt": "a", "choices": ["cat"], "label": 1}),
        CHOICE,
        3,
        "no choice 1",
        "rows.jsonl:1",
    ),
    RowHere(
        "answers longer than the context",
        causal_rows({"prompt": "a", "answer": "b"}),
        f"{GENERATION} -T tokens=99",
        3,
        "Answers of 99 tokens",
        "rows.jsonl",
        "tokens=",
    ),
    RowHere("no head", bert, f"{CLS} --with-base", 4, "base has no task head", "base", "--heads own"),
    RowHere(
        "heads of other classes",
        bert,
        f"{CLS.replace('./a', './a ./b')}",
        4,
        "The task has 2 classes, and the head 5",
        "",
        "--heads own",
    ),
    RowHere("nobody's own head", bert, f"{CLS} --heads own", 2, "Whose head is that of sst2", "a", "--own sst2=REF"),
    RowHere("unknown --own", bert, f"{CLS} --heads own --own sst2=aa", 2, "No source is called 'aa'", "", "a"),
    RowHere("--own of no task", bert, f"{CLS} --heads own --own sst=a", 2, "no task 'sst'", "", "sst2"),
    # Options
    RowHere(
        "unknown -T", llama, f"{LM} -T blok=16", 2, "None of the tasks has an option 'blok'", "perplexity", "block"
    ),
    RowHere("-T of another kind", llama, f"{LM} -T tokens=8", 2, "has an option 'tokens'", "perplexity", "block"),
    RowHere(
        "-T that is no number",
        llama,
        "eval ./a --base base --task perplexity:text.txt -T block=many",
        2,
        "not a whole number",
    ),
    RowHere(
        "-T too small",
        llama,
        "eval ./a --base base --task perplexity:text.txt -T block=1",
        2,
        "predicts nothing",
        "",
        "128",
    ),
    RowHere("-T without a value", llama, f"{LM} -T block", 2, "not KEY=VALUE", "", "-T block=64"),
    RowHere("unknown method", llama, f"{LM} --method tise", 2, "tise", "", "ties"),
    RowHere("an option that no method has", llama, f"{LM} --method linear --k 3", 2, "has an option 'k'", "", "linear"),
    RowHere("an option without a method", llama, f"{LM} --k 3", 2, "has an option 'k'", "", "--method"),
    RowHere("an option's bad value", llama, f"{LM} --method ties -O density=2", 2, "density is 2.0", "", "0.2"),
    RowHere("a scale that is no number", llama, f"{LM} --method ties --scale 1,x", 2, "not a number"),
    RowHere(
        "points between three",
        in_turn(llama, lambda here: adapters.write_adapter(here.work / "c", modules=CAUSAL)),
        LM.replace("./b", "./b ./c") + " --points 3",
        2,
        "not among 3",
    ),
    RowHere("one point", llama, f"{LM} --points 1", 2, "no two ends"),
    RowHere("no coefficients", llama, f"{LM} --coefficients c.json", 5, "no such file", "c.json"),
    RowHere(
        "coefficients for three",
        in_turn(llama, written("c.json", "[[1, 2, 3]]")),
        f"{LM} --coefficients c.json",
        2,
        "no weight for each of 2",
        "c.json",
    ),
    # Output
    RowHere(
        "output exists",
        in_turn(llama, written("out.json", "mine")),
        f"{LM} -o out.json",
        2,
        "is there already",
        "out.json",
        "--force",
    ),
    RowHere(
        "output exists, --force",
        in_turn(llama, written("out.json", "mine")),
        f"{LM} -o out.json --force",
        0,
        "perplexity",
        after="~out.json",
    ),
    RowHere("output is a folder", llama, f"{LM} -o a --force", 2, "is there already", "{work}/a"),
    RowHere("output in no folder", llama, f"{LM} -o no/out.json", 5, "no such folder", "{work}/no", "-o"),
    RowHere(
        "read-only output folder",
        read_only,
        f"{LM} -o theirs/out.json",
        1,
        "cannot be written",
        "{work}/theirs",
        "-o",
        run=as_nobody,
    ),
    RowHere(
        "a journal that is none",
        in_turn(llama, written("out.json.journal", "mine" * 300)),
        f"{LM} -o out.json",
        3,
        "journal cannot be used",
        "out.json.journal",
        "-o",
    ),
    RowHere(
        "a failure on the way",
        in_turn(llama, task({}, [{"text": "a", "label": 1}])),
        f"{LM} --task sst2 -o out.json",
        4,
        "needs a classifier",
        "base",
    ),
    # Memory
    RowHere(
        "too little memory for a pass",
        wide,
        "eval ./a --base base --task perplexity:text.txt -T block=64 --rows 4096 -o out.json",
        0,
        "memory ended at",
        after="+out.json",
        run=with_little_memory(150 * 2**20),
    ),
    RowHere(
        "too little memory for an item",
        wide,
        "eval ./a --base base --task perplexity:text.txt -T block=2048",
        1,
        "not enough memory for one item of one candidate (a",
        "",
        "--dtype BF16",
        run=with_little_memory(60 * 2**20),
    ),
    # Searches
    RowHere(
        "a search's recipe exists",
        in_turn(llama, written("best.yaml", "mine")),
        TUNE,
        2,
        "is there already",
        "best.yaml",
        "--force",
    ),
    RowHere(
        "a search's scale that is no number",
        llama,
        f"{TUNE} --space scale=foo,1",
        2,
        "scale=foo is no number",
        "",
        "0.5",
    ),
    RowHere(
        "an option that linear has not",
        llama,
        f"{TUNE} --space density=0.1..0.9 --space scale=0.3..2",
        2,
        "None of the methods has 'density'",
        "linear",
        "--space method=",
    ),
    RowHere("a search without end", llama, f"{TUNE} --budget inf", 2, "budget is inf", "", "--budget 20"),
    RowHere(
        "a search's journal that is none",
        in_turn(llama, written("best.journal", "mine" * 300)),
        f"{TUNE} --force",
        3,
        "This is no journal",
        "best.journal",
        "another file",
    ),
    # What a task's folder says, and what its rows are
    RowHere(
        "a metric that there is not, in INFO.json",
        in_turn(bert, task({"metric": "roc"}, [{"text": "the cat", "label": 1}])),
        CLS,
        2,
        "no metric 'roc' of classes",
        "sst2/INFO.json",
        "-T metric=accuracy",
    ),
    RowHere(
        "F1 of three classes, in INFO.json",
        in_turn(bert, task({"metric": "f1", "labels": ["a", "b", "c"]}, [{"text": "the cat", "label": 1}])),
        CLS,
        2,
        "F1 is of two classes, and sst2 has 3",
        "sst2/INFO.json",
        "macro_f1",
    ),
    RowHere(
        "a pair among single texts",
        rows({"text": "a dog", "other": "a cat", "label": 0}),
        CLS,
        3,
        "This row has a second text",
        "sst2/test.jsonl:2",
        "in all rows, or in none",
    ),
    RowHere(
        "a text without a token",
        in_turn(rows({"text": "", "label": 0}), without_special_tokens),
        CLS,
        3,
        "A text has no token",
        "sst2/test.jsonl:2",
        "not empty",
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.case)
def test_bad_input_gets_a_clear_error_and_nothing_is_left(row):
    outcome, after, names = tried(row)

    assert (outcome.code, after) == (row.code, row.after), outcome.stderr + outcome.stdout
    assert "Traceback" not in outcome.stderr
    if row.code:
        assert 1 <= len(outcome.stderr.strip().splitlines()) <= 3, outcome.stderr
        for label, wanted in (("Error:", row.what), ("at:", row.where), ("try:", row.hint)):
            assert wanted.format(**names) in outcome.part(label), outcome.stderr
    else:
        assert outcome.line(row.what), outcome.stderr + outcome.stdout


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    table(ROWS)
