# What attacks our own service, and what operators see of it. The policies stand in the recipe: [studies.fuzz] and so on.

dashboard: | $(ready) ## deploy/grafana's dashboard again from deploy/dashboard.py
	$(py) -m deploy.dashboard

fuzz: key ## CASES hostile requests (10000) to a real server: results/fuzz.json
	$(MAKE) serve POLICIES="$(studied.fuzz)"
	$(py) -m assurance.fuzz $(spec) --instance $(INSTANCE) --policies $(studied.fuzz) --cases $(CASES) --output results/fuzz.json \
	  || { $(MAKE) stop; exit 1; }
	$(MAKE) stop

selftest: key ## send a server behind its gateway what each control must stop: results/selftest.json
	$(MAKE) serve POLICIES="$(studied.selftest)" GATEWAY=1
	$(py) -m assurance.selftest $(spec) --instance $(INSTANCE) --policies $(studied.selftest) --gateway \
	  --output results/selftest.json || { $(MAKE) stop; exit 1; }
	$(MAKE) stop

faults: key ## fault injection: killed workers, full disks, lost Redis, under load: results/faults.json (redis-server, faketime, nginx)
	$(MAKE) archive POLICIES="$(studied.faults)"
	$(py) -m assurance.faults $(spec) --plain $(word 1,$(studied.faults)) --gated $(word 2,$(studied.faults))
	$(MAKE) documents

soak: key ## MINUTES (15) at 80 % of saturation, a fifth of it an attack: results/soak.json (on an idle machine)
	$(MAKE) archive POLICIES="$(studied.soak)"
	$(py) -m loadtests.soak $(spec) --policies $(studied.soak) --minutes $(MINUTES)
	$(MAKE) documents

owners: | $(ready) ## models in every form of owners', packages of PyPI among them, adopted, served, compared: results/owners.json
	$(py) -m assurance.owners $(if $(ONLY),--only $(ONLY))
	$(MAKE) documents

controls: | $(ready) ## take out each control of the threat model: its test must fail; results/controls.json
	$(py) -m assurance.controls --output results/controls.json

# what an attest is signed by, next to the deployment's key
ATTEST_KEY ?= secrets/attest.pem

attest-key: $(ATTEST_KEY) ## the key that signs evidence, made once, never overwritten, and its public half next to it

$(ATTEST_KEY): | $(ready)
	mkdir -p -m 700 $(@D)
	$(py) -m attest.evidence.keys $@

attest-sign: $(ATTEST_KEY) ## RUN=reports/attest-NAME [SUBJECTS='FILE ...']: its report, and its evidence signed with ATTEST_KEY
	$(py) -m attest.evidence sign $(RUN) --key $(ATTEST_KEY) $(SUBJECTS:%=--subject %)

attest-verify: | $(ready) ## FILE=evidence.dsse.json KEY=attest.pub.pem [ASKED='--max-age 30 ...']: who signed it, and that nothing was changed
	$(py) -m attest.verify $(FILE) --key $(KEY) $(ASKED)

attest-diff: | $(ready) ## OLD=DIR NEW=DIR [ASKED='--max-bought 2 ...']: what got better or worse between two attests
	$(py) -m attest.diff $(OLD) $(NEW) $(ASKED)

attest-pdf: | $(ready) ## RUN=reports/attest-NAME: its report printed by a headless Chromium
	$(py) -m attest.report $(RUN) --pdf
