#!/usr/bin/env bash
# The whole job on the real six-camera sequence: tables -> infos -> three trainings -> metrics ->
# text queries and pictures. Fit and evaluation are on the same 16 frames.
#
#   bash tools/real_sequence.sh DATA_ROOT [WORK_DIR] [arguments of train.py, for all three runs]
#
# DATA_ROOT: folder in nuScenes format with the sequence (samples/, v1.0-mini/, gts/, teacher_probs/,
# text_embeds/, retrieval_benchmark/). It is only read. WORK_DIR (default work_dirs/real_sequence)
# gets everything; run again, it goes on after the last stage that finished, and refuses other data or
# arguments than those that its trainings were made of. About 15 minutes on 2 cores.
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: $0 DATA_ROOT [WORK_DIR] [arguments of train.py]" >&2; exit 2; }
[ -d "$1/v1.0-mini" ] || { echo "$0: $1 has no folder v1.0-mini with the tables" >&2; exit 2; }
PANDASET_ROOT="$(cd "$1" && pwd)"
mkdir -p "${2:-work_dirs/real_sequence}"
WORK_DIR="$(cd "${2:-work_dirs/real_sequence}" && pwd)"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON="${PYTHON:-${LANGOCC_VENV:-$PWD/.venv}/bin/python}"
command -v "$PYTHON" > /dev/null || bash tools/setup_env.sh
export PANDASET_ROOT LANGOCC_INFO_ROOT="$WORK_DIR/infos" PYTHONWARNINGS=ignore
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}"
# Keep freed memory: a CPU training step otherwise spends a sixth of its time in page faults.
export MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 \
    MALLOC_TOP_PAD_=134217728

say() { echo "[real sequence] $(date +%H:%M:%S) $*"; }

progress() {  # reads a training's log; shows iterations, a line in 10 s at the most, and the last one
    local line shown=-10 last=""
    while IFS= read -r line; do
        [[ "$line" == *"Iter(train)"* ]] || continue
        last="Iter(train)${line#*Iter(train)}"
        if ((SECONDS - shown >= 10)); then
            echo "${last%%  loss_*}"  # without the single losses
            shown=$SECONDS last=""
        fi
    done
    [ -z "$last" ] || echo "${last%%  loss_*}"
}

# Stages that finished are not run again, so they must be of the same data and arguments.
RECORD="$WORK_DIR/arguments.txt"
ARGUMENTS="$(printf '%q ' "$PANDASET_ROOT" "${@:3}")"
TRAINED="$(compgen -G "$WORK_DIR/*/time.json" || true)"
if [ ! -e "$RECORD" ]; then
    [ -z "$TRAINED" ] || say "$WORK_DIR has no arguments.txt: its trainings are taken for the same"
elif [ "$(cat "$RECORD")" != "$ARGUMENTS" ]; then
    if [ -n "$TRAINED" ]; then
        echo "$0: the trainings in $WORK_DIR are of other data or arguments;" \
            "name another WORK_DIR or remove that one" >&2
        printf '  theirs: %s\n  now:    %s\n' "$(cat "$RECORD")" "$ARGUMENTS" >&2
        exit 2
    fi
    rm -f "$WORK_DIR/slab/metrics.json"
fi
echo "$ARGUMENTS" > "$RECORD"

say "tables -> infos"
"$PYTHON" tools/prepare_data.py --root "$PANDASET_ROOT" --version v1.0-mini --splits all \
    --prefix pandaset --out-dir "$WORK_DIR/infos" --require image lidar occupancy

say "the linear map of the reduced model, fitted on the text embeddings"
"$PYTHON" tools/fit_reducer.py --text-embeds "$PANDASET_ROOT/text_embeds/clip_vit_b16.npz" \
    --dims 128 --out "$WORK_DIR/infos/reducer_128.safetensors"

say "the constant slab that a model must clear"
[ -s "$WORK_DIR/slab/metrics.json" ] ||
    "$PYTHON" tools/test.py configs/constant-slab_pandaset.py --work-dir "$WORK_DIR/slab" \
        --out "$WORK_DIR/slab/metrics.json" > "$WORK_DIR/slab.log" 2>&1 ||
    { tail -20 "$WORK_DIR/slab.log"; exit 1; }

for RUN in lidar camera depth; do
    CONFIG="$(echo configs/langocc-tiny_r18_*_pandaset-$RUN.py)"
    DIR="$WORK_DIR/$RUN"
    mkdir -p "$DIR"
    if [ ! -s "$DIR/time.json" ]; then
        say "$RUN: training ($CONFIG)"
        START=$SECONDS
        "$PYTHON" tools/train.py "$CONFIG" --work-dir "$DIR" \
            --cfg-options val_cfg=None val_dataloader=None val_evaluator=None "${@:3}" 2>&1 |
            tee "$DIR/train.log" | progress || { tail -20 "$DIR/train.log"; exit 1; }
        echo "{\"train_seconds\": $((SECONDS - START))}" > "$DIR/time.json"
        say "$RUN: trained in $((SECONDS - START)) s"
    fi
    CHECKPOINT="$(cat "$DIR/last_checkpoint")"
    if [ ! -s "$DIR/metrics.json" ]; then
        say "$RUN: metrics on the 0.4 m grid"
        "$PYTHON" tools/test.py "$CONFIG" "$CHECKPOINT" --work-dir "$DIR/test" \
            --out "$DIR/metrics.json" > "$DIR/test.log" 2>&1 || { tail -20 "$DIR/test.log"; exit 1; }
    fi
    if [ ! -s "$DIR/retrieval.json" ]; then
        say "$RUN: language at LiDAR points, beside the teacher's"
        "$PYTHON" tools/eval_retrieval.py "$CONFIG" "$CHECKPOINT" \
            --benchmark "$PANDASET_ROOT/retrieval_benchmark" --out "$DIR/retrieval.json" \
            > "$DIR/retrieval.log" 2>&1 || { tail -20 "$DIR/retrieval.log"; exit 1; }
        grep '^mean.*all' "$DIR/retrieval.log"
    fi
done

say "queries (depth run)"
"$PYTHON" tools/query.py "$(echo configs/langocc-tiny_r18_*_pandaset-depth.py)" \
    "$(cat "$WORK_DIR/depth/last_checkpoint")" --words car vegetation building road \
    --samples 8 --out-dir "$WORK_DIR/queries"
say "loss curves and table"
"$PYTHON" tools/plot_curves.py "$WORK_DIR/lidar" "$WORK_DIR/camera" "$WORK_DIR/depth" \
    --out "$WORK_DIR/curves.png"
"$PYTHON" tools/report.py "$WORK_DIR" --out "$WORK_DIR/report.json"
say "done: $WORK_DIR"
