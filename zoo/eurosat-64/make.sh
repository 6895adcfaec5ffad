#!/usr/bin/env bash
# Makes this entry from the tar files of eurosat64 in about four hours of one CPU core, in two rounds:
# the second starts from the first's weights, with its learning rate anew. In the root of the
# repository: zoo/eurosat-64/make.sh EUROSAT OUT
set -euo pipefail
lit-mbldm shards "$1" data/eurosat_64 --size 64 --val 0.125
share() {
  lit-mbldm export "$1" "$2" --name eurosat-64 --half --license mit \
    --data "14,013 satellite tiles of EuroSAT, 64×64, ten classes of land" \
    --terms "MIT; EuroSAT (Helber et al. 2019); contains modified Copernicus Sentinel data" "${@:3}"
}
lightning fit --config configs/eurosat64.yaml
share runs/eurosat64/version_0 data/eurosat_64_first
lightning fit --config configs/eurosat64.yaml --model.from_pretrained data/eurosat_64_first \
  --trainer.max_steps 9000 --trainer.logger.init_args.name eurosat64_second
share runs/eurosat64_second/version_0 "$2" --guidance 3 --figures zoo/eurosat-64/figures.json \
  --command "zoo/eurosat-64/make.sh EUROSAT OUT"
