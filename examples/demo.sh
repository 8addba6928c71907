#!/bin/sh
# The main job on the digits that ship with scikit-learn: pre-train, fine-tune with backpropagation and
# with a sign-symmetry rule, index, attack by both kinds of gradient, report. Minutes on two cores.
set -eu
results=${1:-results/demo}
# The networks are tiny: a second thread gains little, and loses much where the machine is busy.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
bold='' plain=''
if test -t 1 && test -z "${NO_COLOR:-}"; then bold='\033[1m' plain='\033[0m'; fi
say() { printf "\n$bold%s$plain\n" "$1"; }
note() { printf '  %s\n' "$1"; }

say "1. Pre-train LeNet with backpropagation, as a classifier, on the 500 images of the train split"
hashrobust pretrain --dataset digits --backbone lenet --epochs 30 --batch-size 32 --results "$results" --quiet

say "2. Fine-tune it into a hashing model of 32 bits: with backpropagation (bp), then with frsf"
note "frsf sends the error back through random weights that share only the signs of the forward weights."
for rule in bp frsf; do
  hashrobust finetune --dataset digits --backbone lenet --weights run:digits-lenet-pretrained \
    --objective dpsh --bits 32 --rule "$rule" --epochs 25 --batch-size 32 --learning-rate 5e-4 \
    --results "$results" --quiet
done

say "3. Encode the 997 images of the database, build Hamming indexes, and search one of them"
for rule in bp frsf; do
  hashrobust index "digits-lenet-dpsh-32-$rule" --results "$results" --quiet
done
hashrobust search digits-lenet-dpsh-32-bp --query 0 -k 5 --output "$results/search.png" --results "$results" --quiet

say "4. Attack the 200 queries: changes of at most epsilon a pixel, so that they find the wrong images"
note "mAP is 100% where all images of the query's class are found first; clean is without attack."
note "An attacker may follow the exact gradient of the network, or the feedback of the rule."
note "As a control, bp is attacked through frsf feedback as well, which had no part in its training."
hashrobust attack digits-lenet-dpsh-32-frsf --attack center,hag --epsilon 8/255,32/255 \
  --gradient exact,rule --steps 50 --no-picture --results "$results" --quiet
hashrobust attack digits-lenet-dpsh-32-bp --attack center,hag --epsilon 8/255,32/255 \
  --gradient exact,rule:frsf --steps 50 --no-picture --results "$results" --quiet

say "5. Report: is what the rule seems to give robustness, or does its feedback only mislead the attacker?"
hashrobust report "$results"

say "Look at:"
for file in report/summary.md report/map_against_epsilon.png report/masking_gap.png report/examples search.png; do
  if test -e "$results/$file"; then note "$results/$file"; fi
done
note "Every run, with its configuration, weights, codes and attacks: $results/digits-*"
