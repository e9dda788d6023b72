#!/usr/bin/env bash
# The case study, in order: the data, the base with a habit, the grid, the other texts in PT's place, templates,
# temperatures, and the points that decide for two further training seeds.
# About three hours on two cores. Killed at any point, the same command goes on. `run.sh --plan` prints the plans alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
crossmatch=${CROSSMATCH:-.venv/bin/crossmatch} python=${PYTHON:-.venv/bin/python}
here=studies/reactivation data=runs/reactivation/data
[ -f "$data/card.json" ] || "$python" "$here/world.py" "$data"
for study in base grid texts1 templates temperature seed2 texts2 seed3 texts3; do
  echo "== $study"
  if [ "${1:-}" = --plan ]; then
    "$crossmatch" run "$here/$study.yaml" --dry-run
  else
    # Exit code 1 or 3 is a verdict on the merged file, and ends the study.
    "$crossmatch" run "$here/$study.yaml"
  fi
done
