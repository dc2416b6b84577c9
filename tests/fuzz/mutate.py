"""Seeded damage to files: to their bytes, to text, and to the trees that JSON, YAML and literals hold."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import yaml

Damage = Callable[["Chance", bytes], bytes]
Style = Callable[[Any], str]

JSON_RAW = [
    *"NaN Infinity -Infinity 1e400 -1e400 1e-400 -0.0 1e19 0.1 -7 18446744073709551616".split(),
    *r'"\ud800" "\u0000" "a\ud800.png" "../../x" "." ".." "[1,2"'.split(),
    *("9" * 400, "9" * 5000, f'"{"a" * 5000}.png"'),
    *("[" * 10_000, "[" * 10_000 + "]" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000),
]
_ALIASES = ", ".join(f"&{b} [{f'*{a},' * 9}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
YAML_RAW = [
    *"2026-13-45 2026-02-30 2026-01-01 0b 0b2 0x 0o9 1_000 _ 190:20:30 .inf -.inf .nan ~ yes = << *missing".split(),
    *"{<<: 3};{<<: [1]};&a [*a];&a {b: *a};{[1, 2]: 3};{{}: 1};\t x;!!binary '@@';!!timestamp abc".split(";"),
    *"!!set {a, b};!!int abc;!!float x;!!omap [a: 1];!!pairs [a: 1];!!bool maybe;!!null x;!!str 3;!a 3".split(";"),
    *("!!python/object/apply:os.system ['echo']", "!!python/name:os.system", f"[&a [{'x,' * 9}], {_ALIASES}]"),
]
VALUES = (
    *(None, True, False, 0, 1, -1, 2, 3, 1.5, -32, 100_000, 10**12, 2**31, 2**63, 2**64, 1e308, "", " ", "0", "cat"),
    *("a\0b", "٣", "\U0001f408", "None", "1" * 300, [], {}, [[]], [0], [1, 2, 3], [None], [100_000, 100_000], {"a": 1}),
)
PLAIN_WORDS = [
    *"nan inf -inf -1 0 1 2 1e400 1e308 1e-400 0x10 1_0 ٣ ½ . - + 0.5.5 , \0 # \ufeff \u2028 \x85 \x1c".split(" "),
    *("9" * 400, "9" * 5000, "a" * 5000, "../.."),
]
WORDS = [*PLAIN_WORDS, "\ud800"]
BYTES = [bytes.fromhex(one) for one in "00 ff efbbbf fffe eda080 0d 0a 09 1a 7b 5d 22 00000000000000000000".split()]
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)
ENCODINGS = "utf-16 utf-8 utf-8-sig utf-16-be utf-32".split()


class Chance(random.Random):
    """Seeded choices, with notes of the changes."""

    def __init__(self, seed: str) -> None:
        super().__init__(seed)
        self.notes: list[str] = []

    def note(self, *words: object) -> None:
        text = " ".join(word if isinstance(word, str) else ascii(word) for word in words)
        self.notes.append(text if len(text) <= 160 else f"{text[:150]} ... ({len(text)} characters)")


def bytes_damage(chance: Chance, data: bytes) -> bytes:
    """One to three of: cut, flip, insert, delete, repeat, overwrite, change the encoding."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.randrange(len(data) + 1)
        upto = min(len(data), at + chance.choice((1, 1, 2, 4, 16, 256)))
        what = chance.choice("cut flip flip insert delete repeat number number random encode".split())
        chance.note(what, at, "to", upto)
        if what == "cut":
            data = data[:at]
        elif what == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :]
        elif what == "insert":
            data = data[:at] + chance.choice(BYTES) + data[at:]
        elif what == "delete":
            data = data[:at] + data[upto:]
        elif what == "repeat":
            data = data[:upto] + data[at:upto] * chance.choice((1, 2, 50)) + data[upto:]
        elif what == "number":
            value = chance.choice(NUMBERS).to_bytes(4, chance.choice(("little", "big")))
            data = data[:at] + value + data[at + 4 :]
        elif what == "random":
            data = data[:at] + chance.randbytes(upto - at) + data[upto:]
        elif what == "encode":
            data = data.decode("latin-1").encode(chance.choice(ENCODINGS))
    return data


