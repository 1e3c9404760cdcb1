"""Damage as storage and strangers do it, from a given source of chance."""

from __future__ import annotations

import json
import random
import re

TOKENS = (
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e999",
    b"NaN",
    b"Infinity",
    b"9" * 30,
    b"9" * 400,
    b"1e-400",
    b'""',
    b"[]",
    b"{}",
    b"[" * 300,
    b'"\\ud800"',
    b'"\\u0000"',
    b'"\\u001b[2J"',
    b'"../../../etc/passwd"',
    b'"[/red]"',
    b'"' + b"x" * 5000 + b'"',
    b"\xff\xfe",
    b"\x00",
    b"'",
    b"*a",
    b"&a ",
    b"!!python/name:os.system ",
    b"<<: ",
    b"\r",
    b"\n",
    b"---\n",
)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The data with one to four damages."""
    for _ in range(chance.randint(1, 4)):
        data = chance.choice([flipped, cut, doubled, dropped, token, value])(data, chance) or b"x"
    return data


def flipped(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def doubled(data: bytes, chance: random.Random) -> bytes:
    start, end = sorted((chance.randrange(len(data) + 1), chance.randrange(len(data) + 1)))
    return data[:end] + data[start : start + min(end - start, 500)] + data[end:]


def dropped(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    return data[:start] + data[start + chance.randrange(1, 50) :]


def token(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + chance.choice(TOKENS) + data[at:]


def value(data: bytes, chance: random.Random) -> bytes:
    """One value of a JSON document or YAML mapping, whole, in exchange for another."""
    places = list(re.finditer(rb'(?<=: )("(?:[^"\\]|\\.)*"|[-0-9.eE+]+|true|false|null|\[|\{)', data))
    if not places:
        return token(data, chance)
    place = chance.choice(places)
    new = chance.choice([*TOKENS, json.dumps("".join(map(chr, chance.choices(range(1, 0xD7FF), k=9)))).encode()])
    return data[: place.start()] + new + data[place.end() :]
