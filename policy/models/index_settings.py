"""Find the package index that this machine uses, from the environment variables and settings of pip and uv.

The default is PyPI. Only `http` and `https` addresses are used, and no password is read from a keyring. The settings of
pip come from `pip config list`, because the locations of pip's files depend on the system and the installation.
"""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PYPI = "https://pypi.org/simple"
_PIP_SECTIONS = ("global", "install", "download", ":env:")  # later sections override earlier ones


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Settings for downloading from a package index.

    `addresses` are the package indexes in the order in which to ask them. `certificates` is a file of certificates to
    trust in addition to the system's, or empty. `proxy` is the address of the proxy in pip's settings, or empty.
    Without it, the HTTP client uses the proxies in the environment variables.
    """

    addresses: tuple[str, ...] = (PYPI,)
    certificates: str = ""
    proxy: str = ""


def read_index_settings() -> IndexSettings:
    """Return the settings for this user. The call takes a fraction of a second, because it starts pip."""
    pip, uv, env = _pip_settings(), _uv_settings(), os.environ
    main = env.get("PIP_INDEX_URL") or env.get("UV_DEFAULT_INDEX") or env.get("UV_INDEX_URL")
    main = main or pip.get("index-url") or uv.get("index-url") or PYPI
    more = [env.get(name, "") for name in ("PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")]
    more += [pip.get("extra-index-url", ""), uv.get("extra-index-url", "")]
    # For uv, an address may have a name before it: "name=https://…". Folders (file://) are omitted, because HTTP cannot
    # read them.
    addresses = re.findall(r"(?:(?<=\s)|(?<==))https?://\S+", " " + " ".join([main, *more]))
    return IndexSettings(tuple(dict.fromkeys(addresses)) or (PYPI,), pip.get("cert", ""), pip.get("proxy", ""))


def _pip_settings() -> Mapping[str, str]:
    """Return pip's settings by the names of the options, or {} if pip cannot run."""
    commands = [[sys.executable, "-m", "pip"]]
    if found := shutil.which("pip"):
        commands.append([found])
    for command in commands:
        try:
            done = subprocess.run([*command, "config", "list"], capture_output=True, text=True, check=False,
                                  stdin=subprocess.DEVNULL, timeout=30, cwd=sys.prefix)  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return _parsed(done.stdout)
    return {}


def _parsed(listing: str) -> dict[str, str]:
    """Return the value of each option in the output of `pip config list`, which has lines `section.option='value'`."""
    by_section: dict[str, dict[str, str]] = {}
    for line in listing.splitlines():
        name, found, value = line.partition("=")
        section, dot, option = name.rpartition(".")
        if found and dot:
            try:
                by_section.setdefault(section, {})[option] = str(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                continue
    return {option: value for section in _PIP_SECTIONS for option, value in by_section.get(section, {}).items()}


def _uv_settings() -> Mapping[str, str]:
    """Return the package indexes in uv's settings file for the user, else for the system, under pip's option names."""
    for folder in (os.environ.get("XDG_CONFIG_HOME") or "~/.config", os.environ.get("APPDATA") or "/etc"):
        if values := _toml(Path(folder, "uv", "uv.toml").expanduser()):
            listed = [entry for entry in values.get("index", []) if isinstance(entry, dict) and "url" in entry]
            default = [str(entry["url"]) for entry in listed if entry.get("default")]
            others = [str(entry["url"]) for entry in listed if not entry.get("default")]
            others += map(str, values.get("extra-index-url", []))
            main = default[0] if default else str(values.get("index-url", ""))
            return {"index-url": main, "extra-index-url": " ".join(others)}
    return {}


def _toml(path: Path) -> dict[str, Any]:
    """Return the content of a TOML file, or {} if the file cannot be read.

    The result is also {} in Python 3.10, which has no parser for TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib

        with contextlib.suppress(OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
            return tomllib.loads(path.read_text("utf-8"))
    return {}
