# Files and order. Every recipe is one `python -m ...` or one tool; `make help` lists the targets.

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

# or every process would compile what it imports, torch above all, anew: some machines' environments ask for that
export PYTHONDONTWRITEBYTECODE =

py       = .venv/bin/python
# tests that share a server stay in one process; what takes longest starts first (tests/conftest.py)
pytest   = $(py) -m pytest -n $(WORKERS)
ready    = .venv/.installed
# a recipe's tier is read as RECIPE@TIER and has folders of its own
spec     = $(RECIPE)$(TIER:%=@%)
name     = $(RECIPE)$(TIER:%=-%)
runs     = runs/$(name)
# the checkpoint of each of these tables that the recipe has
has      = $(patsubst %,$(runs)/%.safetensors,$(filter $(1),$(tables)))
# where the recipe has a regular ensemble, the search for lambda starts from it
regular  = $(call has,ensemble)
meco     = meco meco_small meco_without_dro meco_gaussian meco_gaussian_small meco_random_filters
same     = same same_small same_vit_tiny same_groups
# MISLEADER's searches start from the plain distillation ensemble
plain    = $(call has,distilled)
misled   = misleader misleader_diverse misleader_released
# what POLICIES run, and nothing else: of every policy, nets.POLICY from $(rules)
every    = $(sort $(foreach policy,$(1),$(nets.$(policy))))
nets     = $(call every,$(POLICIES))
# who answers a gate's own training: the user's own ONNX files where policies name some, else the victim
victim   = $(filter %.onnx $(runs)/victim.safetensors,$(call every,$(policies)))
scores   = $(patsubst %,$(runs)/%.calibration.json,$(filter $(gates),$(POLICIES)))
graphs   = build/$(name)/.exported
archives = $(POLICIES:%=model_store/$(name)-%.mar)
models   = $(POLICIES:%=$(name)-%)
# what an operator may serve side by side, and what is attacked together
attacked = undefended edm same-reject same-pow
benched  = bench-conv3 bench-resnet18
bench_policies = undefended edm meco meco-small meco-keyed same-observe same-reject same-pow misleader misleader-routed label limited \
                 undefended-torchscript edm-torchscript

.DELETE_ON_ERROR:
# calibrations are kept; nothing else is: what is missing must be made, whatever was made of it before
.PRECIOUS: $(runs)/%.calibration.json
.SECONDEXPANSION:
.PHONY: help setup lock audit sbom kubernetes-check key train export calibrate archive serve client rotate status stop health dashboard loadtest attack fuzz selftest faults soak controls report demo reproduce reproduce-edm reproduce-meco reproduce-same reproduce-misleader thieves thieves-over-http unmixing gate-aware informed-over-http documents bench bench-archives bench-profile bench-fusing bench-defenses bench-gates bench-misleader bench-memory bench-attacks check test test-all clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-19s %s\n", $$1, $$2}' Makefile
	@echo "  variables: RECIPE=$(RECIPE) TIER=$(TIER) POLICIES='$(POLICIES)' INSTANCE=$(INSTANCE) PORTS='--port-offset 100' GPU=1 GATEWAY=1 NAME=client"

setup: $(ready) ## .venv with the locked packages (GPU=1: onnxruntime-gpu)

# every file that is installed is one that the lock knows by its hash
hashed   = .venv/bin/uv pip install --quiet --python $(py) --require-hashes
images   = deploy/container

$(ready): requirements.lock
	$(PYTHON) -m venv .venv
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock | $(py) -m pip install --quiet --require-hashes -r /dev/stdin
	$(hashed) -r requirements.lock
ifdef GPU
	.venv/bin/uv pip uninstall --quiet --python $(py) onnxruntime
	$(hashed) --no-deps -r requirements-gpu.lock
endif
	touch $@

resolved = .venv/bin/uv pip compile --quiet --generate-hashes --no-annotate --custom-compile-command "make lock"
anywhere = $(resolved) --universal --python-version 3.10
image    = $(resolved) --python-version 3.11 --constraint requirements.lock --extra serve pyproject.toml

