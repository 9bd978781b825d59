# Red-teaming of any endpoint: targets/NAME.toml says which, docs/attest.md how.

attest: | $(ready) ## TARGET=NAME IMAGES=DIR [ASKED='--budget 2000 ...']: attack an endpoint under a budget: reports/attest-NAME/
	$(py) -m attest $(TARGET) --images $(IMAGES) $(ASKED)

attest-check: | $(ready) ## TARGET=NAME [IMAGES=DIR]: ten pictures to the endpoint, and what was understood
	$(py) -m loadtests.target check $(TARGET) $(if $(IMAGES),--images $(IMAGES)) $(ASKED)

attest-peers: | $(ready) ## FastAPI, LitServe, KServe, pytriton and TorchServe around one model, each attested and compared
	$(py) -m attest.examples.peers $(ASKED)

attest-speed: | $(ready) ## [ASKED='--senders 4 ...']: the harness's own share of a client's time at 500 rows a second; run it alone
	$(py) -m attest.speed $(ASKED)

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
