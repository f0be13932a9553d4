"""The spellings of clip-retrieval and of DirectAI's offline classifier, rewritten into ours before parsing.

Both programs are built on python-fire, so that `--a_b` and `--a-b` are one, switches may carry `True` or `False`, and
what we take as an argument they take as an option. One pure function turns such a call into one of ours. An option
that means nothing here is taken, and a note says so; one that asks for something we do not do is an InputError, and so
is one that nobody knows.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipsieve.errors import InputError, quoted


@dataclass(frozen=True, slots=True)
class Grammar:
    """What a command of ours understands.

    command    its name
    options    name ("--shard-size", "-k") -> whether a value follows it
    arguments  names of its positional arguments, in order
    """

    command: str
    options: Mapping[str, bool]
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _To:
    """A peer's option that takes a value, under our name. `also` is what the peer does besides, unasked."""

    option: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Argument:
    """A peer's option that is a positional argument of ours."""

    name: str


@dataclass(frozen=True, slots=True)
class _Switch:
    """A peer's switch: what stands for it when on and when off. `note` is said when it was not `usual`."""

    on: tuple[str, ...] = ()
    off: tuple[str, ...] = ()
    usual: bool | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Note:
    """A peer's option with a value that means nothing here."""

    note: str


@dataclass(frozen=True, slots=True)
class _Fixed:
    """A peer's option of which only some values are served; another one is an error."""

    allowed: tuple[str, ...]
    otherwise: str


_Meaning = _To | _Argument | _Switch | _Note | _Fixed

_SLURM = _Note("jobs are not sent to Slurm from here; have it start clipsieve inference.worker")

INFERENCE: Mapping[str, _Meaning] = {
    "input-dataset": _Argument("input"),
    "output-folder": _Argument("out"),
    "input-format": _To("--format"),
    "clip-model": _To("--model"),
    "num-prepro-workers": _To("--workers"),
    "write-batch-size": _To("--shard-size"),
    "batch-size": _To("--batch-size"),
    "wds-image-key": _To("--image-key"),
    "wds-caption-key": _To("--caption-key"),
    "enable-text": _Switch(("--text",), ("--no-text",)),
    "enable-image": _Switch(usual=True, note="images are always embedded"),
    "enable-metadata": _Switch(usual=True, note="metadata is always kept"),
    "use-jit": _Switch(usual=False, note="models are not traced"),
    "use-mclip": _Fixed(("False",), "name a multilingual model with --model, for instance open_clip:xlm-roberta-base-"
                        "ViT-B-32/laion5b_s13b_b90k"),
    "mclip-model": _Note("name a multilingual model with --model"),
    "distribution-strategy": _Fixed(("sequential",), "run it in one process, which uses every GPU of the machine, or "
                                    "clipsieve inference.worker on several"),
    "cache-path": _Note("files are read where they are"),
    "clip-cache-path": _Note("weights are kept where HF_HOME says"),
    "wds-number-file-per-input-file": _Note("shards are cut by --shard-size"),
    "output-partition-count": _Note("shards are cut by --shard-size"),
    "enable-wandb": _Switch(usual=False, note="nothing is sent to Weights & Biases"),
    "wandb-project": _Note("nothing is sent to Weights & Biases"),
    "url-col": _To("--url-column"),
    "caption-col": _To("--caption-column"),
    "thread-count": _To("--connections"),
    "slurm-job-name": _SLURM,
    "slurm-partition": _SLURM,
    "slurm-nodes": _SLURM,
    "slurm-job-comment": _SLURM,
    "slurm-nodelist": _SLURM,
    "slurm-exclude": _SLURM,
    "slurm-job-timeout": _SLURM,
    "slurm-cache-path": _SLURM,
    "slurm-verbose-wait": _Switch(usual=False, note="jobs are not sent to Slurm from here"),
}  # fmt: skip

WORKER: Mapping[str, _Meaning] = {
    **{name: meaning for name, meaning in INFERENCE.items() if not name.startswith("slurm")},
    "output-partition-count": _To("--partitions"),
}

END2END: Mapping[str, _Meaning] = {
    "url-list": _Argument("input"),
    "output-folder": _Argument("out"),
    **{name: INFERENCE[name] for name in ("url-col", "caption-col", "thread-count", "clip-model")},
}