lock: | $(ready) ## requirements.lock and the images' from pyproject.toml; UPGRADE=1 takes the newest versions
	$(anywhere) $(UPGRADE:%=--upgrade) --extra train --extra export --extra serve --extra load --extra dev pyproject.toml \
	  -o requirements.lock
	sed -n 's/^onnxruntime==\([^\\]*\).*/onnxruntime-gpu==\1/p' requirements.lock \
	  | $(anywhere) --no-deps - -o requirements-gpu.lock
	$(image) -o $(images)/requirements.txt
	echo torch | $(image) - -o $(images)/requirements-torch.txt
	echo 'onnxruntime-gpu[cuda,cudnn]' | $(image) --constraint requirements-gpu.lock --no-emit-package onnxruntime - \
	  -o $(images)/requirements-gpu.txt

audit: | $(ready) ## known faults of the locked packages; needs the network
	.venv/bin/pip-audit --strict --disable-pip --requirement requirements.lock

sbom: | $(ready) ## what is installed, with hashes, as CycloneDX: build/sbom/
	mkdir -p build/sbom
	# the lists know an index's files, not what needs what: the warning says so
	for each in *.lock $(images)/requirements*.txt; do PYTHONWARNINGS=ignore .venv/bin/cyclonedx-py requirements $$each \
	  --pyproject pyproject.toml --output-reproducible --spec-version 1.6 -o build/sbom/$$(basename $$each).cdx.json || exit 1; done

kubernetes-check: | $(ready) ## the manifests, combined by a real kubectl
	KUBECTL=$$($(py) -m tests.deploy.kubectl build/kubectl) $(py) -m pytest tests/deploy/test_kubernetes.py

key: $(TORCHWARDEN_KEY_FILE) ## the deployment's key, made once, never overwritten

$(TORCHWARDEN_KEY_FILE): | $(ready)
	mkdir -p -m 700 $(@D)
	$(py) -m handlers.key $@

# what the recipe says, for the goals that need it
rules    = build/rules/$(name).mk
reading  = train export calibrate archive serve reproduce reproduce-% thieves thieves-% unmixing gate-aware bench-archives runs/% build/% model_store/%
ifneq ($(filter $(reading),$(MAKECMDGOALS)),)
include $(rules)
# not while make has yet to write them
ifneq ($(policies),)
ifneq ($(filter train export archive serve,$(MAKECMDGOALS)),)
$(foreach policy,$(filter-out $(policies),$(POLICIES)),$(error POLICIES: recipe $(spec) has no policy $(policy); it has: $(policies)))
endif
endif
endif

$(rules): recipes/$(RECIPE).toml recipes/__init__.py export/rules.py export/archive.py | $(ready)
	mkdir -p $(@D)
	$(py) -m export.rules $(spec) > $@.unfinished
	mv $@.unfinished $@

train: $$(nets) ## the networks that POLICIES run: victim, secret hash network, EDM members, ...

$(runs)/victim.safetensors: recipes/$(RECIPE).toml | $(ready)
	$(py) -m training.victim $(spec) && touch $@

$(runs)/hash.safetensors: recipes/$(RECIPE).toml $(TORCHWARDEN_KEY_FILE) | $(ready)
	$(py) -m training.perceptual_hash $(spec) && touch $@

$(runs)/ensemble.safetensors: recipes/$(RECIPE).toml | $(ready)
	$(py) -m training.edm $(spec) --table ensemble && touch $@

$(runs)/edm.safetensors: recipes/$(RECIPE).toml $(regular) | $(runs)/victim.safetensors
	$(py) -m training.edm $(spec) && touch $@

$(runs)/edm_fixed.safetensors: recipes/$(RECIPE).toml | $(ready)
	$(py) -m training.edm $(spec) --table edm_fixed && touch $@

$(runs)/outlier_exposure.safetensors: recipes/$(RECIPE).toml | $(ready)
	$(py) -m training.outlier_exposure $(spec) && touch $@

$(runs)/misinformation.safetensors: recipes/$(RECIPE).toml $(runs)/outlier_exposure.safetensors
	$(py) -m training.misinformation $(spec) && touch $@

$(runs)/surrogate.safetensors $(runs)/mad_surrogate.safetensors: $(runs)/%.safetensors: recipes/$(RECIPE).toml $(runs)/victim.safetensors $(TORCHWARDEN_KEY_FILE)
	$(py) -m training.surrogate $(spec) --table $* && touch $@

$(meco:%=$(runs)/%.safetensors): $(runs)/%.safetensors: recipes/$(RECIPE).toml $(runs)/victim.safetensors
	$(py) -m training.meco $(spec) --table $* && touch $@

