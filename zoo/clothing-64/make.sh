#!/usr/bin/env bash
# Makes this entry from photographs of clothes, 3,000 in CLOTHING/train and 500 in CLOTHING/val, in
# about an hour of one CPU core. In the root of the repository: zoo/clothing-64/make.sh CLOTHING OUT
set -euo pipefail
for part in "" _val; do
  lit-mbldm shards "$1/$([ -z "$part" ] && echo train || echo val)" "data/clothing_64$part" --size 64
  lit-mbldm encode "data/clothing_64$part" "data/clothing_64${part}_codes" --codec opq-32-8-8
done
lightning fit --config configs/clothing64_cat.yaml
lightning fit --config configs/clothing64_refiner.yaml
lit-mbldm export runs/clothing64_cat/version_0/checkpoints/last.ckpt "$2" --name clothing-64 \
  --refiner runs/clothing64_refiner/version_0/checkpoints/last.ckpt \
  --license apache-2.0 --data "3,000 photographs of clothes, 256×256" --terms CC0 \
  --command "lightning fit --config configs/clothing64_cat.yaml" \
  --steps 50 --temperature 0.6 --figures zoo/clothing-64/figures.json