def text_damage(chance: Chance, data: bytes) -> bytes:
    """One to three words or lines replaced, dropped, repeated or drawn out, in text of words and commas."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        parts = re.split(r"([\s,:]+)", data.decode("utf-8", "surrogatepass"))
        at = 2 * chance.randrange((len(parts) + 1) // 2)
        what = chance.choice("replace replace replace drop many repeat append line comma".split())
        chance.note(what, parts[at])
        if what == "replace":
            parts[at] = chance.choice(WORDS)
            chance.note("by", parts[at])
        elif what == "drop":
            del parts[at : at + chance.choice((1, 2, 20))]
        elif what == "many":
            parts[at] = " ".join([parts[at]] * chance.choice((2, 10, 20_000)))
        elif what == "repeat":
            parts[at:at] = parts[at : at + 12]
        elif what == "append":
            parts[at] += chance.choice(WORDS)
        elif what == "line":
            parts[at] += "\n"
        elif what == "comma":
            parts[at] += chance.choice((",", '"', "'", ";", "\t", "\n\n", "\\"))
        data = "".join(parts).encode("utf-8", "surrogatepass")
    return data


def as_json(tree: Any) -> str:
    """The tree as JSON, its raw places filled in."""
    return filled(json.dumps(tree, ensure_ascii=False))


def as_yaml(tree: Any) -> str:
    """The tree as YAML in blocks, its raw places filled in."""
    text = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False, width=1 << 20, default_flow_style=None)
    return filled(text)


def tree_damage(read: Callable[[str], Any], style: Style) -> Damage:
    """Damage to the tree in a text that `read` understands, written again in `style`."""

    def damage(chance: Chance, data: bytes) -> bytes:
        return style(damaged_tree(chance, read(data.decode()), style)).encode("utf-8", "surrogatepass")

    return damage


JSON = tree_damage(json.loads, as_json)
YAML = tree_damage(yaml.safe_load, as_yaml)


def damaged_tree(chance: Chance, tree: Any, style: Style) -> Any:
    """One to three places of a tree changed: other types, numbers, keys and lengths; the tree itself is kept."""
    holder = [deepcopy(tree)]
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        places = list(_places(holder))
        path, parent, key = chance.choice(places)
        value = parent[key]
        what = chance.choice("value value raw raw drop repeat other wrap edit edit key".split())
        chance.note(path, what)
        if what == "value":
            parent[key] = deepcopy(chance.choice(VALUES))
        elif what == "raw":
            parent[key] = _raw_place(chance, style)
            chance.note(filled(parent[key]))
        elif what == "drop" and parent is not holder:
            del parent[key]
        elif what == "repeat" and isinstance(parent, list) and parent is not holder:
            parent[key:key] = [value] * chance.choice((1, 2, 100))
        elif what == "other":
            parent[key] = deepcopy(chance.choice(places)[1])
        elif what == "wrap":
            parent[key] = chance.choice(([value], {"a": value}, [value, value], str(value)[:100]))
        elif what == "key" and isinstance(parent, dict):
            parent[chance.choice(("a", "0", "-1", "1.5", "", str(key).upper(), "٣"))] = parent.pop(key)
        elif what == "edit":
            parent[key] = _edited(chance, value)
        if isinstance(key, str | int) and what != "drop":
            chance.note("=", parent.get(key) if isinstance(parent, dict) else parent[key])
    return holder[0]


def _edited(chance: Chance, value: Any) -> Any:
    """A value of the same type."""
    if isinstance(value, str):
        at = chance.randrange(len(value) + 1)
        inserted, replaced = chance.choice(PLAIN_WORDS), chance.choice("~\x7f0oPN^")
        edits = (value[:at], value[:at] + inserted + value[at:], value[:at] + replaced + value[at + 1 :])
        return chance.choice((*edits, value * 50, value.upper(), f"../{value}", f"/{value}"))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return chance.choice((-value, value + 1, value * 1e6, value + 0.5, value * 10**9, float(value), value - 1))
    if isinstance(value, list):
        return chance.choice(
            (value[:-1], value[1:], value[::-1], value * 2, [*value, 0], value * 1000 if len(value) < 9 else [])
        )
    if isinstance(value, dict):
        return chance.choice((list(value.items()), list(value), {}, {**value, "0": 0}))
    return value


def _places(holder: Any, path: str = "") -> Any:
    """Every (path, container, key) below a container."""
    for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
        yield f"{path}/{key}", holder, key
        if isinstance(holder[key], dict | list):
            yield from _places(holder[key], f"{path}/{key}")


def _raw_place(chance: Chance, style: Style) -> str:
    """A mark that `style` turns into text unchanged: what no tree can hold, such as 1e400 and half a character."""
    count = len(JSON_RAW) + (len(YAML_RAW) if style is as_yaml else 0)
    return f"«{chance.randrange(count)}»"


def filled(text: str) -> str:
    """The text with every mark of `_raw_place` filled in."""
    raw = [*JSON_RAW, *YAML_RAW]
    return re.sub("""["']?«([0-9]+)»["']?""", lambda mark: raw[int(mark[1])], text)
