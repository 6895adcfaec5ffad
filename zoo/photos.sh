#!/usr/bin/env bash
# Gathers what decoders learn from, the 18 photographs of McM, four times as likely each as one of the
# first 20 of each of the tar files of clothing256: zoo/photos.sh McM CLOTHING256 OUT
set -euo pipefail
for times in 1 2 3 4; do
  mkdir -p "$3/McM-$times"
  cp "$1"/*.png "$3/McM-$times"
done
mkdir "$3/clothing256"
for shard in "$2"/*.tar; do
  tar -tf "$shard" | grep -E '\.jpe?g$' | sort | sed -n 1,20p |
    tar -xf "$shard" -C "$3/clothing256" -T -
done
