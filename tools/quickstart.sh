#!/usr/bin/env bash
# From a fresh clone to a street in 3D: environment -> synthetic streets -> training from images
# and poses -> scores on streets never trained on -> text queries -> pictures -> report.md.
#
#   bash tools/quickstart.sh [--tiny] [WORK_DIR]
#
# WORK_DIR (default work_dirs/quickstart) gets everything, also the data. Run again, it goes on
# where it stopped, and what was removed is made again. With other QUICKSTART_STEPS the streets
# stay, the model is trained anew and the earlier one is kept in WORK_DIR/camera-STEPS; a WORK_DIR
# with streets of another size is refused. About 18 minutes on two quiet CPU cores after the
# environment is built, 13 of them training; on a GPU it was never timed. --tiny: two streets and a
# few steps, in a few minutes, to see every part work; its scores mean nothing. From the
# environment:
#   QUICKSTART_STEPS  training steps (default: 800, on a GPU 3000, with --tiny 2)
#   PYTHON            interpreter of an environment that is ready (default: .venv is built and used)
#   LANGOCC_CLIP_WEIGHTS  CLIP checkpoint that embeds the words (default: a list of offline words)
set -euo pipefail
TINY=""
[ "${1:-}" != --tiny ] || { TINY=1; shift; }
if [ $# -gt 1 ] || [[ "${1:-}" == -* ]]; then
    echo "usage: $0 [--tiny] [WORK_DIR]" >&2
    exit 2
fi
if [[ ! "${QUICKSTART_STEPS:-1}" =~ ^[1-9][0-9]{0,8}$ ]]; then
    echo "$0: QUICKSTART_STEPS is '$QUICKSTART_STEPS', expected a number of steps" >&2
    exit 2
fi
mkdir -p "${1:-work_dirs/quickstart}"
WORK_DIR="$(cd "${1:-work_dirs/quickstart}" && pwd)"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset LANGOCC_INFO_ROOT  # infos lie beside the data
export SYNTHETIC_ROOT="$WORK_DIR/data" PYTHONWARNINGS=ignore PYTHONUNBUFFERED=1
# In training one core is left to the process that loads samples: on two cores a step is faster with
# one thread than with two.
CORES="$(nproc)"
TRAIN_THREADS="${OMP_NUM_THREADS:-$((CORES > 1 ? CORES - 1 : 1))}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$CORES}"
# Keep freed memory: a CPU training step otherwise spends a sixth of its time in page faults.
export MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 \
    MALLOC_TOP_PAD_=134217728
CONFIG=configs/langocc-tiny_r18_1xb1_synthetic-path-photometric-ground.py
PRIOR=configs/constant-prior_synthetic.py
DATA="$WORK_DIR/data" RUN="$WORK_DIR/camera" PRIOR_RUN="$WORK_DIR/prior"

. tools/quickstart_report.sh

say() { echo "[quickstart] $(date +%H:%M:%S) $*"; }

progress() {  # reads a log of mmengine; shows iterations, a line in 10 s at the most, and the last
    local line shown=-10 last=""
    while IFS= read -r line; do
        [[ "$line" == *"Iter("* ]] || continue
        last="Iter(${line#*Iter(}"
        last="${last%%  loss_*}" last="${last%%    *}"  # without single losses and scores
        if ((SECONDS - shown >= 10)); then
            echo "    $last"
            shown=$SECONDS last=""
        fi
    done
    [ -z "$last" ] || echo "    $last"
}

note_time() { [ -z "$STAGE" ] || echo "$STAGE $((SECONDS - START))" >> "$WORK_DIR/times.txt"; }

STAGE="" CHILD=""
stop() {  # STATUS: ends the stage that runs, which can be gone on with
    trap - INT TERM
    [ -z "$CHILD" ] || { kill "$CHILD" 2> /dev/null && wait "$CHILD"; } || true
    echo "[quickstart] stopped; the same command goes on" >&2
    exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM
trap note_time EXIT  # of a stage that was cut off, too

stage() {  # NAME RESULT TITLE COMMAND...: makes RESULT unless it is there; output in logs/NAME.log
    local result="$2" title="$3" log="$WORK_DIR/logs/$1.log" pipe="$WORK_DIR/.pipe" status=0
    if [ -e "$result" ]; then
        say "$title: there already"
        return
    fi
    say "$title"
    STAGE="$1" START=$SECONDS
    shift 3
    rm -f "$pipe"
    mkfifo "$pipe"
    tee -a "$log" < "$pipe" | show "$STAGE" &
    local reader=$!
    "$@" > "$pipe" 2>&1 &
    CHILD=$!
    wait "$CHILD" || status=$?
    CHILD=""
    wait "$reader" || true
    rm -f "$pipe"
    if [ "$status" = 0 ] && [[ "$result" == "$WORK_DIR/done/"* ]]; then
        touch "$result"
    fi
    if [ "$status" != 0 ] || [ ! -e "$result" ]; then
        echo "$0: $STAGE failed with exit status $status; the last lines of $log:" >&2
        tail -20 "$log" >&2
        exit 1
    fi
    note_time
    STAGE=""
}

show() {  # what the terminal sees of a stage's output
    case "$1" in
        data) cat ;;
        training | scores | prior_scores) progress ;;
        retrieval) lines "mean of *" ;;
        queries) lines "sample *: *" "  '*" ;;
        pictures) lines "*/sheet.png" ;;
        *) cat > /dev/null ;;
    esac
}

