#!/bin/sh
# Makes the component's virtual environment from the wheels in its artifact; needs no network.
# Usage: install.sh ARTIFACTS WORK VERSION
set -eu

artifacts=$1
work=$2
version=$3
venv=$work/venv-$version

if [ -f "$venv/.ok" ]; then
    exit 0
fi
rm -rf "$venv" "$work/wheels-$version"
python=$(command -v python3.13 || command -v python3.12 || command -v python3.11 || command -v python3)
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "wheeltapper needs Python 3.11 or newer; $("$python" --version) is the newest here" >&2
    exit 1
fi
"$python" -m venv "$venv"
wheels=$artifacts/wheels
if [ -f "$artifacts/wheels.zip" ]; then
    wheels=$work/wheels-$version
    "$python" -m zipfile -e "$artifacts/wheels.zip" "$wheels"
fi
"$venv/bin/python" -m pip install --no-index --disable-pip-version-check --quiet --find-links "$wheels" 'wheeltapper[gateway]'
rm -rf "$work/wheels-$version"
touch "$venv/.ok"
# The version before may still be running.
ls -dt "$work"/venv-* | tail -n +3 | xargs -r rm -rf
