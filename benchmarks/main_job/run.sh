#!/usr/bin/env bash
# The main job, streamed through GNU Radio and offline on the very same frames; about 25 minutes on two cores.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for channel in uma florence; do
    massaccess run --channel "$channel" --frames 20000 --seed 1 --json "$here/run-$channel.json"
    massaccess evaluate --receivers jcedd,perfect-activity+iterative-lmmse-ep,perfect-csi-ep --channel "$channel" --frames 20000 --seed 1 \
        --json "$here/evaluate-$channel.json"
done
massaccess run --frames 10000 --seed 2 --threads 1 --json "$here/memory-10000.json"
massaccess run --frames 100000 --seed 2 --threads 1 --json "$here/memory-100000.json"
python "$here/../speed/main_job.py" >"$here/breakdown.json"
python "$here/../report.py" "$here"
