#!/bin/sh
# Makes the component's virtual environment from the wheels among its artifacts; needs no network and touches no system Python.
# Usage: install.sh ARTIFACTS WORK VERSION
set -eu

artifacts=$1
work=$2
version=$3
venv=$work/venv-$version
wheels=$work/wheels-$version

stamp=$(cksum <"$artifacts/wheels.zip")
if [ "$(cat "$venv/.ok" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi

# No setting of this machine may lead pip to an index or to other versions.
unset PYTHONPATH PYTHONHOME
export PIP_CONFIG_FILE=/dev/null

make_venv() {
    rm -rf "$venv" "$wheels"
    "$1" -m venv "$venv" || {
        echo "$1 cannot make virtual environments; on Debian: apt install python3-venv" >&2
        return 1
    }
    "$1" -m zipfile -e "$artifacts/wheels.zip" "$wheels"
    "$venv/bin/python" -m pip --isolated --disable-pip-version-check --no-cache-dir --quiet \
        install --no-index --find-links "$wheels" 'wheeltapper[gateway]'
}

# The wheels fit the Python versions they were built for; the first one here that takes them is used.
for python in python3 python3.11 python3.12 python3.13 python3.14 none; do
    if [ "$python" = none ]; then
        rm -rf "$venv" "$wheels"
        echo "no Python here takes these wheels; build them for one of this machine's: wheeltapper component build --python" >&2
        exit 1
    fi
    command -v "$python" >/dev/null || continue
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || continue
    if make_venv "$python"; then
        break
    fi
done
rm -rf "$wheels"
echo "$stamp" >"$venv/.ok"

# The version before may still be running.
ls -dt "$work"/venv-* | tail -n +3 | while read -r old; do
    rm -rf "$old"
done
