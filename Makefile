# Every target that a person needs; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FLAGS ?=
TRAIN := train-vae train-gan train-dcgan train-wgan train-vaegan
PAPERS := pca vae gan dcgan wgan vaegan iwae likelihood mixtures dirac challenges
REPRODUCE := $(PAPERS:%=reproduce-%)
# Where there is an NVIDIA GPU, JAX comes with what it needs there.
EXTRAS := test$(shell command -v nvidia-smi > /dev/null && echo ,cuda)

.DEFAULT_GOAL := help
.PHONY: help install quickstart test lint data bench-install bench bench-scaling bench-metrics evaluate \
	reproduce report notebook clean $(TRAIN) $(REPRODUCE)

help: ## This list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 16

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[$(EXTRAS)]'
	@touch $@

install: $(VENV)/.installed ## The environment in .venv, with what the tests need

quickstart: install ## All five models on 8x8 digits, and a page with their pictures: minutes, no download
	$(BIN)/python -m experiments.quickstart

test: install ## The whole test suite
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: install ## Linter and type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

data: install ## Fetch MNIST and Fashion-MNIST, check and cache them
	$(BIN)/python -m vaegan_jax.data mnist fashion_mnist

train-vae: ## VAE on MNIST, Kingma and Welling's recipe (2 minutes; FLAGS='--seeds 0 1' adds flags)
train-gan: ## GAN on MNIST, Goodfellow's released recipe (11 minutes on two cores)
train-dcgan: ## DCGAN on MNIST, Radford's released recipe (10 minutes)
train-wgan: ## WGAN on MNIST, algorithm 1 (27 minutes)
train-vaegan: ## VAE/GAN on MNIST, Larsen's algorithm 1 (10 minutes)
$(TRAIN): install
	$(BIN)/python -m experiments.$(@:train-%=%) $(FLAGS)

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/pip install -q --disable-pip-version-check -e '.[bench]'
	@touch $@

bench-install: $(VENV)/.installed-bench ## PyTorch, NumPyro and pythae, which are only there to be timed against

# Where PYTHON's own jax has an accelerator, that environment is timed and nothing is installed.
ifneq ($(filter bench,$(MAKECMDGOALS)),)
CHIP_PYTHON := $(shell $(PYTHON) -c 'import flax, jax, optax, orbax.checkpoint, sys; sys.exit(jax.default_backend() == "cpu")' 2> /dev/null \
	&& echo $(PYTHON))
endif
bench: $(if $(CHIP_PYTHON),,bench-install) ## Our steps timed in turn with PyTorch, flax.linen, NumPyro, pythae (65 minutes)
	$(or $(CHIP_PYTHON),$(BIN)/python) -m experiments.bench $(FLAGS)
	$(or $(CHIP_PYTHON),$(BIN)/python) -m experiments.bench.table

bench-scaling: install ## Steps a second against batch, image size, seeds, data, devices; a plot each (30 minutes)
	$(BIN)/python -m experiments.bench.scaling $(FLAGS)

bench-metrics: bench-install ## The metrics beside scikit-learn, scipy, prdc, torchmetrics on the same arrays (10 minutes)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[reference]'
	$(BIN)/python -m experiments.bench.metrics $(FLAGS)

evaluate: install ## All the numbers of a run: make evaluate FLAGS='--workdir runs/gan-mnist --metrics frechet,kernel,pr,dc'
	$(BIN)/python -m experiments.evaluate $(FLAGS)

reproduce-pca: ## PCA: Hinton and Salakhutdinov's number, probabilistic PCA, a linear VAE; PCA, VAE and GAN side by side
reproduce-vae: ## Kingma and Welling: figures 2 to 5, variances of gradients (some 7 hours; --data-dir: your Frey faces)
reproduce-gan: ## Goodfellow et al.: table 1 and its variants, its ceilings, theorem 1 (3 hours; FLAGS='--parts ceilings' takes a part)
reproduce-dcgan: ## Radford et al.: table 3, features under an SVM, guidelines undone, arithmetic (some 9 hours)
reproduce-wgan: ## Arjovsky et al.: example 1, figures 2 to 7, vanishing gradients (some 11 hours; --parts example1 fig2: 18 minutes)
reproduce-vaegan: ## Larsen et al. on MNIST and Fashion-MNIST: VAE, VAE with Dis_l, VAE/GAN, GAN (some 5 hours)
reproduce-iwae: ## Burda et al.: tables 1 and 2, one and two layers, k = 1, 5, 50, active units (some 4 hours)
reproduce-likelihood: ## Wu et al.: VAEs and GANs by annealed importance sampling, and what Parzen windows say (some 5 hours)
reproduce-mixtures: ## PacGAN and VEEGAN: modes of a ring and a grid, packed discriminators (some 3 hours)
reproduce-dirac: ## Mescheder et al.: which training methods converge, on a GAN of two numbers (3 minutes)
reproduce-challenges: ## The survey: latent widths, data, blur, collapse rates, privacy, each with a figure (some 3 hours)
$(REPRODUCE): install
	$(BIN)/python -m experiments.reproduce $(@:reproduce-%=%) $(FLAGS)
	$(BIN)/python -m experiments.reproduce.report

reproduce: $(REPRODUCE) ## All of them (FLAGS='--budget paper' is for a GPU)

report: install ## REPORT.md and the README's table of papers, from the committed results
	$(BIN)/python -m experiments.reproduce.report

notebook: install ## The article's sample code, mistake by mistake, run anew (minutes)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[notebook]'
	$(BIN)/python -m experiments.notebook article

clean: ## Remove the environment, caches and runs
	rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
