#!/usr/bin/env bash
# Makes this entry from the tar files of eurosat64 in about two hours of one CPU core. In the root of
# the repository: zoo/eurosat-64/make.sh EUROSAT OUT
set -euo pipefail
lit-mbldm shards "$1" data/eurosat_64 --size 64 --val 0.125
lightning fit --config configs/eurosat64.yaml
lit-mbldm export runs/eurosat64/version_0 "$2" --name eurosat-64 --half \
  --license mit --data "14,013 satellite tiles of EuroSAT, 64×64, ten classes of land" \
  --terms "MIT; EuroSAT (Helber et al. 2019); contains modified Copernicus Sentinel data" \
  --command "lightning fit --config configs/eurosat64.yaml" --figures zoo/eurosat-64/figures.json
