#!/usr/bin/env bash
# Makes this entry from the tar files of clothing256, seen at 96×96:
# zoo/jpq-32-4x4/make.sh CLOTHING256 OUT
set -euo pipefail
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
lit-mbldm shards "$1" "$work/clothing256" --size 96
lit-mbldm codec fit JPQ-32 "$work/clothing256" "$work/fitted" --patch-size 4 --max-patches 400000
lit-mbldm export "$work/fitted" "$2" --name jpq-32-4x4 --license apache-2.0 --data clothing256 \
  --command "lit-mbldm codec fit JPQ-32 clothing256 OUT --patch-size 4 --max-patches 400000" \
  --terms "1,000 photographs of clothing under CC0, at 96×96 pixels" \
  --figures "$here/figures.json"
