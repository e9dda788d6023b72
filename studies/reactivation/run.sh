#!/usr/bin/env bash
# The case study, in order: the data, the base with a habit, the grid, low weights, the other texts in PT's place, templates,
# temperatures, the points that decide for two further training seeds, repairs, scores; full fine-tunes, where they and the
# adapters write, and what both do together; then the tables.
# About three hours on two cores. Killed at any point, the same command goes on. `run.sh --plan` prints the plans alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
crossmatch=${CROSSMATCH:-.venv/bin/crossmatch} python=${PYTHON:-.venv/bin/python}
here=studies/reactivation data=runs/reactivation/data results=studies/reactivation/results
[ -f "$data/card.json" ] || "$python" "$here/world.py" "$data"
for study in base grid low texts1 templates temperature seed2 texts2 seed3 texts3; do
  echo "== $study"
  if [ "${1:-}" = --plan ]; then
    "$crossmatch" run "$here/$study.yaml" --dry-run
  else
    # Exit code 1 or 3 is a verdict on the merged file, and ends the study.
    "$crossmatch" run "$here/$study.yaml"
  fi
done
[ "${1:-}" = --plan ] && exit
"$python" "$here/collect.py" runs "$results"
for step in repairs scores; do
  echo "== $step"
  "$python" "$here/$step.py" runs "$results"
done
echo "== full"
"$python" "$here/full.py" runs
base=runs/reactivation-base/merges/habit1 full=runs/reactivation-full grid=runs/reactivation-grid/adapters
for stage in pt sft; do
  [ -d "$full/tau-$stage" ] || "$crossmatch" vectors extract "$base" "$full/$stage" -o "$full/tau-$stage"
done
asked=(--suite "$data/name.yaml" --suite "$data/documents.yaml" --template "$here/templates/answer-only.jinja" --kl 0)
for kind in full lora; do
  case $kind in full) pt=$full/tau-pt sft=$full/tau-sft ;; lora) pt=$grid/pt sft=$grid/sft ;; esac
  out=runs/reactivation-$kind
  [ -f "$out/analysis.json" ] ||
    "$crossmatch" analyse "$base" pt="$pt" sft="$sft" --texts "$data/documents.yaml" --positions 2048 --nulls 2 -o "$out"
  "$crossmatch" evaluate "$base" -a pt="$pt" -a sft="$sft" -w pt=1 -w sft=1 --reference pt "${asked[@]}" -o "$out-both"
done
"$python" "$here/collect.py" runs "$results"
"$python" "$here/tables.py" "$results" docs/case-study.md
