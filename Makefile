# The project's commands. `make` lists them; a target's text after ## is its line there.
#
# Variables, from the command line or the environment:
#= NET       gnet, snet1, snet2 or another of recipe.py (default: these three)
#= PROFILE   paper (default), demo (narrow nets, minutes on two cores) or small (the released nets')
#= ENGINE    auto (default), caffe or torch; for predict and web also opencv (docs/engines.md)
#= CAFFE_PYTHON for ENGINE=caffe, a Python (2.7 or later) that imports a Caffe of yours: steps 2 to 4 train in it
#= GPU       number of the GPU to find faces, train, evaluate and predict on (default: the CPU)
#= GPUS      for step2 to step4: split each batch over this many GPUs; for table2 and table3: GPU numbers, "0,1,2,3", a training each
#= PROCESSES the same with processes on the CPU (docs/distributed.md: several machines)
#= CROP      scheme1 .. scheme5 or all (default: those of the three nets)
#= CELEBA    folder of CelebA: Anno, Eval, Img
#= FOTW      folder of FotW: smiles_trset, smiles_valset
#= VGG_FACE  VGG_FACE.caffemodel or vgg_face_caffe.tar.gz that you have, or a port as .safetensors or .onnx
#= CHANNELS  rgb or bgr: what the first layer of a port in VGG_FACE= reads
#= PRECISION for step2 to step4: float32 (default, as Caffe), tf32 (GPUs) or bf16 (GPUs, and CPUs that have it; small's default)
#= DETERMINISTIC for step2 to step4, 1: the same seed gives the same bits on a GPU, too; slower (a CPU always does)
#= COMPILE   for step2 to step4, 1 or 0: train by torch.compile, or not (default: on a GPU)
#= SEED      random seed instead of the recipe's: of step2 to step4, and for lmdb of the faces' order
#= SEEDS     for table2 and table3: train all once from each of these random seeds, "2016 2017 2018" for instance
#= SHARE     for table2 and table3: train every step for this share of the recipe's iterations (default: 1)
#= JOBS      for table2 and table3: trainings at a time (default: 1)
#= BATCH     training batch size instead of the recipe's
#= ITER_SIZE for step2 to step4: divide each batch into this many passes, for a GPU with less memory; the same training
#= MAX_ITER  iterations instead of the recipe's
#= BASE_LR   learning rate to start from instead of the recipe's
#= VARIANT   for step2 to step4: the training's name (default: made from the overrides; none: the chain's own); for evaluate, export, predict and web: which training
#= START     for step2 to step4 with VARIANT: weights to start from instead of the previous step's (none: random numbers)
#= ENCODE    image format in the LMDBs: raw (default), jpg or png
#= LANDMARKS for lmdb: dataset (default; a data set's own five points, where it has them) or detector
#= CELEBA_IMAGES for lmdb: wild or aligned, which of CelebA's photos (default: wild where they are)
#= MAX_LOST  for lmdb: the share of a split's faces that may be lost (default: 0.02)
#= WORKERS   for lmdb: processes that read, find faces (without GPU=) and crop (default: one a core)
#= TEST_SPLIT for lmdb, 1: also build the test partitions
#= CORRECTIONS for lmdb: corrections.csv of FotW's training labels, as the page of make suspects exports it
#= PHOTOS    for evaluate: score the whole pipeline on this FotW folder's photos instead
#= SUBMISSION for evaluate with PHOTOS: also write the challenge's CSV to this file
#= SCORE     for evaluate with PHOTOS: score this file of the challenge's form instead
#= ATTRIBUTES for evaluate, 1: score step 2 on CelebA's test partition instead, forty attributes (CROP=: only these)
#= IMAGE     photo for predict, figure3 and crops
#= PORT      for web: port of the page (default: 8000)
#= TESTS     for cov: the tests to run (default: all)
#= TARGET    for fuzz: the readers to fuzz (default: all, one after the other; make fuzz TARGET=--list)
#= SECONDS   for fuzz: how long each (default: 60)
#= KEEP      newest snapshots to keep while a step trains, besides the best one (default: 2)
#= FORCE     1: do again what is done; a step's result stays until the new one is complete
#= PYTHON    interpreter to make .venv with, 3.10 or newer (default: python3); for gpu-check: to run it in, instead of .venv
#= TORCH     for setup, PyTorch's build: cpu, cu126 (older drivers and GPUs), cu128, cu130 ... (default: what pip finds)
#= FAST      for parity, 1: run one part and write no page
#= DEBIAN_MIRROR for caffe: Debian mirrors to try in order (default: those of this machine's apt, then Debian's archive)

