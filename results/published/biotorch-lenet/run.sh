#!/bin/sh
# LeNet on Fashion-MNIST from scratch by every rule, as BioTorch's benchmark: every command behind the table beside
# this file. Resumes where it stopped; run it from the root of the checkout with `hashrobust` on the PATH.
set -eu
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
results=results/biotorch-lenet

# BioTorch does not say what learning rate it starts with: of two, the better on validation counts.
for learning_rate in 0.05 0.01; do for rule in bp usf brsf frsf fa; do
  hashrobust finetune --task classification --dataset fashion-mnist --backbone lenet --image-size 32 --rule $rule \
    --optimizer sgd --learning-rate $learning_rate --weight-decay 1e-3 --batch-size 64 --epochs 30 --schedule step --patience 0 \
    --threads 1 --results $results
done; done
python results/published/biotorch-lenet/table.py $results >results/published/biotorch-lenet/errors.csv
