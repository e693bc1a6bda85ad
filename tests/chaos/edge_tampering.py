"""Ways to change a signed release, each with a seed; what a device must refuse.

`known_gap` names those that OpenSSF's own command does not notice, by its design: files of git,
folders without a file, and an old release that was validly signed.
"""

import base64
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from genba.edge.oms import SIGNATURE_FILE, bundle, digests, statement
from genba.store.oms import EdgeKey, sign_folder


@dataclass(frozen=True)
class World:
    """What an attacker has: two signed releases, and a place of their own."""

    older: Path
    newer: Path
    aside: Path  # an empty folder


Tamper = Callable[[Path, Random, World], None]


def files(folder: Path) -> list[Path]:
    """Everything that is signed, sorted."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != SIGNATURE_FILE)


def flip(path: Path, chance: Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def flip_a_bit(folder: Path, chance: Random, world: World) -> None:
    flip(chance.choice(files(folder)), chance)


def flip_a_weight(folder: Path, chance: Random, world: World) -> None:
    flip(folder / "package" / "model.onnx", chance)


def truncate(folder: Path, chance: Random, world: World) -> None:
    path = chance.choice(files(folder))
    os.truncate(path, chance.randrange(path.stat().st_size))


def append(folder: Path, chance: Random, world: World) -> None:
    with chance.choice(files(folder)).open("ab") as file:
        file.write(chance.randbytes(1 + chance.randrange(9)))


def cut_in_half(folder: Path, chance: Random, world: World) -> None:
    """A download that ended early: what comes later is not there."""
    found = files(folder)
    for path in found[chance.randrange(1, len(found)) :]:
        path.unlink()


def remove(folder: Path, chance: Random, world: World) -> None:
    chance.choice(files(folder)).unlink()


def add(folder: Path, chance: Random, world: World) -> None:
    place = chance.choice([folder, folder / "package", folder / "runtime"])
    (place / f"extra{chance.randrange(9)}.onnx").write_bytes(chance.randbytes(20))


def add_hidden(folder: Path, chance: Random, world: World) -> None:
    place = chance.choice([folder, folder / "package", folder / "runtime"])
    (place / chance.choice([".x", ".DS_Store", ".nfs0001"])).write_bytes(b"")


def add_git(folder: Path, chance: Random, world: World) -> None:
    (folder / chance.choice([".gitignore", ".gitattributes"])).write_bytes(b"*")


def add_folder(folder: Path, chance: Random, world: World) -> None:
    (folder / chance.choice(["more", "package/more", ".cache"])).mkdir()


def rename(folder: Path, chance: Random, world: World) -> None:
    path = chance.choice(files(folder))
    path.rename(path.with_name(f"{path.name}{chance.randrange(9)}"))


def swap(folder: Path, chance: Random, world: World) -> None:
    one, other = chance.sample(files(folder), 2)
    first = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(first)


def link_a_file(folder: Path, chance: Random, world: World) -> None:
    """The very same bytes, but somewhere where they can be exchanged later."""
    path = chance.choice(files(folder))
    aside = world.aside / path.name
    shutil.move(path, aside)
    path.symlink_to(aside)


def link_a_folder(folder: Path, chance: Random, world: World) -> None:
    name = chance.choice(["package", "runtime"])
    shutil.move(folder / name, world.aside / name)
    (folder / name).symlink_to(world.aside / name)


def pipe(folder: Path, chance: Random, world: World) -> None:
    path = chance.choice(files(folder))
    path.unlink()
    os.mkfifo(path)


def edit_signature(folder: Path, chance: Random, world: World) -> None:
    flip(folder / SIGNATURE_FILE, chance)


def pad_signature(folder: Path, chance: Random, world: World) -> None:
    path = folder / SIGNATURE_FILE
    data = path.read_bytes()
    path.write_bytes(chance.choice([b"\n" + data, data + b" ", data.replace(b",", b", ", 1)]))


def cut_signature(folder: Path, chance: Random, world: World) -> None:
    path = folder / SIGNATURE_FILE
    os.truncate(path, chance.randrange(path.stat().st_size))


def remove_signature(folder: Path, chance: Random, world: World) -> None:
    (folder / SIGNATURE_FILE).unlink()


def other_key(folder: Path, chance: Random, world: World) -> None:
    flip_a_bit(folder, chance, world)
    sign_folder(folder, EdgeKey(private=generate_private_key(SECP256R1()), path=folder))


def other_key_same_name(folder: Path, chance: Random, world: World) -> None:
    """Signed by the attacker, who claims to be the trusted key."""
    body = json.loads((folder / SIGNATURE_FILE).read_bytes())
    hint = body["verificationMaterial"]["publicKey"]["hint"]
    other_key(folder, chance, world)
    mine = json.loads((folder / SIGNATURE_FILE).read_bytes())
    payload = base64.b64decode(mine["dsseEnvelope"]["payload"])
    signature = base64.b64decode(mine["dsseEnvelope"]["signatures"][0]["sig"])
    (folder / SIGNATURE_FILE).write_bytes(bundle(payload, signature, hint))


def edit_statement(folder: Path, chance: Random, world: World) -> None:
    """The list of files fits the altered folder, but the signature is that of the old list."""
    flip_a_bit(folder, chance, world)
    old = json.loads((folder / SIGNATURE_FILE).read_bytes())
    hint = old["verificationMaterial"]["publicKey"]["hint"]
    signature = base64.b64decode(old["dsseEnvelope"]["signatures"][0]["sig"])
    payload = statement(folder.name, digests(folder))
    (folder / SIGNATURE_FILE).write_bytes(bundle(payload, signature, hint))


def signature_of_another(folder: Path, chance: Random, world: World) -> None:
    shutil.copy(world.older / SIGNATURE_FILE, folder / SIGNATURE_FILE)


def replay(folder: Path, chance: Random, world: World) -> None:
    """The whole of an older release, validly signed."""
    shutil.rmtree(folder)
    shutil.copytree(world.older, folder)


def raise_the_number(folder: Path, chance: Random, world: World) -> None:
    """An older release that says it is newer."""
    replay(folder, chance, world)
    path = folder / "edge.json"
    body = json.loads(path.read_bytes())
    path.write_bytes(json.dumps(body | {"release": 100 + chance.randrange(9)}).encode())


def exchange_the_package(folder: Path, chance: Random, world: World) -> None:
    shutil.rmtree(folder / "package")
    shutil.copytree(world.older / "package", folder / "package")


def add_to_the_wheel(folder: Path, chance: Random, world: World) -> None:
    (path,) = (folder / "runtime").glob("*.whl")
    with zipfile.ZipFile(path, "a") as wheel:
        wheel.writestr(f"evil{chance.randrange(9)}.pth", "import os")


KINDS: Final[dict[str, Tamper]] = {
    f.__name__: f
    for f in (
        flip_a_bit, flip_a_weight, truncate, append, cut_in_half, remove, add, add_hidden, add_git,
        add_folder, rename, swap, link_a_file, link_a_folder, pipe, edit_signature, pad_signature,
        cut_signature, remove_signature, other_key, other_key_same_name, edit_statement,
        signature_of_another, replay, raise_the_number, exchange_the_package, add_to_the_wheel,
    )
}  # fmt: skip
#: Those that OpenSSF's command accepts, and why that is no fault of it.
PEER_ACCEPTS: Final = {
    "add_git": "it ignores files of git unless told not to",
    "add_folder": "a folder without a file is in no list of files",
    "pad_signature": "JSON may have spaces",
    "replay": "it remembers nothing",
}
