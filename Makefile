SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help doctor run demo report serve check test test-deep dask bench bench-serving bench-beyond
.PHONY: pictures soak drift lock diff pull image image-run test-image sbom audit

PYTHONS := 3.11|3.12|3.13
NEEDED := Python 3.11, 3.12 or 3.13
VENV := .venv
INSTALLED := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
PATH_BEFORE := $(PATH)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

# A data set next to the checkout, if there is one, is tried before the published sources.
LOCAL_DATA := $(abspath ../shared/fashion-mnist)
ifneq ($(wildcard $(LOCAL_DATA)/.),)
export FASHION_MNIST_SOURCE ?= $(LOCAL_DATA)
endif

help: ## this list
	@echo "Usage: make VERB"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

doctor: ## check Python, git, disk, memory, ports and data, before anything is installed
	@python=$(VENV)/bin/python; \
	[ -x $$python ] || { $(FIND_PYTHON); python=$${python:-$$unfit}; $(NEED_PYTHON); }; \
	"$$python" doctor.py "$(PYTHONS)"

run: $(INSTALLED) ## install, train the models, evaluate them on a running server
	@if python doctor.py data; then \
	  dvc repro && $(SHOW_METRICS) && \
	  echo "Serve the models:   make serve" && \
	  echo "Try them then:      $(DEMO)" && \
	  echo "Send a request:     curl -s $(INFER) -H 'Content-Type: application/json' -d @serving/models/example.json" && \
	  echo "Write the report:   make report"; \
	else \
	  echo; \
	  echo "The data set cannot be fetched. Nothing is wrong with the installation; put the four"; \
	  echo "files into a folder, or find a mirror, and name it:"; \
	  echo "    make run FASHION_MNIST_SOURCE=/a/folder/or/base/URL"; \
	  echo "Meanwhile, here are the same six stages on a small data set that is bundled."; \
	  echo; \
	  $(MAKE) --no-print-directory demo; \
	fi

INFER = http://localhost:8080/v2/models/$$(basename "$$(ls -d serving/models/*/ | head -1)")/infer
DEMO := http://localhost:8080/demo
SHOW_METRICS := echo && dvc metrics show && echo

demo: $(INSTALLED) ## run the six stages on a small bundled data set, in a scratch copy
	@scratch=$$(mktemp -d "$${TMPDIR:-/tmp}/fashion-demo.XXXXXX") && \
	git ls-files -zco --exclude-standard | xargs -0 ls -d 2> /dev/null | \
	  tar -cf - -T - | tar -xf - -C "$$scratch" && cd "$$scratch" && \
	git -c init.defaultBranch=main init --quiet && \
	sed -i.bak -e 's/^  dataset: [a-z-]*/  dataset: digits/' \
	  -e 's/^  train_limit: [0-9a-z]*/  train_limit: null/' \
	  -e 's/^  validation: [0-9]*/  validation: 0/' params.yaml && \
	dvc repro && \
	$(SHOW_METRICS) && \
	echo "Made in a scratch copy, $$scratch" && \
	echo "Serve the models:   cd $$scratch && $(CURDIR)/$(VENV)/bin/mlserver start serving" && \
	echo "Try them then:      $(DEMO)" && \
	echo "Send a request:     curl -s $(INFER) -H 'Content-Type: application/json' -d @$$scratch/serving/models/example.json"

report: $(DEV) ## write report.html, one self-contained page on the last evaluation
	@python -m report

pictures: $(DEV) ## make the pictures of README and docs from the served models; needs Chromium
	@python -m report.pictures

serve: $(INSTALLED) ## serve the models on http://localhost:8080 (REST) and localhost:8081 (gRPC)
	@exec mlserver start serving

check: $(DEV) ## check lint, format and types
	ruff check .
	ruff format --check .
	mypy

# Three processes on two cores, since tests also wait for servers to start and to end; one thread
# each, so that the libraries do not compete for cores.
PYTEST := OMP_NUM_THREADS=1 pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

test: $(DEV) ## run the tests, with real DVC and real servers, in four minutes
	$(PYTEST)

test-deep: $(DEV) ## run the slow tests as well, which GitHub runs each night
	DEEP=1 $(PYTEST)

dask: $(INSTALLED) ## install what xgboost.engine: dask needs in addition
	@$(PIP_INSTALL) requirements-dask.lock

bench: $(DEV) ## compare training with the blog's, 20 minutes (QUICK=1: 4)
	@dvc repro --quiet download && python -m benchmarks.training $(if $(QUICK),--quick --repeats 1)

bench-serving: $(DEV) ## compare serving with MLServer's, 8 minutes (QUICK=1: 2)
	@dvc repro --quiet && python -m benchmarks.serving $(if $(QUICK),--seconds 1 --repeats 1)

bench-beyond: $(DEV) dask ## measure training on up to 16 times the images, half an hour
	@dvc repro --quiet download && python -m benchmarks.scaling $(if $(QUICK),--quick)

