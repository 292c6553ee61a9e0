"""How collections of labelled pictures are named; without their readers, so that a wrong name is told at once."""

import re
from pathlib import Path


def pieces_of(spec: str) -> list[str]:
    """Splits a name of collections joined by + into that of each, with its repeat."""
    return re.split(r"\+(?=(?:\d+\*)?\w+:)", spec)


def name_of(piece: str) -> str:
    """Gives what figures of one collection are called: the last part of its path, or that it is the world."""
    kind, _, path = piece.rpartition(":")
    return "world" if re.fullmatch(r"(.*[*:])?world", kind) else Path(path).name
