#!/usr/bin/env bash
# Makes this entry from the 18 photographs of McM: zoo/opq-32-8-8/make.sh McM OUT
set -euo pipefail
here=$(dirname "$0")
fitted=$(mktemp -d)/fitted
lit-mbldm codec fit OPQ-32-8-8 "$1" "$fitted" --max-patches 300000 --seed 0
lit-mbldm export "$fitted" "$2" --name opq-32-8-8 --license apache-2.0 --data McM \
  --terms "18 photographs that their authors published for research, without a stated licence; the codebooks keep averages of 8×8 patches, no image" \
  --figures "$here/figures.json"
