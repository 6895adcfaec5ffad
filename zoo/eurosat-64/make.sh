#!/usr/bin/env bash
# Makes this entry from the tar files of EuroSAT's tiles, in about an hour and a half of one CPU core. In
# the root of the repository: zoo/eurosat-64/make.sh EUROSAT OUT
set -euo pipefail
lit-mbldm shards "$1" data/eurosat_64 --size 64 --val 0.125
lit-mbldm codec fit JPQ-32 data/eurosat_64 data/eurosat_64_codec --patch-size 4
lightning fit --config configs/eurosat64.yaml
lit-mbldm export runs/eurosat64/version_0/checkpoints/last.ckpt "$2" --name eurosat-64 \
  --license mit --data "14,013 tiles of EuroSAT, 64×64" \
  --terms "MIT; EuroSAT (Helber et al. 2019), contains modified Copernicus Sentinel data" \
  --command "lightning fit --config configs/eurosat64.yaml" \
  --figures zoo/eurosat-64/figures.json
