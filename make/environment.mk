# The environment: .venv from the lock, the lock itself, what is in it, and what is known of it.

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
image    = $(resolved) --python-version 3.11 --constraint requirements.lock --extra serve --extra grpc pyproject.toml

lock: | $(ready) ## requirements.lock and the images' from pyproject.toml; UPGRADE=1 takes the newest versions
	$(anywhere) $(UPGRADE:%=--upgrade) --extra recipes --extra train --extra export --extra serve --extra grpc --extra load --extra attest --extra dev pyproject.toml \
	  -o requirements.lock
	echo kserve==0.21.0 | $(anywhere) $(UPGRADE:%=--upgrade) - -o tests/e2e/kserve.lock
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
