#!/bin/sh
# Make this lab's environment where it is missing, out of date or broken; then run a command in it.
#
#   scripts/environment.sh [COMMAND [ARGUMENT]...]   in .conda-env (mamba or conda, environment.yml) or .venv (the lock)
#   scripts/environment.sh --bare [ARGUMENT]...      the Python that a .venv would be built on, and no environment
#
# PYTHON=/path/to/python names the interpreter and means .venv; CONDA=no means .venv though conda is there.
set -eu
cd "$(dirname "$0")/.."
oldest=11.5 # Python 3.x, as in pyproject.toml
newest=14 # the newest with wheels of the pinned PyTorch
download='about 0.4 GB to download'
[ "$(uname -s)" != Linux ] || download="about 3 GB to download (0.5 GB where pip is given PyTorch's CPU build)"
# Packages in ~/.local would shadow a conda environment's own; no question waits for an answer under make.
export PYTHONNOUSERSITE=1 CONDA_ALWAYS_YES=true MAMBA_ALWAYS_YES=true PIP_DISABLE_PIP_VERSION_CHECK=1

say() { printf 'labkit: %s\n' "$*" >&2; }
fail() { say "$*" && exit 2; }
works() { "$@" >/dev/null 2>&1; }
version() { "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null; }
# Debian and Ubuntu ship ensurepip, which venv needs, apart from Python.
suits() { works "$1" -c "import sys; v = sys.version_info; assert (3, $(echo "$oldest" | tr . ,)) <= v and v[:2] <= (3, $newest); import ensurepip, venv"; }
suits_and_as_asked() { suits "$1" && { [ -z "${PYTHON-}" ] || [ "$(version "$PYTHON")" = "$(version "$1")" ]; }; }

find_python() {
    if [ -n "${PYTHON-}" ]; then set -- "$PYTHON"; else set -- python3 python3.14 python3.13 python3.12 python3.11 python; fi
    for python in "$@"; do
        if suits "$python"; then return; fi
    done
    for python in "$@"; do
        if works "$python" --version; then say "$python is $("$python" --version 2>&1)"; fi
    done
    fail "needed: Python 3.$oldest to 3.$newest with its venv module (Debian, Ubuntu: also the package python3-venv);" \
        "where it has another name: make env PYTHON=/path/to/python"
}

find_conda() {
    for conda in mamba micromamba "${MAMBA_EXE-}" conda "${CONDA_EXE-}"; do
        if works command -v "$conda"; then return; fi
    done
    false
}

# An environment that exists is kept to, whatever else is on the PATH by now.
choose() {
    home=.venv
    if [ -n "${PYTHON-}" ] || [ "${CONDA-}" = no ]; then return; fi
    if [ -e .conda-env/.labkit ] || { ! [ -e .venv/.labkit ] && find_conda; }; then home=.conda-env; fi
}

# Ready: made from these very files, not left half-way, and Python starts there and finds labkit.
ready() {
    [ "$(cat $home/.labkit 2>/dev/null)" = "$wanted" ] && ! [ -e $home/.unfinished ] && works $home/bin/python -c 'import labkit' \
        && { [ -z "${PYTHON-}" ] || [ "$(version "$PYTHON")" = "$(version $home/bin/python)" ]; }
}

installed() { ls .venv/lib/python3*/site-packages 2>/dev/null | cksum; }

# A failure that changed nothing (an index out of reach) leaves what was there before as good as it was.
install() {
    before=$(installed)
    [ -t 2 ] || set -- --quiet "$@"
    if ! .venv/bin/python -m pip install "$@" >&2; then
        if [ -e .venv/.labkit ] && [ "$(installed)" = "$before" ]; then rm .venv/.unfinished; fi
        fail 'pip could not finish; its own words are above. The next call tries again.'
    fi
}

build_venv() {
    find_python
    if [ -e .venv/.unfinished ] || ! works .venv/bin/python -c ''; then
        rm -rf .venv # what was half-way may hold half a package, which pip would take for a whole one
    elif ! suits_and_as_asked .venv/bin/python; then
        [ -e .venv/.labkit ] || fail "the .venv here is not labkit's and has Python $(version .venv/bin/python); move it away"
        rm -rf .venv
    fi
    if [ -e .venv/.labkit ]; then
        say 'bringing .venv up to date with requirements.lock; only what changed is downloaded'
    else
        say "installing requirements.lock into .venv ($("$python" --version)); $download"
    fi
    mkdir -p .venv && : >.venv/.unfinished
    [ -x .venv/bin/python ] || "$python" -m venv .venv
    works .venv/bin/python -m pip --version || works .venv/bin/python -m ensurepip
    install -r requirements.lock
    install --no-deps --no-build-isolation -e .
}

build_conda() {
    find_conda || fail 'neither mamba, micromamba nor conda is on the PATH to repair .conda-env; CONDA=no uses .venv'
    say "installing environment.yml into .conda-env with $conda; $download for a new one"
    verb=update
    if ! [ -e .conda-env/.labkit ] || [ -e .conda-env/.unfinished ] || ! works .conda-env/bin/python -m pip --version; then
        rm -rf .conda-env
        verb=create
    else
        : >.conda-env/.unfinished
    fi
    "$conda" env $verb --prefix "$PWD/.conda-env" --file environment.yml >&2 \
        || fail "$conda could not finish; its own words are above. The next call tries again; CONDA=no uses .venv."
}

if [ "${1-}" = --bare ]; then
    shift
    find_python
    exec "$python" "$@"
fi

choose
wanted=$(cat pyproject.toml requirements.lock environment.yml | cksum)
if ! ready; then
    if [ $home = .conda-env ]; then build_conda; else build_venv; fi
    printf '%s\n' "$wanted" >$home/.labkit
    rm -f $home/.unfinished
    ready || fail "the new environment in $home does not find labkit; remove that folder and try again"
    say "$home is ready"
elif [ $# = 0 ]; then
    say "$home is up to date ($($home/bin/python --version))"
fi
[ $# != 0 ] || exit 0
export PATH="$PWD/$home/bin:$PATH"
exec "$@"