$(same:%=$(runs)/%.safetensors): $(runs)/%.safetensors: recipes/$(RECIPE).toml $(victim)
	$(py) -m training.same $(spec) --table $* && touch $@

$(runs)/same_groups.safetensors: $(TORCHWARDEN_KEY_FILE)

$(runs)/distilled.safetensors: recipes/$(RECIPE).toml $(runs)/victim.safetensors
	$(py) -m training.misleader $(spec) --table distilled && touch $@

$(misled:%=$(runs)/%.safetensors): $(runs)/%.safetensors: recipes/$(RECIPE).toml $(plain) $(runs)/victim.safetensors
	$(py) -m training.misleader $(spec) --table $* && touch $@

export: $(graphs) ## ONNX and TorchScript graphs, parity-checked

$(graphs): $$(nets) $(wildcard export/*.py)
	$(py) -m export.graphs $(spec)
	touch $@

# the gates of POLICIES, or all that the recipe has where none of them has one
calibrated = $(or $(filter $(gates),$(POLICIES)),$(gates))

calibrate: $$(call every,$$(calibrated)) ## thresholds of gates again (IMAGES=DIR: from your own benign images)
	$(py) -m training.calibration $(spec) --policies $(calibrated) $(if $(IMAGES),--images $(IMAGES))

$(runs)/%.calibration.json: $$(nets.$$*)
	$(py) -m training.calibration $(spec) --policies $*

archive: $(archives) ## model_store/RECIPE-POLICY.mar for POLICIES

model_store/$(name)-%.mar: $(graphs) $$(filter $(runs)/$$*.calibration.json,$$(scores)) $(wildcard handlers/*.py defenses/*.py defenses/*/*.py)
	$(py) -m export.archive $(spec) --policies $*

serve: $(archives) key ## start TorchServe in the background; returns when every model answers right (GATEWAY=1: behind nginx)
	$(py) -m deploy.server start --instance $(INSTANCE) --models $(models) $(PORTS) $(if $(GATEWAY),--gateway)

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

dashboard: | $(ready) ## deploy/grafana's dashboard anew from deploy/dashboard.py
	$(py) -m deploy.dashboard

loadtest: | $(ready) ## benign and hostile users against the running server
	$(py) -m loadtests.load $(spec) --instance $(INSTANCE) --policies $(POLICIES) --run $(RUN)

attack: | $(ready) ## thieves (ATTACKS, ADAPTIVE, CLIENTS, DILUTION) against the running server, then their clones
	$(py) -m loadtests.attack $(spec) --instance $(INSTANCE) --policies $(POLICIES) --run $(RUN) \
	  $(if $(ATTACKS),--attacks $(ATTACKS)) $(if $(ADAPTIVE),--adaptive $(ADAPTIVE)) --clients $(CLIENTS) --dilution $(DILUTION)

report: | $(ready) ## utility figures and the report of RUN
	$(py) -m evaluation.studies utility $(spec) --policies $(POLICIES) --run $(RUN)
	$(py) -m report.html $(RUN)

fuzz: POLICIES = $(attacked)
fuzz: ## CASES hostile requests (10000) against POLICIES: results/fuzz.json
	$(MAKE) serve POLICIES="$(POLICIES)"
	$(py) -m assurance.fuzz $(spec) --instance $(INSTANCE) --policies $(POLICIES) --cases $(CASES) --output results/fuzz.json \
	  || { $(MAKE) stop; exit 1; }
	$(MAKE) stop

selftest: POLICIES = $(attacked) limited
selftest: ## send a server of POLICIES, behind its gateway, what each control must stop: results/selftest.json
	$(MAKE) serve POLICIES="$(POLICIES)" GATEWAY=1
	$(py) -m assurance.selftest $(spec) --instance $(INSTANCE) --policies $(POLICIES) --gateway --output results/selftest.json \
	  || { $(MAKE) stop; exit 1; }
	$(MAKE) stop

faults: key ## fault injection: killed workers, full disks, lost Redis, ...: results/faults.json (redis-server, faketime, nginx)
	$(MAKE) archive POLICIES="undefended same-pow"
	$(py) -m assurance.faults $(spec) --plain undefended --gated same-pow
	$(py) -m report.pages resilience

