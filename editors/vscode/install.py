"""Install repoformer-lsp into an environment of its own, download a model, and report the progress to an editor.

All editor plugins run this script, with any Python from 3.7 or with `uv run`, so the installation is the same in each
editor. The script writes one JSON object per line to stdout: `{"message", "percent"}` during the installation
(`percent` is null if it is unknown), and at the end `{"program", "message", "warning"}` or `{"error", "advice",
"kind"}`. The output of pip, uv and the server goes to stderr, for a log. The exit status is 0 if the server is usable.

The last step writes a file into the environment, which says that the installation is complete. Without this file, the
environment is created again. pip and uv cache their downloads, so a second try does not repeat them. The folders
`vscode`, `neovim` and `emacs` have the same script, because each of them is installed without the others.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

OLDEST = (3, 10)
NEWEST = 13  # the newest Python with which the server is tested is 3.13
COMPLETE = "repoformer-lsp.installed"  # a file in the environment, which says that the installation is complete
WINDOWS = os.name == "nt"
BIN, EXE = ("Scripts", ".exe") if WINDOWS else ("bin", "")
GET_PYTHON = "Install Python 3.10 or later from python.org or your system's packages, or uv from docs.astral.sh/uv, "

# Explanations for the output of a failed program: kind, pattern, error, advice. The first pattern that matches counts.
FAILURES = (
    ("disk", r"no space left|not enough space|disk quota exceeded|os error 28\b",
     "The disk is full.", "Free 2 GB, then {again}."),
    ("certificate", r"CERTIFICATE_VERIFY_FAILED|invalid peer certificate|certificate verify failed",
     "The certificate of the package index is not trusted; a proxy that inspects traffic may be the reason.",
     "Set PIP_CERT (for uv: SSL_CERT_FILE) to your organization's certificates in the environment of the editor, then "
     "{again}."),
    ("proxy", r"ProxyError|Cannot connect to proxy|Tunnel connection failed|\b407\b|proxy authentication required|"
     r"tunnel error|proxyconnect",
     "The proxy{proxy} refused the connection.",
     "Correct HTTPS_PROXY in the environment of the editor, or pip's setting `proxy`, then {again}."),
    ("network", r"name resolution|NewConnectionError|Connection refused|timed out|Network is unreachable|"
     r"error sending request|dns error|Max retries exceeded|Connection reset|Connection aborted|IncompleteRead|"
     r"Remote end closed|Connection broken|No route to host|getaddrinfo failed|could not connect|ReadTimeoutError|"
     r"Failed to download|Could not fetch URL|error decoding response body|end of file before message length",
     "The package index could not be reached{proxy}.",
     "Check the network; behind a proxy, set HTTPS_PROXY in the environment of the editor. Then {again}; downloads "
     "that are complete are kept."),
    ("venv", r"ensurepip is not available|No module named '?(venv|ensurepip)|ensurepip.{0,80}non-zero",
     "This Python cannot create environments.",
     "On Debian and Ubuntu run `sudo apt install python3-venv`. Elsewhere install uv from docs.astral.sh/uv. Then "
     "{again}."),
    ("package", r"No matching distribution found for|not found in the package registry|Invalid requirement|"
     r"is not a valid (editable|wheel)|No such file or directory: .{0,200}(whl|toml|gz)|Distribution not found at|"
     r"does not appear to be a Python project|Failed to parse|not found in the provided package locations|\b404\b",
     "{package} cannot be installed: no package index has it for this Python, or there is no such file.",
     "Correct {setting}: the name of a package, a wheel, an address, or the folder of a clone. Then {again}."),
    ("build", r"Failed to build|Failed building wheel|CMake Error|error: command .* failed|build backend returned",
     "A package has no prebuilt file for this system, and compiling it failed.",
     "Use a 64-bit Python {oldest} to 3.{newest}, or install a C++ compiler. Then {again}."),
    ("busy", r"Permission denied|Access is denied|being used by another process|os error (5|13|32)\b",
     "A file of the environment in {folder} cannot be written; a running server may be using it.",
     "Close other windows of the editor, check that the folder is yours, then {again}."),
)  # fmt: skip


class Failed(Exception):
    """The installation failed: the reason, the next step, and a code for programs."""

    def __init__(self, error: str, advice: str, kind: str = "other") -> None:
        super().__init__(error)
        self.error, self.advice, self.kind = error, advice, kind


class ProgramFailed(Exception):
    """A program exited with a status other than 0; `output` has its last lines."""

    def __init__(self, output: list[str]) -> None:
        super().__init__(output[-1] if output else "no output")
        self.output = output


def main() -> int:
    """Run the installation, and return the exit status."""
    parser = argparse.ArgumentParser(description="Install repoformer-lsp into an environment of its own.")
    parser.add_argument("folder", type=Path, help="the folder of the environment")
    parser.add_argument("--package", default="repoformer-lsp", help="the package that pip or uv installs")
    parser.add_argument("--model", default="qwen2.5-coder-0.5b", help="the model to download; empty for none")
    parser.add_argument("--setting", default="--package", help="the editor's name for --package, for messages")
    parser.add_argument("--again", default="install again", help="how to run this script again, for messages")
    options = parser.parse_args()
    for word in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, word):
            signal.signal(getattr(signal, word), lambda *_: sys.exit(1))  # so that `finally` ends the child
    try:
        program, warning = install(options)
    except Failed as problem:
        advice = problem.advice.replace("{again}", options.again)
        tell(error=problem.error, advice=advice[:1].upper() + advice[1:], kind=problem.kind)
        return 1
    tell(program=str(program), message="The server is installed.", warning=warning)
    return 0


def install(options: argparse.Namespace) -> tuple[Path, str]:
    """Install the server and the model. Return the server's program, and warnings for the user. Raises `Failed`."""
    folder = options.folder.absolute()
    bin_ = folder / BIN
    program, python, complete = bin_ / ("repoformer-lsp" + EXE), bin_ / ("python" + EXE), folder / COMPLETE
    package = options.package
    package = str(Path(package).expanduser()) if package.startswith("~") else package
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with only_one(folder.parent / (folder.name + ".lock")):
            uv = find_uv()
            try:
                if not (complete.is_file() and works(program, "--version")):
                    step("Creating an environment", 0)
                    make_environment(folder, uv)
                elif not uv and not works(python, "-m", "pip", "--version"):
                    run(folder, python, "-m", "ensurepip")
                if complete.exists():
                    complete.unlink()
                step("Installing the server", 5)
                pip = [uv, "pip", "install", "--python"] if uv else []
                pip += [python] if uv else [python, "-m", "pip", "install", "--retries", "2"]
                run(folder, *pip, "--upgrade", package, follow=Packages())
                run(folder, program, "--version")
                complete.write_text(package + "\n", "utf-8")
            except ProgramFailed as problem:
                raise explained(problem.output, folder, package, options.setting) from problem
            return program, "\n".join(filter(None, [get_model(folder, program, options), check(folder, program)]))
    except OSError as problem:
        reason = f"{problem.strerror or problem}: {problem.filename or folder}"
        raise explained([reason], folder, package, options.setting) from problem


