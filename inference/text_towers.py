"""Text towers without images: other languages' ways into the space of a CLIP.

Those of sentence-transformers (a `modules.json` and a folder for each module), and those of M-CLIP (a transformer, the
mean of its tokens, and a projection).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipsieve.errors import MissingExtra, ModelUnavailable
from clipsieve.inference.checkpoint import Batch, TextCheckpoint, require_weights
from clipsieve.inference.hf_tokenizer import count_with, load_tokenizer, require_tokenizer, unknown_with


def load_text_tower(source: str) -> TextCheckpoint | None:
    """The text tower in the folder or hub repository `source`; None where it has another format.

    Raises whatever the libraries do where files are missing; the caller makes a sentence of it.
    """
    if _find(source, "modules.json") is not None:
        return load_sentence_transformers(source)
    path = _find(source, "config.json")
    config = {} if path is None else json.loads(path.read_bytes())
    return load_mclip(source, config) if config.get("model_type") == "M-CLIP" else None


def load_sentence_transformers(source: str) -> TextCheckpoint:
    """A model in sentence-transformers' format. MissingExtra where that is not installed."""
    import torch

    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingExtra(
            f"The model {source!r} is of sentence-transformers; install clipsieve[multilingual]."
        ) from error
    model = SentenceTransformer(source, device="cpu", model_kwargs={"dtype": torch.float32})
    _require_transformer(source, model)
    tables = [m for m in model.modules() if isinstance(m, torch.nn.Embedding)]
    prompt = model.prompts.get(model.default_prompt_name)
    # Beside the tokens there are words that tell the modules what these are.
    words = {k: v for k, v in model.preprocess(["a"], prompt=prompt).items() if not isinstance(v, torch.Tensor)}

    def tokenize(texts: Sequence[str]) -> Batch:
        features = model.preprocess(list(texts), prompt=prompt)
        return {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}

    def encode_texts(module: Any, batch: Batch) -> torch.Tensor:
        vectors = module({**batch, **words})["sentence_embedding"]
        return vectors[:, : module.truncate_dim]  # type: ignore[no-any-return]

    tokenizer: Any = getattr(model, "tokenizer", None)
    if not hasattr(tokenizer, "get_vocab"):  # of another kind, such as a table of words
        return TextCheckpoint(model.eval(), "sentence-transformers", tokenize, encode_texts)
    require_tokenizer(tokenizer, source, max((len(t.weight) for t in tables), default=0))
    count = count_with(tokenizer)
    return TextCheckpoint(
        model.eval(),
        "sentence-transformers",
        tokenize,
        encode_texts,
        count_tokens=lambda texts: count([f"{prompt or ''}{text}" for text in texts]),
        context=model.max_seq_length,
        unknown=unknown_with(tokenizer),
    )


def _require_transformer(source: str, model: Any) -> None:
    """InputError where weights of the transformer in a model are lacking.

    sentence-transformers does not tell which are random, so its transformer is read once more.
    """
    inner = getattr(next(iter(model)), "auto_model", None)
    if inner is None:
        return
    modules = _find(source, "modules.json")
    folder = "" if modules is None else json.loads(modules.read_bytes())[0].get("path", "")
    _, info = type(inner).from_pretrained(source, subfolder=folder, output_loading_info=True)
    require_weights(source, info, inner, ("pooler",))


def load_mclip(source: str, config: Mapping[str, Any]) -> TextCheckpoint:
    """A model in M-CLIP's format.

    config  of its config.json: modelBase, the transformer's name, whose configuration is fetched; numDims

    Its own package does not load with today's transformers. InputError where the file lacks weights.
    """
    import torch
    from transformers import AutoConfig, AutoModel, PreTrainedModel

    if lacking := [name for name in ("modelBase", "numDims") if name not in config]:
        raise ModelUnavailable(f"The config.json of {source!r} lacks {lacking[0]}; use a whole checkpoint.")
    base = AutoConfig.from_pretrained(config["modelBase"])

    class Tower(PreTrainedModel):  # type: ignore[no-untyped-call]
        config_class = type(base)

        def __init__(self, config: Any, dims: int) -> None:
            super().__init__(config)
            self.transformer = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
            self.LinearTransformation = torch.nn.Linear(config.hidden_size, dims)
            self.post_init()  # type: ignore[no-untyped-call]

        def forward(self, **batch: torch.Tensor) -> torch.Tensor:
            tokens = self.transformer(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(2)
            return self.LinearTransformation((tokens * mask).sum(1) / mask.sum(1))  # type: ignore[no-any-return]

    load: Any = Tower.from_pretrained
    model, info = load(source, config=base, dims=config["numDims"], dtype=torch.float32, output_loading_info=True)
    require_weights(source, info, model, ("pooler",))  # unused here
    tokenizer = load_tokenizer(source, base.vocab_size)
    context = min(tokenizer.model_max_length, base.max_position_embeddings - 2)  # RoBERTa counts positions from 2

    def tokenize(texts: Sequence[str]) -> Batch:
        found = tokenizer(list(texts), padding=True, truncation=True, max_length=context, return_tensors="pt")
        return dict(found.items())

    def encode_texts(module: Any, batch: Batch) -> torch.Tensor:
        return module(**batch)  # type: ignore[no-any-return]

    return TextCheckpoint(
        model.eval(),
        "M-CLIP",
        tokenize,
        encode_texts,
        count_tokens=count_with(tokenizer),
        context=context,
        unknown=unknown_with(tokenizer),
    )


def _find(source: str, file: str) -> Path | None:
    """That file of the folder or repository; None too where it cannot be reached and was not fetched before."""
    from transformers.utils.hub import cached_file

    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    found = cached_file(source, file, **quiet)
    return None if found is None else Path(found)
