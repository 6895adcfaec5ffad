#!/usr/bin/env bash
# Makes this entry from the 18 photographs of McM, four times as likely each as one of the first 20
# of each of the tar files of clothing256: zoo/jpq-48+decoder/make.sh McM CLOTHING256 OUT
# Training takes an hour of one CPU core.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/../photos.sh" "$1" "$2" "$work/photos"
lightning fit --config "$here/../../configs/jpq48_decoder.yaml" --data.folder "$work/photos" \
  --trainer.logger.init_args.save_dir "$work/runs"
lit-mbldm codec decoder "$work/runs/jpq48_decoder/version_0/checkpoints/last.ckpt" "$work/decoder"
lit-mbldm export "$work/decoder" "$3" --name jpq-48+decoder --license apache-2.0 \
  --data "McM, clothing256" \
  --terms "18 photographs of McM that their authors published for research, without a stated licence, and photographs of clothing under CC0; codebooks and network keep no image" \
  --figures "$here/figures.json"
