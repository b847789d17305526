#!/usr/bin/env bash
# Install Neovim 0.12 from Debian's forky. It takes seconds and 57 MB. Usage: neovim.sh FOLDER. It installs FOLDER/nvim.
set -euo pipefail
. "$(dirname "$0")/debian.sh"
target=${1:?usage: neovim.sh FOLDER}
[ -x "$target/nvim" ] && exit 0
mkdir -p "$(dirname "$target")"
work=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$work"' EXIT
unpack_later "$work" neovim
# To draw its screen, Neovim starts its program file a second time, without the script below. So the path of the loader
# must be in the program file.
own_loader "$work" "$target" root/usr/bin/nvim
parsers=$(cd "$work" && echo root/usr/lib/*-linux-gnu/nvim)
cat > "$work/nvim" <<END
#!/bin/sh
export VIMRUNTIME="$target/root/usr/share/nvim/runtime"
exec "$target/root/usr/bin/nvim" --cmd "set rtp+=$target/$parsers" "\$@"
END
chmod +x "$work/nvim"
rm -rf "$target"
mv -T "$work" "$target"
"$target/nvim" --version | head -1
