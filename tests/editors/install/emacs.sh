#!/usr/bin/env bash
# Install Emacs 30 for the terminal, tmux, and the Emacs packages of the tests: company, corfu, lsp-mode, package-lint.
# Emacs and tmux come from Debian's backports and need root, unless tmux and Emacs 30 or later are already installed.
# Usage: emacs.sh FOLDER. The Emacs packages are then in FOLDER/lisp.
set -euo pipefail
. "$(dirname "$0")/debian.sh"
. /etc/os-release
target=${1:?usage: emacs.sh FOLDER}
installed=$(emacs --version 2> /dev/null | sed -n '1s/.* \([0-9]*\)\..*/\1/p' || true)
if [ "${installed:-0}" -lt 30 ] || ! command -v tmux > /dev/null; then
    echo "deb [signed-by=$keyring] $mirror $VERSION_CODENAME-backports main" > /etc/apt/sources.list.d/emacs-backports.list
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        -t "$VERSION_CODENAME-backports" emacs-nox tmux
fi
packages="elpa-company elpa-corfu elpa-compat elpa-package-lint elpa-dash
    elpa-lsp-mode elpa-f elpa-ht elpa-lv elpa-markdown-mode elpa-s elpa-spinner"
[ "$(cat "$target/packages" 2> /dev/null)" = "$packages" ] && exit 0
mkdir -p "$(dirname "$target")"
work=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$work"' EXIT
later_apt "$work" check -q
# The packages are unpacked and not installed, because apt would replace Emacs to satisfy their dependencies.
# shellcheck disable=SC2086 # several words
(cd "$work/apt" && later_apt "$work" download -q $packages)
for package in "$work"/apt/*.deb; do dpkg-deb -x "$package" "$work/apt/root"; done
mkdir "$work/lisp"
cp -r "$work"/apt/root/usr/share/emacs/site-lisp/elpa*/* "$work/lisp"
rm -rf "$work/apt"
echo "$packages" > "$work/packages"
rm -rf "$target"
mv -T "$work" "$target"
