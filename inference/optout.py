"""Whether the owner of a site asked that an image be left alone: the response header X-Robots-Tag."""

from collections.abc import Iterable

from clipsieve.inference.paths import readable

AGENT = "clipsieve"
"""The name under which owners of sites can address this program alone."""

OPT_OUTS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
"""Directives that are respected; `none` is short for `noindex, nofollow`."""

# Directives with a value of their own; what stands before the colon is not the name of a program.
_WITH_VALUE = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})


def opt_out(values: Iterable[str], agent: str = AGENT) -> str | None:
    """The directive among the values of X-Robots-Tag that keeps `agent` out; None if none does.

    `noai, noindex` is for everybody; `otherbot: noai` for that program, as is what follows up to the next name.

    >>> opt_out(["otherbot: noindex, clipsieve: noai"])
    'noai'
    """
    for value in values:
        concerned = True
        for part in value.lower().split(","):
            name, colon, directive = part.partition(":")
            if colon and name.strip() not in _WITH_VALUE:
                concerned = name.strip() in (agent, "*")
                part = directive
            if concerned and part.strip() in OPT_OUTS:
                return readable(part.strip())
    return None
