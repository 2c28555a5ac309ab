#!/usr/bin/env bash
# Trains DINO on Fashion-MNIST, 60,000 real images without their labels, in about five minutes on two cores, and shows what
# was learned: k-nearest-neighbour accuracy of raw pixels, of the untrained network, and of the trained one.
# On a fresh Debian 12 it installs what is missing first.
#   ./demo.sh [FOLDER]   where the results go (default: demo)
set -euo pipefail
cd "$(dirname "$0")"
source tests/require_packages.sh
require_packages "${build_packages[@]}" dataset-fashion-mnist

out=${1:-demo}
data=/usr/share/datasets/fashion-mnist
train=$data/train-images-idx3-ubyte.gz
test=$data/t10k-images-idx3-ubyte.gz

echo "Building (once)"
launcher=()
command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
[ -f build/release/build.ninja ] || cmake --preset release -DDINO_TESTS=OFF -DDINO_BENCH=OFF "${launcher[@]}" >/dev/null
cmake --build --preset release --target dino_engine_program | tail -n 1
dino_engine=build/release/dino_engine

# Top-1 of the 20 nearest of 60,000 training images, on 10,000 test images.
knn() {
  "$dino_engine" eval knn --train "$train" --val "$test" --nb-knn 20 --json "$@" 2>/dev/null |
    sed -E 's/.*"top1":([0-9.]+).*/\1/'
}

# Pixels are normalised by the data's mean and deviation, which helps their cosine.
echo "k-NN accuracy before training (k 20, cosine, T 0.07; 60,000 training and 10,000 test images):"
pixels=$(knn --arch pixels --channels 1 --image-size 28 --mean 0.286 --std 0.353)
echo "  raw pixels          $pixels %"
untrained=$(knn --arch conv_small --channels 1 --image-size 28)
echo "  untrained network   $untrained %"

# A small convolutional network learns within minutes where a vision transformer needs hours.
"$dino_engine" train --data "$train" --out "$out" --arch conv_small --channels 1 \
  --global-crops-size 28 --local-crops-size 14 --local-crops-number 4 --local-crops-scale 0.1 0.4 \
  --jitter-prob 1 --brightness 0.5 --contrast 0.5 --solarize-prob 0 \
  --blur-prob-global1 0.5 --blur-prob-global2 0.5 --blur-prob-local 0.5 --blur-sigma 0.3 1.2 \
  --out-dim 512 --head-hidden-dim 512 --head-bottleneck-dim 64 --use-bn-in-head \
  --sinkhorn 3 --momentum-teacher 0.95 --momentum-teacher-end 0.995 \
  --batch-size 128 --epochs 2 --lr 0.008 --min-lr 1e-5 --warmup-epochs 0.2 --freeze-last-layer 0.1 --weight-decay-end 0.04 \
  --log-every 50 --checkpoint-every-steps 200 --saveckp-freq 0

trained=$(knn --weights "$out/checkpoint.safetensors")
echo
echo "k-NN accuracy:"
echo "  raw pixels          $pixels %"
echo "  untrained network   $untrained %"
echo "  trained with DINO   $trained %"
echo
entropy=$(tail -n 1 "$out/log.jsonl" | sed -E 's/.*"marginal_entropy":([0-9]+\.[0-9]{2})[0-9]*.*/\1/')
verdict=$(tail -n 1 "$out/log.jsonl" | sed -E 's/.*"verdict":"([a-z]+)".*/\1/')
echo "The run is $verdict: the mean target has an entropy of $entropy nats (all 512 prototypes equally often: 6.24; collapsed: near 0)."
"$dino_engine" report --run "$out" --data "$test" >/dev/null
echo "Results: $out/report.html (open it in a browser), $out/checkpoint.safetensors (everything), $out/log.jsonl (each logged step),"
echo "         $out/config.json (all options)."
echo "Next:    $dino_engine features --weights $out/checkpoint.safetensors --data $test --out $out/features.npy"
