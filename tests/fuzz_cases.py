"""Mutated and hostile files for tests/test_fuzz.py: a `Random` determines everything."""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

Mutation = Callable[[random.Random, Path], None]  # changes the file in place

CANARY = "canary"  # a file that hostile content would create in the working directory
EXTREMES = (b"\0", b"\xff", b"\x7f", b"\x80")
OPCODES = [op.code.encode("latin1") for op in pickletools.opcodes]


def any_bytes(rng: random.Random, path: Path) -> None:
    """One to three bit flips, truncations, deletions, copies, insertions and splices."""
    content = bytearray(path.read_bytes())
    others = sorted(p for p in path.parent.iterdir() if p.is_file())
    for _ in range(rng.choice((1, 1, 2, 3))):
        near = len(content) if rng.random() < 0.6 else min(len(content), 200)  # or the header
        at = rng.randrange(near) if near else 0
        size = rng.choice((1, 2, 4, 16, 100, 1000))
        what = rng.randrange(8)
        if what == 0:
            for _ in range(rng.choice((1, 1, 3, 20))):
                if content:
                    content[rng.randrange(at, len(content))] ^= 1 << rng.randrange(8)
        elif what == 1:
            content[at : at + size] = rng.choice(EXTREMES) * size
        elif what == 2:
            del content[at:]
        elif what == 3:
            del content[at : at + size]
        elif what == 4:
            content[at:at] = rng.randbytes(size)
        elif what == 5:
            content[at:at] = content[at : at + size]
        elif what == 6:
            other = rng.choice(others).read_bytes()
            start = rng.randrange(len(other) or 1)
            content[at : at + size] = other[start : start + size]
        else:
            content += rng.choice((b"\0", b"\n", b"PK\3\4", rng.randbytes(size)))
    path.write_bytes(content)


def replaced_file(rng: random.Random, path: Path) -> None:
    """Another object under the name: an empty file, a folder, a link, a pipe, another file."""
    content = path.read_bytes()
    others = sorted(p for p in path.parent.iterdir() if p.is_file() and p != path)
    path.unlink()
    what = rng.randrange(7)
    if what == 0:
        path.write_bytes(b"")
    elif what == 1:
        path.mkdir()
    elif what == 2:
        path.symlink_to(path.name)
    elif what == 3:
        os.mkfifo(path)
    elif what == 4 and others:
        path.write_bytes(rng.choice(others).read_bytes())
    elif what == 5:
        path.symlink_to("/dev/null")
    else:
        path.write_bytes(content * 2)


def _npy(descr: str, order: str, shape: str, body: bytes) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + body


def npy_header(rng: random.Random, path: Path) -> None:
    """Another type, order or shape in the header of the same numbers."""
    clips = np.load(path)
    descr = rng.choice(
        ["'<f4'"] * 4
        + ["'>f4'", "'<f8'", "'<f2'", "'<i4'", "'<c8'", "'|O'", "'<U1'", "'|V4'", "'<M8[s]'"]
        + ["[('a','<f4')]", "'<f4', (2,)", "None", "7", "'x'", f"'{'<' * 40}'", "'<f16'"]
        + [f"__import__('os').system('touch {CANARY}')"]
    )
    order = rng.choice(["False"] * 4 + ["True", "0", "None", "'C'"])
    n, c, t, v, m = (1,) * (5 - clips.ndim) + clips.shape
    shape = rng.choice(
        [str(clips.shape)] * 3
        + [
            str((n, c, t, m, v)),
            str((n, v, t, c, m)),
            str((c, n, t, v, m)),
            str((n - 1, c, t, v, m)),
        ]
        + [str((n, c, t * v * m)), "()", "(0, 3, 16, 25, 2)", "(-1, 3, 16, 25, 2)", "(4,)"]
        + [f"({1 << 62}, 3, 16, 25, 2)", f"({1 << 31}, 3, {1 << 31}, 25, 2)", f"({10**30},)"]
        + [
            "(4.0, 3, 16, 25, 2)",
            "(True, 3, 16, 25, 2)",
            "'4'",
            "(4, 3, 16, 25, 2",
            "[4]",
            "(" * 300,
        ]
    )
    path.write_bytes(_npy(descr, order, shape, clips.tobytes()))


