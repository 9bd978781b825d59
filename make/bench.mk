# What an answer costs, on an idle machine: latency, throughput, memory. The policies stand in the recipes: [studies.bench].
# What a defense adds to its victim's cost is a study as well: make reproduce-meco RECIPE=bench-resnet18, reproduce-same
# RECIPE=bench-gates, reproduce-misleader RECIPE=bench-misleader.

benched  = bench-conv3 bench-resnet18

bench: key ## what an answer costs, by policy, protocol and picture: results/bench.json and its like, docs/performance.md
	for recipe in $(benched); do $(MAKE) bench-archives RECIPE=$$recipe || exit 1; done
	$(py) -m bench $(benched)
	$(py) -m bench.protocols bench-conv3
	$(py) -m bench.adopted --only pictures
	$(MAKE) documents

bench-builds: | $(ready) ## raw rows of this commit against those of AGAINST=COMMIT: results/builds.json
	$(py) -m bench.builds --against $(or $(AGAINST),$(error AGAINST: expected an earlier commit of this repository, got none))
	$(MAKE) documents

bench-peers: key ## other model servers around the same float32 and int8 file: results/peers.json (ASKED=--quick: a smoke test)
	$(MAKE) archive RECIPE=bench-resnet18 POLICIES="undefended undefended-int8"
	$(py) -m bench.peers $(ASKED)
	$(MAKE) documents

bench-archives: key ## the archives of RECIPE that `make bench` measures
	$(MAKE) archive POLICIES="$(studied.bench)"

bench-delays: ## one client, a few and many where a batch waits 2 ms, 1 and 0: results/delays.json (RECIPE, digits)
	$(MAKE) archive POLICIES=undefended
	$(py) -m bench.delays $(RECIPE)
	$(MAKE) documents

bench-growth: key ## time and memory by EDM's members, stores by a week's traffic: results/growth.json (redis-server; ASKED=--quick)
	for recipe in $(benched); do $(MAKE) archive RECIPE=$$recipe POLICIES="undefended edm" || exit 1; done
	$(py) -m bench.growth $(benched) $(ASKED)
	$(MAKE) documents

bench-profile: | $(ready) ## where a worker's time goes, by py-spy: results/profile.json (after make bench)
	$(py) -m bench.profile bench-resnet18
	$(MAKE) documents

bench-fusing: | $(ready) ## a policy's graphs as one graph: results/fusing.json (after make bench)
	$(py) -m bench.fusing $(benched)
	$(MAKE) documents

bench-memory: key ## what a server holds in memory with torch, and without: results/serving-memory.json
	$(MAKE) archive RECIPE=mnist POLICIES=undefended
	$(MAKE) archive RECIPE=bench-resnet18
	for each in "" -torch; do .venv/bin/uv venv --quiet --clear --python $(py) build/serving$$each && .venv/bin/uv pip install --quiet \
	  --python build/serving$$each/bin/python --require-hashes -r $(images)/requirements$$each.txt || exit 1; done
	$(py) -m bench.serving_memory mnist-undefended $(POLICIES:%=bench-resnet18-%) \
	  --lean build/serving/bin/python --torch build/serving-torch/bin/python
	$(MAKE) documents

bench-refusals: key ## what a refused request costs behind the gateway: results/refusals.json
	$(MAKE) archive RECIPE=digits POLICIES=undefended
	$(py) -m bench.refusals digits-undefended
	$(MAKE) documents

bench-attacks: key ## how fast attacks query in process: results/bench-attacks.json
	$(MAKE) archive RECIPE=mnist POLICIES=undefended
	$(py) -m bench.attacks mnist --run results

bench-adopted: | $(ready) ## what a model of your own costs, a ResNet-18 at 224 (ONLY='gate meco': parts alone): results/adopted-bench.json
	$(py) -m bench.adopted $(if $(ONLY),--only $(ONLY))
	$(MAKE) documents
