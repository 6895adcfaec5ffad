#!/usr/bin/env bash
# Makes this entry from the photographs of McM and clothing256: zoo/pixels+scale/make.sh McM CLOTHING256 OUT
# Training takes some minutes of one CPU core.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/../photos.sh" "$1" "$2" "$work/photos"
lightning fit --config "$here/../../configs/implicit_decoder.yaml" --data.folder "$work/photos" \
  --model.codec '{class_path: lit_mbldm.codecs.PixelCodec}' --trainer.max_steps 3000 \
  --trainer.logger.init_args.save_dir "$work/runs"
lit-mbldm export "$work/runs/implicit_decoder/version_0" "$3" --name pixels+scale --half \
  --license apache-2.0 --data "McM, clothing256" \
  --terms "18 photographs of McM that their authors published for research, without a stated licence, and photographs of clothing under CC0; the network keeps no image" \
  --command "zoo/pixels+scale/make.sh McM CLOTHING256 OUT" --figures "$here/figures.json"
