#!/usr/bin/env bash
# From a fresh clone to a street in 3D: environment -> synthetic streets -> training from images
# alone -> scores on streets never trained on -> text queries -> pictures -> report.md.
#
#   bash tools/quickstart.sh [--tiny] [WORK_DIR]
#
# WORK_DIR (default work_dirs/quickstart) gets everything, also the data. Run again, it goes on
# where it stopped; a WORK_DIR that was made with other options is refused. About 20 minutes on 2
# CPU cores after the environment is built, a few on a GPU. --tiny: two streets and a few steps, in
# about two minutes, to see every part work; its scores mean nothing. From the environment:
#   QUICKSTART_STEPS  training steps (default: 800, on a GPU 3000, with --tiny 2)
#   PYTHON            interpreter of an environment that is ready (default: .venv is built and used)
set -euo pipefail
TINY=""
[ "${1:-}" != --tiny ] || { TINY=1; shift; }
if [ $# -gt 1 ] || [[ "${1:-}" == -* ]]; then
    echo "usage: $0 [--tiny] [WORK_DIR]" >&2
    exit 2
fi
mkdir -p "${1:-work_dirs/quickstart}"
WORK_DIR="$(cd "${1:-work_dirs/quickstart}" && pwd)"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset LANGOCC_INFO_ROOT  # infos lie beside the data
export SYNTHETIC_ROOT="$WORK_DIR/data" PYTHONWARNINGS=ignore
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$(nproc)}"
# Keep freed memory: a CPU training step otherwise spends a sixth of its time in page faults.
export MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184 \
    MALLOC_TOP_PAD_=134217728
CONFIG=configs/langocc-tiny_r18_1xb1_synthetic-camera.py
PRIOR=configs/constant-prior_synthetic.py
DATA="$WORK_DIR/data" RUN="$WORK_DIR/camera" PRIOR_RUN="$WORK_DIR/prior"

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
        *) cat > /dev/null ;;
    esac
}

seconds_of() {  # STAGE: over all attempts that ended or were cut off by a signal
    awk -v name="$1" '$1 == name { sum += $2 } END { print sum + 0 }' "$WORK_DIR/times.txt"
}

