#!/usr/bin/env bash
# Lint the clients: TypeScript with eslint and its compiler (from npm), Lua with luacheck (Debian's package lua-check;
# elsewhere, `luarocks install luacheck` or `brew install luacheck`). If a linter cannot be installed, the last line names
# the language that was not linted. With CI set, the exit status is then 1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
missing=()

if command -v npm > /dev/null; then
    cd editors/vscode
    # npm writes this file last, so its time is that of the installation.
    if [ package-lock.json -nt node_modules/.package-lock.json ]; then
        npm ci --no-audit --no-fund --loglevel=error
    fi
    npm run --silent lint
    npm run --silent check
    cd ../..
else
    missing+=("TypeScript (npm is not installed)")
fi

if ! command -v luacheck > /dev/null && command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends lua-check > /dev/null
fi
if command -v luacheck > /dev/null; then
    luacheck --quiet editors/neovim
else
    missing+=("Lua (luacheck is not installed)")
fi

for each in ${missing[@]+"${missing[@]}"}; do echo "NOT LINTED: $each"; done
[ ${#missing[@]} = 0 ] || [ -z "${CI:-}" ]
