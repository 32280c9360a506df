#!/usr/bin/env bash
# Joint channel estimation and data detection with learned priors: about 40 minutes on two cores. Results go beside this file; `report.py` renders them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
evaluate() { name=$1; shift; massaccess evaluate "$@" --json "$here/$name.json"; }

python "$here/denoising.py" --json "$here/denoising.json"

known=(--users 12 --active-users 12 --channel uma)
evaluate perfect-data --receivers perfect-data-lmmse,perfect-data-jcedd --pilots 15 --data 50 --snr-db 0,4,8,12,16 --frames 1000 --seed 1 "${known[@]}"
# the same network in P1's sampler of 1,500 steps, on the first frames of the same seed
evaluate perfect-data-sampler --receivers perfect-data-lmmse,perfect-data-jcedd,perfect-data-pc --pilots 15 --data 50 --snr-db 0,8,16 --frames 32 --seed 1 "${known[@]}"
evaluate pilots-only --receivers lmmse-lmmse,learned-ep --pilots 10,15 --data 0 --snr-db 0,4,8,12,16 --frames 1000 --seed 1 "${known[@]}"

all=learned-ep,iterative-lmmse-ep,iterative-lmmse-oamp,perfect-data-jcedd,perfect-csi-ep,perfect-csi-jcedd
evaluate snr --receivers "$all" --pilots 15 --data 50 --snr-db 0,2,4,6,8,10,12,14,16 --frames 2000 --seed 1 "${known[@]}"
evaluate snr-10db --receivers learned-ep,iterative-lmmse-ep,perfect-csi-ep,perfect-csi-jcedd --pilots 15 --data 50 --snr-db 10 --frames 8000 --seed 2 "${known[@]}"
evaluate few-pilots --receivers "$all" --pilots 10,12 --data 50 --snr-db 10 --frames 2000 --seed 1 "${known[@]}"
evaluate florence --receivers "$all" --users 12 --active-users 12 --channel florence --pilots 15 --data 50 --snr-db 10 --frames 2000 --seed 1
evaluate overloaded --receivers learned-ep,iterative-lmmse-ep,perfect-data-jcedd,perfect-csi-jcedd --users 24 --active-users 24 --channel uma --pilots 20 --data 50 --snr-db 14 --frames 500 --seed 1
evaluate rayleigh --receivers learned-ep,iterative-lmmse-ep,perfect-data-lmmse --users 12 --active-users 12 --channel rayleigh --pilots 15 --data 50 --snr-db 4,8,12,16 --frames 1000 --seed 1
evaluate unknown-noise --receivers learned-ep,iterative-lmmse-ep --noise estimated --pilots 15 --data 50 --snr-db 10 --frames 1000 --seed 1 "${known[@]}"

python "$here/../speed/jcedd.py" --threads 2 --json "$here/speed.json"
python "$here/../report.py" "$here"
