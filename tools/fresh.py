"""`python tools/fresh.py COMMAND...`: run a command as on a new machine, without caches and compilers.

The command runs in a clone of this repository's last commit. Its home folder is empty, so all caches are empty. Its
PATH has the programs of the current PATH, except compilers and build tools. The script prints how long the command
took, and exits with the command's exit status.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_COMPILERS = re.compile(
    r"(.*-)?(cc|c\+\+|c[89]9|gcc|g\+\+|clang|clang\+\+|cpp|cmake|ninja|ld|as|rustc|cargo)(-[\d.]+)?"
)
_KEPT = ("LANG", "LC_ALL", "PYTHON", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")


def path_without_compilers(folder: Path) -> str:
    """Fill `folder` with links to the programs of the PATH, except compilers and build tools. Return the new PATH."""
    for place in os.environ["PATH"].split(os.pathsep):
        for program in sorted(Path(place).glob("*")):
            link = folder / program.name
            if not _COMPILERS.fullmatch(program.name) and not link.is_symlink():
                link.symlink_to(program.resolve())
    return str(folder)


def main() -> int:
    """Run the command of the script's arguments, and return its exit status."""
    with tempfile.TemporaryDirectory(prefix="fresh-") as folder:
        home, programs, clone = (Path(folder, name) for name in ("home", "programs", "clone"))
        home.mkdir()
        programs.mkdir()
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        environment |= {"HOME": str(home), "PATH": path_without_compilers(programs), "TMPDIR": folder}
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        started = time.monotonic()
        done = subprocess.run(sys.argv[1:], env=environment, cwd=clone, check=False)
        print(f"\n{' '.join(sys.argv[1:])}: exit status {done.returncode}, {time.monotonic() - started:.1f} s")
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
