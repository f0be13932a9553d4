"""Texts that are cut or empty, and checkpoints that lack something."""

from __future__ import annotations

import json
import multiprocessing
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.hostile.attack import Attacks
from benchmarks.hostile.lab import Answer, Done, Lab, clipsieve, jpeg, require

ATTACKS = Attacks()
LONG = f"a {'very ' * 90}red circle"
CUT = ("cut", "longer", "too long", "left out", "context", "truncat")


@ATTACKS.add(
    7,
    {
        "search": ["search", "DEMO", LONG],
        "search --not": ["search", "DEMO", "red", "--not", LONG],
        "filter": ["filter", "DEMO", LONG, "-k", "1", "--out", "out"],
        "label": ["label", "DEMO", "--set", "long.json", "--out", "l.parquet"],
        "search --set": ["search", "DEMO", "--set", "long.json"],
        "captions": ["inference", "captions", "c.clip", "--model", "mini"],
    },
)
def a_text_that_is_cut_is_noted(lab: Lab, folder: Path, words: list[str]) -> str:
    done = _asked(lab, folder, words)
    require("Traceback" not in done.err, done.err)
    said = done.said.lower().replace(LONG, "")  # the question itself names none of the words
    require(any(word in said for word in CUT), f"exit code {done.code}, nothing of it in: {done.said[-200:]}")
    return done.said


@ATTACKS.add(
    7,
    {
        "/knn-service": ("/knn-service", {"text": LONG, "modality": "image", "num_images": 1, "indice_name": "demo"}),
        "/api/v1/search": ("/api/v1/search", {"collection": "demo", "class": {"positive": [LONG]}, "limit": 1}),
        "/v1/embeddings": ("/v1/embeddings", {"input": LONG, "model": "m"}),
    },
)
def a_text_that_is_cut_is_noted_over_http(lab: Lab, folder: Path, given: tuple[str, Any]) -> str:
    answer = lab.service.ask(*given)
    said = " ".join([answer.heads, re.sub(r'"[^"]{500,}"', "", answer.body.decode())]).lower()  # without images
    require(any(word in said for word in CUT), f"{answer.status} and no word of it")
    return answer.heads


@ATTACKS.add(7, {"error": "error", "cut": "cut", "average": "average"})
def long_texts_as_wanted(lab: Lab, folder: Path, how: str) -> str:
    found = [
        clipsieve("search", lab.demo, f"a {'very ' * 90}{end}", "--long-text", how, "-k", 3, "--json", cwd=folder)
        for end in ("red circle", "blue square")
    ]
    if how == "error":
        return found[0].refused(*CUT)
    scores = [[hit["score"] for hit in one.json["hits"]] for one in found]
    require((scores[0] == scores[1]) == (how == "cut"), f"two questions are answered {scores}")
    return str(scores)


@ATTACKS.add(
    7,
    {
        "search": ["search", "DEMO", ""],
        "blanks": ["search", "DEMO", " \n"],
        "search --not": ["search", "DEMO", "red", "--not", ""],
        "filter": ["filter", "DEMO", "", "-k", "1", "--out", "out"],
        "label": ["label", "DEMO", "--set", "empty.json", "--out", "l.parquet"],
        "a zero-width space": ["search", "DEMO", "\u200b"],
    },
)
def an_empty_text_is_refused(lab: Lab, folder: Path, words: list[str]) -> str:
    return _asked(lab, folder, words).refused()


@ATTACKS.add(7, {"/knn-service": "knn", "/api/v1/search": "api", "/v1/embeddings": "openai", "KServe": "kserve"})
def an_empty_text_is_refused_over_http(lab: Lab, folder: Path, way: str) -> str:
    tensor = {"name": "INPUT_TEXT", "shape": [1, 1], "datatype": "BYTES", "data": [" "]}
    ask: dict[str, Callable[[], Answer]] = {
        "knn": lambda: lab.service.knn(text=" "),
        "api": lambda: lab.service.search(text=" "),
        "openai": lambda: lab.service.embed(["a", ""]),
        "kserve": lambda: lab.service.ask("/v2/models/embed_text/infer", {"inputs": [tensor]}),
    }
    return ask[way]().refused()