soak: POLICIES = undefended edm meco-keyed same-pow
soak: key ## MINUTES (15) at 80 % of saturation, a fifth of it a thief: results/soak.json (on an idle machine)
	$(MAKE) archive POLICIES="$(POLICIES)"
	$(py) -m loadtests.soak $(spec) --policies $(POLICIES) --minutes $(MINUTES)
	$(py) -m report.pages resilience

controls: | $(ready) ## take out each control of the threat model: its test must fail; results/controls.json
	$(py) -m assurance.controls --output results/controls.json

demo: ## all of it on RECIPE: train, export, archive, serve, use, attack, report
	$(MAKE) archive
	$(MAKE) serve
	$(MAKE) loadtest attack || { $(MAKE) stop; exit 1; }
	$(MAKE) stop report

studied = undefended ensemble edm edm-class-confidence
edm_tables = headline regular hashes averaging
robbed  = undefended label rounded reverse-sigmoid randp mad grad outlier-exposure adaptive-misinformation edm
# those of these policies that the recipe has
offered = $(filter $(1),$(policies))
beside  = $(call offered,undefended label randp mad grad randp-small mad-small grad-small)
noisy   = $(call offered,meco meco-keyed meco-keyed-bytes meco-keyed-perceptual meco-without-dro meco-gaussian meco-gaussian-small meco-random-filters)
probed  = $(call offered,undefended randp meco meco-keyed meco-keyed-bytes meco-keyed-perceptual)
# gates that differ in how they score, and in what becomes of a suspect
scored  = $(call offered,same-observe same-paper same-x same-y same-small same-vit-tiny same-groups)
gated   = $(call offered,same-observe same-reject same-pow edm-same)
priced  = $(call offered,same-pow edm-same)
distilled = $(call offered,undefended label distilled distilled-routed misleader misleader-routed misleader-diverse misleader-diverse-routed misleader-released)
unguarded = $(call offered,undefended label outlier-exposure edm-fixed)
# the recipe's tables [evaluate.WORD-...]
named   = $(filter $(1)-%,$(evaluations))

reproduce: $$(patsubst %,reproduce-%,$$(filter edm meco same misleader,$$(tables))) ## EDM's, MeCo's, SAME's and MISLEADER's tables on RECIPE (mnist, fashionmnist, cifar10, ...; TIER=paper for a GPU): results/METHOD-RECIPE.json

reproduce-edm: key ## EDM alone
	$(MAKE) archive POLICIES="$(studied)"
	$(py) -m evaluation.studies training $(spec) --policies $(studied) --run $(RUN)
	$(py) -m evaluation.studies utility $(spec) --policies $(studied) --run $(RUN)
	$(py) -m evaluation.studies coherence $(spec) --policies ensemble edm --run $(RUN)
	$(py) -m evaluation.studies hashes $(spec) --policies edm edm-class-confidence --run $(RUN)
	$(py) -m evaluation.matrix $(spec) --only $(edm_tables) --run $(RUN)
	$(py) -m report.html $(RUN)
	mkdir -p results
	cp $(RUN)/report.json results/edm-$(name).json
	$(MAKE) documents

reproduce-meco: RUN = reports/$(name)-meco
reproduce-meco: key ## MeCo alone
	$(MAKE) archive POLICIES="$(beside) $(noisy)"
	$(py) -m evaluation.studies training $(spec) --policies undefended $(noisy) --run $(RUN)
	$(py) -m evaluation.studies utility $(spec) --policies $(beside) $(noisy) --run $(RUN)
	$(py) -m evaluation.studies input-noise $(spec) --policies $(noisy) --run $(RUN)
	$(py) -m evaluation.studies averaging $(spec) --policies $(filter-out undefended,$(probed)) --run $(RUN)
	$(py) -m evaluation.studies gradients $(spec) --policies $(probed) --run $(RUN)
	$(py) -m evaluation.matrix $(spec) --only $(call named,meco) --run $(RUN)
	$(py) -m bench.costs defenses $(spec) --run $(RUN)
	$(py) -m report.html $(RUN)
	mkdir -p results
	cp $(RUN)/report.json results/meco-$(name).json
	$(MAKE) documents

