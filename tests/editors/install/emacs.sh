#!/usr/bin/env bash
# Emacs 30 in a terminal, from Debian's backports; needs root. Prints the path of the program.
# Use: emacs.sh (an Emacs 30 or later that is there already is taken; the argument that the other scripts take is ignored)
set -euo pipefail
version() { emacs --version 2>/dev/null | sed -n '1s/.* \([0-9]*\)\..*/\1/p'; }
installed=$(version || true)
if [ "${installed:-0}" -lt 30 ] || ! command -v tmux > /dev/null; then
    {
        . /etc/os-release
        mirror=$(awk '/^URIs:/{print $2; exit}' /etc/apt/sources.list.d/debian.sources)
        keyring=/usr/share/keyrings/debian-archive-keyring.gpg
        echo "deb [signed-by=$keyring] $mirror $VERSION_CODENAME-backports main" \
            > /etc/apt/sources.list.d/backports-for-emacs.list
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends -t "$VERSION_CODENAME-backports" emacs-nox tmux
    } >&2
fi
command -v emacs
