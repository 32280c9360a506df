#!/usr/bin/env bash
# The published figures, each into a folder of its name beside this file: quick settings, for two cores. Finished points are kept.
# Those that show one experiment (P4's 1a and 1b; 2a to 2c; P3's 7 to 9) share a folder, so that it runs once.
#   run.sh                          all of them
#   run.sh "p1-fig10 p2-fig2"       some
#   run.sh "p1-fig10" --full --device cuda
#   WEIGHTS=p0-refinenet-small.safetensors run.sh p0-fig5      with the curve of that network (massaccess train p0-refinenet-small)
#   WEIGHTS=audnet=FILE,audnet-15=FILE run.sh p1-fig6a         with the curves of those networks
# CURVES names the .curves.json of a training (massaccess train p0-refinenet-small): P0's Fig. 4 needs it, and is left out without.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
figures=${1:-p0-fig4 p0-fig5 p0-fig6-k p0-fig6-m p0-fig6-n p1-fig6a p1-fig6b p1-fig7 p1-fig8 p1-fig9 p1-fig10 p1-fig11 p1-fig12 p1-fig13 p1-fig14 p1-fig15 p1-fig16 p1-table2 p1-table3 p2-fig2 p2-fig3 p2-fig4 p3-fig7 p3-fig8 p3-fig9 p3-complexity p4-fig1a p4-fig1b p4-fig2a p4-fig2b p4-fig2c p4-fig2-sparsity}
shift || true

for id in $figures; do
    if [ "$id" = p0-fig4 ]; then
        if [ -n "${CURVES:-}" ]; then massaccess figure "$id" --curves "$CURVES" --out "$here/$id"; fi
        continue
    fi
    case "$id" in p4-fig[12][abc]) folder=${id%[abc]} ;; p3-fig[789]) folder=p3-fig7-9 ;; *) folder=$id ;; esac
    massaccess figure "$id" --out "$here/$folder" --resume --weights "${WEIGHTS:-}" "$@"
done

python "$here/../figures.py" "$here"

# P0's -45 dB: 45 and 48 dB of its SNR, users / noise variance, are 27 and 29.9 dB per user
massaccess evaluate --receivers score-jadce,covariance+lmmse-lmmse,mmv-amp+lmmse-lmmse,perfect-activity+lmmse-lmmse --channel rayleigh --users 64 \
    --active-users 6 --antennas 32 --pilots 48 --data 0 --snr-convention per-user --snr-db 27,29.9 --frames 64 --seed 1 --json "$here/p0-45db.json"
