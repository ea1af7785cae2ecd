"""Inputs that are almost right: good ones with a few bytes changed, repeated, cut out or taken from others."""

import random
from collections.abc import Sequence

_MARKS = (
    b"\x00",
    b"\xff",
    b"\n",
    b"\r\n",
    b'"',
    b"{",
    b"[",
    b"\\",
    b"-1",
    b"9" * 20,
    b"\xf0\x9f\x98\x80",
    b"\xed\xa0\x80",
    b"*",
    b">",
    b".",
)


def mutated(good: Sequence[bytes], chance: random.Random, longest: int = 4096) -> bytes:
    """One of the good inputs, changed in up to eight places."""
    data = bytearray(chance.choice(good))
    for _ in range(chance.randint(0, 8)):
        _change(data, good, chance)
    return bytes(data[:longest])


def _change(data: bytearray, good: Sequence[bytes], chance: random.Random) -> None:
    place = chance.randint(0, len(data))
    end = min(len(data), place + chance.choice((1, 1, 2, 4, 16, 64)))
    match chance.randrange(6):
        case 0:
            data[place:end] = b""
        case 1:
            data[place:place] = data[place:end] * chance.choice((1, 2, 30))
        case 2:
            data[place:end] = chance.choice(_MARKS)
        case 3:
            data[place:end] = chance.randbytes(end - place)
        case 4 if data:
            data[min(place, len(data) - 1)] ^= 1 << chance.randrange(8)
        case _:
            other = chance.choice(good)
            data[place:end] = other[chance.randint(0, len(other)) :]
