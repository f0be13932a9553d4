"""Checkpoints with random weights, a few kilobytes each, in the real formats of the real libraries."""

import json
from string import ascii_lowercase

import pytest

from tests.inference.pictures import jpeg

WORDS = ["<pad>", "</s>", "<unk>", "a", "photo", "of", "red", "bus", "truck", "dog", "two", "!"]


def make_tokenizer(inputs):
    """A word tokenizer that ends each text with </s> and pads with <pad>."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=16,
        model_input_names=inputs,
    )


@pytest.fixture(scope="session")
def open_clip_folder(tmp_path_factory):
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("open_clip")
    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "patch_size": 8, "head_width": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }
    preprocess_cfg = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "interpolation": "bicubic"}
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.CLIP(**model_cfg)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return folder


def _vision(**more):
    return {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2} | more


def _spread(tower, std=0.5):
    """Untrained, these towers hardly tell one text from another."""
    for parameter in tower.parameters():
        parameter.requires_grad_(False).normal_(std=std)


def _save(folder, model, processor, tokenizer=None):
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    text = _vision(vocab_size=len(WORDS), max_position_embeddings=16, eos_token_id=1, pad_token_id=0, bos_token_id=0)
    torch.manual_seed(1)
    model = CLIPModel(
        CLIPConfig(text_config=text, vision_config=_vision(image_size=32, patch_size=8), projection_dim=12)
    )
    processor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    tokenizer = make_tokenizer(["input_ids", "attention_mask"])
    return _save(tmp_path_factory.mktemp("clip"), model, processor, tokenizer)


@pytest.fixture(scope="session")
def siglip_folder(tmp_path_factory):
    import torch
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    text = _vision(vocab_size=len(WORDS), max_position_embeddings=8, eos_token_id=1, pad_token_id=0, bos_token_id=0)
    torch.manual_seed(2)
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=_vision(image_size=32, patch_size=8)))
    _spread(model.text_model)
    processor = SiglipImageProcessor(size={"height": 32, "width": 32})
    return _save(tmp_path_factory.mktemp("siglip"), model, processor, make_tokenizer(["input_ids"]))


@pytest.fixture(scope="session")
def siglip2_folder(tmp_path_factory):
    """The one of the family that takes patches of any shape (NaFlex). Its tokenizer here spells."""
    import torch
    from transformers import Siglip2Config, Siglip2ImageProcessor, Siglip2Model, Siglip2Tokenizer

    vocab = {word: i for i, word in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *ascii_lowercase])}
    text = _vision(vocab_size=len(vocab), max_position_embeddings=8, eos_token_id=1, pad_token_id=0, bos_token_id=2)
    torch.manual_seed(3)
    model = Siglip2Model(Siglip2Config(text_config=text, vision_config=_vision(num_patches=16, patch_size=8)))
    _spread(model.text_model)
    processor = Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
    tokenizer = Siglip2Tokenizer(vocab=vocab, merges=[], model_max_length=8)
    return _save(tmp_path_factory.mktemp("siglip2"), model, processor, tokenizer)


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory):
    import torch
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(4)
    model = Dinov2Model(Dinov2Config(**_vision(image_size=28, patch_size=14)))
    processor = BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28})
    return _save(tmp_path_factory.mktemp("dino"), model, processor)


@pytest.fixture
def photos(tmp_path):
    """A folder of ten JPEGs, 00.jpg to 09.jpg, the even ones with a caption."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(10):
        (folder / f"{i:02}.jpg").write_bytes(jpeg(i))
        if i % 2 == 0:
            (folder / f"{i:02}.txt").write_text(f"photo {i}\n")
    return folder


def _owl(folder, config, model, processor, seed):
    """A detector whose boxes lie about where its patches do; its tokenizer spells."""
    import torch
    from transformers import CLIPTokenizer

    text = _vision(vocab_size=600, max_position_embeddings=16)
    letters = ["!", *ascii_lowercase]
    vocab = {letter: i for i, letter in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    vocab |= {"<|startoftext|>": 598, "<|endoftext|>": 599}
    torch.manual_seed(seed)
    made = model(config(text_config=text, vision_config=_vision(image_size=48, patch_size=8), projection_dim=16))
    _spread(getattr(made, made.base_model_prefix).text_model)
    _spread(made.class_head)
    for head in (made.box_head, getattr(made, "objectness_head", made.box_head)):
        _spread(head, std=0.2)
    return _save(folder, made, processor, CLIPTokenizer(vocab=vocab, merges=[], pad_token="!", model_max_length=16))


@pytest.fixture(scope="session")
def owlvit_folder(tmp_path_factory):
    from transformers import OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessor

    processor = OwlViTImageProcessor(size={"height": 48, "width": 48})
    return _owl(tmp_path_factory.mktemp("owlvit"), OwlViTConfig, OwlViTForObjectDetection, processor, 5)


@pytest.fixture(scope="session")
def owlv2_folder(tmp_path_factory):
    from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor

    processor = Owlv2ImageProcessor(size={"height": 48, "width": 48})
    return _owl(tmp_path_factory.mktemp("owlv2"), Owlv2Config, Owlv2ForObjectDetection, processor, 6)