def npy_content(rng: random.Random, path: Path) -> None:
    """Valid files of other values, types and shapes."""
    clips = np.load(path)
    what = rng.randrange(12)
    if what == 0:
        clips = clips.astype(rng.choice(("<f8", ">f4", "<f2", ">f8", "i4", "c8", "?", "U5", "O")))
    elif what == 1:
        clips = np.asfortranarray(clips)
    elif what == 2:
        clips = clips[: rng.randrange(len(clips) + 1)]
    elif what == 3:
        clips = np.concatenate([clips] * 2, axis=rng.randrange(5))
    elif what == 4:
        clips = np.delete(clips, 0, axis=rng.randrange(5))
    elif what == 5:
        clips = clips.transpose(rng.sample(range(5), 5))
    elif what == 6:
        clips = clips * np.float32(rng.choice((0, -1, 1e-38, 1e6, 1e8, 1e20, 1e38)))
    elif what == 7:
        clips = clips.astype("f8") * rng.choice((1e39, 1e300, 1e-300))
    elif what == 8:
        hostile = np.empty(1, dtype=object)
        hostile[0] = Hostile()
        clips = hostile
    elif what == 9:
        with open(path, "wb") as file:
            np.savez(file, clips)
        return
    elif what == 10:
        path.write_bytes(rng.choice(hostile_pickles()))
        return
    else:
        values = (np.nan, np.inf, -np.inf, 3e38, 1e10, 1e-45)
        flat = clips.reshape(-1)
        flat[rng.randrange(flat.size)] = rng.choice(values)
    np.save(path, clips, allow_pickle=True)


class Hostile:
    """Its pickle creates a file when an unrestricted unpickler loads it."""

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {CANARY}",)


def _text(text: str) -> bytes:
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def _short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def hostile_pickles() -> list[bytes]:
    """Pickles that run code, by every opcode that calls something, or exhaust memory."""
    command, python = _text(f"touch {CANARY}"), _text(f"open('{CANARY}', 'w')")
    name = _text(CANARY)
    made = [pickle.dumps(Hostile(), protocol) for protocol in range(6)]
    made += [pickle.dumps((["a"] * 4, [0, 1, 2, Hostile()]), protocol) for protocol in (0, 2, 4)]
    made += [
        b"cposix\nsystem\n(" + command + b"tR.",
        b"(" + command + b"iposix\nsystem\n.",
        b"(cposix\nsystem\n" + command + b"o.",
        b"cbuiltins\neval\n(" + python + b"tR.",
        b"c__builtin__\nexec\n(" + python + b"tR.",
        b"cbuiltins\nopen\n(" + name + _text("w") + b"tR.",
        b"\x80\4" + _short("io") + _short("open") + b"\x93(" + name + _text("w") + b"tR.",
        b"\x80\4" + _short("builtins") + _short("list.__class__") + b"\x93" + name + b"\x85R.",
        b"\x80\2csubprocess\nPopen\n((" + _text("touch") + name + b"ltR.",
        b"\x80\2cpathlib\nPath\n(" + name + b"t\x81.",
        b"cnumpy\nload\n(" + name + b"tR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cposix\nsystem\n(K\0tcnumpy\ndtype\ntR.",
        b"ccollections\nOrderedDict\n)R}" + _short("__class__") + b"cposix\nsystem\nsb.",
        b"cbuiltins\ngetattr\n(cbuiltins\ndict\n" + _text("get") + b"tR.",
        b"(lp0\ncbuiltins\ntuple\n(g0\ntR}" + _text("__reduce__") + b"cposix\nsystem\nsb.",
        b"\x82\1.",  # an extension
        b"Pname\n.",  # a persistent id
        b"]\x94h\0a0h\0.",  # a list that contains itself
        b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"(" * 100_000 + b"t" * 100_000 + b".",
        b"]" * 100_000 + b"a" * 99_999 + b".",
        b"I" + b"9" * 100_000 + b"\n.",
        b"\x8b" + (1 << 20).to_bytes(4, "little") + b"\xff" * (1 << 20) + b".",
    ]
    return made


def hostile_labels(rng: random.Random, path: Path) -> None:
    path.write_bytes(rng.choice(hostile_pickles()))


def label_opcodes(rng: random.Random, path: Path) -> None:
    """One or two opcodes replaced, or a hostile pickle inserted."""
    content = path.read_bytes()
    positions = [position for _, _, position in pickletools.genops(content)]
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.choice(positions)
        content = content[:at] + rng.choice(OPCODES) + content[at + 1 :]
    if rng.random() < 0.3:
        at = rng.choice(positions)
        content = content[:at] + rng.choice(hostile_pickles())[:-1] + content[at:]
    path.write_bytes(content)