write_report() {
    local first words
    words="$(printf '%s, ' "${WORDS[@]}")"
    first="$(basename "$(ls -d "$WORK_DIR"/pictures/*/ | head -1)")"
    cat << END
# Quickstart

Trained for $STEPS steps on synthetic streets \
($(grep -c ': train$' "$DATA/splits.txt")), from images and a 2D teacher alone; scored on others \
($(grep -c ': val$' "$DATA/splits.txt")). \`prior\` is the constant prior: each voxel's most
frequent class in training.
${TINY:+**--tiny: every part worked; the scores mean nothing.**}

$TABLES

All scores are times 100; README says what they mean. AP: average precision of each word's ranking
of LiDAR points, beside that of the 2D teacher and of chance. IoU counts voxels that a camera sees.

## Pictures

| file | shows |
|---|---|
| \`pictures/$first/sheet.png\` | all of the following on one sheet; one such folder a sample \
($(ls -d "$WORK_DIR"/pictures/*/ | wc -l)) |
| \`cameras.png\` | the six images that the model is given |
| \`distances.png\`, \`classes.png\` | how far away and what the cameras see of the predicted \
voxels; under it the true ones |
| \`opacities.png\` | how much of the light the predicted field stops; the sky should stop none |
| \`features.png\` | the language features that the cameras see, as colours |
| \`occupancy_3d.png\`, \`occupancy_bev.png\` | predicted and true voxels, from behind the car \
and from above |
| \`errors.png\` | from above: right, wrong class, missed, false |
| \`queries/*.png\` | where the field answers a word: ${words%, } |
| \`curves.png\` | losses of the training |

## Files

In \`$WORK_DIR\`:

| path | what |
|---|---|
| \`data/\` | the streets in nuScenes format ($(du -sh "$DATA" | cut -f1)) |
| \`camera/$(basename "$CHECKPOINT")\` | the trained model, of \`$CONFIG\` |
| \`camera/metrics.json\`, \`camera/retrieval.json\`, \`prior/metrics.json\` | all scores |
| \`queries/*.ply\`, \`queries/*.npz\` | similarities of occupied voxels, for other programs |
| \`logs/\` | output of every stage |

Ask for another word:

    SYNTHETIC_ROOT=$DATA $PYTHON tools/query.py $CONFIG $CHECKPOINT --words bus --out-dir queries

## Time

| stage | seconds |
|---|---:|
$(awk '{ if (!($1 in sum)) order[++n] = $1; sum[$1] += $2; total += $2 }
    END { for (i = 1; i <= n; i++) print "| " order[i] " | " sum[order[i]] " |"
          print "| all | " total " |" }' "$WORK_DIR/times.txt")
END
}

{ # Bash reads a script while it runs: this group is read to its end first, and may be edited then.
if [ -z "${PYTHON:-}" ]; then
    say "environment"
    bash tools/setup_env.sh
    PYTHON="${LANGOCC_VENV:-$PWD/.venv}/bin/python"
fi
WORDS=(car tree "traffic cone" pedestrian building road) PICTURES=(5 15 25)
SIZE=() STEPS="${QUICKSTART_STEPS:-}"
if [ -n "$TINY" ]; then
    SIZE=(--scenes-train 1 --scenes-val 1 --frames 2) WORDS=(car) PICTURES=(1)
    STEPS="${STEPS:-2}"
fi
if [ -z "$STEPS" ]; then
    STEPS="$("$PYTHON" -c 'import torch; print(3000 if torch.cuda.is_available() else 800)')"
fi

# Stages that finished are not run again, so they must be of the same options.
RECORD="$WORK_DIR/options.txt" OPTIONS="steps $STEPS, size ${SIZE[*]:-default}"
if [ -e "$RECORD" ] && [ "$(cat "$RECORD")" != "$OPTIONS" ]; then
    echo "$0: $WORK_DIR was made with other options; name another WORK_DIR or remove that one" >&2
    printf '  theirs: %s\n  now:    %s\n' "$(cat "$RECORD")" "$OPTIONS" >&2
    exit 2
elif [ ! -e "$RECORD" ] && [ -n "$(ls -A "$WORK_DIR")" ]; then
    echo "$0: $WORK_DIR is not empty and not of this script; name another WORK_DIR" >&2
    exit 2
fi
echo "$OPTIONS" > "$RECORD"
exec 9> "$WORK_DIR/options.lock"  # what is started here holds it too
if command -v flock > /dev/null && ! flock -n 9; then
    echo "$0: another quickstart works in $WORK_DIR" >&2
    exit 2
fi
mkdir -p "$WORK_DIR/logs" "$WORK_DIR/done" "$PRIOR_RUN" "$RUN"

stage data "$WORK_DIR/done/data" "streets in nuScenes format -> $DATA" \
    "$PYTHON" tools/make_synthetic.py --out "$DATA" ${SIZE[@]+"${SIZE[@]}"}
stage reducer "$DATA/reducer_128.safetensors" "the linear map of language, 512 -> 128 dimensions" \
    "$PYTHON" tools/fit_reducer.py --text-embeds "$DATA/text_embeds/words.npz" --dims 128 \
    --out "$DATA/reducer_128.safetensors"
stage prior "$DATA/prior.npz" "the constant prior: each voxel's most frequent training class" \
    "$PYTHON" tools/fit_prior.py configs/bevstereo-occ-tiny_r18_1xb1_synthetic.py \
    --out "$DATA/prior.npz"
stage prior_scores "$PRIOR_RUN/metrics.json" "its scores on streets never trained on" \
    "$PYTHON" tools/test.py $PRIOR --work-dir "$PRIOR_RUN/test" --out "$PRIOR_RUN/metrics.json"

# Of a training that was cut off the last checkpoint is gone on with.
stage training "$WORK_DIR/done/training" "training from images alone, $STEPS steps ($CONFIG)" \
    env LANGOCC_MAX_ITERS="$STEPS" \
    "$PYTHON" tools/train.py $CONFIG --work-dir "$RUN" --resume --cfg-options val_cfg=None \
    val_dataloader=None val_evaluator=None default_hooks.checkpoint.interval=25
CHECKPOINT="$RUN/$(basename "$(cat "$RUN/last_checkpoint")")"
echo "{\"train_seconds\": $(seconds_of training)}" > "$RUN/time.json"
stage scores "$RUN/metrics.json" "scores on streets never trained on" \
    "$PYTHON" tools/test.py $CONFIG "$CHECKPOINT" --work-dir "$RUN/test" --out "$RUN/metrics.json"
stage retrieval "$RUN/retrieval.json" "a query for each class, scored at LiDAR points" \
    "$PYTHON" tools/eval_retrieval.py $CONFIG "$CHECKPOINT" --benchmark \
    "$DATA/retrieval_benchmark" --out "$RUN/retrieval.json"
stage queries "$WORK_DIR/done/queries" "pictures of the queries: ${WORDS[*]}" \
    "$PYTHON" tools/query.py $CONFIG "$CHECKPOINT" --words "${WORDS[@]}" \
    --samples "${PICTURES[0]}" --out-dir "$WORK_DIR/queries"
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
