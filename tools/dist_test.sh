#!/usr/bin/env bash
# Evaluate on several GPUs of one machine (or several CPU processes):
#   bash tools/dist_test.sh CONFIG CHECKPOINT NUM_PROCESSES [arguments of test.py]
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: $0 CONFIG CHECKPOINT NUM_PROCESSES [arguments of test.py]" >&2; exit 2; }
CONFIG=$1
CHECKPOINT=$2
PROCESSES=$3
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON="${PYTHON:-${LANGOCC_VENV:-.venv}/bin/python}"
"$PYTHON" -m torch.distributed.run --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29501}" \
    --nproc_per_node="$PROCESSES" tools/test.py "$CONFIG" "$CHECKPOINT" --launcher pytorch "${@:4}"
