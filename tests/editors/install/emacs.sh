#!/usr/bin/env bash
# Emacs 30 for the terminal from Debian's backports (needs root; a newer one that is there is taken), tmux, and beside
# it in a folder the packages that it is tested with: company, corfu, package-lint. Use: emacs.sh FOLDER
set -euo pipefail
target=${1:?usage: emacs.sh FOLDER}
. /etc/os-release
mirror=$(awk '/^URIs:/{print $2; exit}' /etc/apt/sources.list.d/debian.sources)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
installed=$(emacs --version 2> /dev/null | sed -n '1s/.* \([0-9]*\)\..*/\1/p' || true)
if [ "${installed:-0}" -lt 30 ] || ! command -v tmux > /dev/null; then
    echo "deb [signed-by=$keyring] $mirror $VERSION_CODENAME-backports main" > /etc/apt/sources.list.d/emacs-backports.list
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        -t "$VERSION_CODENAME-backports" emacs-nox tmux
fi
[ -d "$target/lisp" ] && exit 0
mkdir -p "$(dirname "$target")"
work=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$work"' EXIT
# From a later Debian, by a package state of its own; only unpacked, since their dependencies would replace Emacs.
mkdir -p "$work"/apt/{lists/partial,cache/archives/partial,etc/parts} "$work/lisp"
echo "deb [signed-by=$keyring] $mirror forky main" > "$work/apt/etc/sources.list"
touch "$work/apt/status"
private=(-o Dir::Etc::sourcelist="$work/apt/etc/sources.list" -o Dir::Etc::sourceparts="$work/apt/etc/parts"
    -o Dir::Etc::preferencesparts="$work/apt/etc/parts" -o Dir::State::lists="$work/apt/lists"
    -o Dir::Cache="$work/apt/cache" -o Dir::State::status="$work/apt/status" -o Debug::NoLocking=1
    -o APT::Sandbox::User=root -o Acquire::Languages=none)
apt-get "${private[@]}" update -q
(cd "$work/apt" && apt-get "${private[@]}" download elpa-company elpa-corfu elpa-compat elpa-package-lint elpa-dash)
for package in "$work"/apt/*.deb; do dpkg-deb -x "$package" "$work/apt/root"; done
cp -r "$work"/apt/root/usr/share/emacs/site-lisp/elpa*/* "$work/lisp"
rm -rf "$work/apt"
rm -rf "$target"
mv -T "$work" "$target"
