#!/usr/bin/env bash
# Train on several GPUs of one machine (or several CPU processes):
#   bash tools/dist_train.sh CONFIG NUM_PROCESSES [arguments of train.py]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment, as in mmdet3d.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 CONFIG NUM_PROCESSES [arguments of train.py]" >&2; exit 2; }
CONFIG=$1
PROCESSES=$2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON="${PYTHON:-${LANGOCC_VENV:-.venv}/bin/python}"
"$PYTHON" -m torch.distributed.run --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="$PROCESSES" tools/train.py "$CONFIG" --launcher pytorch "${@:3}"
