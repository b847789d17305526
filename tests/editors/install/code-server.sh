#!/usr/bin/env bash
# Install code-server, which runs VS Code in a browser, and what controls the browser: Debian's Chromium, which needs
# root, and playwright-core. The script compiles nothing and runs no install script of a package. It takes a minute and
# 1.1 GB. Usage: code-server.sh FOLDER. The installed program is FOLDER/code-server.
set -euo pipefail
target=${1:?usage: code-server.sh FOLDER}
if ! command -v chromium > /dev/null; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium fonts-dejavu-core
fi
[ -x "$target/code-server" ] && exit 0
mkdir -p "$target"
cd "$target"
[ -f package.json ] || npm init -y > /dev/null
npm install --no-audit --no-fund node@24 > /dev/null
export PATH="$target/node_modules/node/bin:$PATH"
npm install --no-audit --no-fund --ignore-scripts code-server@4.139.1 playwright-core@1
cd node_modules/code-server/lib/vscode
npm install --omit=dev --ignore-scripts --no-audit --no-fund
(cd extensions && npm install --omit=dev --ignore-scripts --no-audit --no-fund)
ln -sf code-linux.sh bin/remote-cli/code-server
ln -sf browser-linux.sh bin/helpers/browser.sh
cat > "$target/starting" <<'END'
#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
exec "$here/node_modules/node/bin/node" "$here/node_modules/.bin/code-server" \
    --disable-telemetry --disable-update-check --disable-workspace-trust "$@"
END
chmod +x "$target/starting"
mv "$target/starting" "$target/code-server"