PYTHON ?= python3
PY := .venv/bin/python
READY := .venv/ready

define newline


endef
# $(call given,VARIABLE): its text as it was typed: a $ in it is a $. $(call option,--flag,VARIABLE): the flag with the
# variable's words, or nothing; quoted: as one word, whatever stands in it, and a ~/ that it begins with expanded (the
# newline marks its beginning: patsubst would join spaces). Both quote for the shell.
given = $(strip $(value $(1)))
option = $(if $(call given,$(2)),$(1) $(patsubst %,'%',$(subst ','\'',$(value $(2)))))
quoted = $(if $(call given,$(2)),$(1) '$(subst ','\'',$(subst $(newline),,$(subst $(newline)~/,$(HOME)/,$(newline)$(value $(2)))))')
force := $(if $(filter-out 0 no false,$(FORCE)),--force)
data_sets = $(call quoted,--celeba,CELEBA) $(call quoted,--fotw,FOTW)
profile = $(call option,--profile,PROFILE)
engine = $(call option,--engine,ENGINE) $(call option,--gpu,GPU)
on_attributes = $(filter-out 0 no false,$(ATTRIBUTES))
need = $(if $(call given,$(1)),,$(error $(2)))

.DEFAULT_GOAL := help
.PHONY: help setup demo small test test-all test-gpu weights lmdb embeddings step1 step2 step3 step4 status evaluate table2 table3
.PHONY: suspects report figure3 predict web crops export prototxt caffe parity bench gpu-check fuzz lint cov clean clean-demo distclean again

help: ## list the targets and variables
	@echo 'Targets:'
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-11s %s\n' "$$name" "$$text"; done
	@echo 'Variables (make TARGET NAME=value):'
	@sed -n 's/^#= /  /p' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv with the locked packages and build the detector's weights
	@echo "ready: .venv ($$($(PY) --version))"

# Stands for a finished set-up and holds the TORCH it was made with: asking for another one sets up again.
$(READY): pyproject.toml requirements.lock
	@command -v '$(PYTHON)' > /dev/null || { \
		echo "make: $(PYTHON) is not installed; type: sudo apt-get install python3-venv (or give PYTHON=path)" >&2; exit 1; }
	@'$(PYTHON)' tools/make_environment.py $(call option,--torch,TORCH)
ifneq ($(TORCH),)
ifneq ($(TORCH),$(shell cat $(READY) 2> /dev/null))
$(READY): again
endif
endif

demo: $(READY) ## everything once, small: draw faces (or CELEBA=, FOTW=), LMDBs, steps 1-4, evaluation, a prediction
	@$(PY) -m tools.demo $(data_sets) $(call option,--engine,ENGINE) $(call option,--gpu,GPU) $(force)

test: $(READY) ## run the quick tests (under three minutes on two cores)
	$(PY) -m pytest -n 3 --dist loadfile

test-all: $(READY) ## run all tests: whole nets against real Caffe, kills, broken files, ranks, the documentation's examples
	$(PY) -m pytest -m "" -n 2 --dist loadfile

test-gpu: $(READY) ## compare a GPU with the CPU: layers, nets, batches, resuming, prediction (GPU=: which, default 0)
	$(PY) -m pytest -m gpu -rs tests $(call option,--device,GPU)

small: $(READY) ## train the released nets again, from CELEBA= and FOTW= (45 minutes on two cores), and evaluate them
	$(call need,CELEBA,make small needs CELEBA=folder and FOTW=folder)
	$(call need,FOTW,make small needs CELEBA=folder and FOTW=folder)
	@$(PY) -m lmdb_builders.build --profile small $(data_sets) $(call option,--gpu,GPU)
	@$(MAKE) --no-print-directory embeddings PROFILE=small FORCE=
	@for step in 1 2 3; do $(PY) -m tools.train --step $$step $(released) || exit; done
	@$(PY) -m tools.train --step 4 $(released) --force # over the released ones, which git keeps
	@$(PY) -m tools.calibrate --profile small $(engine)
	@$(PY) -m tools.evaluate --profile small $(engine)
# The released nets were trained in bf16; variant none: they are the chain's own all the same.
released = --profile small $(engine) --precision $(or $(call given,PRECISION),bf16) --variant none