lines() {  # PATTERN...: those lines of its input that match
    local line pattern
    while IFS= read -r line; do
        for pattern in "$@"; do
            # shellcheck disable=SC2053  # a pattern
            [[ "$line" != $pattern ]] || echo "    $line"
        done
    done
}

redo_unless() {  # NUMBER NAME FILE...: stage NAME is not done if so many files are not there
    local number="$1" name="$2" count=0 file
    shift 2
    for file in "$@"; do
        [ ! -s "$file" ] || count=$((count + 1))
    done
    [ "$count" -ge "$number" ] || rm -f "$WORK_DIR/done/$name"
}

put_aside() {  # STEPS: the model of an earlier run of this script, with what was made of it
    local there="$RUN-$1" name
    if [ -e "$RUN" ]; then
        rm -rf "$there"
        mv "$RUN" "$there"
    fi
    rm -f "$WORK_DIR"/done/{training,queries,pictures}
    for name in queries pictures curves.png report.md report.json; do
        [ ! -e "$WORK_DIR/$name" ] || { mkdir -p "$there"; mv "$WORK_DIR/$name" "$there/"; }
    done
    if [ -e "$WORK_DIR/times.txt" ]; then
        grep -E '^(data|reducer|prior|prior_scores) ' "$WORK_DIR/times.txt" \
            > "$WORK_DIR/.times" || true
        mv "$WORK_DIR/.times" "$WORK_DIR/times.txt"
    fi
}

seconds_of() {  # STAGE: over all attempts that ended or were cut off by a signal
    awk -v name="$1" '$1 == name { sum += $2 } END { print sum + 0 }' "$WORK_DIR/times.txt"
}