def label_content(rng: random.Random, path: Path) -> None:
    """Valid pickles of the same content in other types, of wrong labels and of other objects."""
    names, labels, lengths = pickle.loads(path.read_bytes())
    same = (names, labels, lengths)
    content = rng.choice(
        [same, (names, labels), [names, labels], [tuple(names), tuple(labels)]]
        + [(names, np.array(labels)), (np.array(names), np.array(labels, "u1"), np.array(lengths))]
        + [(names, labels, [None] * 4), (names, [float(n) for n in labels]), (names, labels[:-1])]
        + [
            (names, [-1, 0, 0, 0]),
            (names, [10**6] * 4),
            (names, [10**30] * 4),
            (names, [1 << 63] * 4),
        ]
        + [(names, [[0]] * 4), (names, [[0], [0, 1], 0, 0]), (names, "abcd"), (names, {1: 2})]
        + [(names, [True] * 4), (labels, names), names, None, {}, {"a": same}, 7, "text", ()]
        + [([None] * 4, labels), ([b"\xff"] * 4, labels), (["\ud800"] * 4, labels)]
        + [(["x\ny\x1b[2J"] * 4, labels), ([["deep"]] * 4, labels), (names, np.zeros((4, 1), int))]
        + [(names, labels, [-5] * 4), (names, np.array(labels, object)), (names, [1j] * 4)]
    )
    path.write_bytes(pickle.dumps(content, rng.randrange(6)))


def yaml_value(rng: random.Random, path: Path) -> None:
    """Another value, tag or code for one key, or the case of its line swapped."""
    lines = path.read_text(encoding="utf-8").splitlines()
    at = rng.randrange(len(lines))
    key = lines[at].split(":")[0]
    odd = ["7", "-7", "1e9", ".nan", "~", "[]", "{}", "yes", "''", "*a", "!!timestamp x", "@"]
    odd += ["0x7fffffffffffffffff", "12:30:45", "9" * 5000]
    tags = ["timestamp", "int", "float", "bool", "null", "binary", "set", "omap", "pairs", "map"]
    what = rng.randrange(4)
    if what == 0:
        lines[at] = f"{key}: {rng.choice(odd)}"
    elif what == 1:
        lines[at] = f"{key}: !!{rng.choice(tags)} {rng.choice(('x', '', '{a: 1}'))}"
    elif what == 2:
        call = rng.choice(("os.system", "subprocess.getoutput", "builtins.eval"))
        lines[at] = f"{key}: !!python/object/apply:{call} ['touch {CANARY}']"
    else:
        lines[at] = lines[at].swapcase()
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def yaml_text(rng: random.Random, path: Path) -> None:
    """Missing and repeated lines, comments, nested aliases, cycles, deep nesting, encodings."""
    lines = path.read_text(encoding="utf-8").splitlines()
    at = rng.randrange(len(lines))
    bomb = ["a0: &a0 [x, x]"]
    bomb += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    deep = rng.choice(("[", "{a: ", "- ", "? ")) * rng.choice((10, 3000))
    comment = rng.choice(("# a remark", "", "---", "...", "\t", "%YAML 9.9", "<<: {a: 1}"))
    texts = [
        lines[:at] + lines[at + 1 :],
        lines[:at] + lines[at : at + 1] + lines[at:],
        lines[:at] + [comment] + lines[at:],
        bomb + lines,
        ["skeleton:", *(f"  {line}" for line in bomb), *lines],
        [*lines, f"x: {deep}"],
        ["&a a: *a", *lines],
        [f"{line}  # same" if ": " in line and "'" not in line else line for line in lines],
        [json.dumps(yaml.safe_load("\n".join(lines)))],
    ]
    coding = rng.choice(("utf-8",) * 9 + ("utf-16", "utf-8-sig", "utf-32"))
    path.write_bytes(("\n".join(rng.choice(texts)) + "\n").encode(coding))


MUTATIONS: dict[str, list[Mutation]] = {
    "x_data.npy": [any_bytes, npy_header, npy_content, replaced_file],
    "x_label.pkl": [any_bytes, label_opcodes, hostile_labels, label_content, replaced_file],
    "m.meta.yaml": [any_bytes, yaml_text, yaml_value, replaced_file],
    "m.pdmodel": [any_bytes, any_bytes, replaced_file],
    "m.pdiparams": [any_bytes, any_bytes, replaced_file],
}


def mutate(rng: random.Random, folder: Path) -> tuple[str, str]:
    """Change one file of a folder. Returns its name and the mutation's."""
    name = rng.choice(sorted(MUTATIONS))
    mutation = rng.choice(MUTATIONS[name])
    mutation(rng, folder / name)
    return name, mutation.__name__
