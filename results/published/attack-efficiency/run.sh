#!/bin/sh
# Every command behind the table beside this file: published settings of the attacks against modern defaults with a
# tenth of the gradients. Resumes where it stopped; run it from the root of the checkout with `hashrobust` on the PATH.
set -eu
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
results=results/attack-efficiency
run=fashion-mnist-resnet20-dpsh-32-bp-s0

hashrobust pretrain --dataset fashion-mnist --backbone resnet20 --epochs 30 --augment crop-flip --threads 1 --results $results
hashrobust finetune --dataset fashion-mnist --backbone resnet20 --weights run:fashion-mnist-resnet20-pretrained-s0 \
  --objective dpsh --bits 32 --rule bp --epochs 15 --learning-rate 5e-4 --schedule cosine --augment crop-flip \
  --patience 0 --threads 1 --results $results

attack() {
  hashrobust attack $run --queries 40 --threads 1 --no-picture --quiet --json --results $results "$@" >/dev/null
}

for epsilon in 32/255 8/255; do
  # Modern defaults: a tenth of the published steps, and the way there.
  for steps in 10 30 100 150; do
    attack --epsilon $epsilon --attack sdha --steps $steps
    attack --epsilon $epsilon --attack sdha --param targeted=true --steps $steps
  done
  for steps in 10 30 100 200; do
    attack --epsilon $epsilon --attack hag,dhta,p2p --steps $steps
  done
  for steps in 10 30 100; do
    attack --epsilon $epsilon --attack center,tha,center-multi,ap --steps $steps
    attack --epsilon $epsilon --attack center --param targeted=true --steps $steps
  done
  attack --epsilon $epsilon --attack square --param budget=1000
  # Published settings.
  attack --epsilon $epsilon --attack center --preset saat
  attack --epsilon $epsilon --attack center --preset saat --param targeted=true
  attack --epsilon $epsilon --attack center --preset saat-fixed --param targeted=true
  attack --epsilon $epsilon --attack tha --preset original
  for preset in original saat; do
    attack --epsilon $epsilon --attack hag --preset $preset
    attack --epsilon $epsilon --attack sdha --preset $preset
    attack --epsilon $epsilon --attack dhta --preset $preset
    attack --epsilon $epsilon --attack p2p --preset $preset
  done
  attack --epsilon $epsilon --attack sdha --preset original --param targeted=true
  attack --epsilon $epsilon --attack square --preset original
done

# Fitted once a ball, before any query: 51 minutes with the preset, 4 with the default.
for epsilon in 32/255 8/255; do
  attack --epsilon $epsilon --attack prosgan
  attack --epsilon $epsilon --attack prosgan --preset original
done

# The presets that do not come near theory, with other step sizes; of `prosgan` also without its bound, as published.
attack --epsilon 32/255 --attack prosgan --param bounded=false
for learning_rate in 3e-3 3e-4; do
  attack --epsilon 32/255 --attack prosgan --param learning_rate=$learning_rate
done
for step_size in 0.5/255 8/255 32/255 1.0; do
  attack --epsilon 32/255 --attack sdha --preset saat --step-size $step_size
done