{ # Bash reads a script while it runs: this group is read to its end first, and may be edited then.
if [ -z "${PYTHON:-}" ]; then
    say "environment"
    bash tools/setup_env.sh
    PYTHON="${LANGOCC_VENV:-$PWD/.venv}/bin/python"
fi
WORDS=(road grass building tree car pedestrian "traffic cone") PICTURES=(5 15 25) ASKED=25
SIZE=() STEPS="${QUICKSTART_STEPS:-}"
if [ -n "$TINY" ]; then
    SIZE=(--scenes-train 1 --scenes-val 1 --frames 2) WORDS=(car) PICTURES=(1) ASKED=1
    STEPS="${STEPS:-2}"
fi
if [ -z "$STEPS" ]; then
    STEPS="$("$PYTHON" -c 'import torch; print(3000 if torch.cuda.is_available() else 800)')"
fi

# Stages that finished are not run again, so they must be of the same options.
RECORD="$WORK_DIR/options.txt" OPTIONS="steps $STEPS, size ${SIZE[*]:-default}"
OPTIONS+=", recipe $(basename "$CONFIG" .py)"
if [ ! -e "$RECORD" ] && [ -n "$(ls -A "$WORK_DIR" | grep -vx options.lock)" ]; then
    echo "$0: $WORK_DIR is not empty and not of this script; name another WORK_DIR" >&2
    exit 2
fi
exec 9> "$WORK_DIR/options.lock"  # what is started here holds it too
if command -v flock > /dev/null && ! flock -n 9; then
    echo "$0: another quickstart works in $WORK_DIR" >&2
    exit 2
fi
[ ! -e "$RECORD" ] || THEIRS="$(cat "$RECORD")"
if [ "${THEIRS:-$OPTIONS}" != "$OPTIONS" ]; then
    if [ "${THEIRS#*, }" != "${OPTIONS#*, }" ]; then
        echo "$0: $WORK_DIR was made with other options; name another WORK_DIR or remove it" >&2
        printf '  theirs: %s\n  now:    %s\n' "$THEIRS" "$OPTIONS" >&2
        exit 2
    fi
    BEFORE="${THEIRS%%,*}" BEFORE="${BEFORE#steps }"
    say "$STEPS steps instead of $BEFORE: trained anew on the same streets; the earlier model and" \
        "its pictures -> $RUN-$BEFORE"
    put_aside "$BEFORE"
fi
echo "$OPTIONS" > "$RECORD"
mkdir -p "$WORK_DIR/logs" "$WORK_DIR/done" "$PRIOR_RUN" "$RUN"
redo_unless 1 data "$DATA/splits.txt"
redo_unless 1 training "$RUN/last_checkpoint"
if [ ! -e "$WORK_DIR/done/training" ]; then  # of another model
    rm -f "$WORK_DIR"/done/{queries,pictures} "$WORK_DIR/curves.png" "$RUN"/{metrics,retrieval}.json
fi
redo_unless "${#WORDS[@]}" queries "$WORK_DIR"/queries/*.png
redo_unless "${#PICTURES[@]}" pictures "$WORK_DIR"/pictures/*/sheet.png

stage data "$WORK_DIR/done/data" "streets in nuScenes format -> $DATA" \
    "$PYTHON" tools/make_synthetic.py --out "$DATA" ${SIZE[@]+"${SIZE[@]}"}
ENCODER="$(of_encoder encoder)"
say "words of these streets are embedded by '${ENCODER:-an unknown encoder}'"
if [ -n "${LANGOCC_CLIP_WEIGHTS:-}" ] && [[ "$ENCODER" == offline* ]]; then
    say "LANGOCC_CLIP_WEIGHTS is set, but came after these streets: they and the model keep" \
        "'$ENCODER'; for CLIP's words name another WORK_DIR"
fi
stage reducer "$DATA/reducer_128.safetensors" "the linear map of language, 512 -> 128 dimensions" \
    "$PYTHON" tools/fit_reducer.py --text-embeds "$DATA/text_embeds/words.npz" --dims 128 \
    --out "$DATA/reducer_128.safetensors"
stage prior "$DATA/prior.npz" "the constant prior: each voxel's most frequent training class" \
    "$PYTHON" tools/fit_prior.py configs/bevstereo-occ-tiny_r18_1xb1_synthetic.py \
    --out "$DATA/prior.npz"
stage prior_scores "$PRIOR_RUN/metrics.json" "its scores on streets never trained on" \
    "$PYTHON" tools/test.py $PRIOR --work-dir "$PRIOR_RUN/test" --out "$PRIOR_RUN/metrics.json"

# Of a training that was cut off the last checkpoint is gone on with.
stage training "$WORK_DIR/done/training" "training from images and poses, $STEPS steps ($CONFIG)" \
    env LANGOCC_MAX_ITERS="$STEPS" OMP_NUM_THREADS="$TRAIN_THREADS" \
    "$PYTHON" tools/train.py $CONFIG --work-dir "$RUN" --resume --cfg-options val_cfg=None \
    val_dataloader=None val_evaluator=None default_hooks.checkpoint.interval=50
CHECKPOINT="$RUN/$(basename "$(cat "$RUN/last_checkpoint")")"
echo "{\"train_seconds\": $(seconds_of training)}" > "$RUN/time.json"
stage scores "$RUN/metrics.json" "scores on streets never trained on" \
    "$PYTHON" tools/test.py $CONFIG "$CHECKPOINT" --work-dir "$RUN/test" --out "$RUN/metrics.json"
stage retrieval "$RUN/retrieval.json" "a query for each class, scored at LiDAR points" \
    "$PYTHON" tools/eval_retrieval.py $CONFIG "$CHECKPOINT" --benchmark \
    "$DATA/retrieval_benchmark" --out "$RUN/retrieval.json"
stage queries "$WORK_DIR/done/queries" "pictures of the queries: ${WORDS[*]}" \
    "$PYTHON" tools/query.py $CONFIG "$CHECKPOINT" --words "${WORDS[@]}" \
    --samples "$ASKED" --out-dir "$WORK_DIR/queries"
stage pictures "$WORK_DIR/done/pictures" "pictures of predictions beside the truth" \
    "$PYTHON" tools/visualize.py $CONFIG "$CHECKPOINT" --samples "${PICTURES[@]}" \
    --out-dir "$WORK_DIR/pictures"
stage curves "$WORK_DIR/curves.png" "loss curves" \
    "$PYTHON" tools/plot_curves.py "$RUN" --out "$WORK_DIR/curves.png"

say "report"
TABLES="$("$PYTHON" tools/report.py "$WORK_DIR" --table main queries classes \
    --out "$WORK_DIR/report.json")"
write_report > "$WORK_DIR/.report.md"
mv "$WORK_DIR/.report.md" "$WORK_DIR/report.md"
cat "$WORK_DIR/report.md"
say "done: $WORK_DIR/report.md"
exit 0
}
