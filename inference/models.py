"""Model names: what each spelling means. Nothing is loaded here."""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clipsieve.errors import InputError, quoted

MINI = Path(__file__).parent / "mini" / "clip"
MINI_DETECTOR = Path(__file__).parent / "mini" / "owlvit"

_OPENAI = {
    "RN50": "RN50",
    "RN101": "RN101",
    "RN50x4": "RN50x4",
    "RN50x16": "RN50x16",
    "RN50x64": "RN50x64",
    "ViT-B/32": "ViT-B-32",
    "ViT-B/16": "ViT-B-16",
    "ViT-L/14": "ViT-L-14",
    "ViT-L/14@336px": "ViT-L-14-336",
}
"""OpenAI's own names, which clip-retrieval takes -> open_clip's."""


_TEXT_TOWERS = ("sentence-transformers", "M-CLIP")
"""Whose multilingual models clip-retrieval names without saying that they are on the hub."""


@dataclass(frozen=True, slots=True)
class ModelName:
    """One model, however it was spelled.

    name         the spelling that a collection remembers; `parse_name` of it gives the same model again
    kind         "open_clip": a published checkpoint of open_clip's list
                 "hub": a repository on the Hugging Face hub, in transformers' format
                 "folder": a folder here, of either format
                 "onnx": a folder that `clipsieve export-onnx` made
    where        the architecture; the repository; the folder
    tag          open_clip's name of the weights
    """

    name: str
    kind: Literal["open_clip", "hub", "folder", "onnx"]
    where: str
    tag: str = ""


def parse_name(name: str) -> ModelName:
    """What `name` means: `mini`, `open_clip:NAME/TAG`, `hf:ORG/NAME`, `local-dir:PATH`, `onnx:PATH`, or a peer's name.

    Those are `ViT-B/32` and OpenAI's other names, with or without `openai_clip:`, `hf_clip:ORG/NAME`, and
    `sentence-transformers/NAME` and `M-CLIP/NAME`. `hf:` and the bare name take a folder too. InputError for anything
    else; it names what comes near.
    """
    prefix, colon, rest = name.partition(":")
    if name == "mini":
        return ModelName(name, "folder", str(MINI))
    if prefix == "onnx" and rest:
        folder = str(Path(rest).expanduser().resolve())
        return ModelName(f"onnx:{folder}", "onnx", folder)
    if name.startswith(tuple(f"{org}/" for org in _TEXT_TOWERS)) and not Path(name).is_dir():
        name, prefix, rest = f"hf:{name}", "hf", name
    if prefix == "openai_clip" or name in _OPENAI:
        plain = rest if colon else name
        if plain in _OPENAI:
            return ModelName(f"open_clip:{_OPENAI[plain]}/openai", "open_clip", _OPENAI[plain], "openai")
        raise _unknown(name)
    if prefix == "open_clip" and colon:
        return _open_clip(name, rest)
    found = _hub_or_folder(name)
    if found is not None:
        return found
    raise _unknown(name)


def parse_detector(name: str) -> ModelName:
    """What the name of a detector means: `mini`, `hf:ORG/NAME`, `local-dir:PATH` or a folder. InputError for others."""
    if name == "mini":
        return ModelName(name, "folder", str(MINI_DETECTOR))
    found = _hub_or_folder(name)
    if found is None:
        raise InputError(
            f"The detector {quoted(name)} is not known; give mini, hf:ORG/NAME (hf:google/owlv2-base-patch16-ensemble, "
            "say) or local-dir:PATH."
        )
    return found


def _hub_or_folder(name: str) -> ModelName | None:
    prefix, _, rest = name.partition(":")
    if prefix in ("hf", "hf_clip") and rest:
        if Path(rest).is_dir():
            return _folder(rest)
        if rest.strip("/").count("/") == 1 and not rest.startswith(("/", ".")):
            return ModelName(f"hf:{rest}", "hub", rest)
        raise InputError(f"The model {quoted(name)} is neither hf:ORG/NAME nor a folder that exists; correct it.")
    if prefix == "local-dir" and rest:
        return _folder(rest)
    if Path(name).is_dir() and ("/" in name or "\\" in name):
        return _folder(name)
    return None


def _folder(path: str) -> ModelName:
    folder = str(Path(path).expanduser().resolve())
    return ModelName(f"local-dir:{folder}", "folder", folder)


def _open_clip(name: str, rest: str) -> ModelName:
    import open_clip

    architecture, slash, tag = rest.rpartition("/")
    architecture = (architecture if slash else rest).replace("/", "-")
    known = open_clip.list_models()
    if architecture not in known:
        # "open_clip:ViT-B/32": the slash was part of the architecture's name
        whole = rest.replace("/", "-")
        if whole not in known:
            raise _unknown(name)
        architecture, slash = whole, ""
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not slash:
        raise InputError(
            f"The model {quoted(name)} does not say which weights; write open_clip:{architecture}/TAG with one of the "
            f"tags {', '.join(tags) or '(open_clip lists none for it)'}."
        )
    if tag not in tags:
        near = difflib.get_close_matches(tag, tags, n=3, cutoff=0.3) or tags
        raise InputError(
            f"open_clip has no weights {quoted(tag)} for {architecture}; did you mean "
            f"{' or '.join(f'open_clip:{architecture}/{t}' for t in near) or 'another architecture (this has none)'}?"
        )
    wants = bool(open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu"))
    if not wants and (open_clip.get_model_config(architecture) or {}).get("quick_gelu"):
        # The other way round is mended on loading; this one cannot be, and would give wrong vectors without a word.
        raise InputError(
            f"The weights {quoted(tag)} were not trained with QuickGELU, which {architecture} has; use "
            f"open_clip:{architecture.removesuffix('-quickgelu')}/{tag}."
        )
    return ModelName(f"open_clip:{architecture}/{tag}", "open_clip", architecture, tag)


def _unknown(name: str) -> InputError:
    import open_clip

    published = [f"open_clip:{a}/{t}" for a, t in open_clip.list_pretrained()]
    near = difflib.get_close_matches(name, ["mini", *_OPENAI, *published], n=3, cutoff=0.5)
    near = near or ["mini", "open_clip:ViT-B-32/laion2b_s34b_b79k", "hf:ORG/NAME", "local-dir:PATH"]
    return InputError(f"The model {quoted(name)} is not known; did you mean {' or '.join(near)}?")
