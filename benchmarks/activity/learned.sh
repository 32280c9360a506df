#!/usr/bin/env bash
# Trained activity detectors beside covariance maximum likelihood, on books that none of them was trained on: about ten minutes on one core.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
common=(--users 128 --data 0 --snr-db 10 --activity 0.1 --pilot-books 20 --frames 2000 --threads 1)
names=vpl-audnet,unrolled-covariance,covariance
massaccess evaluate --receivers "$names" --pilots 8,10,12,16 --channel rayleigh "${common[@]}" --json "$here/learned-rayleigh.json"
massaccess evaluate --receivers "$names" --pilots 10,14,18,22,25 --channel uma "${common[@]}" --json "$here/learned-uma.json"
massaccess evaluate --receivers "$names" --pilots 14,18 --channel florence "${common[@]}" --json "$here/learned-florence.json"
massaccess evaluate --receivers "$names" --pilots 8,10 --channel rayleigh --rows 12 --columns 12 "${common[@]}" --frames 1000 --json "$here/learned-144.json"
for activity in 0.06 0.2; do
    massaccess evaluate --receivers "$names" --pilots 25 --channel uma "${common[@]}" --activity $activity --frames 1000 \
        --json "$here/learned-uma-activity-$activity.json"
done
massaccess evaluate --receivers unrolled-covariance --option unrolled-covariance.weights=unrolled-covariance-fast --pilots 8,10,12,16 \
    --channel rayleigh "${common[@]}" --json "$here/learned-fast.json"
