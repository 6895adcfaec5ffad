#!/usr/bin/env bash
# Makes this entry from the 18 photographs of McM and the first 10 of each of the tar files of
# clothing256: zoo/jpq-48/make.sh McM CLOTHING256 OUT
set -euo pipefail
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/McM-clothing256"
cp "$1"/*.png "$work/McM-clothing256"
for shard in "$2"/*.tar; do
  tar -tf "$shard" | grep -E '\.jpe?g$' | sort | sed -n 1,10p |
    tar -xf "$shard" -C "$work/McM-clothing256" -T -
done
lit-mbldm codec fit JPQ-48 "$work/McM-clothing256" "$work/fitted" --max-patches 400000 --seed 0
lit-mbldm export "$work/fitted" "$3" --name jpq-48 --license apache-2.0 --data "McM, clothing256" \
  --terms "18 photographs of McM that their authors published for research, without a stated licence, and photographs of clothing under CC0; the codebooks keep averages of patches, no image" \
  --figures "$here/figures.json"
