#!/usr/bin/env bash
# Activity detectors against one another, point by point: every point is a JSON file of one line beside this one, and a point that is there
# is not run again. At 20,000 frames a night on two cores; `report.py` makes RESULTS.md and the pictures.
#   run.sh                                           all of it
#   FRAMES=2000 run.sh uma florence                  some campaigns, with fewer frames
#   RECEIVERS=activity,covariance OUT=/tmp/x run.sh  some detectors, elsewhere
# Campaigns: rayleigh uma load florence kronecker pathloss 144 joint latency (joint: whole receivers, 512 frames unless FRAMES says so). Options of `massaccess evaluate` go into MORE ("--device cuda").
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$here}
frames=${FRAMES:-20000}
books=${BOOKS:-$((frames < 200 ? frames : 200))}
receivers=${RECEIVERS:-activity,activity-fast,covariance,vpl-audnet,unrolled-covariance,mmv-amp,somp}
joint=jcedd,activity-fast+learned-ep,covariance+learned-ep,perfect-activity+learned-ep
mkdir -p "$out"

# point NAME OPTIONS...: one point, unless its file is there; the file appears whole or not at all
point() {
    local name=$1; shift
    if [ -e "$out/$name.json" ]; then echo "$name: kept"; return; fi
    echo "$name"
    # shellcheck disable=SC2086
    massaccess evaluate --receivers "$receivers" --frames "$frames" --pilot-books "$books" --batch "${BATCH:-128}" --seed "${SEED:-1}" \
        --data 0 --snr-db 10 "$@" ${MORE:-} --json "$out/.$name.part"
    python -c 'import json, sys; print(json.dumps(json.load(open(sys.argv[1]))))' "$out/.$name.part" > "$out/.$name.line"
    rm "$out/.$name.part"
    mv "$out/.$name.line" "$out/$name.json"
}

pilots() { # NAME "LENGTHS" OPTIONS...
    local name=$1 lengths=$2; shift 2
    for length in $lengths; do point "$name-L$(printf %02d "$length")" --pilots "$length" "$@"; done
}

for campaign in ${*:-rayleigh uma load florence kronecker pathloss 144 joint latency}; do
    case $campaign in
        rayleigh) pilots activity-rayleigh "8 10 12 16" --channel rayleigh ;;
        uma) pilots activity-uma "10 14 18 22 25" --channel uma ;;
        load) for share in 0.06 0.08 0.10 0.12 0.14 0.16 0.18 0.20; do point "activity-load-p$share" --channel uma --pilots 25 --activity $share; done ;;
        florence) pilots activity-florence "14 18" --channel florence ;;
        kronecker) pilots activity-kronecker "14 18" --channel kronecker ;;
        pathloss) for gains in known unknown; do pilots "activity-pathloss-$gains" "14 18" --channel pathloss-20db --no-power-control --gains $gains; done
            receivers=angular-covariance point pathloss-spread --pilots 14,18 --channel pathloss-20db --no-power-control --gains unknown \
                --option angular-covariance.spread_db=20 ;;
        144) pilots activity-144 "14 18" --channel uma --antennas 144 ;;
        joint) receivers=$joint frames=${FRAMES:-512} books=16 point joint-uma --channel uma --pilots 10,14,18 --data 50 ;;
        latency) [ -e "$out/latency.json" ] || python "$here/../speed/activity.py" --detectors "$receivers" --threads "${THREADS:-1}" --json "$out/latency.json" ;;
        *) echo "no campaign $campaign: choose among rayleigh uma load florence kronecker pathloss 144 joint latency" >&2; exit 2 ;;
    esac
done

python "$here/../report.py" "$out"
