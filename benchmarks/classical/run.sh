#!/usr/bin/env bash
# The campaigns behind benchmarks/classical/README.md: about 45 minutes on two cores. Results go beside this file; `report.py` renders them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
evaluate() { name=$1; shift; massaccess evaluate "$@" --json "$here/$name.json"; }

detection=(--channel rayleigh --snr-db 10 --data 0 --pilot-books 20 --calibrate 1000)
evaluate activity-rayleigh --receivers covariance,mmv-amp,somp --pilots 10,12,16,20 --frames 2000 "${detection[@]}"
evaluate activity-rayleigh-16 --receivers covariance --pilots 16 --frames 120000 --channel rayleigh --snr-db 10 --data 0 --pilot-books 20
evaluate activity-rayleigh-20 --receivers mmv-amp --pilots 20 --frames 10000 "${detection[@]}"
evaluate activity-uma --receivers covariance,mmv-amp,somp --channel uma --snr-db 10 --data 0 --pilots 14,18,22,25 --frames 2000 --pilot-books 20 --calibrate 1000

coherent=ls-zf,lmmse-lmmse,iterative-lmmse-oamp,iterative-lmmse-ep,perfect-data-ls,perfect-data-lmmse,perfect-csi-zf,perfect-csi-oamp,perfect-csi-ep
known=(--users 12 --active-users 12 --pilots 15 --data 50 --snr-db 0,2,4,6,8,10,12,14,16 --receivers "$coherent" --frames 4000)
evaluate coherent-rayleigh --channel rayleigh "${known[@]}"
evaluate coherent-uma --channel uma "${known[@]}"

python "$here/../report.py" "$here"
