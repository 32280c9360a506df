#!/bin/sh
# All results of calibration, health and masks; about half an hour on one core.
set -e
cd "$(dirname "$0")/../.."
for name in residual health masks link; do
    OMP_NUM_THREADS=1 PYTHONPATH=python python benchmarks/calibration/$name.py --json benchmarks/calibration/$name.json
done
