#!/usr/bin/env bash
# Measures what each option of the training achieves: docs/variants.sh DIR [SEED...] trains every variant with every seed
# (default: 0 1 2) into DIR, one run after the other. It prints a Markdown table with the test accuracy after each number of
# epochs, as mean and standard deviation over the seeds. It does not repeat runs that DIR already has, and continues a run
# that was stopped.
#
# The environment variable EPOCHS sets the columns, in rising order, and OPTIONS adds options to every run, such as `--data DIR`.
#
# With a constant learning rate, a long run includes the results of the shorter ones, which the script reads from its metrics.
# A cosine depends on the number of epochs, so the script trains once for each number.
set -euo pipefail
dir=$(realpath -m "$1")
cd "$(dirname "$0")/.."
read -ra seeds <<<"${*:2}"
[ ${#seeds[@]} -gt 0 ] || seeds=(0 1 2)
read -ra columns <<<"${EPOCHS:-5 20 50}"
read -ra common <<<"${OPTIONS:-}"
variants=(
    "--lr-schedule constant"
    "--lr-schedule cosine"
    "--weight-decay 0.01"
    "--augment"
    "--average 200"
    "--lr-schedule cosine --lr 0.005"
    "--lr-schedule cosine --lr 0.005 --augment"
)
cargo build -q --release -p trainer
mkdir -p "$dir"

# run VARIANT EPOCHS SEED: prints the folder of the run that includes this number of epochs.
run() {
    local epochs=$2
    [[ $1 == *cosine* ]] || epochs=${columns[-1]}
    echo "$dir/$(tr -cd 'a-z0-9.-' <<<"$1")-$epochs-seed$3"
}

for variant in "${variants[@]}"; do
    for epochs in "${columns[@]}"; do
        for seed in "${seeds[@]}"; do
            run=$(run "$variant" "$epochs" "$seed")
            [[ $variant == *cosine* ]] || epochs=${columns[-1]}
            grep -qs "^$epochs," "$run/metrics.csv" && continue
            read -ra options <<<"$variant"
            how=("${options[@]}" --epochs "$epochs" --seed "$seed" --out "$run")
            [ ! -e "$run/last.checkpoint" ] || how=(--resume "$run")
            echo "$run" >&2
            target/release/trainer --device cpu "${common[@]}" "${how[@]}" >"$run.log"
        done
    done
done

printf '| variant |'
printf ' %s epochs |' "${columns[@]}"
printf '\n|---|'
printf '%0.s---|' "${columns[@]}"
echo
for variant in "${variants[@]}"; do
    printf '| `%s` |' "$variant"
    for epochs in "${columns[@]}"; do
        for seed in "${seeds[@]}"; do
            cat "$(run "$variant" "$epochs" "$seed")/metrics.csv"
        done | awk -F, -v epochs="$epochs" '
            $1 == epochs { n++; sum += $4; squares += $4 * $4 }
            END {
                mean = sum / n
                printf " %.4f", mean
                if (n > 1) { v = (squares - n * mean * mean) / (n - 1); printf " ± %.4f", sqrt(v > 0 ? v : 0) }
                printf " |"
            }'
    done
    echo
done
