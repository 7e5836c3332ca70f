# shellcheck shell=bash disable=SC2153
# The report of quickstart.sh, which reads this file. Needs its variables: WORK_DIR, DATA, RUN,
# CONFIG, CHECKPOINT, PYTHON, STEPS, TINY, WORDS, TABLES.

of_encoder() {  # KEY: what made the text embeddings of the streets, as they say
    sed -n "s/^ *\"$1\": \"*\([^\"]*[^\",]\)\"*,*\$/\1/p" "$DATA/text_embeds/encoder.json" \
        2> /dev/null || true
}

write_words() {  # for the report
    local encoder words=projects/LangOcc/langocc/teachers/offline_words.txt
    encoder="$(of_encoder encoder)"
    if [[ "$encoder" == offline* ]]; then
        cat << END
Text is embedded by **\`$encoder\`**, not by a language model: made-up vectors for a fixed list of
words, in which related words are near to each other. It knows the words of \`$words\`
($(of_encoder words) of them in \`data/text_embeds/names.json\`); any other word is refused, and the
nearest known ones are named. So these scores say what is learned from images with such a teacher,
and nothing of CLIP.

For free text name a local CLIP checkpoint (open_clip, ViT-B/16) before the data are made, and take
another folder, since a model knows the words of its own data alone:

    LANGOCC_CLIP_WEIGHTS=FILE bash tools/quickstart.sh ANOTHER_WORK_DIR
END
    else
        cat << END
Text is embedded by **\`${encoder:-unknown}\`** (\`data/text_embeds/encoder.json\`). Words beyond
\`data/text_embeds/names.json\` can be asked while LANGOCC_CLIP_WEIGHTS names the same weights.
END
    fi
}

write_earlier() {
    local file
    for file in "$RUN"-*/metrics.json; do
        [ ! -e "$file" ] || echo "\`$(basename "$(dirname "$file")")\`: an earlier training here."
    done
}

write_report() {
    local first words
    words="$(printf '%s, ' "${WORDS[@]}")"
    first="$(basename "$(ls -d "$WORK_DIR"/pictures/*/ | head -1)")"
    cat << END
# Quickstart

Trained for $STEPS steps on synthetic streets \
($(grep -c ': train$' "$DATA/splits.txt")), from images, the car's poses and a 2D teacher; scored on others \
($(grep -c ': val$' "$DATA/splits.txt")). \`prior\` is the constant prior: each voxel's most
frequent class in training.
${TINY:+**--tiny: every part worked; the scores mean nothing.**}

$TABLES

All scores are times 100; README says what they mean, docs/results.md what longer trainings reach.
IoU counts voxels that a camera sees, and most of those are ground: filling the two layers at the
ground's height everywhere has a geometric IoU of 54 on the default streets and 0 above 0.2 m, so
what a short training learns is what kind of ground is where. AP: average precision of each word's
ranking of LiDAR points (two frames a word) by the features there, whether or not their voxels are
occupied, beside that of the 2D teacher and of chance: a word can be known where nothing stands yet.
$(write_earlier)

## Words

$(write_words)

## Pictures

| file | shows |
|---|---|
| \`pictures/$first/sheet.png\` | all of the following on one sheet; one such folder a sample \
($(ls -d "$WORK_DIR"/pictures/*/ | wc -l)) |
| \`cameras.png\` | the six images that the model is given |
| \`distances.png\`, \`classes.png\` | how far away and what the cameras see of the predicted \
density, haze too, so that a thing may be here and not among the voxels; dark: nothing met; under \
it the true voxels |
| \`opacities.png\` | how much of the light the predicted field stops, the true voxels below; the \
sky should stop none |
| \`features.png\` | the language features that the cameras see, in the colour of the class whose \
words they equal, mixed where they are between; under it the true classes' words |
| \`rgb.png\` | rendered colour above the images |
| \`occupancy_3d.png\`, \`occupancy_bev.png\` | predicted and true voxels, from behind the car \
and from above |
| \`errors.png\` | from above: right, wrong class, missed, false |
| \`queries/*.png\` | where the field answers a word: ${words%, }. Bright: the word fits \
better than those of all other classes, on one scale for all words; blue: what is labelled so |
| \`curves.png\` | losses of the training |

## Files

In \`$WORK_DIR\`:

| path | what |
|---|---|
| \`data/\` | the streets in nuScenes format ($(du -sh "$DATA" | cut -f1)) |
| \`camera/$(basename "$CHECKPOINT")\` | the trained model, of \`$CONFIG\` |
| \`camera/metrics.json\`, \`camera/retrieval.json\`, \`prior/metrics.json\` | all scores |
| \`queries/*.ply\`, \`queries/*.npz\` | cosine and relevancy of occupied voxels, for other \
programs |
| \`logs/\` | output of every stage |

Ask for another known word, in $PWD:

    SYNTHETIC_ROOT=$DATA $PYTHON tools/query.py $CONFIG $CHECKPOINT --words bus --out-dir $WORK_DIR/queries

## Time

| stage | seconds |
|---|---:|
$(awk '{ if (!($1 in sum)) order[++n] = $1; sum[$1] += $2; total += $2 }
    END { for (i = 1; i <= n; i++) print "| " order[i] " | " sum[order[i]] " |"
          print "| all | " total " |" }' "$WORK_DIR/times.txt")
END
}