weights: $(READY) ## fetch and check VGG_FACE.caffemodel, or take it from VGG_FACE=path
	@$(PY) -m tools.weights $(call quoted,--file,VGG_FACE) $(call option,--channels,CHANNELS) $(force)

# The folder of a data set that recipe.DATASETS adds reaches it in the environment, where make puts NAME=folder.
lmdb: $(READY) ## build the LMDBs from CELEBA= and FOTW=, for CROP=
	@$(PY) -m lmdb_builders.build $(profile) $(call option,--crop,CROP) $(data_sets) $(call option,--encode,ENCODE) \
		$(if $(filter-out 0 no false,$(TEST_SPLIT)),--test) $(call quoted,--corrections,CORRECTIONS) \
		$(call option,--landmarks,LANDMARKS) $(call option,--celeba-images,CELEBA_IMAGES) \
		$(call option,--max-lost,MAX_LOST) $(call option,--workers,WORKERS) $(call option,--gpu,GPU) \
		$(call option,--seed,SEED) $(force)

embeddings: .venv/teacher ## where step 1 has a teacher (PROFILE=small): its embeddings of the LMDBs' faces
	@$(PY) -m lmdb_builders.embeddings $(profile) $(call option,--workers,WORKERS) $(force)

step1: $(READY) ## check and convert VGG-Face (PROFILE=small: learn a teacher's embeddings)
step2: $(READY) ## train on CelebA's forty attributes, one model per crop scheme
step3: $(READY) ## train each net on its own attribute of CelebA
step4: $(READY) ## train each net on its own attribute of FotW
step1 step2 step3 step4:
	@$(PY) -m tools.train --step $(@:step%=%) $(call option,--net,NET) $(profile) $(engine) \
		$(call option,--gpus,GPUS) $(call option,--processes,PROCESSES) \
		$(call option,--precision,PRECISION) $(if $(filter-out 0 no false,$(DETERMINISTIC)),--deterministic) \
		$(if $(COMPILE),$(if $(filter-out 0 no false,$(COMPILE)),--compile,--no-compile)) \
		$(call option,--batch,BATCH) $(call option,--iter-size,ITER_SIZE) $(call option,--max-iter,MAX_ITER) \
		$(call option,--base-lr,BASE_LR) $(call option,--seed,SEED) $(call option,--keep,KEEP) \
		$(call quoted,--weights,START) $(call quoted,--variant,VARIANT) $(force)

status: $(READY) ## show each net's steps: done, iteration, loss, accuracy, file
	@$(PY) -m tools.status $(profile)

evaluate: $(READY) ## accuracy on FotW's validation faces, into runs/PROFILE/results.json
	@$(PY) -m tools.evaluate $(profile) $(engine) $(call quoted,--photos,PHOTOS) \
		$(call quoted,--submission,SUBMISSION) $(call quoted,--score,SCORE) $(call quoted,--variant,VARIANT) \
		$(if $(on_attributes),--attributes $(call option,,CROP))

table2: $(READY) ## train and compare the paper's training schemes (Table 2), for SEEDS=
table3: $(READY) ## train and compare the paper's cropping schemes (Table 3), for SEEDS=
table2 table3:
	@$(PY) -m tools.tables --table $(@:table%=%) $(profile) $(engine) $(call option,--seeds,SEEDS) \
		$(call option,--share,SHARE) $(call option,--precision,PRECISION) $(call option,--jobs,JOBS) $(call option,--gpus,GPUS)

suspects: $(READY) ## rank FotW's training labels by how doubtful they are, on a page that exports corrections.csv
	@$(PY) -m tools.suspects $(profile) $(engine)

report: $(READY) ## write runs/PROFILE/report.html: recipe, data, curves, results next to the paper's, mistakes, sha256
	@$(PY) -m tools.report $(profile)

predict: $(READY) ## gender and smile of the face in IMAGE=
	$(call need,IMAGE,make predict needs IMAGE=photo.jpg)
	@$(PY) -m tools.predict $(call quoted,,IMAGE) $(call quoted,--variant,VARIANT) $(engine)

web: $(READY) ## a local web page for photos at 127.0.0.1: answers, crops, heat maps
	@$(PY) -m tools.web $(call quoted,--variant,VARIANT) $(engine) $(call option,--port,PORT)

figure3: $(READY) ## draw the face, its landmarks and the crops of IMAGE= (the paper's Figure 3)
	$(call need,IMAGE,make figure3 needs IMAGE=photo.jpg)
	@$(PY) -m tools.crops $(call quoted,,IMAGE)

