"""A base model with its tokenizer, and an adapter on it: the one place that calls transformers and PEFT.

Only safetensors are read and no code of a repository is run.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.core.names import canonical
from loramerge.errors import (
    FormatError,
    IncompatibleError,
    MissingExtra,
    NotFound,
    ShapeMismatch,
    UnsupportedAdapter,
    first_line,
)
from loramerge.models.layers import kind_of, shape_of
from loramerge.registry import near

if TYPE_CHECKING:
    from torch import nn

    from loramerge.core.adapter import Adapter

CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "FEATURE_EXTRACTION": "AutoModel",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
}
"""PEFT's task types, and transformers' class for each."""

OVER_TEXT = ("CAUSAL_LM", "SEQ_CLS", "TOKEN_CLS", "FEATURE_EXTRACTION")
"""Those that a text alone can be run through; an encoder-decoder needs a beginning of the answer too."""

_BY_NAME = {
    "ForCausalLM": "CAUSAL_LM",
    "LMHeadModel": "CAUSAL_LM",
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
}
_HEADED = ("SEQ_CLS", "TOKEN_CLS")
_LENGTH = 512


@dataclass(frozen=True)
class Model:
    """A model in evaluation mode whose weights take no gradient.

    `untrained` names weights that neither the base nor the adapter has: they are random.
    """

    module: nn.Module
    tokenizer: Any
    task: str
    where: str
    untrained: tuple[str, ...] = ()

    @cached_property
    def modules(self) -> Mapping[str, nn.Module]:
        """Canonical name → module; of an adapted layer the whole, with its update."""
        return {canonical(name): module for name, module in self.module.named_modules()}

    @cached_property
    def takes(self) -> frozenset[str]:
        """What its forward pass can be given."""
        whole: Any = self.module
        inner = whole.get_base_model() if hasattr(whole, "get_base_model") else whole
        return frozenset(signature(inner.forward).parameters)

    @property
    def longest(self) -> int:
        """The most tokens it takes at once (at most 512 where neither model nor tokenizer says)."""
        config: Any = self.module.config
        known = [getattr(config, "max_position_embeddings", None), self.tokenizer.model_max_length]
        # A tokenizer that does not know says 10³⁰.
        return min((int(length) for length in known if length and 0 < length < 10**9), default=_LENGTH)


def open_model(
    folder: Path,
    adapter: Adapter | None = None,
    *,
    tasks: Collection[str] = OVER_TEXT,
    applied: Path | None = None,
    dtype: str = "F32",
    seed: int = 0,
) -> Model:
    """The base in a folder, of the class that `adapter` was trained on, else of the one its config names.

    `tasks` are those that the caller can run. `applied` is a folder of PEFT's that has the adapter, to put it
    on the base. Weights that are nowhere are drawn with `seed`.
    Raises MissingExtra, NotFound, FormatError for what is wrong with the base, UnsupportedAdapter for a
    task that is none of `tasks`, IncompatibleError for an adapter that does not go with the base.
    """
    transformers = _library("transformers")
    if not (folder / "config.json").is_file():
        raise NotFound("There is no model here.", where=str(folder), hint="--base names a folder with config.json")
    with _quiet(transformers):
        config = _called(folder, transformers.AutoConfig.from_pretrained)
        possible = [task for task in tasks if (task == "SEQ_2_SEQ_LM") == config.is_encoder_decoder]
        if not possible:
            raise UnsupportedAdapter("An encoder-decoder cannot be run over plain text.", where=str(folder))
        if (labels := _labels(adapter)) is not None:
            config.num_labels = labels
        task = _fitting(transformers, config, adapter, folder, possible)
        tokenizer = _tokenizer(folder, transformers)
        module, missing = _base(folder, getattr(transformers, CLASSES[task]), config, dtype, seed)
        _check_vocabulary(tokenizer, module, folder)
        if task == "SEQ_2_SEQ_LM":
            begins_with(module)  # raises now, and not when much has been run
        if adapter is not None and applied is not None:
            module, missing = _adapted(module, adapter, applied), missing - set(adapter.extras)
    module.requires_grad_(False)
    module.config.use_cache = False
    return Model(module.eval(), tokenizer, task, str(folder), tuple(sorted(missing)))


def _library(name: str) -> Any:
    """An optional library; raises MissingExtra where it is not installed."""
    from importlib import import_module

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(name)
    except ImportError as error:
        raise MissingExtra(
            f"Running a model needs {error.name or name}.", hint="pip install 'loramerge[models]'"
        ) from None


def _fitting(transformers: Any, config: Any, adapter: Adapter | None, folder: Path, possible: Sequence[str]) -> str:
    """The first possible task whose class has the adapter's modules, seen without a weight. Raises as `open_model`."""
    import torch

    tasks = _tasks(adapter, config, possible)
    if adapter is None:
        return tasks[0]
    failure: IncompatibleError | None = None
    for task in tasks:
        with torch.device("meta"):
            skeleton = _called(
                folder, lambda _, kind=CLASSES[task], **__: getattr(transformers, kind).from_config(config)
            )
        try:
            _check_modules(skeleton, adapter, folder)
            return task
        except IncompatibleError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _tasks(adapter: Adapter | None, config: Any, possible: Sequence[str]) -> Sequence[str]:
    """What the adapter says, else what the base's class says and what else has other names for its modules."""
    said = adapter.config.get("task_type") if adapter else None
    if said in possible:
        return [str(said)]
    if adapter is not None and said is not None:
        way = "on an encoder-decoder" if config.is_encoder_decoder else "over plain text"
        raise UnsupportedAdapter(
            f"An adapter for {said} cannot be run {way}.", where=adapter.name, hint=", ".join(possible)
        )
    architecture = (config.architectures or [""])[0]
    own = next((task for ending, task in _BY_NAME.items() if architecture.endswith(ending)), "FEATURE_EXTRACTION")
    return [task for task in dict.fromkeys([own, "SEQ_CLS", "CAUSAL_LM"]) if task in possible] or possible


