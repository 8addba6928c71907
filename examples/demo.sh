#!/bin/sh
# The main job on the digits that ship with scikit-learn: pre-train, fine-tune with backpropagation and
# with a sign-symmetry rule, index, attack by both kinds of gradient, report. Minutes on two cores.
set -eu
results=${1:-results/demo}
say() { printf '\n\033[1m%s\033[0m\n' "$1"; }

say "1. Pre-train LeNet with backpropagation, as a classifier, on the 500 images of the train split"
hashrobust pretrain --dataset digits --backbone lenet --epochs 30 --batch-size 32 --results "$results"

for rule in bp frsf; do
  say "2. Fine-tune for 32-bit hashing with rule '$rule'"
  hashrobust finetune --dataset digits --backbone lenet --weights run:digits-lenet-pretrained \
    --objective dpsh --bits 32 --rule "$rule" --epochs 25 --batch-size 32 --learning-rate 5e-4 --results "$results"
done

for rule in bp frsf; do
  run=digits-lenet-dpsh-32-$rule
  say "3. Index the database of '$rule', and measure its retrieval"
  hashrobust index "$run" --results "$results"
  hashrobust evaluate "$run" --results "$results" --brief
  say "4. Attack '$rule': by its exact gradient, and by the rule's own feedback"
  hashrobust attack "$run" --attack center,hag --epsilon 8/255,16/255 --gradient exact,rule \
    --steps 50 --results "$results"
done
say "   The zero-step control: BP's weights, never trained by frsf, attacked through frsf's feedback"
hashrobust attack digits-lenet-dpsh-32-bp --attack center,hag --epsilon 8/255,16/255 --gradient rule:frsf \
  --steps 50 --results "$results"

say "5. Search by image"
hashrobust search digits-lenet-dpsh-32-bp --query 0 -k 5 --output "$results/search.png" --results "$results"

say "6. Report"
hashrobust report "$results"
say "Look at:"
for file in report/summary.md report/paper_table.md report/map_against_epsilon.png report/masking_gap.png search.png; do
  test -e "$results/$file" && printf '  %s\n' "$results/$file"
done
