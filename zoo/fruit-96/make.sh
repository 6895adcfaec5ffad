#!/usr/bin/env bash
# Makes this entry from the tar files of fruit100 in two hours of one CPU core. In the root of the
# repository: zoo/fruit-96/make.sh FRUIT OUT
set -euo pipefail
lit-mbldm shards "$1" data/fruit_96 --size 96 --val 0.1
lightning fit --config configs/fruit96.yaml
lit-mbldm export runs/fruit96/version_0 "$2" --name fruit-96 --half \
  --license mit --data "5,139 photographs of fruit and vegetables, 96×96, 114 kinds (Fruits-360)" \
  --terms "MIT; © 2017 Horea Muresan, Mihai Oltean" \
  --command "lightning fit --config configs/fruit96.yaml" --figures zoo/fruit-96/figures.json
