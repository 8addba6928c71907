#!/bin/sh
# Rule, defence, and both, each audited beside the training that lacks one of them; the control is taken at the epoch of equal
# clean validation mAP. Run it from the root of the checkout, after the study, with `hashrobust` on the PATH.
set -eu
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
results="${1:-results/defences}"
stem=fashion-mnist-lenet-dpsh-32

# The folders of seed 0 at equal cost: 18 epochs, or 6 with center-fast.
bp=$stem-bp-s0
frsf=$stem-frsf-s0
bp_fast=$stem-bp+center-fast-s0-755e52a4
frsf_fast=$stem-frsf+center-fast-s0-40925314

audit() {
  hashrobust audit $1 --control $2 --queries 200 --steps 50 --restarts 2 --threads 1 --results $results
}
audit $frsf $bp
audit $bp_fast $bp
audit $frsf_fast $bp
audit $frsf_fast $bp_fast
