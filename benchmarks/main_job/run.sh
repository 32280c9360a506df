#!/usr/bin/env bash
# The main job, streamed through GNU Radio and offline on the very same frames; about 25 minutes on two cores.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
receivers=jcedd,covariance+iterative-lmmse-ep,perfect-csi-ep,perfect-csi-jcedd
massaccess run --channel uma --frames 20000 --seed 1 --json "$here/run-uma.json"
massaccess evaluate --receivers "$receivers" --channel uma --frames 20000 --seed 1 --json "$here/evaluate-uma.json"
massaccess run --channel florence --frames 5000 --seed 1 --json "$here/run-florence.json"
massaccess evaluate --receivers "$receivers" --channel florence --frames 5000 --seed 1 --json "$here/evaluate-florence.json"
massaccess run --frames 10000 --seed 2 --threads 1 --json "$here/memory-10000.json"
massaccess run --frames 40000 --seed 2 --threads 1 --json "$here/memory-40000.json"
python "$here/../speed/main_job.py" >"$here/breakdown.json"
python "$here/../report.py" "$here"
