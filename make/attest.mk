# Red-teaming of any endpoint: targets/NAME.toml says which, docs/attest.md how.

attest: | $(ready) ## TARGET=NAME IMAGES=DIR [ASKED='--budget 2000 ...']: attack an endpoint under a budget: reports/attest-NAME/
	$(py) -m attest $(TARGET) --images $(IMAGES) $(ASKED)

attest-check: | $(ready) ## TARGET=NAME [IMAGES=DIR]: ten pictures to the endpoint, and what was understood
	$(py) -m loadtests.target check $(TARGET) $(if $(IMAGES),--images $(IMAGES)) $(ASKED)

attest-peers: | $(ready) ## FastAPI, LitServe, KServe, pytriton and TorchServe around one model, each attested and compared
	$(py) -m attest.examples.peers $(ASKED)

attest-speed: | $(ready) ## the harness's own share of a client's time at 500 rows a second; run it alone
	$(py) -m attest.speed
