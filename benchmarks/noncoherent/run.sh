#!/usr/bin/env bash
# Non-coherent access: symbol errors of all devices, known and unknown gains, correlated antennas, times. One JSON a campaign, finished ones
# are left alone. OUT: where to (default: this folder). ONLY: a pattern of campaigns.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${OUT:-$here}
MASSACCESS=${MASSACCESS:-massaccess}
mkdir -p "$out"

# P3's cell: 100 devices, a tenth awake, 23 dBm, 50 m to 1 km; users stand elsewhere in every frame, ten pilot books
cell=(--config "$here/cell.toml" --pilot-books 10 --batch 64)
array=(--users 100 --activity 0.1 --data 0 --pilot-kind gaussian --antennas 64 --pilot-books 5)
best=noncoherent,noncoherent-covariance,noncoherent-covariance-lr,noncoherent-amp,noncoherent-amp-sections
all=$best,noncoherent-amp-threshold,noncoherent-covariance-fixed

campaign() { # name, options of evaluate
    local file=$out/$1.json
    shift
    [[ -e $file || ! $(basename "$file" .json) == ${ONLY:-*} ]] && return
    echo "$(date +%T) $(basename "$file")"
    $MASSACCESS evaluate "$@" --threads "${THREADS:-1}" --json "$file.part" >"${file%.json}.log" 2>&1 && mv "$file.part" "$file"
}

known() { # bits, antennas, pilots, frames, receivers
    campaign "known-j$1-m$2-l$3" --receivers "$5" "${cell[@]}" --index-bits "$1" --antennas "$2" --pilots "$3" --frames "$4"
}

placed() { # the same devices at the same ten places, their gains known, not known, and learned from earlier frames
    local gains
    for gains in known unknown learned; do
        campaign "placed-$gains-j$1-m$2-l$3" --receivers "$([[ $gains == known ]] && echo $best || echo noncoherent)" "${cell[@]}" \
            --placement-seed 0 --gains $gains --index-bits "$1" --antennas "$2" --pilots "$3" --frames "$4"
    done
}

unknown() { # users elsewhere in every frame: a gain is never seen twice
    campaign "unknown-j$1-m$2-l$3" --receivers noncoherent,noncoherent-covariance "${cell[@]}" --gains unknown \
        --index-bits "$1" --antennas "$2" --pilots "$3" --frames "$4"
}

correlated() { # channel, bits, pilots, frames
    campaign "$1-j$2-l$3" --receivers noncoherent,noncoherent-covariance "${array[@]}" --channel "$1" --snr-db 10 --index-bits "$2" --pilots "$3" --frames "$4"
}

correlated uma 1 10 200
correlated uma 1 12 400
for l in 20 40; do known 1 16 $l 2000 $all; unknown 1 16 $l 2000; placed 1 16 $l 2000; done
for l in 20 40 60; do known 1 8 $l 800 $all; done
for l in 20 40; do unknown 1 8 $l 800; placed 1 8 $l 800; done
for l in 60 100; do known 1 16 $l 2500 $all; done
for l in 20 40; do known 2 16 $l 1500 $all; placed 2 16 $l 1500; done
correlated uma 2 12 300
for l in 20 60; do known 2 8 $l 600 $all; done
known 1 32 20 2500 $all
placed 1 32 20 2500
known 2 32 20 1500 $all
placed 1 16 60 2500
correlated uma 1 14 1200
known 1 16 80 2500 $best
known 1 8 80 600 $best
known 1 8 100 600 $best
known 1 32 40 6000 $best
known 2 8 40 500 $best
known 2 16 60 2000 $best
known 2 16 100 2000 $best
known 1 32 100 4000 $best
known 2 32 40 3000 $best
campaign time --receivers $all,dl-mampnet --config "$here/cell.toml" --placement-seed 0 --pilots 70 --frames 640 --batch 64
campaign time-l20 --receivers $all --config "$here/cell.toml" --placement-seed 0 --pilots 20 --frames 640 --batch 64
for k in kronecker florence; do correlated $k 1 14 400; done
