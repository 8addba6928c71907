#!/bin/sh
# The first look on Fashion-MNIST: every command behind the tables and figures beside this file.
# Resumes where it stopped; run it from the root of the checkout with `hashrobust` on the PATH.
set -eu
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
results=results/first-look
attacked="--queries 200 --steps 50 --no-picture --results $results"

for backbone in lenet resnet20; do
  hashrobust pretrain --dataset fashion-mnist --backbone $backbone --epochs 30 --augment crop-flip --results $results
  for rule in bp usf brsf frsf fa; do
    hashrobust finetune --dataset fashion-mnist --backbone $backbone \
      --weights run:fashion-mnist-$backbone-pretrained --objective dpsh --bits 32 --rule $rule \
      --epochs 15 --learning-rate 5e-4 --schedule cosine --augment crop-flip --patience 0 --results $results
    run=fashion-mnist-$backbone-dpsh-32-$rule
    hashrobust index $run --results $results
    hashrobust evaluate $run --brief --results $results
  done
done

for attack in noise center hag sdha; do
  case $attack in noise | center) epsilons=2/255,4/255,8/255,16/255 ;; *) epsilons=8/255 ;; esac
  for backbone in lenet resnet20; do
    for rule in bp usf brsf frsf fa; do
      gradients=exact
      test $rule = bp || test $attack = noise || gradients=exact,rule
      hashrobust attack fashion-mnist-$backbone-dpsh-32-$rule --attack $attack --gradient $gradients \
        --epsilon $epsilons $attacked
    done
    # The zero-step control: BP's weights attacked through each rule's feedback, no fine-tuning by the rule.
    test $attack = noise || hashrobust attack fashion-mnist-$backbone-dpsh-32-bp --attack $attack \
      --gradient rule:usf,rule:brsf,rule:frsf,rule:fa --epsilon $epsilons $attacked
  done
done

hashrobust report $results --output results/published/first-look --format csv,md,tex,png
hashrobust report $results --filter attack=center --filter backbone=resnet20 --format png \
  --output results/published/first-look/center-resnet20
python results/published/first-look/paired.py $results >results/published/first-look/paired.csv
