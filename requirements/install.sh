#!/usr/bin/env bash
# Installs a pinned list and the project itself: install.sh PYTHON VENV LIST
set -euo pipefail

python=$1 venv=$2 list=$3

if ! command -v "$python" >/dev/null; then
    echo "Falsework needs Python 3.11 or later, and '$python' isn't there." \
         "Name yours: make PYTHON=python3.12 ..." >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))'; then
    echo "Falsework needs Python 3.11 to 3.14, and '$python' is $("$python" -V)." \
         "Name another: make PYTHON=python3.12 ..." >&2
    exit 1
fi

if [ ! -x "$venv/bin/pip" ]; then
    echo "Making a virtual environment in $venv"
    "$python" -m venv "$venv" || {
        echo "'$python -m venv' failed; on Debian and Ubuntu it is in the package python3-venv." >&2
        rm -rf "$venv"
        exit 1
    }
fi

quiet=(--quiet --quiet)
if [ -t 1 ]; then quiet=(); fi # whoever watches sees pip's own progress
install() {
    "$venv/bin/python" -m pip --disable-pip-version-check install "${quiet[@]}" --no-deps "$@"
}

# Torch has a step of its own: its CPU build isn't on PyPI but on an index of PyTorch's, and the
# other packages should neither look there nor wait for it.
torch=$(grep -o '^torch==[^ ;]*' "$list")
echo "Installing $torch"
install "$torch" 2>/dev/null ||
    install --extra-index-url https://download.pytorch.org/whl/cpu "$torch"

echo "Installing the $(grep -c '^[a-z]' "$list") packages of $list: a few minutes the first time"
install --requirement "$list"
install --no-build-isolation --editable .
