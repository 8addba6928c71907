#!/bin/sh
# The audits on Fashion-MNIST: every command behind the tables and figures beside this file.
# Resumes where it stopped; run it from the root of the checkout with `hashrobust` on the PATH.
set -eu
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
results=results/audit
network="--dataset fashion-mnist --backbone resnet20 --augment crop-flip --threads 1 --results $results"
stem=fashion-mnist-resnet20-dpsh-32

# Two seeds of backpropagation: the second is the twin of the first.
for seed in 0 1; do
  hashrobust pretrain $network --epochs 30 --seed $seed
done
finetune() {
  hashrobust finetune $network --weights run:fashion-mnist-resnet20-pretrained-s$1 --seed $1 --objective dpsh --bits 32 \
    --epochs 15 --learning-rate 5e-4 --schedule cosine --patience 0 --rule $2 --defence $3
}
finetune 0 bp none
finetune 1 bp none
for rule in usf brsf frsf fa; do
  finetune 0 $rule none
done
finetune 0 bp center-at

# What is done already is not done again: audits share attacks.
audit() {
  hashrobust audit $stem-$1 --control $stem-$2 --queries 200 --steps 50 --restarts $3 --threads 1 --results $results
}
audit bp-s0 bp-s1 2
audit bp-s0 bp-s1 4
for rule in usf brsf frsf fa bp+center-at; do
  audit $rule-s0 bp-s0 4
done

hashrobust report $results --output $results/report --format csv,md,png
cp $results/report/audits.* $results/report/results.csv results/published/audit
python results/published/audit/seeds.py $results >results/published/audit/seeds.csv
