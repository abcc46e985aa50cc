"""``python -m tests.bench.largeimage TOP``: an image of 300 MB in 15,000 files and 8 layers, the same every time.

Half of what a file consists of is random, half is made of words; links, empty directories and files that a later layer
replaces or deletes are among them, as in an image that somebody built step by step.
"""

import gzip
import hashlib
import io
import random
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.integration.images.making import Layout

LAYERS = 8
FILES = 15_000
SIZE_BYTES = 300 << 20
TIME = 1_700_000_000
POOL_BYTES = 16 << 20


def build(top: Path) -> Layout:
    """Write the image as an OCI layout, tagged ``latest``, its layers compressed as docker does it."""
    top.mkdir(parents=True)
    layout = Layout(top)
    with ProcessPoolExecutor(2) as pool:
        made = list(pool.map(_compressed, range(LAYERS)))
    diff_ids = [diff_id for diff_id, _ in made]
    image = layout.image_of([blob for _, blob in made], diff_ids, how="gzip", Cmd=["true"])
    return layout.tag(image, "latest")


def _compressed(number: int) -> tuple[str, bytes]:
    plain = _layer(number)
    return f"sha256:{hashlib.sha256(plain).hexdigest()}", gzip.compress(plain, 6, mtime=0)


def _layer(number: int) -> bytes:
    choose = random.Random(number)
    pool = _pool(choose)
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, size in _entries(number, choose):
            info.size, info.mtime = size, TIME + number
            at = choose.randrange(POOL_BYTES - size) if size else 0
            tar.addfile(info, io.BytesIO(pool[at : at + size]))
    return made.getvalue()


def _pool(choose: random.Random) -> bytes:
    words = [choose.randbytes(choose.randint(2, 9)).hex().encode() for _ in range(4096)]
    pieces = []
    while len(pieces) * 4096 < POOL_BYTES:
        text = b" ".join(choose.choices(words, k=512))
        pieces.append((text if choose.random() < 0.5 else choose.randbytes(2048) + text)[:4096])
    return b"".join(pieces)


def _entries(number: int, choose: random.Random) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """Yield (entry, size in bytes): directories of 50 files each, a few of them links."""
    count = FILES // LAYERS
    shares = [choose.lognormvariate(0, 1.5) for _ in range(count)]
    scale = SIZE_BYTES / LAYERS / sum(shares)
    for place in range(count):
        where = f"usr/lib/part{number}/group{place // 50}"
        if place % 50 == 0:
            yield _info(where, tarfile.DIRTYPE, mode=0o755), 0
        size = min(int(shares[place] * scale), POOL_BYTES // 4)
        yield _info(f"{where}/file{place}", tarfile.REGTYPE, mode=0o755 if place % 7 == 0 else 0o644), size
        if place % 40 == 0:
            yield _info(f"{where}/link{place}", tarfile.SYMTYPE, linkname=f"file{place}"), 0
        if place % 200 == 0:
            yield _info(f"{where}/hard{place}", tarfile.LNKTYPE, linkname=f"{where}/file{place}"), 0
    if number:
        yield _info(f"usr/lib/part{number - 1}/group0/.wh.file1", tarfile.REGTYPE), 0
        yield _info(f"usr/lib/part{number - 1}/group0/file2", tarfile.REGTYPE), 0


def _info(name: str, kind: bytes, *, mode: int = 0o644, linkname: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname = kind, mode, linkname
    return info


if __name__ == "__main__":
    build(Path(sys.argv[1]))
