# Entry points for people. `make` alone lists them.

PREFIX ?= /usr/local
DESTDIR ?=
# Asked for only when used: a fresh machine has no rustc before `setup`.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
STATIC = target/$(HOST)/release
IMAGE := target/guest-image

# The command and the agent are static: the one starts faster, the other has no libraries. Their
# code has a fixed place, for relocating it at each start would take longer than parsing config.json.
# libcap-ng, which the VM shim uses, does not work in static programs, so the shim is dynamic.
static_cargo = RUSTFLAGS='-C target-feature=+crt-static -C relocation-model=static' LIBSECCOMP_LINK_TYPE=static \
	LIBSECCOMP_LIB_PATH=/usr/lib/$(shell uname -m)-linux-gnu cargo

.PHONY: help setup setup-tests build agent guest-image windows demo test bench link-order install uninstall clean

help:
	@echo 'make demo       install what is needed, build, and show containers of both kinds'
	@echo 'make test       install what is needed and run every check and test'
	@echo 'make build      build the programs for release'
	@echo 'make guest-image  make the utility VM image in $(IMAGE)'
	@echo 'make windows    build the Windows programs in target/windows'
	@echo 'make bench      compare with runc, crun and a bare QEMU'
	@echo 'make link-order  find out anew which functions of runhcs lie next to each other'
	@echo 'make install    install to $(PREFIX)'
	@echo 'make uninstall  remove what install installed'
	@echo 'make clean      remove what was built'

setup:
	@scripts/setup

setup-tests:
	@scripts/setup --tests

build: setup agent
	$(static_cargo) build --release --target $(HOST) -p runhcs
	cargo build --release -p runhcs-vm-shim -p runhcs-guest-image

agent: setup
	$(static_cargo) build --release --target $(HOST) -p runhcs-guest-agent

guest-image: build
	target/release/runhcs-guest-image build --agent $(STATIC)/runhcs-guest-agent --output $(IMAGE)

demo: guest-image
	@scripts/demo $(STATIC)/runhcs target/release/runhcs-vm-shim $(IMAGE)

windows: setup-tests
	scripts/windows

# Tests run the programs of the development profile, in which failures can be injected.
test: setup-tests agent
	cargo fmt --check
	cargo clippy --workspace --all-targets --features runhcs/fault-injection -- -D warnings
	cargo build --workspace --features runhcs/fault-injection
	$(static_cargo) build --target $(HOST) -p runhcs
	scripts/windows
	target/debug/runhcs-guest-image build --agent $(STATIC)/runhcs-guest-agent --output $(IMAGE)
	cargo test --workspace --features runhcs/fault-injection
	scripts/fuzz
	scripts/deny

bench: guest-image
	$(static_cargo) build --release --target $(HOST) -p runhcs-benches
	$(STATIC)/compare --runhcs $(STATIC)/runhcs --vm-shim target/release/runhcs-vm-shim --image $(IMAGE)

# The program's symbols say where its functions are.
link-order: setup
	$(static_cargo) build --release --target $(HOST) --target-dir target/link-order \
		--config profile.release.strip=false -p runhcs
	cargo build -p runhcs-benches --bin link-order
	target/debug/link-order target/link-order/$(HOST)/release/runhcs >target/link-order/first.ld
	mv target/link-order/first.ld crates/runhcs/first.ld

install:
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin $(STATIC)/runhcs target/release/runhcs-vm-shim \
		target/release/runhcs-guest-image
	ln -sf runhcs $(DESTDIR)$(PREFIX)/bin/runhcs-vm
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/share/runhcs $(STATIC)/runhcs-guest-agent
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/runhcs $(IMAGE)/vmlinux $(IMAGE)/initramfs.img
	test -e $(DESTDIR)/etc/runhcs/config.toml || \
		install -D -m 644 config/config.toml $(DESTDIR)/etc/runhcs/config.toml

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/runhcs $(DESTDIR)$(PREFIX)/bin/runhcs-vm \
		$(DESTDIR)$(PREFIX)/bin/runhcs-vm-shim $(DESTDIR)$(PREFIX)/bin/runhcs-guest-image
	rm -rf $(DESTDIR)$(PREFIX)/share/runhcs

clean:
	cargo clean