INDEX: Mapping[str, _Meaning] = {
    "embeddings-folder": _Argument("folder"),
    "index-folder": _To("--into"),
    "max-index-memory-usage": _To("--memory"),
    "current-memory-available": _Note("--memory alone bounds the index"),
    "copy-metadata": _Switch(usual=True, note="an index elsewhere always gets its metadata"),
    "image-subfolder": _Fixed(("img_emb",), "name the folder of image vectors img_emb"),
    "text-subfolder": _Fixed(("text_emb",), "name the folder of caption vectors text_emb"),
    "nb-cores": _To("--threads"),
}

_FOUND_OUT = "it is found out from the collection's folder"

FRONT: Mapping[str, _Meaning] = {
    "default-backend": _To("--default-backend"),
    "default-index": _To("--default-index"),
    "url-column": _To("--url-column"),
}

BACK: Mapping[str, _Meaning] = {
    "default-backend": FRONT["default-backend"],
    "url-column": FRONT["url-column"],
    "clip-model": _To("--model"),
    "columns-to-return": _To("--columns"),
    "enable-hdf5": _Switch(usual=True, note=_FOUND_OUT),
    "use-arrow": _Switch(usual=True, note=_FOUND_OUT),
    "enable-faiss-memory-mapping": _Switch(usual=True, note="indices are mapped where they were made for it"),
    "reorder-metadata-by-ivf-index": _Switch(usual=False, note=_FOUND_OUT),
    "use-jit": _Switch(usual=True, note="models run without it"),
    "enable-mclip-option": _Switch(usual=True, note="name the multilingual model with --mclip"),
    "provide-safety-model": _Switch(usual=False, note="give its weights as --safety-head, or the class as --flags"),
    "provide-violence-detector": _Switch(usual=False, note="give --violence-prompts, or the class as --flags"),
    "provide-aesthetic-embeddings": _Switch(usual=True, note="give their folder as --ratings"),
}

FILTER: Mapping[str, _Meaning] = {
    "query": _Argument("text"),
    "indice-folder": _Argument("folder"),
    "output-folder": _To("--out"),
    "num-results": _To("-k"),
    "threshold": _To("--threshold"),
}

LABEL: Mapping[str, _Meaning] = {
    "root": _Argument("folder"),
    "classifier-json-file": _To("--set"),
    "output-file": _To("--out", also=("--format", "directai")),
    "images-to-classify-fp": _To("--only"),
    "eval-only": _Switch(("--eval", "--truth", "folder")),
    "concurrency": _Note("one process does the work"),
}

PEERS: Mapping[str, Mapping[str, _Meaning]] = {
    "inference": INFERENCE,
    "inference.worker": WORKER,
    "end2end": END2END,
    "index": INDEX,
    "back": BACK,
    "front": FRONT,
    "filter": FILTER,
    "label": LABEL,
}
"""Command -> a peer's option without its dashes -> what it means here."""

# What `filter --query` calls an image; anything else is a text.
_IMAGE = re.compile(r".+\.(png|jpe?g|bmp)", re.IGNORECASE)
_PEERS_RESULTS = ("-k", "100")
_BOOLEANS = {"true": True, "false": False}
# As a word of its own only Python's spelling counts: in `search photos --dedup true story`, "true" is a text.
_PYTHON_BOOLEANS = ("True", "False")


def rewrite(
    argv: Sequence[str], grammar: Grammar, is_file: Callable[[str], bool] = lambda name: Path(name).is_file()
) -> tuple[list[str], list[str]]:
    """What follows the command's name, in our spelling, and notes on what was passed over.

    InputError for an option that neither we nor the peer has, with the nearest that one of us has.
    """
    peers = PEERS.get(grammar.command, {})
    options: list[str] = []
    positionals: list[str] = []
    named: dict[str, str] = {}
    notes: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            positionals += rest
            break
        if not _is_option(word):
            positionals.append(word)
            continue
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        name = _ours(name)
        if word.startswith("--") and (meaning := peers.get(name[2:])) is not None:
            given = value if equals else _take(rest, isinstance(meaning, _Switch))
            _translate(name, meaning, given, options, named, notes)
        elif name in grammar.options:
            options += _own(name, value if equals else None, rest, grammar)
        elif word.startswith("--"):
            switched = _python_switch(name, grammar, peers)
            if switched is None:
                raise InputError(_unknown(grammar, name, peers))
            rest.insert(0, switched)
        else:
            options.append(word)  # -k5; another one is for the parser to refuse
    if grammar.command == "filter" and "text" in named:
        if _IMAGE.fullmatch(named["text"]) and is_file(named["text"]):
            options += ["--image", named.pop("text")]
        if "-k" not in options:
            options += _PEERS_RESULTS
    positionals = _place(positionals, named, grammar)
    dashes = ["--"] if any(p.startswith("-") for p in positionals) else []
    return [*options, *dashes, *positionals], notes


