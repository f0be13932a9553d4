"""Small models of texts alone, of random weights."""

import json

import torch
from safetensors.torch import load_file
from transformers import DistilBertConfig, DistilBertModel

from tests.inference.conftest import WORDS, make_tokenizer


def make_sentence_folder(folder, dim):
    """In the layout of clip-ViT-B-32-multilingual-v1: DistilBERT, the mean of its tokens, a projection."""
    # imported here since it takes seconds, and most tests of this folder need none of it
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    torch.manual_seed(5)
    config = {"dim": 16, "hidden_dim": 16, "n_layers": 1, "n_heads": 2}
    model = DistilBertModel(DistilBertConfig(vocab_size=len(WORDS), max_position_embeddings=16, **config))
    for parameter in model.parameters():
        parameter.requires_grad_(False).normal_(std=0.5)
    inner, whole = folder / "inner", folder / "model"
    model.save_pretrained(inner)
    make_tokenizer(["input_ids", "attention_mask"]).save_pretrained(inner)
    dense = Dense(16, dim, bias=False, activation_function=torch.nn.Identity())
    modules = [Transformer(str(inner)), Pooling(16, "mean"), dense]
    SentenceTransformer(modules=modules, device="cpu").save(str(whole), create_model_card=False)
    # That one was saved by a release of 2021, which called its modules otherwise and pickled their weights.
    described = json.loads((whole / "modules.json").read_text())
    for module in described:
        module["type"] = f"sentence_transformers.models.{module['type'].rsplit('.', 1)[1]}"
    (whole / "modules.json").write_text(json.dumps(described))
    pooling = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (whole / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    for weights in (whole / "model.safetensors", whole / "2_Dense" / "model.safetensors"):
        torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
        weights.unlink()
    return whole