def make_environment(folder: Path, uv: str | None) -> None:
    """Create an empty environment, and replace an incomplete one. Raises `Failed` and `ProgramFailed`."""
    if folder.exists():
        if any(folder.iterdir()) and not any((folder / name).exists() for name in ("pyvenv.cfg", BIN, COMPLETE)):
            raise Failed(f"{folder} has files, but is not an environment.", "Move them away, then {again}.", "folder")
        shutil.rmtree(str(folder))
    python = find_python()
    if uv:
        run(folder, uv, "venv", "--python", python or f"3.{NEWEST - 1}", folder)
    elif python:
        run(folder, python, "-m", "venv", folder)
    else:
        found = "{}.{}".format(*sys.version_info[:2])
        raise Failed(f"Python {found} is too old: the server needs 3.{OLDEST[1]} or later.",
                     GET_PYTHON + "then {again}.", "python")  # fmt: skip


def find_python() -> str | None:
    """Return a Python that is new enough: the one that runs this script, else one on the PATH, else None."""
    if sys.version_info[:2] >= OLDEST:
        return sys.executable
    names = [f"python3.{minor}" for minor in range(NEWEST, OLDEST[1] - 1, -1)] + ["python3", "python"]
    code = f"import sys; sys.exit(sys.version_info[:2] < {OLDEST})"
    return next((found for found in filter(None, map(shutil.which, names)) if works(found, "-c", code)), None)


def find_uv() -> str | None:
    """Return the program uv, or None. It is found even if the editor was started without the PATH of a shell."""
    own = os.pathsep.join(str(Path.home() / each / "bin") for each in (".local", ".cargo"))
    return shutil.which("uv") or shutil.which("uv", path=own)


def get_model(folder: Path, program: Path, options: argparse.Namespace) -> str:
    """Download the model. Return a warning if that fails, else "". Without it, the server uses its built-in model."""
    if not options.model:
        return ""
    step("Downloading the model", 50)
    try:
        run(folder, program, "model", "pull", options.model, "--json", follow=Download())
    except ProgramFailed as problem:
        reason = re.sub(r"^repoformer-lsp: ", "", str(problem))
        return f"The better model could not be downloaded; the small built-in model is used. {reason}"
    return ""


