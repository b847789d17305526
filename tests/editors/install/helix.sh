#!/usr/bin/env bash
# Install Helix from Debian's forky. It takes seconds and 35 MB. Usage: helix.sh FOLDER. It installs FOLDER/hx.
set -euo pipefail
. "$(dirname "$0")/debian.sh"
target=${1:?usage: helix.sh FOLDER}
[ -x "$target/hx" ] && exit 0
mkdir -p "$(dirname "$target")"
work=$(mktemp -d "$target.XXXXXX")
trap 'rm -rf "$work"' EXIT
unpack_later "$work" hx
program=root/usr/bin/hx
own_loader "$work" "$target" "$program"
cat > "$work/hx" <<END
#!/bin/sh
exec "$target/$program" "\$@"
END
chmod +x "$work/hx"
rm -rf "$target"
mv -T "$work" "$target"
"$target/hx" --version
