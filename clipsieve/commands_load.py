"""`load-test`: how much an embedding service answers, and how soon."""

import json as json_
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from clipsieve import options
from clipsieve.access import read_token
from clipsieve.command import say
from clipsieve.errors import InputError, quoted
from clipsieve.parts import print_json


def load_test(
    url: Annotated[str, typer.Argument(help="The service: http://127.0.0.1:8000.")],
    model: Annotated[str, typer.Option("--model", "-m", help="siglip_text, embed_image, ...")],
    input_data: Annotated[
        Path | None,
        typer.Option("--input-data", metavar="FILE", help="What to send: perf_analyzer's JSON. By default made up."),
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", help="Clients; each asks again once answered.")] = 60,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", help="Rows in one request.")] = 1,
    tensors: Annotated[
        str, typer.Option("--tensors", metavar="binary|json", help="How values go over the wire, both ways.")
    ] = "binary",
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", metavar="NAME=VALUE", help="Of each request: embed_model=siglip_text."),
    ] = None,
    window: Annotated[float, typer.Option("--window", metavar="SECONDS", help="Length of a window.")] = 5.0,
    max_windows: Annotated[int, typer.Option("--max-windows", help="Give up if three have not agreed by then.")] = 10,
    token_file: Annotated[
        Path | None,
        typer.Option("--read-token-file", metavar="FILE", help="Holds the token that the service asks for."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Load an embedding service with so many clients at once, until three windows in a row agree within 10%.

    Example: clipsieve load-test http://127.0.0.1:8000 --model siglip_text --concurrency 60

    Example: clipsieve load-test http://127.0.0.1:8000 --model embed_image --input-data images.json --tensors json
    """
    from clipsieve.load_data import bodies, make_rows, read_rows
    from clipsieve.load_test import AGREEING, Target, Window, run, summary

    if concurrency < 1 or batch_size < 1 or not 0 < window < 3600 or max_windows < AGREEING:
        raise InputError(
            f"concurrency {concurrency}, batch-size {batch_size}, window {window}, max-windows {max_windows}: give 1 "
            f"or more, 1 or more, seconds, and {AGREEING} or more."
        )
    if tensors not in ("binary", "json"):
        raise InputError(f"--tensors {quoted(tensors)} is neither binary nor json.")
    target = Target(url, model, read_token("READ", token_file))
    inputs = target.inputs()
    rows = make_rows(inputs[0]) if input_data is None else read_rows(input_data)
    parameters = dict(read_parameter(one) for one in parameter or ())
    requests = bodies(rows, inputs, batch_size, binary=tensors == "binary", parameters=parameters)

    def told(number: int, one: Window) -> None:
        refused = f", {sum(one.failed.values())} refused" if one.failed else ""
        say(f"window {number}: {one.throughput:,.1f} rows/s, {1000 * one.latency:.1f} ms{refused}")

    windows, stable = run(target, requests, concurrency, window, max_windows, told)
    found = {
        "url": url,
        "model": model,
        "concurrency": concurrency,
        "batch_size": batch_size,
        "tensors": tensors,
        **summary(windows, stable),
    }
    if json:
        print_json(found)
    else:
        typer.echo(to_text(found))
    sys.stdout.flush()
    if not stable:
        say(f"The last {AGREEING} of {max_windows} windows do not agree within 10%; take longer ones (--window).")
    if found["failed"] or not stable:
        raise typer.Exit(1)


def read_parameter(text: str) -> tuple[str, Any]:
    """ "a=1" -> ("a", 1); what is no JSON is a text. InputError without a name."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InputError(f"--parameter {quoted(text)}: write NAME=VALUE.")
    try:
        return name, json_.loads(value)
    except ValueError:
        return name, value


def to_text(found: dict[str, Any]) -> str:
    """The figures for people."""

    def ms(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    latency, server = found["latency_ms"], found["server"]
    times = ", ".join(f"{name} {ms(value)}" for name, value in latency.items())
    per = server["rows_per_execution"]
    stages = ", ".join(
        f"{what} {ms(server[f'{stage}_ms'])}"
        for what, stage in (
            ("queue", "queue"),
            ("preparing", "compute_input"),
            ("compute", "compute_infer"),
            ("writing", "compute_output"),
        )
    )
    lines = [
        f"throughput    {found['throughput']:,.1f} rows/s, {found['requests']:,} requests in {found['seconds']:.1f} s",
        f"latency, ms   {times}",
        f"server, ms    {stages}",
        f"executions    {server['execution_count']:,} of {'-' if per is None else f'{per:.1f}'} rows",
        f"client, ms    {ms(found['client_cpu_ms'])} of processor time a request",
    ]
    lines += [f"refused       {count:,} with {what}" for what, count in found["failed"].items()]
    return "\n".join(lines)
