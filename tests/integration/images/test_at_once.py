"""Everything at once on one store: pulls, removals, prunes, collections and containers; in the end it is whole."""

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirt.errors import MinirtError, NotFound
from minirt.images.snapshots import Snapshots
from minirt.images.store import ImageStore
from tests.command import Minirt
from tests.integration.images.making import Layout, entry, layer
from tests.integration.images.serving import Server

pytestmark = [pytest.mark.root, pytest.mark.slow]
ROUNDS = 6
BELOW = layer(entry("below", os.urandom(200_000)))


@pytest.fixture
def server(layout: Layout) -> Iterator[Server]:
    for tag in ("one", "two"):
        layout.tag(layout.image([BELOW, layer(entry(tag, tag.encode()))]), tag)
    with Server(layout) as running:
        yield running


def test_nobody_takes_what_another_needs(minirt: Minirt, server: Server) -> None:
    """Containers see both of their layers for as long as they are; who pulls succeeds, whoever collects meanwhile."""
    name, wrong = f"{server.host}/x", []
    commands = [
        *([["image", "pull", "-q", f"{name}:{tag}"] for tag in ("one", "two")]),
        ["image", "prune", "--all"],
        ["image", "gc", "--high", "0", "--low", "0", "--min-age", "0"],
        ["image", "fsck", "--repair"],
        ["image", "rm", "-f", f"{name}:one"],
    ]
    over = threading.Event()
    users = [threading.Thread(target=_use, args=(minirt.root, f"{name}:{tag}", over, wrong)) for tag in ("one", "two")]
    for user in users:
        user.start()
    try:
        for round_ in range(ROUNDS):
            random.Random(round_).shuffle(commands)
            running = [(words, minirt.start(*words)) for words in commands]
            for words, process in running:
                said, errors = process.communicate(timeout=60)
                if process.returncode and not ("rm" in words and "not in the store" in errors):
                    wrong.append(f"{words}: {process.returncode} {said}{errors}")
    finally:
        over.set()
        for user in users:
            user.join()
    assert wrong == []
    minirt.output("image", "prune", "--all")
    assert minirt.output("image", "fsck") == "nothing is wrong"
    assert os.listdir(minirt.root / "blobs/sha256") == []
    assert os.listdir(minirt.root / "snapshots") == ["containers"]


def test_who_looks_never_sees_half_an_image(minirt: Minirt, layout: Layout) -> None:
    """The list of images is read, and then what each of them is: somebody may have removed it in between."""
    layout.tag(layout.image([layer(entry("f", b"x"))]), "localhost/x:one")
    store, over = ImageStore(minirt.root), threading.Event()
    wrong: list[Exception] = []
    (image,) = store.load(layout.top)

    def look() -> None:
        while not over.is_set():
            try:
                assert len(store.list()) < 2
                assert store.get(image.id) == image
            except NotFound:
                continue
            except (MinirtError, AssertionError) as error:
                wrong.append(error)
                return

    looking = [threading.Thread(target=look) for _ in range(2)]
    for one in looking:
        one.start()
    try:
        for _ in range(60):
            store.remove(image.id, force=True)
            store.load(layout.top)
    finally:
        over.set()
        for one in looking:
            one.join()
    assert wrong == []


def _use(root: Path, name: str, over: threading.Event, wrong: list[str]) -> None:
    """Make containers of an image whenever it is there, and look at their layers until they go."""
    store, snapshots, count = ImageStore(root), Snapshots(root), 0
    tag = name.rpartition(":")[2]
    while not over.is_set():
        count += 1
        key = f"{tag}-{count}"
        try:
            overlay = snapshots.prepare(key, store.get(name))
        except NotFound:
            over.wait(0.005)
            continue
        for _ in range(10):
            over.wait(0.005)
            found = [sorted(os.listdir(lower)) for lower in overlay.lowers if lower.exists()]
            if found != [[tag], ["below"]]:
                wrong.append(f"{key} sees {found}")
        snapshots.remove(key)
