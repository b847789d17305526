"""Fuzz each target in turn: `python -m fuzz [--seconds N] [TARGET…]`.

With atheris (`pip install -e '.[fuzz]'`, Linux and macOS), the coverage of the code guides the search for new inputs.
Without atheris, the inputs of the corpus are run and then changed at random, with a fixed seed. An input that fails is
written to the folder `fuzz/found`. If it is worth keeping, reduce it and add it to `fuzz/corpus`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import random
import subprocess
import sys
import time
import traceback
from pathlib import Path

from fuzz.targets import TARGETS

FOLDER = Path(__file__).parent
LONGEST = 4_096  # bytes of an input
_TOKENS = (
    b"\n",
    b"\r\n",
    b"\0",
    b"\xff" * 4,
    b"**/",
    b"[!a-z]",
    b"!",
    b"Content-Length: 5\r\n\r\n",
    b"def f(:\n",
    b"{" * 9,
)


def corpus(name: str) -> list[bytes]:
    """Return the inputs in the corpus of a target, sorted by file name."""
    return [file.read_bytes() for file in sorted((FOLDER / "corpus" / name).iterdir())]


def guided(name: str, seconds: int) -> int:
    """Fuzz one target with atheris, and return its exit status. It runs in its own process, because atheris exits."""
    (FOLDER / "found").mkdir(exist_ok=True)
    code = (
        "import sys, atheris\n"
        "with atheris.instrument_imports(include=['indexer', 'lsp_server', 'policy']):\n"
        "    from fuzz.targets import TARGETS\n"
        f"atheris.Setup(sys.argv, TARGETS[{name!r}])\n"
        "atheris.Fuzz()\n"
    )
    options = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-timeout=20", "-verbosity=0"]
    seeds = FOLDER / "corpus" / name
    # Atheris writes new inputs into the first folder, so that the corpus does not change.
    new = FOLDER / "found" / f"{name}-corpus"
    new.mkdir(exist_ok=True)
    found = f"-artifact_prefix={FOLDER / 'found'}/{name}-"
    return subprocess.run([sys.executable, "-c", code, *options, found, new, seeds], check=False).returncode


def unguided(name: str, seconds: float, seed: int = 0) -> int:
    """Run the inputs of a target's corpus, then random changes of them. Return 1 if an input fails, else 0."""
    pick, kept = random.Random(seed), corpus(name)
    for data in kept:
        if not _holds(name, data):
            return 1
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not _holds(name, _changed(pick, kept)):
            return 1
    return 0


def _holds(name: str, data: bytes) -> bool:
    try:
        TARGETS[name](data)
    except Exception:
        (FOLDER / "found").mkdir(exist_ok=True)
        file = FOLDER / "found" / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}"
        file.write_bytes(data)
        traceback.print_exc()
        print(f"{name} fails for {file}: {data[:200]!r}")
        return False
    return True


def _changed(pick: random.Random, kept: list[bytes]) -> bytes:
    """Return one of the kept inputs, changed in a few places."""
    data = bytearray(pick.choice(kept))
    for _ in range(pick.randrange(1, 6)):
        at = pick.randrange(len(data) + 1)
        match pick.randrange(5):
            case 0:
                data[at : at + pick.randrange(1, 9)] = b""
            case 1:
                data[at:at] = bytes(pick.randrange(256) for _ in range(pick.randrange(1, 9)))
            case 2:
                data[at:at] = pick.choice(_TOKENS)
            case 3:
                other = pick.choice(kept)
                start = pick.randrange(len(other) + 1)
                data[at:at] = other[start : start + 64]
            case _:
                data[at : at + 1] = bytes([pick.randrange(256)])
    return bytes(data[:LONGEST])


def main(arguments: list[str] | None = None) -> int:
    """Fuzz the targets. Return 1 if an input fails, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)} (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="time for all targets together (default: %(default)s)")
    parser.add_argument("--unguided", action="store_true", help="do not use atheris, even if it is installed")
    options = parser.parse_args(arguments)
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    names = options.targets or list(TARGETS)
    has_atheris = importlib.util.find_spec("atheris") is not None and not options.unguided
    each = max(1, options.seconds // len(names))
    print(f"{each} s for each target, {'guided by coverage' if has_atheris else 'at random, without atheris'}")
    failed = [name for name in names if (guided(name, each) if has_atheris else unguided(name, each))]
    print(f"failed: {', '.join(failed)}" if failed else "nothing found")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
