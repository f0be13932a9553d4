"""Inputs made of inputs: bytes flipped, cut, doubled and spliced, words put in, and JSON changed as a tree."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any

MOST = 1 << 16
"""Bytes of an input: what is larger is cut, so that a run stays quick."""

NUMBERS = (0, 1, 2, 3, 7, 8, 15, 16, 127, 128, 255, 256, 4096, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1,
           2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
"""Where counts and offsets overflow."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, -1e308, 1e-320, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**30),
    *(float("nan"), float("inf"), float("-inf"), "", " ", "0", "-1", "1e999", "nan", "null", "\0", "\ud800", "é" * 40),
    *("a" * 3000, "../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1/", "%00", "'", '"', "\\", "\r\n"),
    *([], {}, [[]], [{}], [None], {"": None}, {"image": "0"}, {"image": "f" * 64}, [0.0] * 8),
)  # fmt: skip
"""What stands in for a JSON value."""

Change = Callable[[random.Random, bytearray], None]


def mutate(rng: random.Random, pool: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """A new input out of one or two of the pool; `words` are what its format is made of."""
    data = rng.choice(pool)
    if rng.random() < 0.7 and (changed := _as_json(rng, data)) is not None:
        return changed[:MOST]
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 10))):
        rng.choice(_CHANGES)(rng, made)
        if words and rng.random() < 0.3:
            _insert(rng, made, rng.choice(words))
    if rng.random() < 0.1:
        other = rng.choice(pool)
        made = made[: rng.randint(0, len(made))] + other[rng.randint(0, len(other)) :]
    return bytes(made[:MOST])


def _span(rng: random.Random, data: bytearray) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.choice((1, 2, 4, 8, 16, 64, 256, 1024)))


def _flip(rng: random.Random, data: bytearray) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _number(rng: random.Random, data: bytearray) -> None:
    """A whole number, in one of its encodings, in place of as many bytes."""
    size, number = rng.choice((1, 2, 4, 8)), rng.choice(NUMBERS)
    at = rng.randint(0, max(0, len(data) - size))
    data[at : at + size] = (number % 2 ** (8 * size)).to_bytes(size, rng.choice(("little", "big")))


def _cut(rng: random.Random, data: bytearray) -> None:
    start, end = _span(rng, data)
    del data[start:end]


def _truncate(rng: random.Random, data: bytearray) -> None:
    del data[rng.randint(0, len(data)) :]


def _double(rng: random.Random, data: bytearray) -> None:
    start, end = _span(rng, data)
    data[start:start] = data[start:end] * rng.choice((1, 1, 2, 50))


def _move(rng: random.Random, data: bytearray) -> None:
    start, end = _span(rng, data)
    part = data[start:end]
    del data[start:end]
    _insert(rng, data, bytes(part))


def _noise(rng: random.Random, data: bytearray) -> None:
    start, end = _span(rng, data)
    data[start:end] = rng.randbytes(end - start)


def _insert(rng: random.Random, data: bytearray, word: bytes) -> None:
    at = rng.randint(0, len(data))
    data[at:at] = word


_CHANGES: Sequence[Change] = (_flip, _flip, _set, _set, _number, _number, _cut, _truncate, _double, _move, _noise)


def _as_json(rng: random.Random, data: bytes) -> bytes | None:
    """The input with its JSON changed, which is what follows the first line where that is none; None without JSON."""
    start = min((at for at in (data.find(b"{"), data.find(b"[")) if at >= 0), default=-1)
    if start < 0:
        return None
    try:
        value = json.loads(data[start:])
    except (ValueError, RecursionError):
        return None
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = _changed(rng, value)
    return data[:start] + json.dumps(value).encode()


def _changed(rng: random.Random, value: Any) -> Any:
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice(VALUES) if rng.random() < 0.9 else [value] * rng.choice((1, 2, 100))
    if isinstance(value, list):
        at = rng.randrange(len(value))
        change = rng.random()
        if change < 0.1:
            return value[:at] + value[at + 1 :]
        if change < 0.2:
            return [*value, value[at]]
        return [*value[:at], _changed(rng, value[at]), *value[at + 1 :]]
    name = rng.choice(list(value))
    change, rest = rng.random(), {k: v for k, v in value.items() if k != name}
    if change < 0.1:
        return rest
    if change < 0.2:
        return {**rest, rng.choice(("", "id", "image", name + "x")): value[name]}
    return {**value, name: _changed(rng, value[name])}
