"""`front`: the page alone, which asks a service elsewhere."""

import sys
from typing import Annotated, Any

import typer

from clipsieve import options
from clipsieve.access import make_policy
from clipsieve.parts import print_json

BACKEND = "http://127.0.0.1:1234"
"""Where `back` listens if it is told nothing."""


def front(
    default_backend: options.DefaultBackend = BACKEND,
    default_index: Annotated[
        str, typer.Option("--default-index", metavar="NAME", help="The collection shown first; the service's first.")
    ] = "",
    url_column: options.PageUrlColumn = "url",
    page: options.Page = None,
    host: options.Host = "127.0.0.1",
    port: options.Port = 1235,
    allowed_hosts: Annotated[
        str, typer.Option("--allowed-hosts", metavar="NAMES", help="Names that the page may be asked for by: a,b.")
    ] = "",
    json: options.ListenJson = False,
) -> None:
    """Serve the page alone, for a service that runs elsewhere and lets it ask (back --cors-origins).

    Example: clipsieve front --default-backend http://photos.example.org:1234

    Example: clipsieve front --page DIR --default-index photos
    """
    from clipsieve.back import logs
    from clipsieve.back.page import open_page
    from clipsieve.back.serve import Binding, protection_of, serve

    shown = open_page(page, default_backend, default_index, url_column)
    binding = Binding(host, port)
    policy = make_policy(host, allowed_hosts, "", (None, None), 2**16)
    protection = protection_of(binding, policy)
    logs.set_up("info", None, sys.stderr)

    def make_app() -> Any:
        from clipsieve.back.app import assemble
        from clipsieve.back.meters import Meters

        return assemble([], shown, Meters(), protection)

    def ready(address: str) -> None:
        logs.log.info("Serving the page at %s", address)
        logs.log.info("%s answers it if run with --cors-origins %s, or as the browser has it", default_backend, address)
        if json:
            print_json({"url": address})
            sys.stdout.flush()

    raise typer.Exit(serve(make_app, lambda: None, lambda: None, binding, protection, ready))
