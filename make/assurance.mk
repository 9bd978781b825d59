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