reproduce-same: RUN = reports/$(name)-same
reproduce-same: key ## SAME alone
	$(MAKE) archive POLICIES="$(unguarded) $(scored) $(filter-out $(scored),$(gated))"
	$(py) -m evaluation.studies utility $(spec) --policies $(unguarded) $(gated) --run $(RUN)
	$(py) -m evaluation.studies detection $(spec) --policies $(scored) $(if $(filter edm-fixed,$(unguarded)),--ensemble edm-fixed) --run $(RUN)
	$(py) -m evaluation.studies false-positives $(spec) --policies $(priced) --run $(RUN)
	$(py) -m evaluation.studies reconstructions $(spec) --policies same-observe --run $(RUN)
	$(py) -m evaluation.matrix $(spec) --only $(call named,same) --run $(RUN)
	$(py) -m bench.costs gates $(spec) --policies $(scored) --run $(RUN)
	$(py) -m bench.costs precision $(spec) --policies same-observe --run $(RUN)
	$(py) -m report.html $(RUN)
	mkdir -p results
	cp $(RUN)/report.json results/same-$(name).json
	$(MAKE) documents

reproduce-misleader: RUN = reports/$(name)-misleader
reproduce-misleader: key ## MISLEADER alone
	$(MAKE) archive POLICIES="$(distilled)"
	$(py) -m evaluation.studies training $(spec) --policies $(filter-out label,$(distilled)) --run $(RUN)
	$(py) -m evaluation.studies utility $(spec) --policies $(distilled) --run $(RUN)
	$(py) -m evaluation.studies shifts $(spec) --policies $(filter-out label,$(distilled)) --run $(RUN)
	$(py) -m evaluation.matrix $(spec) --only $(call named,misleader) --run $(RUN)
	$(py) -m bench.costs ensembles $(spec) --policies $(call offered,distilled misleader misleader-routed) --run $(RUN)
	$(py) -m report.html $(RUN)
	mkdir -p results
	cp $(RUN)/report.json results/misleader-$(name).json
	$(MAKE) documents

thieves: RUN = reports/$(name)-thieves
thieves: key ## every attack on every policy of RECIPE: results/thieves-RECIPE.json
	$(MAKE) archive POLICIES="$(robbed)"
	$(py) -m evaluation.studies utility $(spec) --policies $(robbed) --run $(RUN)
	$(py) -m evaluation.matrix $(spec) --only $(call named,thieves) --run $(RUN)
	$(py) -m report.html $(RUN)
	mkdir -p results
	cp $(RUN)/report.json results/thieves-$(name).json
	$(MAKE) documents

# AGAIN=second-key, in a checkout with a key of its own, leaves results/unmixing-RECIPE-second-key.json
unmixing: RUN = reports/$(name)-unmixing
unmixing: POLICIES = $(call offered,undefended edm-fixed edm-fixed-class-confidence edm-fixed-rounded meco misleader misleader-routed)
unmixing: key ## thieves who have read EDM's paper against whatever tells probabilities: results/unmixing-RECIPE.json
	$(MAKE) archive POLICIES="$(POLICIES)"
	$(py) -m evaluation.studies training $(spec) --policies $(POLICIES) --run $(RUN)
	$(py) -m evaluation.matrix $(spec) --only unmixing unmixing-log-p --run $(RUN)
	mkdir -p results
	cp $(RUN)/report.json results/unmixing-$(name)$(AGAIN:%=-%).json
	$(MAKE) documents

gate-aware: RUN = reports/$(name)-gate-aware
gate-aware: POLICIES = $(call offered,undefended same-reject edm-same)
gate-aware: key ## thieves who know SAME's gate: results/gate-aware-RECIPE.json
	$(MAKE) archive POLICIES="$(POLICIES)"
	$(py) -m evaluation.matrix $(spec) --only $(filter-out %-over-http,$(filter gate-aware%,$(evaluations))) --run $(RUN)
	mkdir -p results
	cp $(RUN)/report.json results/gate-aware-$(name).json
	$(MAKE) documents

informed-over-http: POLICIES = edm-fixed same-reject
informed-over-http: ## after make unmixing gate-aware: ten clients do the same to a running server; both must agree
	$(MAKE) serve POLICIES="$(POLICIES)"
	for each in unmixing gate-aware; do \
	  $(py) -m loadtests.agreement $(spec) --instance $(INSTANCE) --clients 10 --only $$each-over-http --run reports/$(name)-$$each \
	  && cp reports/$(name)-$$each/report.json results/$$each-$(name).json || { $(MAKE) stop; exit 1; }; done
	$(MAKE) stop
	$(MAKE) documents