def _labels(adapter: Adapter | None) -> int | None:
    """How many labels the head that a classifier's adapter holds has: the fewest rows of its matrices."""
    extras = adapter.extras.values() if adapter and adapter.config.get("task_type") in _HEADED else ()
    return min((spec.shape[0] for spec in extras if spec.kind == "saved" and len(spec.shape) == 2), default=None)


def _tokenizer(folder: Path, transformers: Any) -> Any:
    try:
        return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # whatever its parsers meet in a stranger's files
        raise FormatError(
            f"The base has no tokenizer that can be loaded: {first_line(error)}.",
            where=str(folder),
            hint="put the tokenizer.json of the base beside its config.json",
        ) from None


def _base(folder: Path, kind: Any, config: Any, dtype: str, seed: int) -> tuple[Any, set[str]]:
    """The model, and the names of its weights that the folder does not have."""
    import torch

    from loramerge.formats._tensors import torch_dtype

    options = {"config": config, "dtype": torch_dtype(dtype), "use_safetensors": True, "output_loading_info": True}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module, info = _called(folder, kind.from_pretrained, **options)
    if config.pad_token_id is None:
        # Classifiers of decoders look for the last token that is no padding: with this, none is.
        module.config.pad_token_id = -1
    return module, set(info["missing_keys"])


def _called(folder: Path, load: Any, **options: Any) -> Any:
    try:
        return load(str(folder), local_files_only=True, trust_remote_code=False, **options)
    except MemoryError:
        raise
    except Exception as error:  # whatever its parsers meet in a stranger's files
        raise FormatError(
            f"transformers cannot load the base: {first_line(error)}.",
            where=str(folder),
            hint="a folder with config.json, model.safetensors and tokenizer.json",
        ) from None


def _check_vocabulary(tokenizer: Any, module: Any, folder: Path) -> None:
    rows = module.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise IncompatibleError(
            f"The tokenizer has {len(tokenizer):,} tokens and the model {rows:,}: they are not of one base.",
            where=str(folder),
        )


def begins_with(module: Any) -> int:
    """The token that an encoder-decoder's decoder is given first. Raises FormatError where the model does not say."""
    named = (getattr(config, "decoder_start_token_id", None) for config in (module.generation_config, module.config))
    if (found := next((token for token in named if isinstance(token, int)), None)) is None:
        raise FormatError(
            "The base does not say with which token its decoder begins.",
            where=module.name_or_path,
            hint="decoder_start_token_id in its config.json",
        )
    return found


def _check_modules(module: Any, adapter: Adapter, folder: Path) -> None:
    """Raises IncompatibleError where the base lacks modules of an adapter, ShapeMismatch where they are others."""
    there = dict(module.named_modules())
    if lacking := [name for name in adapter.modules if name not in there or kind_of(there[name]) is None]:
        close = near(lacking[0], [name for name, layer in there.items() if kind_of(layer)])
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        raise IncompatibleError(
            f"The base lacks {len(lacking)} of the {len(adapter.modules)} modules of {adapter.name}: "
            f"{', '.join(lacking[:5])}{more}.",
            where=str(folder),
            hint=f"--base names the model that it was trained on (this has {', '.join(close) or 'none like it'})",
        )
    for name, spec in adapter.modules.items():
        if (found := shape_of(there[name])) != spec.shape:
            sides = " and ".join(f"{out}×{in_}" for out, in_ in (found, spec.shape))
            raise ShapeMismatch(f"{name} is {sides} in base and adapter.", where=f"{folder}, {adapter.name}")


def _adapted(module: Any, adapter: Adapter, folder: Path) -> Any:
    peft = _library("peft")
    try:
        return peft.PeftModel.from_pretrained(module, str(folder))
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise IncompatibleError(
            f"PEFT cannot put the adapter on the base: {first_line(error)}.",
            where=adapter.name,
            hint="--base names the model that it was trained on",
        ) from None


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """transformers neither draws bars nor logs meanwhile, nor does anybody warn: errors are ours to tell."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
