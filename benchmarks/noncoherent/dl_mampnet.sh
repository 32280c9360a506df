#!/usr/bin/env bash
# DL-mAMPnet beside AMP in the one cell that its weights are for: symbol errors over the pilot length. OUT: where to (default: this folder).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${OUT:-$here}
MASSACCESS=${MASSACCESS:-massaccess}
cell=(--config "$here/cell.toml" --placement-seed 0 --batch 64 --seed 1 --threads 1)

$MASSACCESS evaluate --receivers noncoherent-amp-threshold,noncoherent-amp "${cell[@]}" --pilots 70,80,90 --frames 2000 --json "$out/dl-mampnet-amp.json"
$MASSACCESS evaluate --receivers noncoherent-amp-threshold,noncoherent-amp "${cell[@]}" --pilots 40,50,60 --frames 1000 --json "$out/dl-mampnet-amp-short.json"
$MASSACCESS evaluate --receivers noncoherent "${cell[@]}" --pilots 70 --frames 2000 --json "$out/dl-mampnet-default-l70.json"
$MASSACCESS evaluate --receivers dl-mampnet "${cell[@]}" --pilots 70 --frames 2000 --json "$out/dl-mampnet-element-l70.json"
for length in 70 80; do
    $MASSACCESS evaluate --receivers dl-mampnet --option dl-mampnet.denoiser=row "${cell[@]}" --pilots $length --frames 2000 \
        --json "$out/dl-mampnet-row-l$length.json"
done