@ATTACKS.add(8, {"a word": "xylophone", "two of three": "red xylophone quux"})
def a_word_that_the_demo_model_does_not_know(lab: Lab, folder: Path, text: str) -> str:
    done = clipsieve("search", lab.demo, text, "-k", 1, cwd=folder)
    require("xylophone" in done.err, f"exit code {done.code}, it says: {done.err[-200:]}")
    return done.err


def _without(*names: str) -> Callable[[Path], None]:
    def take(folder: Path) -> None:
        for name in names:
            (folder / name).unlink(missing_ok=True)

    return take


def _weights(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def take(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        weights = load_file(folder / "model.safetensors")
        change(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return take


def _fill(name: str, value: float) -> Callable[[dict[str, Any]], None]:
    def change(weights: dict[str, Any]) -> None:
        found = [key for key in weights if name in key]
        for key in found:
            weights[key].fill_(value)
        assert found

    return change


LACKS: dict[str, Callable[[Path], None]] = {
    "a tokenizer": _without("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    "a tokenizer's words": _without("tokenizer.json"),
    "a processor": _without("preprocessor_config.json", "processor_config.json"),
    "weights": _without("model.safetensors"),
    "a projection": _weights(lambda weights: weights.pop("text_projection.weight")),
    "a layer": _weights(lambda w: [w.pop(k) for k in list(w) if "text_model.encoder.layers.0.mlp" in k]),
    "numbers: NaN": _weights(_fill("visual_projection", float("nan"))),
    "numbers: zeros in texts": _weights(_fill("token_embedding", 0.0)),
    "numbers: zeros in images": _weights(_fill("patch_embedding", 0.0)),
}


@ATTACKS.add(8, {"nothing": lambda folder: None})
def a_whole_checkpoint_is_taken(lab: Lab, folder: Path, _: Any) -> str:
    done = _with_model(folder, lambda folder: None)
    require(done.code == 0, done.said[-250:])
    return done.said


@ATTACKS.add(8, LACKS)
def a_checkpoint_without(lab: Lab, folder: Path, take: Callable[[Path], None]) -> str:
    done = _with_model(folder, take)
    if done.code == 0:
        asked = [clipsieve("search", "c.clip", text, "--json", cwd=folder) for text in ("red", "blue")]
        require(any(one.code for one in asked), "it is embedded with, and asked")
        return asked[0].refused()
    return done.refused()


def _with_model(folder: Path, take: Callable[[Path], None]) -> Done:
    process = multiprocessing.get_context("forkserver").Process(target=_make, args=(folder / "model",))
    process.start()
    process.join()
    take(folder / "model")
    (folder / "p").mkdir()
    for color in ("red", "blue"):
        (folder / "p" / f"{color}.jpg").write_bytes(jpeg(color))
    return clipsieve("inference", "p", "c.clip", "--model", f"local-dir:{folder / 'model'}", cwd=folder)


def _make(folder: Path) -> None:
    """A small CLIP of random weights, whole."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast, logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    torch.manual_seed(1)
    words = {word: i for i, word in enumerate(["<pad>", "<end>", "<begin>", "<unk>", "red", "blue", "a", "circle"])}
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**size, "vocab_size": len(words), "max_position_embeddings": 16, "eos_token_id": 1, "bos_token_id": 2,
            "pad_token_id": 0}  # fmt: skip
    model = CLIPModel(
        CLIPConfig(text_config=text, vision_config={**size, "image_size": 32, "patch_size": 8}, projection_dim=12)
    )
    for parameter in model.parameters():
        parameter.requires_grad_(False).normal_(std=0.3)
    model.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<begin> $A <end>", special_tokens=[("<begin>", 2), ("<end>", 1)]
    )
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", bos_token="<begin>", unk_token="<unk>",
        model_max_length=16,
    ).save_pretrained(folder)  # fmt: skip


def _asked(lab: Lab, folder: Path, words: list[str]) -> Done:
    for name, text in (("long.json", LONG), ("empty.json", "")):
        (folder / name).write_text(json.dumps({"classes": [{"name": "a", "positive": [text]}]}))
    (folder / "captions").mkdir()
    (folder / "captions" / "a.jpg").write_bytes(jpeg())
    (folder / "captions" / "a.txt").write_text(LONG)
    return clipsieve(*(lab.demo if word == "DEMO" else word for word in words), cwd=folder)
