#!/usr/bin/env bash
# One-bit arrays: about 40 minutes on one core. Every campaign is a JSON file beside this one, and a file that is there is not run again.
#   run.sh                      all of it
#   run.sh known joint          some campaigns: known joint classes default access noise time
#   FRAMES=100 OUT=/tmp/x run.sh
# The paper's figures are in ../papers (p4-fig1a to p4-fig2-sparsity). `report.py` makes RESULTS.md from the files.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$here}
mkdir -p "$out"

evaluate() { # NAME FRAMES OPTIONS...
    local name=$1 frames=${FRAMES:-$2}; shift 2
    if [ -e "$out/$name.json" ]; then echo "$name: kept"; return; fi
    echo "$name"
    massaccess evaluate --frames "$frames" --seed "${SEED:-1}" --adc-bits 1 --threads "${THREADS:-1}" "$@" --json "$out/.$name.part"
    mv "$out/.$name.part" "$out/$name.json"
}

twelve=(--users 12 --active-users 12)
p4=(--users 20 --active-users 20 --rows 8 --columns 16 --pilots 80 --data 200 --channel rayleigh --snr-convention per-user)
for campaign in ${*:-known joint classes default access noise time}; do
    case $campaign in
        known) for pilots in 15 30 65; do
            evaluate "known-$pilots" 1000 --receivers onebit-ep,onebit-gaussian "${twelve[@]}" --channel uma --pilots $pilots --data 0 --snr-db 0,5,10,15
        done ;;
        joint) evaluate joint 1000 --receivers onebit-ep,onebit-gaussian,bussgang-lmmse,learned-ep "${twelve[@]}" --channel uma --pilots 15 --data 50 --snr-db 0,5,10,15 ;;
        classes) for channel in florence kronecker rayleigh; do
            for pilots in 15 30 65; do
                evaluate "class-$channel-$pilots" 256 --receivers onebit-ep,onebit-gaussian "${twelve[@]}" --channel $channel --channel-cov uma --pilots $pilots --data 0 --snr-db 0,5,10,15
            done
            evaluate "class-$channel-joint" 256 --receivers onebit-ep,onebit-gaussian "${twelve[@]}" --channel $channel --channel-cov uma --pilots 15 --data 50 --snr-db 0,5,10,15
        done ;;
        default) evaluate default 500 --receivers onebit,bussgang-lmmse "${p4[@]}" --snr-db=-15,-5,0,5
            evaluate default-10db 3000 --receivers onebit "${p4[@]}" --snr-db 10 ;;
        access) evaluate access 1000 --receivers onebit,jcedd,onebit-activity+bussgang-lmmse --users 128 --activity 0.1 --channel uma --pilots 28 --data 37 --snr-db 5,10,15 ;;
        noise) evaluate noise-rayleigh 200 --receivers onebit --noise estimated "${p4[@]}" --snr-db=-5,5,10
            evaluate noise-uma 500 --receivers onebit-ep --noise estimated "${twelve[@]}" --channel uma --pilots 15 --data 50 --snr-db 0,5,10,15 ;;
        time) evaluate time 8 --receivers onebit,onebit-ep,advi,pvi-sequential,pvi-synchronous,bussgang-lmmse,svm "${p4[@]}" --snr-db 10 --batch 8 ;;
        *) echo "no campaign is called $campaign" >&2; exit 2 ;;
    esac
done
