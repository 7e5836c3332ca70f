#!/usr/bin/env bash
# Set up if needed, then lint and run all tests. Arguments go to pytest:
#   bash tools/run_tests.sh [tests/unit -k rays ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash tools/setup_env.sh
PYTHON="${LANGOCC_VENV:-.venv}/bin/python"
echo "[tests] flake8 and isort"
"$PYTHON" -m flake8 projects tools tests configs
"$PYTHON" -m isort --check-only --quiet projects tools tests
echo "[tests] pytest"
OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" "$PYTHON" -m pytest -rs --durations=15 "$@"