def check(folder: Path, program: Path) -> str:
    """Let the server check this machine. Return the problems that it found, one per line."""
    step("Checking this machine", 96)
    try:
        output = run(folder, program, "doctor", "--json", keep=1000)
    except ProgramFailed as problem:
        output = problem.output
    try:
        findings = json.loads("\n".join(output[output.index("[") :]))
    except ValueError:
        return f"This machine could not be checked: {output[-1] if output else 'the doctor wrote nothing.'}"
    problems = [each for each in findings if each["state"] == "problem"]
    return "\n".join("{check}: {found} {advice}".format(**each).strip() for each in problems)


def explained(output: list[str], folder: Path, package: str, setting: str) -> Failed:
    """Return the error that explains the last lines of a failed program."""
    text = "\n".join(output)
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") or ""
    values = {
        "again": "{again}", "package": package, "setting": setting, "folder": folder, "newest": NEWEST,
        "oldest": "3.10", "proxy": " " + re.sub(r"//[^/@]*@", "//", proxy) if proxy else "",
    }  # fmt: skip
    for kind, pattern, error, advice in FAILURES:
        if re.search(pattern, text, re.IGNORECASE):
            if kind == "network" and proxy:
                values["proxy"] = " through the proxy" + values["proxy"]
            return Failed(error.format(**values), advice.format(**values), kind)
    reason = next((line.strip() for line in reversed(output) if line.strip()), "a program wrote nothing and failed")
    return Failed(f"The installation failed: {reason}", "Read the log, then {again}.")


class Packages:
    """Reports the progress of pip or uv from its output: about forty packages, from 5 to 45 percent."""

    def __init__(self) -> None:
        self._seen = 0

    def __call__(self, line: str) -> None:
        """Process one line of the output."""
        found = re.match(r"\s*(Collecting|Downloading|Downloaded|Building|Retrying|WARNING: Retrying)\s*(\S*)", line)
        if not found:
            if "Installing collected packages" in line or line.startswith("Prepared "):
                step("Installing the server: unpacking", 45)
            return
        word, name = found.groups()
        if "Retrying" in word:
            step("Installing the server: waiting for the network")
            return
        self._seen += word in ("Collecting", "Downloaded")
        step(f"Installing the server: {name.rpartition('/')[2]}", min(5 + self._seen, 44))


class Download:
    """Reports the progress of `model pull --json` from its output, from 50 to 95 percent."""

    def __call__(self, line: str) -> None:
        """Process one line of the output."""
        try:
            done, total = (json.loads(line)[name] for name in ("done", "total"))
        except (ValueError, KeyError, TypeError):
            return
        step(f"Downloading the model: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB", 50 + 45 * done // max(total, 1))


def run(folder: Path, *command: object, follow: Callable[[str], None] | None = None, keep: int = 60) -> list[str]:
    """Run a program in the parent of `folder`, and return the last `keep` lines of its output.

    `follow` is called with each line. Raises `ProgramFailed` and `OSError`.
    """
    words = [str(word) for word in command]
    print("$", *words, file=sys.stderr, flush=True)
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                             cwd=str(folder.parent), env=environment(), encoding="utf-8", errors="replace")  # fmt: skip
    lines: list[str] = []
    assert child.stdout
    try:
        for line in child.stdout:
            line = re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", line.rstrip())
            print(line, file=sys.stderr, flush=True)
            lines = [*lines[1 - keep :], line]
            if follow:
                follow(line)
        child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
    if child.returncode:
        raise ProgramFailed(lines)
    return lines


def works(program: object, *arguments: str) -> bool:
    """Return whether a program can be started and exits with status 0."""
    words = [str(program), *arguments]
    try:
        return subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              env=environment(), cwd=str(Path.home()), timeout=120).returncode == 0  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False


def environment() -> dict[str, str]:
    """Return the environment variables for pip, uv and Python.

    Variables that select another Python environment are removed, and pip's settings are also set for uv. Programs print
    plain text and ask nothing.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "PIP_USER"}
    }
    for of_pip, of_uv in (("PIP_INDEX_URL", "UV_DEFAULT_INDEX"), ("PIP_EXTRA_INDEX_URL", "UV_INDEX"),
                          ("PIP_FIND_LINKS", "UV_FIND_LINKS"), ("PIP_CERT", "SSL_CERT_FILE")):  # fmt: skip
        if env.get(of_pip):
            env.setdefault(of_uv, env[of_pip])
    env.update(PYTHONUNBUFFERED="1", PYTHONUTF8="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PIP_NO_INPUT="1", NO_COLOR="1")
    return env


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Lock a file until the end of the block. Raises `Failed` if another process has locked it."""
    with path.open("a+") as file:
        try:
            if WINDOWS:
                import msvcrt

                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            advice = "Wait until it has finished, then restart the server."
            raise Failed("Another window is installing the server.", advice, "busy") from None
        yield


def step(message: str, percent: int | None = None) -> None:
    """Report a step of the installation, and the progress so far."""
    tell(message=message, percent=percent)


def tell(**values: object) -> None:
    """Write one JSON object for the editor."""
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    sys.exit(main())
