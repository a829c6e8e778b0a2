"""Our training steps beside what a user would pick instead, interleaved on one machine: `make bench`.

tasks.py        what is timed, the contenders, the targets
ours.py linen.py pytorch.py numpyro_svi.py pythae_trainer.py
                the contenders, each with build(task, mode, x, seed) -> advance, advance(n) -> losses [n, 2]
worker.py       one contender in a process of its own; contest.py starts them and times them in turn
machine.py      the device's name, its GEMM peak, how busy it is
record.py       results/<device>.json
curves.py       whether a peer's losses are ours within noise
table.py        results/<device>.json -> the printed tables, the README's and REPORT.md's
profile.py      what a step is made of, on one core
layers.py       the convolutions apart, beside XLA's and PyTorch's
metrics.py      the metrics beside scikit-learn, scipy, prdc and torchmetrics: `make bench-metrics`
scaling.py      how cost grows: `make bench-scaling`; scaling_page.py shows it
collectives.py  what devices say to each other in a step
accelerator.py  seeds side by side, bfloat16, chip peak, the time to a paper's schedule: part of `make bench` there
wholes.py       fit with its files, a script's first step, the scripts' memory
"""