crops: $(READY) ## the same for IMAGE=, or a sheet of faces drawn at random from FOTW= or CELEBA=
	$(if $(call given,IMAGE)$(call given,FOTW)$(call given,CELEBA),,$(error make crops needs IMAGE=photo.jpg, FOTW=folder or CELEBA=folder))
	@$(PY) -m tools.crops $(if $(call given,IMAGE),$(call quoted,,IMAGE),$(if $(call given,FOTW),$(call \
		quoted,--folder,FOTW),$(call quoted,--folder,CELEBA)))

export: $(READY) ## write the trained nets as ONNX and safetensors, for NET= of PROFILE=
	@$(PY) -m tools.export $(call option,--net,NET) $(profile) $(call quoted,--variant,VARIANT)

prototxt: $(READY) ## write prototxt/ and solvers/ from recipe.py
	@$(PY) -m tools.make_nets

.PHONY: docs
docs: ## write docs/variables.md from the variables at the head of this file
	@{ echo '# Variables'; echo; \
		echo 'Set them on the command line (`make step2 GPU=0`) or in the environment. `make` lists them too, with the targets.'; \
		echo 'Values are taken as you type them: a `$$` is a `$$`, and only a `~/` at the beginning of a path is expanded.'; \
		echo 'A data set of `recipe.DATASETS` adds a variable with its name in capitals.'; \
		echo 'This page is generated from the Makefile by `make docs`.'; echo; echo '| variable | meaning |'; echo '|---|---|'; \
		sed -n 's/^#= \([A-Z_0-9]*\)  *\(.*\)/| `\1` | \2 |/p' $(firstword $(MAKEFILE_LIST)); \
	} > docs/variables.md

caffe: ## unpack real Caffe 1.0 (Debian 11's, CPU) into .caffe/, for ENGINE=caffe and for the tests
	@$(PYTHON) tools/install_caffe.py $(call option,--mirror,DEBIAN_MIRROR) $(force)

parity: $(READY) ## compare torchcaffe with real Caffe (make caffe): writes docs/parity.md (FAST=1: one part, no page)
	@$(PY) tests/parity/report.py $(if $(filter-out 0 no false,$(FAST)),--fast)

bench: $(READY) ## measure every claim of docs/benchmarks.md against its baseline and write that page (a GPU: make gpu-check)
	@$(PY) -m benchmarks.report

# With PYTHON= in that Python, whatever its packages are called; else in .venv.
checks_in = $(if $(filter file,$(origin PYTHON)),$(PY),'$(PYTHON)')
gpu-check: $(if $(filter file,$(origin PYTHON)),$(READY)) ## test a GPU and measure it in at most 8 minutes, and write docs/benchmarks-gpu.md (GPU=: which; PYTHON=: in another Python)
	@GENDER_SMILE_ENVIRONMENT=1 $(checks_in) -m benchmarks.gpu_check $(call option,--device,GPU)

fuzz: $(READY) ## coverage-guided fuzzing of all readers; findings are kept (needs the extra "fuzz")
	@$(PY) tests/fuzz/run.py $(call option,,TARGET) $(call option,--seconds,SECONDS)

lint: .venv/dev ## check style and mistakes (ruff) and types (mypy)
	.venv/bin/ruff check
	.venv/bin/mypy

cov: .venv/dev ## run all tests and tell which lines they leave out (TESTS=tests/tools: only those)
	$(PY) -m pytest -m "" --cov --cov-report=term $(call option,,TESTS)

# Stands for what only developers need: the extra "dev", in the locked versions.
.venv/dev: $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --no-build-isolation \
		--editable '.[test,dev]'
	@touch .venv/dev

# Stands for what only `make embeddings` needs: the extra "teacher".
.venv/teacher: $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint requirements.lock --no-build-isolation \
		--editable '.[teacher]'
	@touch .venv/teacher

clean: ## remove caches and build leftovers
	find . -name .venv -prune -o -name .caffe -prune -o -name __pycache__ -type d -exec rm -rf {} +
	rm -rf .pytest_cache .hypothesis .ruff_cache .mypy_cache .coverage .coverage.* .fuzz build *.egg-info

clean-demo: ## remove the demo's faces, LMDBs, weights and runs
	rm -rf data/demo weights/demo runs/demo

distclean: clean ## also remove .venv; data, weights and runs stay
	rm -rf .venv
