"""`embed-server` and `export-onnx`: a model's embeddings over HTTP, without a collection, and a model as ONNX files."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from clipsieve import options
from clipsieve.access import is_loopback, make_policy, read_token
from clipsieve.command import say
from clipsieve.commands_build import parse_size, size_of_memory
from clipsieve.image_memory import IMAGE_WAIT_S
from clipsieve.output_path import refuse_address
from clipsieve.parts import print_json
from clipsieve.served_models import Models


def embed_server(
    ctx: typer.Context,
    model: options.ImageModel,
    host: options.Host = "127.0.0.1",
    port: options.Port = 8000,
    max_batch: Annotated[int, typer.Option("--max-batch", help="Rows that the model works on at once, at most.")] = 32,
    queue_delay: Annotated[
        int,
        typer.Option(
            "--queue-delay", metavar="MICROSECONDS", help="A row may wait so long for company while the model idles."
        ),
    ] = 0,
    queue_limit: Annotated[
        int, typer.Option("--queue-limit", help="Rows that may wait for the model; further ones are told to come back.")
    ] = 1024,
    request_timeout: Annotated[
        float | None,
        typer.Option("--request-timeout", metavar="SECONDS", help="For a request that does not say itself."),
    ] = None,
    workers: options.Workers = None,
    allowed_hosts: options.AllowedHosts = "",
    cors_origins: options.CorsOrigins = "",
    read_token_file: options.ReadTokenFile = None,
    max_request_bytes: options.MaxRequestBytes = "64M",
    rate_limit: options.RateLimit = None,
    image_memory: options.ImageMemory = None,
    threads: options.Threads = 128,
    queue: options.Queue = 128,
    timeout: options.RequestTimeout = 30,
    log_level: options.LogLevel = "info",
    log_format: options.LogFormat = None,
    device: options.Device = "auto",
    json: options.ListenJson = False,
) -> None:
    """Serve a model's embeddings of texts and images, by KServe's protocol v2, for Triton's clients.

    Example: clipsieve embed-server --model mini

    Example: clipsieve embed-server --model hf:google/siglip-so400m-patch14-384 --max-batch 32 --port 8000
    """
    for library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # as in `back`
        os.environ.setdefault(library, "1")

    from clipsieve.back import logs
    from clipsieve.back.gate import parse_rate
    from clipsieve.back.meters import Meters
    from clipsieve.back.serve import Binding, protection_of, serve
    from clipsieve.inference.batch_request import BatchOptions

    ctx.obj.image_memory.set(size_of_memory(image_memory), min(IMAGE_WAIT_S, timeout))
    batching = BatchOptions(max_batch, queue_delay / 1e6, queue_limit, request_timeout, workers)
    tokens = read_token("READ", read_token_file), None
    policy = make_policy(host, allowed_hosts, cors_origins, tokens, parse_size(max_request_bytes))
    binding = Binding(host, port, threads, queue, timeout)
    protection = protection_of(binding, policy, None if rate_limit is None else parse_rate(rate_limit))
    if not (is_loopback(host) or tokens[0]):
        say("Note: Whoever can reach this machine may ask; --read-token-file asks for a token.")
    logs.set_up(log_level, log_format, sys.stderr)
    meters = Meters()
    models = Models(ctx.obj, device, meters.prepared, batching)

    def make_app() -> Any:
        from clipsieve.back.app import create_embedding_app

        return create_embedding_app(lambda: models.batcher(model), meters, protection, models.figures)

    def ready(address: str) -> None:
        logs.log.info("Serving %s at %s", model, address)
        if json:
            print_json({"url": address, "model": model})
            sys.stdout.flush()

    raise typer.Exit(serve(make_app, lambda: models.get(model), models.close, binding, protection, ready))


def export_onnx(
    model: Annotated[str, typer.Argument(help="mini, local-dir:PATH or hf:ORG/NAME.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make.", callback=refuse_address)],
    int8: Annotated[bool, typer.Option("--int8", help="Weights of 8 bits, where they are matrices.")] = False,
    json: options.Json = False,
) -> None:
    """Write a model's towers as ONNX files, to be asked as --model onnx:DIR on a CPU.

    Example: clipsieve export-onnx hf:google/siglip-base-patch16-224 --out siglip-int8 --int8
    """
    from clipsieve.inference.embedder import load_checkpoint
    from clipsieve.inference.onnx_towers import export_onnx as export

    checkpoint, files = load_checkpoint(model)
    written = export(checkpoint, files, out, int8=int8)
    if json:
        print_json({"model": f"onnx:{out}", "int8": int8, "files": written})
        return
    typer.echo("\n".join(f"{name:12} {size / 1e6:10,.1f} MB" for name, size in written.items()))
    typer.echo(f"Ask it as --model onnx:{out}; compare it with the model that it was made of first.")