soak: $(DEV) ## send valid and invalid requests for ten minutes (MINUTES=1: one)
	@dvc repro --quiet && python -m benchmarks.soak $(if $(MINUTES),--minutes $(MINUTES))

drift: $(DEV) ## compare logged requests with the evaluation images: make drift LOG=folder
	@[ -n "$(LOG)" ] || { echo "error: LOG is not set; expected the folder of a request log:" \
	  "make drift LOG=folder" >&2; exit 1; }
	@python -m report.drift "$(LOG)"

UPGRADE := --upgrade
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --custom-compile-command "make lock"

lock: $(DEV) ## update all locks; UPGRADE= keeps the versions that still fit
	$(LOCK) $(UPGRADE) --output-file requirements.lock requirements.txt
	$(LOCK) --constraints requirements.lock --output-file requirements-dev.lock requirements-dev.txt
	$(LOCK) --constraints requirements.lock --constraints requirements-dev.lock \
	  --output-file requirements-dask.lock requirements-dask.txt
	$(LOCK) --constraints requirements.lock \
	  --constraints <(sed -n 's/^xgboost==\([^ ]*\).*/xgboost-cpu==\1/p' requirements.lock) \
	  --no-emit-package xgboost --no-emit-package nvidia-nccl-cu12 \
	  --output-file deploy/requirements.lock deploy/requirements.txt

diff: $(INSTALLED) ## compare parameters, metrics and plots with a revision, in Markdown (BASE=main)
	@.ci/diff $(or $(BASE),main) $(HEAD)

pull: $(INSTALLED) ## install, and fetch the packaged models from DVC's remote
	@dvc pull package

image: ## build a container image of the packaged models (BASE_IMAGE=… on another base)
	@deploy/image.sh build

image-run: ## serve the models from the image
	@deploy/image.sh run

test-image: $(DEV) ## build the image on a base of Debian and test a server in it
	IMAGE=1 pytest tests/test_image.py

sbom: $(DEV) ## write deploy/sbom.cdx.json, the bill of materials of the image's packages
	@cyclonedx-py requirements --output-reproducible --output-file deploy/sbom.cdx.json \
	  deploy/requirements.lock && echo "Written: deploy/sbom.cdx.json"

# Each ignored one is explained in deploy/README.md.
audit: $(DEV) ## list known vulnerabilities of the locked packages
	@pip-audit --strict --require-hashes --disable-pip --ignore-vuln CVE-2026-109156 \
	  --requirement requirements.lock --requirement requirements-dev.lock \
	  --requirement deploy/requirements.lock $(AUDIT_OPTIONS)

# Sets python and version to the first accepted Python, or python to the empty string;
# found to the rejected ones, unfit to the first of them.
define FIND_PYTHON
PATH="$(PATH_BEFORE)"; found=; unfit=; \
	for python in $(or $(PYTHON),python3 python $(addprefix python,$(subst |, ,$(PYTHONS)))) ""; do \
	  version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2> /dev/null) || continue; \
	  case $$version in $(PYTHONS)) break;; esac; \
	  found="$${found:+$$found, }$$python is $$version"; unfit=$${unfit:-$$python}; \
	done
endef

# If no Python is accepted and the user named none, uv installs one; without uv, this is an error.
define NEED_PYTHON
if [ -z "$$python$(PYTHON)" ] && command -v uv > /dev/null; then \
	  version=3.12; \
	  echo "No $(NEEDED) was found; uv installs $$version"; \
	  uv python install $$version && \
	  python=$$(uv python find --system --managed-python $$version) || exit 1; \
	elif [ -z "$$python" ]; then \
	  echo "error: $(NEEDED) is needed, but $${found:-none was found};" \
	    "install uv (https://docs.astral.sh/uv) and try again, or name one: make run PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	fi
endef

# MLServer declares Python < 3.13 and works on 3.13, where pip gets an option to ignore that: only
# with the hashes of a lock, which fix the files.
PIP_INSTALL = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
  --require-hashes $$([ ! -d $(VENV)/lib/python3.13 ] || echo --ignore-requires-python) --requirement

$(INSTALLED): requirements.lock
	@[ ! -L $(VENV) ] || { echo "error: $(VENV) is a link to $$(readlink $(VENV)), which installing would" \
	  "empty; remove the link: rm $(VENV)" >&2; exit 1; }
	@$(FIND_PYTHON); $(NEED_PYTHON); \
	echo "Installing requirements.lock into $(VENV) with Python $$version: a minute or two, 1.8 GB"; \
	if [ $$version = 3.13 ]; then \
	  echo "MLServer declares Python < 3.13; it is tested on 3.13, so pip ignores that"; \
	fi; \
	"$$python" -m venv --clear $(VENV)
	@$(PIP_INSTALL) requirements.lock && $(VENV)/bin/python -m pip --quiet check && touch $@

$(DEV): requirements-dev.lock $(INSTALLED)
	@echo "Installing requirements-dev.lock, for tests, checks and the report: 0.4 GB"
	@$(PIP_INSTALL) requirements-dev.lock && $(VENV)/bin/python -m pip --quiet check && touch $@