def _is_option(word: str) -> bool:
    """True for --name and -k; "-" and "-1.5" are values."""
    return word.startswith("-") and word != "-" and not re.fullmatch(r"-\d*\.?\d+", word)


def _ours(name: str) -> str:
    """Dashes for underscores, save in what cannot be a name."""
    return name.replace("_", "-") if name.startswith("--") else name


def _own(name: str, value: str | None, rest: list[str], grammar: Grammar) -> list[str]:
    """One of our options as click wants it: a switch loses the `True` or `False` that a habit of the peer's adds."""
    if grammar.options[name]:
        if value is None:
            return [name, rest.pop(0)] if rest else [name]
        # Two words, not name=value, which short options do not know.
        return [name, value]
    if value is None and rest and rest[0] in _PYTHON_BOOLEANS:
        value = rest.pop(0)
    if value is None or _boolean(name, value):
        return [name]
    opposite = "--" + name[5:] if name.startswith("--no-") else "--no-" + name[2:]
    return [opposite] if opposite in grammar.options else []


def _take(rest: list[str], switch: bool) -> str | None:
    """The value that follows a peer's option, if one does; that of a switch can only be True or False."""
    if not rest or rest[0].startswith("--") or (switch and rest[0] not in _PYTHON_BOOLEANS):
        return None
    return rest.pop(0)


def _translate(
    name: str, meaning: _Meaning, given: str | None, options: list[str], named: dict[str, str], notes: list[str]
) -> None:
    """Add to `options`, `named` arguments or `notes` what the peer's option `name` with value `given` means."""
    if isinstance(meaning, _Switch):
        on = given is None or _boolean(name, given)
        options += meaning.on if on else meaning.off
        if meaning.note and on != meaning.usual:
            notes.append(f"{name} has no effect: {meaning.note}.")
        return
    if given is None:
        raise InputError(f"{name} needs a value; give one after it.")
    if given == "None":  # python-fire's way to leave a default alone
        return
    match meaning:
        case _To():
            options += [meaning.option, given, *meaning.also]
        case _Argument():
            named[meaning.name] = given
        case _Note():
            notes.append(f"{name} has no effect: {meaning.note}.")
        case _Fixed():
            if given.lower() not in [a.lower() for a in meaning.allowed]:
                raise InputError(f"{name} {given} is not served; {meaning.otherwise}.")


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in _BOOLEANS:
        raise InputError(f"{name} is a switch and was given {value!r}; give True, False or nothing.")
    return _BOOLEANS[value.lower()]


def _python_switch(name: str, grammar: Grammar, peers: Mapping[str, _Meaning]) -> str | None:
    """python-fire's `--noenable_text` and ours, `--no-dedup`, for switches without a spelling of their own for off."""
    for prefix in ("--no-", "--no"):
        base = name.removeprefix(prefix)
        if base == name:
            continue
        if isinstance(peers.get(base), _Switch) or grammar.options.get(f"--{base}") is False:
            return f"--{base}=False"
    return None


def _place(positionals: list[str], named: Mapping[str, str], grammar: Grammar) -> list[str]:
    """Named arguments in their places, the others in those that are left."""
    if not named:
        return positionals
    left = list(positionals)
    placed = []
    for argument in grammar.arguments:
        if argument in named:
            placed.append(named[argument])
        elif left:
            placed.append(left.pop(0))
        elif any(later in named for later in grammar.arguments[grammar.arguments.index(argument) + 1 :]):
            raise InputError(f"`clipsieve {grammar.command}` needs its {argument.upper()}; see --help.")
    return placed + left


def _unknown(grammar: Grammar, name: str, peers: Mapping[str, _Meaning]) -> str:
    known = [*(o for o in grammar.options if o.startswith("--")), *(f"--{p}" for p in peers)]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else f"`clipsieve {grammar.command} --help` lists them."
    return f"`clipsieve {grammar.command}` has no option {quoted(name, '')}; {hint}"
