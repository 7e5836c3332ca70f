#!/usr/bin/env bash
# Create (or complete) the project's virtual environment.
#
#   bash tools/setup_env.sh            # .venv beside this repository
#   LANGOCC_VENV=/path bash tools/setup_env.sh
#
# What it takes from the environment, all optional:
#   LANGOCC_VENV         folder of the environment (default: <repository>/.venv)
#   LANGOCC_PYTHON       the Python 3.11 to build it with
#   LANGOCC_TORCH_INDEX  a pip index to take torch and torchvision from, for instance
#                        https://download.pytorch.org/whl/cpu or .../whl/cu130
#   MAX_JOBS             compiler processes for mmcv (default: number of cores)
#
# CPU or CUDA: whatever 'torch==2.13.0' is where you are. PyPI serves a CUDA build, which also
# runs on a CPU; a machine with its own wheel folder may serve a CPU build. mmcv's operators are
# built for the CPU on either: nothing in this project uses its CUDA operators, and a CPU build
# needs no nvcc. Safe to run again: a finished step is not repeated.
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${LANGOCC_VENV:-$ROOT/.venv}"
TORCH_VERSION=2.13.0
MMCV_VERSION=2.1.0
STAMPS="$VENV/.langocc"
# The stamp of the whole set-up: what was asked for, in this folder, by this script.
WANTED="$(cat "$ROOT"/requirements/*.txt "$ROOT/setup.cfg" "$ROOT/pyproject.toml" \
    "$ROOT"/tools/torchvision_cpu_schemas/*.{py,cfg,toml} "${BASH_SOURCE[0]}" |
    { cat; echo "$ROOT ${LANGOCC_TORCH_INDEX:-}"; } | sha256sum | cut -d' ' -f1)"

say() { echo "[setup] $*"; }
die() { echo "[setup] error: $*" >&2; exit 1; }

finished() { [ -x "$VENV/bin/python" ] && [ "$(cat "$STAMPS/complete" 2>/dev/null)" = "$WANTED" ]; }

apt_install() {  # packages...; installs as root, else says what to type
    if ! command -v apt-get >/dev/null; then
        die "these system packages are missing (Debian names): $*"
    fi
    local sudo=""
    if [ "$(id -u)" != 0 ]; then
        sudo=$(command -v sudo) || die "run as root: apt-get install -y $*"
    fi
    say "installing system packages: $*"
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq "$@" >/dev/null
}

system_packages() {
    local missing=() pair
    command -v g++ >/dev/null || missing+=(g++)
    # Shared libraries that opencv and open3d load; mmdet3d only warns without the last.
    for pair in libGL.so.1:libgl1 libgthread-2.0.so.0:libglib2.0-0 libusb-1.0.so.0:libusb-1.0-0; do
        ldconfig -p 2>/dev/null | grep -q "${pair%%:*}" || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
}

find_python() {
    local candidate
    for candidate in "${LANGOCC_PYTHON:-}" python3.11 python3 python; do
        [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "Python 3.11 is needed (the pinned versions were proven on it) and was not found;" \
        "install it (Debian 12: apt-get install python3.11-venv python3.11-dev) or name it in" \
        "LANGOCC_PYTHON"
}

make_venv() {
    [ -x "$VENV/bin/python" ] && return
    local python
    python="$(find_python)"
    say "creating $VENV with $python"
    "$python" -c 'import ensurepip, venv' 2>/dev/null || apt_install python3.11-venv
    "$python" -m venv "$VENV"
    [ -e "$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ||
        apt_install python3.11-dev
}

pip_install() { "$VENV/bin/python" -m pip install -qq --disable-pip-version-check "$@"; }

install_torch() {
    local index=()
    [ -z "${LANGOCC_TORCH_INDEX:-}" ] || index=(--extra-index-url "$LANGOCC_TORCH_INDEX")
    say "build tools and torch $TORCH_VERSION"
    pip_install -r "$ROOT/requirements/build.txt" -c "$ROOT/requirements/constraints.txt"
    pip_install "torch==$TORCH_VERSION" -c "$ROOT/requirements/constraints.txt" "${index[@]}"
    "$VENV/bin/python" - <<'PY'
import torch
build = f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPU'
use = torch.cuda.get_device_name(0) if torch.cuda.is_available() else 'the CPU'
print(f'[setup] torch {torch.__version__}: {build} build, will run on {use}')
PY
}

install_mmcv() {
    # CUDA_VISIBLE_DEVICES= keeps mmcv's setup.py on its CPU route on a GPU machine too.
    if ! "$VENV/bin/python" -c 'import mmcv.ops' 2>/dev/null; then
        say "building mmcv $MMCV_VERSION with operators from source (most of the time)"
        CUDA_VISIBLE_DEVICES='' FORCE_CUDA=0 MMCV_WITH_OPS=1 CFLAGS='-O1 -g0' \
            MAX_JOBS="${MAX_JOBS:-$(nproc)}" \
            pip_install --no-build-isolation "mmcv==$MMCV_VERSION" \
            -c "$ROOT/requirements/constraints.txt"
    fi
    "$VENV/bin/python" -c 'import mmcv.ops' ||
        die "mmcv was installed without its operators; remove it from pip's cache" \
            "('pip cache remove mmcv') and run again"
}

install_torchvision_schemas() {
    # torch is a CPU build and the only torchvision to be had is a CUDA build: its import fails.
    "$VENV/bin/python" -c 'import torchvision' 2>/dev/null && return
    say "torchvision does not import beside this torch: adding the schemas it misses"
    pip_install --no-build-isolation --no-deps "$ROOT/tools/torchvision_cpu_schemas"
    "$VENV/bin/python" -c 'import torchvision' || die "torchvision does not import"
}

if finished; then
    say "$VENV is complete"
    exit 0
fi
say "setting up $VENV (6 to 9 minutes on 2 cores and about 4 GB the first time)"
system_packages
make_venv
mkdir -p "$STAMPS"
rm -f "$STAMPS/complete"
install_torch
install_mmcv
say "the other requirements"
pip_install -r "$ROOT/requirements/runtime.txt" -r "$ROOT/requirements/dev.txt" \
    -c "$ROOT/requirements/constraints.txt"
install_torchvision_schemas
say "voxelrender and langocc, editable"
pip_install --no-build-isolation --no-deps -e "$ROOT"
"$VENV/bin/python" -m pip check
"$VENV/bin/python" -W ignore -c 'import langocc, voxelrender, torchvision, mmcv.ops, mmdet3d' ||
    die "an import failed after a complete installation"
echo "$WANTED" > "$STAMPS/complete"
say "done: source $VENV/bin/activate"
