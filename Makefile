# Files and order. Every recipe is one `python -m ...` or one tool; `make help` lists the targets. What a recipe's networks,
# policies and studies need is written by `python -m recipes rules` and included below.

RECIPE   ?= digits
TIER     ?=
POLICIES ?= undefended edm
ATTACKS  ?=
ADAPTIVE ?=
CLIENTS  ?= 1
DILUTION ?= 0
INSTANCE ?= default
CASES    ?= 10000
MINUTES  ?= 15
PYTHON   ?= python3
RUN      ?= reports/$(name)
WORKERS  ?= 2

# the deployment's key: seeds the secret hash and permutes its table
export TORCHWARDEN_KEY_FILE ?= $(CURDIR)/secrets/torchwarden.key
export ORT_DISABLE_TELEMETRY = 1
# as the server sets it for its workers (deploy/launch.py)
export OMP_WAIT_POLICY = PASSIVE
# or every process would compile what it imports, torch above all, again: some machines' environments ask for that
export PYTHONDONTWRITEBYTECODE =

py       = .venv/bin/python
# tests that share a server stay in one process; what takes longest starts first (tests/conftest.py)
pytest   = $(py) -m pytest -n $(WORKERS)
ready    = .venv/.installed
# a recipe is a name or a path; its tier is read as RECIPE@TIER and has folders of its own
spec     = $(RECIPE)$(TIER:%=@%)
name     = $(patsubst %.toml,%,$(notdir $(RECIPE)))$(TIER:%=-%)
runs     = runs/$(name)
graphs   = build/$(name)/.exported
archives = $(POLICIES:%=model_store/$(name)-%.mar)
models   = $(POLICIES:%=$(name)-%)
# the code that makes a victim of an adopted model
adopting = $(wildcard export/adopt/*.py)
# the code that every archive carries
packed   = $(wildcard handlers/*.py defenses/*.py defenses/*/*.py pictures/*.py)
# a run's report becomes results/STUDY-RECIPE.json; AGAIN=second-key, in a checkout with another key, is another file
define published
	$(py) -m report.html $(1)
	mkdir -p results
	cp $(1)/report.json results/$(2)-$(name)$(AGAIN:%=-%).json
	$(MAKE) documents
endef

.DELETE_ON_ERROR:
# networks and calibrations are kept, and made where they are missing, whatever was made of them before
.PRECIOUS: runs/%
.SECONDEXPANSION:
.PHONY: help setup adopt lock audit sbom kubernetes-check key train export calibrate archive serve client rotate status stop health dashboard loadtest attack fuzz selftest faults soak owners controls attest attest-check attest-peers attest-speed attest-key attest-sign attest-verify attest-diff attest-pdf report demo reproduce documents bench bench-builds bench-delays bench-growth bench-peers bench-archives bench-profile bench-fusing bench-memory bench-refusals bench-attacks bench-adopted check test test-all clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-19s %s\n", $$1, $$2}' Makefile make/*.mk
	@echo "  variables: RECIPE=$(RECIPE) TIER=$(TIER) POLICIES='$(POLICIES)' INSTANCE=$(INSTANCE) PORTS='--port-offset 100' GPU=1 GATEWAY=1 GRPC=1 NAME=client"

setup: $(ready) ## .venv with the locked packages (GPU=1: onnxruntime-gpu)

include make/environment.mk

# what the recipe says, for the goals that need it
rules    = build/rules/$(name).mk
saying   = $(wildcard $(RECIPE) recipes/$(RECIPE).toml recipes/*.py recipes/schema.json)
reading  = train export calibrate archive serve reproduce reproduce-% over-http-% fuzz selftest soak faults bench-archives runs/% build/% model_store/%
ifneq ($(filter $(reading),$(MAKECMDGOALS)),)
include $(rules)
# not while make has yet to write them, or to write them again: it starts afresh afterwards
ifeq ($(shell find $(saying) -newer $(rules) 2>&1),)
ifneq ($(filter train export archive serve,$(MAKECMDGOALS)),)
$(foreach policy,$(filter-out $(policies),$(POLICIES)),$(error POLICIES: recipe $(spec) has no policy $(policy); it has: $(policies)))
endif
endif
endif

# nothing is trained by a recipe in which anything is wrong
$(rules): $(saying) | $(ready)
	mkdir -p $(@D)
	$(py) -m recipes check $(spec)
	$(py) -m recipes rules $(spec) > $@.unfinished
	mv $@.unfinished $@

adopt: | $(ready) ## MODEL=FILE [IMAGES=DIR] [NAME=mine] [ASKED='--size 224 ...']: a trained classifier becomes recipes/NAME.toml
	$(py) -m export.adopt $(MODEL) --name $(or $(NAME),mine) $(if $(IMAGES),--images $(IMAGES)) $(ASKED)

key: $(TORCHWARDEN_KEY_FILE) ## the deployment's key, made once, never overwritten

$(TORCHWARDEN_KEY_FILE): | $(ready)
	mkdir -p -m 700 $(@D)
	$(py) -m handlers.key $@

# of every policy of POLICIES, what it runs, and nothing else
nets     = $(sort $(foreach policy,$(POLICIES),$(nets.$(policy))))

train: $$(nets) ## the networks that POLICIES run, and how accurate they are
	$(py) -m training.summary $(spec) $(basename $(notdir $(nets)))

export: $(graphs) ## ONNX and TorchScript graphs, parity-checked

$(graphs): $$(nets) $(wildcard export/*.py)
	$(py) -m export.graphs $(spec)
	touch $@

# the gates of POLICIES, or all that the recipe has where none of them has one
calibrated = $(or $(filter $(gates),$(POLICIES)),$(gates))

calibrate: $$(foreach policy,$$(calibrated),$$(nets.$$(policy))) ## thresholds of gates again (IMAGES=DIR: from your own benign images)
	$(py) -m training.calibration $(spec) --policies $(calibrated) $(if $(IMAGES),--images $(IMAGES))

archive: $$(archives) ## model_store/RECIPE-POLICY.mar for POLICIES

serve: $$(archives) key ## start TorchServe in the background; returns when every model answers right (GATEWAY=1: behind nginx; GRPC=1: with gRPC)
	$(py) -m deploy.server start --instance $(INSTANCE) --models $(models) $(PORTS) $(if $(GATEWAY),--gateway) $(if $(GRPC),--grpc)

client: | $(ready) ## a key for the gateway's client NAME, shown once
	$(py) -m deploy.gateway add $(NAME) --instance $(INSTANCE)

rotate: | $(ready) ## renew TorchServe's token behind the gateway; no request fails of it
	$(py) -m deploy.gateway rotate --instance $(INSTANCE)

status: | $(ready) ## what the instance serves, and whether it is ready
	$(py) -m deploy.server status --instance $(INSTANCE)

stop: | $(ready) ## stop the instance; returns when it is gone
	$(py) -m deploy.server stop --instance $(INSTANCE)

health: | $(ready) ## liveness and readiness of the instance over HTTP, until Ctrl-C
	$(py) -m deploy.health --instance $(INSTANCE)

loadtest: | $(ready) ## benign and hostile users against the running server
	$(py) -m loadtests.load $(spec) --instance $(INSTANCE) --policies $(POLICIES) --run $(RUN)

attack: | $(ready) ## attacks (ATTACKS, ADAPTIVE, CLIENTS, DILUTION) on the running server, then the clones they yield
	$(py) -m loadtests.attack $(spec) --instance $(INSTANCE) --policies $(POLICIES) --run $(RUN) \
	  $(if $(ATTACKS),--attacks $(ATTACKS)) $(if $(ADAPTIVE),--adaptive $(ADAPTIVE)) --clients $(CLIENTS) --dilution $(DILUTION)

report: | $(ready) ## utility figures and the report of RUN
	$(py) -m evaluation.studies utility $(spec) --policies $(POLICIES) --run $(RUN)
	$(py) -m report.html $(RUN)

demo: ## all of it on RECIPE: train, export, archive, serve, use, attack, report
	$(MAKE) archive
	$(MAKE) serve
	$(MAKE) loadtest attack || { $(MAKE) stop; exit 1; }
	$(MAKE) stop report

reproduce: $$(addprefix reproduce-,$$(studies)) ## every study of RECIPE, or reproduce-STUDY one (mnist: edm meco same misleader ...): results/STUDY-RECIPE.json

documents: | $(ready) ## the pages alone, from the committed results/*.json
	$(py) -m report.pages

include make/assurance.mk make/bench.mk make/attest.mk

check: | $(ready) ## lint, format, types, import boundaries, recipes, results files
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	$(py) -m pytest tests/test_boundaries.py
	$(py) -m recipes check
	$(py) -m report check results/

test: | $(ready) ## the tiers unit and server: all but the drills
	$(pytest) -m "unit or server"

test-all: | $(ready) ## every test, the drills too
	$(pytest)

clean: ## remove what training, export and serving made (keeps .venv, secrets, data)
	rm -rf runs build run reports model_store/*.mar