thieves-over-http: RUN = reports/$(name)-thieves
thieves-over-http: POLICIES = undefended edm
thieves-over-http: ## ten clients steal from a running server what `make thieves` stole in process: both must agree
	$(MAKE) serve POLICIES="$(POLICIES)"
	$(py) -m loadtests.agreement $(spec) --instance $(INSTANCE) --clients 10 --only thieves-over-http --run $(RUN) \
	  || { $(MAKE) stop; exit 1; }
	$(MAKE) stop
	cp $(RUN)/report.json results/thieves-$(name).json
	$(MAKE) documents

documents: | $(ready) ## docs/results, docs/performance.md, ... from the committed results/*.json
	$(py) -m report.pages

bench: key ## what an answer costs: results/bench.json and docs/performance.md (on an idle machine)
	for recipe in $(benched); do $(MAKE) bench-archives RECIPE=$$recipe || exit 1; done
	$(py) -m bench $(benched) --policies $(bench_policies)
	$(py) -m report.pages performance

bench-archives: key ## the archives of RECIPE that `make bench` measures
	$(MAKE) archive POLICIES="$(call offered,$(bench_policies))"

bench-profile: | $(ready) ## where a worker's time goes, by py-spy: results/profile.json (after make bench)
	$(py) -m bench.profile bench-resnet18 --policies undefended misleader
	$(py) -m report.pages performance

bench-fusing: | $(ready) ## a policy's graphs as one graph: results/fusing.json (after make bench)
	$(py) -m bench.fusing $(benched)
	$(py) -m report.pages performance

bench-defenses: key ## what input noise and poisoned answers cost beside the victim alone (on an idle machine)
	$(MAKE) archive RECIPE=bench-resnet18 POLICIES="undefended randp mad grad meco meco-keyed"
	$(py) -m bench.costs defenses bench-resnet18 --run reports/bench-defenses
	cp reports/bench-defenses/report.json results/meco-bench-resnet18.json
	$(py) -m report.pages meco

bench-gates: key ## what SAME's gate costs beside a ResNet18, by its size (on an idle machine)
	$(MAKE) archive RECIPE=bench-gates POLICIES="undefended same-observe same-small same-vit-tiny"
	$(py) -m bench.costs gates bench-gates --policies same-observe same-small same-vit-tiny --run reports/bench-gates
	cp reports/bench-gates/report.json results/same-bench-gates.json
	$(py) -m report.pages same

bench-misleader: key ## what an averaged and a routed ensemble cost beside their members (on an idle machine)
	$(MAKE) archive RECIPE=bench-misleader POLICIES="undefended misleader misleader-routed"
	$(py) -m bench.costs ensembles bench-misleader --policies misleader misleader-routed --run reports/bench-misleader
	cp reports/bench-misleader/report.json results/misleader-bench.json
	$(py) -m report.pages misleader

bench-memory: key ## what a server holds in memory with torch, and without: results/serving-memory.json
	$(MAKE) archive RECIPE=mnist POLICIES=undefended
	$(MAKE) archive RECIPE=bench-resnet18 POLICIES="undefended edm"
	for each in "" -torch; do .venv/bin/uv venv --quiet --clear --python $(py) build/serving$$each && .venv/bin/uv pip install --quiet \
	  --python build/serving$$each/bin/python --require-hashes -r $(images)/requirements$$each.txt || exit 1; done
	$(py) -m bench.serving_memory mnist-undefended bench-resnet18-undefended bench-resnet18-edm \
	  --lean build/serving/bin/python --torch build/serving-torch/bin/python
	$(py) -m report.pages serving-memory

bench-attacks: key ## how fast thieves query in process: results/bench-attacks.json (on an idle machine)
	$(MAKE) archive RECIPE=mnist POLICIES=undefended
	$(py) -m bench.attacks mnist --run results

check: | $(ready) ## lint, format, types, import boundaries, results files
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	$(py) -m pytest tests/test_boundaries.py
	$(py) -m report check results/

test: | $(ready) ## the tiers unit and server: all but the drills
	$(pytest) -m "unit or server"

test-all: | $(ready) ## every test, drills included
	$(pytest)

clean: ## remove what training, export and serving made (keeps .venv, secrets, data)
	rm -rf runs build run reports model_store/*.mar
