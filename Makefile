# Every target is a line or a script of its own in scripts/, which says at its top what it does. `make` shows this list.
.DEFAULT_GOAL := help
.PHONY: help build web demo test quick check test-root test-vm bench fuzz install deb doc book clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

build: ## release binaries into target/release
	@scripts/build

web: ## what the browser's console needs for its terminal and graphs, for the next build
	@scripts/web

demo: ## a VPS from nothing to a login, with the limits shown holding
	@scripts/demo

test: ## everything by machine: lints, unit tests, root tests here and in a guest with cgroup v2
	@scripts/test

quick: ## in a few minutes what a change broke: lints, unit tests, the shorter root tests here
	@scripts/test quick

check: ## format, lints, documentation, licences; no root needed
	@scripts/check

test-root: ## the tests of kernel effects on this machine (T=part of a name, CONDO_RUNTIME=runc)
	@scripts/test-root native $(T)

test-vm: ## the same in a throw-away guest with cgroup v2 (T=…, TIER=systemd or selinux)
	@scripts/test-root $(or $(TIER),plain) $(T)

bench: ## start-up times next to runc's and crun's, Docker's, LXC's and QEMU's
	@scripts/bench all

fuzz: ## nonsense for all parsers of condo-runtime, ten minutes each (T=target, SECONDS=)
	@scripts/fuzz all $(or $(SECONDS),600) $(T)

install: ## binaries, recipes, completions, man pages (PREFIX, DESTDIR)
	@scripts/install

deb: ## the Debian package into target/deb
	@scripts/deb

doc: ## the library's documentation into target/doc
	@cargo doc --locked --no-deps --document-private-items

book: ## the user's book (docs/) into target/book
	@scripts/book

clean: ## remove everything that was built or downloaded
	@cargo clean
