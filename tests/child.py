"""The command line in a process of its own, with an embedder that needs no weights: `python -m tests.child add ...`."""

from clipsieve import cli
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.parts import Parts

if __name__ == "__main__":
    cli.app(obj=Parts(lambda name, **_: FakeEmbedder(name=name)))
