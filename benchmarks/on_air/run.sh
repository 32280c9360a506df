#!/usr/bin/env bash
# Frame error rates on the air: users whose offsets are known, unknown, and found in the stream by synchronizer and receiver. One JSON a
# campaign, finished ones are left alone. OUT: where to (default: this folder). ONLY: a pattern of campaigns. FRAMES, THREADS.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${OUT:-$here}
MASSACCESS=${MASSACCESS:-massaccess}
frames=${FRAMES:-800}
mkdir -p "$out"

campaign() { # name, verb and its options
    local file=$out/$1.json
    shift
    [[ -e $file || ! $(basename "$file" .json) == ${ONLY:-*} ]] && return
    echo "$(date +%T) $(basename "$file")"
    $MASSACCESS "$@" --config "$here/on_air.toml" --seed 1 --threads "${THREADS:-1}" --json "$file.part" >"${file%.json}.log" 2>&1 &&
        mv "$file.part" "$file"
}

cell() { # antennas, channel, SNR [dB] ...
    local antennas=$1 channel=$2 offsets snr
    shift 2
    for offsets in known unknown; do
        campaign "offsets-$offsets-m$antennas" evaluate --receivers jcedd --antennas "$antennas" --channel "$channel" \
            --snr-db "$(IFS=,; echo "$*")" --offsets $offsets --frames "$frames"
    done
    for snr in "$@"; do
        campaign "stream-m$antennas-${snr}dB" run --antennas "$antennas" --channel "$channel" --snr-db "$snr" --frames "$frames"
    done
}

cell 64 uma 4.5 5
cell 32 rayleigh 3.25 3.75
cell 16 rayleigh 8.25 8.75

for point in "32 3" "16 7.75"; do # known offsets need less: these enclose a frame error rate of 1e-2
    read -r antennas snr <<<"$point"
    campaign "lower-known-m$antennas" evaluate --receivers jcedd --antennas "$antennas" --channel rayleigh --snr-db "$snr" --offsets known \
        --frames "$frames"
done

# in step and without a waveform: what frames of symbols give with the same energy
for point in "64 uma 5" "32 rayleigh 3.75" "16 rayleigh 8.75"; do
    read -r antennas channel snr <<<"$point"
    campaign "symbols-m$antennas" evaluate --receivers jcedd --antennas "$antennas" --channel "$channel" --snr-db "$snr" --frames "$frames" \
        --samples-per-symbol 1 --preamble 0 --guard 0 --timing-offset 0 --cfo-hz 0 --common-cfo-hz 0
done

for script in coding_gain memory; do
    if [[ ! -e $out/$script.json && $script == ${ONLY:-*} && -e $here/$script.py ]]; then
        echo "$(date +%T) $script"
        ${PYTHON:-python3} "$here/$script.py" --out "$out"
    fi
done
