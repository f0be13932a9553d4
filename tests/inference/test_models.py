import pytest

from clipsieve.errors import InputError
from clipsieve.inference.models import MINI, parse_name


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mini", ("mini", "folder", str(MINI), "")),
        ("ViT-B/32", ("open_clip:ViT-B-32/openai", "open_clip", "ViT-B-32", "openai")),
        ("ViT-L/14", ("open_clip:ViT-L-14/openai", "open_clip", "ViT-L-14", "openai")),
        ("ViT-L/14@336px", ("open_clip:ViT-L-14-336/openai", "open_clip", "ViT-L-14-336", "openai")),
        ("openai_clip:ViT-B/16", ("open_clip:ViT-B-16/openai", "open_clip", "ViT-B-16", "openai")),
        (
            "open_clip:ViT-B-32/laion2b_s34b_b79k",
            ("open_clip:ViT-B-32/laion2b_s34b_b79k", "open_clip", "ViT-B-32", "laion2b_s34b_b79k"),
        ),
        ("open_clip:ViT-B/32/openai", ("open_clip:ViT-B-32/openai", "open_clip", "ViT-B-32", "openai")),
        ("M-CLIP/LABSE-Vit-L-14", ("hf:M-CLIP/LABSE-Vit-L-14", "hub", "M-CLIP/LABSE-Vit-L-14", "")),
        ("hf:google/siglip-base-patch16-224", None),
        ("hf_clip:google/siglip-base-patch16-224", None),
    ],
)
def test_spellings(name, meant):
    meant = meant or ("hf:google/siglip-base-patch16-224", "hub", "google/siglip-base-patch16-224", "")
    got = parse_name(name)
    assert (got.name, got.kind, got.where, got.tag) == meant
    assert parse_name(got.name) == got


def test_a_folder_keeps_its_whole_path(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("local-dir:model", "hf:model", "./model", f"hf_clip:{tmp_path}/model"):
        got = parse_name(name)
        assert (got.name, got.kind, got.where) == (f"local-dir:{tmp_path}/model", "folder", f"{tmp_path}/model")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("VIT-B/32", "ViT-B/32"),
        ("min", "mini"),
        ("open_clip:ViT-B-32/laion2b", "open_clip:ViT-B-32/laion2b_s34b_b79k"),
        ("open_clip:ViT-B-33/openai", "open_clip:ViT-B-32/openai"),
        ("open_clip:ViT-B-32", "laion2b_s34b_b79k"),
        ("open_clip:ViT-B-32-quickgelu/laion2b_s34b_b79k", "open_clip:ViT-B-32-quickgelu/"),
        ("hf:nothing", "hf:ORG/NAME"),
        ("", "mini"),
        ("local-dir:", "mini"),
        ("zzzz", "local-dir:PATH"),
    ],
)
def test_unknown_names_say_what_comes_near(name, near):
    with pytest.raises(InputError) as caught:
        parse_name(name)
    assert near in str(caught.value)


def test_openai_weights_get_their_quickgelu():
    """open_clip warns and goes on with the wrong activation; the tag's own entry says which is right."""
    import open_clip

    got = parse_name("ViT-B/32")
    assert open_clip.get_pretrained_cfg(got.where, got.tag)["quick_gelu"]
