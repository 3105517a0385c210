# make demo | test | lint | bench: each installs what it lacks, then runs. Debian 12, root or sudo, nothing else.

PYTHON := /usr/bin/python3
VENV   := .venv
SUDO   := $(if $(filter 0,$(shell id -u)),,sudo)
# root's byte code and caches would be in the way of the user who called sudo
AS_ROOT := $(if $(SUDO),$(SUDO) env PYTHONDONTWRITEBYTECODE=1)
PYTEST  := $(VENV)/bin/python -m pytest $(if $(SUDO),-p no:cacheprovider)
# also for what builds the package, which pip installs into a place of its own
PIP     := PIP_CONSTRAINT=constraints.txt $(VENV)/bin/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test lint bench bench-drivers bench-fuse soak-fuse stubs clean bench-containerd
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## make demo    the main job from end to end, narrated; leaves nothing behind
demo: $(VENV)/.lamina
	@.ci/need busybox-static
	@$(AS_ROOT) demo/run

## make test    everything that must be true; ARGS="…" go to pytest
test: $(VENV)/.tools
	@.ci/need apache2-utils btrfs-progs busybox-static conmon containerd crun docker-registry docker.io e2fsprogs golang-github-containers-common kmod openssl runc skopeo systemd thin-provisioning-tools uidmap umoci user-mode-linux xfsprogs zfs-fuse
	@$(AS_ROOT) $(PYTEST) $(ARGS); status=$$?; \
	if [ -n "$(STATUS)" ]; then echo $$status > "$(STATUS)"; else exit $$status; fi

## make lint    style, types and imports; `make test` does this, too
lint: $(VENV)/.tools
	@$(PYTEST) tests/house $(ARGS)

## make bench   lamina beside skopeo, umoci and containerd
bench: $(VENV)/.tools
	@.ci/need buildah busybox-static conmon containerd crun docker-registry golang-github-containers-common mmdebstrap podman runc skopeo umoci
	@$(VENV)/bin/python -m compileall -q core/lamina drivers  # as pip does where it installs for good
	@$(AS_ROOT) $(VENV)/bin/python benchmarks/run.py $(ARGS)

## make bench-drivers   the drivers beside each other, as a table and a chart; ARGS="--chart docs/drivers.svg --only overlay,vfs"
bench-drivers: $(VENV)/.tools
	@.ci/need btrfs-progs e2fsprogs fuse3 zfs-fuse
	@$(AS_ROOT) $(VENV)/bin/python benchmarks/drivers.py $(ARGS)

## make bench-containerd   lamina's overlay beside containerd's own, in one daemon; ARGS="--rounds 5 --durability none"
bench-containerd: $(VENV)/.tools
	@.ci/need buildah busybox-static containerd golang-github-containerd-containerd-dev golang-go mmdebstrap
	@$(AS_ROOT) $(VENV)/bin/python benchmarks/snapshotter.py $(ARGS)

## make stubs   containerd's messages in Python, again from the protocol files that it publishes
stubs:
	@.ci/stubs

## make bench-fuse   our union beside fuse-overlayfs and the kernel's overlay; ARGS="--rounds 5 --share /usr/share"
bench-fuse: $(VENV)/.tools
	@.ci/need fuse-overlayfs
	@$(AS_ROOT) $(VENV)/bin/python benchmarks/fuse.py $(ARGS)

## make soak-fuse    random reads and writes on the union for an hour; SECONDS=… for less
soak-fuse: $(VENV)/.tools
	@$(AS_ROOT) env LAMINA_FUSE_SOAK=$(or $(SECONDS),3600) $(PYTEST) tests/drivers/test_fuse_soak.py --timeout 0 $(ARGS)

## make clean   remove what these have installed here (Debian's packages stay)
clean:
	rm -rf $(VENV)

# lamina alone, and lamina with what its developers need
$(VENV)/.lamina: pyproject.toml constraints.txt | $(VENV)/bin/pip
	@echo "installing lamina into $(VENV)"
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.tools: $(VENV)/.lamina
	@.ci/need fuse3 gcc libc6-dev libfuse3-dev pkg-config python3-dev
	@echo "installing the tools of its developers into $(VENV)"
	@$(PIP) install --editable '.[dev]'
	@touch $@

$(VENV)/bin/pip:
	@.ci/need python3-venv
	@$(PYTHON) -m venv $(VENV)
