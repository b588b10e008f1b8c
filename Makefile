# Ringside. `make setup && make demo` on a fresh Debian 12 machine; `make test` is what CI runs.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

AGENT_TARGET := x86_64-unknown-linux-gnu
FIRST_PROCESSES := -p ringside-agent -p ringside-lab-init
# Without debug information: the machine unpacks its first process into memory at each start.
STATIC := RUSTFLAGS="-C target-feature=+crt-static -C strip=debuginfo"

# What builds, demo, tests and measurements need, by Debian's names.
PACKAGES := \
	acl acpica-tools attr apache2-utils build-essential busybox-static ca-certificates containerd cpio curl dpkg-dev \
	e2fsprogs fio iperf3 iproute2 iputils-ping kmod libcap-ng-dev libseccomp-dev linux-perf lz4 \
	passt pkg-config python3-minimal qemu-system-common qemu-system-x86 qemu-utils runc socat strace tar uidmap umoci \
	user-mode-linux util-linux xz-utils zstd

# What building a kernel needs beyond that.
KERNEL_PACKAGES := bc bison build-essential flex libelf-dev lz4 xz-utils

.PHONY: help setup build agent release guest-kernel install uninstall deb demo lint test bench bench-peers walk integrity soak soak-guest siege many fuzz corpus sanitize miri loom asan tsan audit sbom reproducible clean

# The virtiofsd that others use, for `make bench`; CI does not need it.
PEERS := /var/cache/ringside/peers
RUST_VIRTIOFSD := 1.14.0

help: ## What there is to make
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## Install what Ringside needs and check that it is there (as root)
	@if [ "$$(id -u)" != 0 ]; then echo "make setup installs Debian packages: run it as root" >&2; exit 1; fi
	@command -v cargo >/dev/null || { echo "no Rust toolchain: install rustup from https://rustup.rs, then run make setup again" >&2; exit 1; }
	@command -v apt-get >/dev/null || { echo "no apt-get: Ringside's set-up knows Debian 12 and its derivatives" >&2; exit 1; }
	# apt may take a package away for another: an image's newer qemu-utils for Debian's QEMU. So it looks twice.
	for pass in first second last; do
		missing=""
		for package in $(PACKAGES); do
			dpkg-query -W -f='$${Status}' "$$package" 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"
		done
		# Often there without its package.
		command -v git >/dev/null || missing="$$missing git"
		[ -n "$$missing" ] || break
		[ "$$pass" != last ] || { echo "not to be had with the others:$$missing" >&2; exit 1; }
		echo "installing:$$missing"
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing
	done
	if [ -z "$$(ls /var/lib/apt/lists/*_Packages 2>/dev/null)" ]; then
		apt-get update -qq
	fi
	cargo nextest --version >/dev/null 2>&1 || cargo install cargo-nextest --locked
	cargo deny --version >/dev/null 2>&1 || cargo install cargo-deny --locked --debug
	# Of the whole workspace, so that what is built here serves the tests, too.
	cargo build --quiet --workspace --bin ringside
	target/debug/ringside check --host

agent: ## Build the first processes of guest and lab (static, for debug builds of the rest)
	$(STATIC) cargo build --quiet --target $(AGENT_TARGET) $(FIRST_PROCESSES)

build: agent ## Build everything for debugging
	cargo build --workspace $(FIRST_PROCESSES:-p=--exclude)

release: ## Build everything for use
	cargo build --release --workspace $(FIRST_PROCESSES:-p=--exclude)
	$(STATIC) cargo build --release --target $(AGENT_TARGET) $(FIRST_PROCESSES)

guest-kernel: ## Build the slim guest kernel, which guests then start with (as root; some 10 minutes)
	missing=""
	for package in $(KERNEL_PACKAGES); do
		dpkg-query -W -f='$${Status}' "$$package" 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"
	done
	if [ -n "$$missing" ]; then
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing
	fi
	cargo run --quiet -p guest-image --example slim_kernel

# Where `make install` puts things; DESTDIR before all of them.
PREFIX := /usr/local
SYSCONFDIR := /etc
# What it installs was built there by `make release`.
BUILD := target/release
BUILD_STATIC := target/$(AGENT_TARGET)/release
PROGRAMS := ringside ringside-vmm containerd-shim-ringside-v2 virtiofsd vhost-user-blk vhost-user-net vhost-user-vsock
STATIC_PROGRAMS := ringside-agent
DESCRIPTIONS := virtiofsd/50-ringside-virtiofsd.json vhost-user-blk/50-ringside-blk.json vhost-user-net/50-ringside-net.json runtime/vsock/50-ringside-vsock.json

install: ## Install what `make release` built: PREFIX (/usr/local), SYSCONFDIR (/etc), DESTDIR
	root="$(DESTDIR)$(PREFIX)"
	for program in $(addprefix $(BUILD)/,$(PROGRAMS) ringside-manuals) $(addprefix $(BUILD_STATIC)/,$(STATIC_PROGRAMS)); do
		[ -x "$$program" ] || { echo "$$program is missing: run 'make release' first" >&2; exit 1; }
	done
	install -d "$$root/bin" "$$root/share/qemu/vhost-user" "$$root/share/ringside"
	install -m 755 $(addprefix $(BUILD)/,$(PROGRAMS)) $(addprefix $(BUILD_STATIC)/,$(STATIC_PROGRAMS)) "$$root/bin"
	$(BUILD)/ringside-manuals "$$root"
	for description in $(DESCRIPTIONS); do
		sed -E 's#("binary": ")[^"]*/#\1$(PREFIX)/bin/#' "$$description" > "$$root/share/qemu/vhost-user/$${description##*/}"
	done
	install -m 644 deploy/containerd/ringside.toml "$$root/share/ringside/containerd.toml"
	# A configuration that is there is the user's.
	config="$(DESTDIR)$(SYSCONFDIR)/ringside/config.toml"
	[ -e "$$config" ] || install -D -m 644 "$$root/share/ringside/config.toml" "$$config"

uninstall: ## Remove what `make install` installed, but not the configuration
	root="$(DESTDIR)$(PREFIX)"
	for program in $(PROGRAMS) $(STATIC_PROGRAMS); do
		rm -f "$$root/bin/$$program" "$$root/share/man/man1/$$program.1" "$$root/share/man/man1/$$program"-*.1
		rm -f "$$root/share/bash-completion/completions/$$program" "$$root/share/zsh/site-functions/_$$program"
		rm -f "$$root/share/fish/vendor_completions.d/$$program.fish"
	done
	rm -f $(addprefix "$$root/share/qemu/vhost-user"/,$(notdir $(DESCRIPTIONS)))
	rm -f "$$root/share/ringside/config.toml" "$$root/share/ringside/containerd.toml"
	rmdir --ignore-fail-on-non-empty "$$root/share/ringside"

deb: release ## Build the Debian package target/debian/ringside_*.deb
	cargo deb --version >/dev/null 2>&1 || cargo install cargo-deb --locked --debug
	rm -rf target/deb
	$(MAKE) --no-print-directory install DESTDIR=target/deb PREFIX=/usr
	cargo deb --no-build --no-strip --package ringside-deploy

demo: release ## Boot nginx twice on the three daemons and check what it did
	target/release/ringside-demo

lint: ## Formatting, clippy with warnings denied, licences and sources of dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	cargo deny --log-level error check bans licenses sources

test: lint agent ## All tests: unit, property, socket-level, guests under QEMU and UML
	# The runtime's tests need not ask cargo again: nextest builds the daemons, and `agent` the rest.
	RINGSIDE_TEST_PREBUILT=1 cargo nextest run --workspace --no-fail-fast
	cargo test --workspace --doc --quiet

bench-peers: ## Install the Rust virtiofsd to measure against, and a browser that draws the page
	@test -x $(PEERS)/bin/virtiofsd || cargo install virtiofsd --version $(RUST_VIRTIOFSD) --locked --root $(PEERS)
	if ! command -v chromium-headless-shell >/dev/null && ! command -v chromium >/dev/null; then
		apt-get update -qq
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium-headless-shell
	fi

# A lab starts our VMM on native KVM, wherever it runs.
LAB := $(CURDIR)/target/release/ringside-lab run -w $(CURDIR)/target/bench -m 4096 -t 3000 --
# A turn's length where hundreds of rows take five turns each.
TURN := --seconds 0.5
# Of each scenario that others repeat, what fits into ten minutes on two cores.
QUICK_documents := --only dd,fio-4k-d32x16-randread,open-read,nginx
QUICK_blk := --targets tmpfs --modes eventfd --only 4k-randread-d1,4k-randwrite-d32,4k-randread-2q
QUICK_fs := --targets tmpfs --caches auto --only randread-4j,randwrite-d1
QUICK_scaling := --only 4k-randread-d32,2q
QUICK_net := --targets tap,switch
QUICK_boot := --only ringside,microvm
QUICK_start_lab := --only runc,VMM

bench: release bench-peers ## Measure against the peers, with a page (target/bench/report.html); QUICK=1 for a short run
	mkdir -p target/bench
	measure() {
		echo "== $$1, $$(date +%T)"
		$${on:-} "$$PWD/target/release/ringside-perf" "$$@" $(if $(QUICK),--quick) --json "$$PWD/target/bench/$${name:-$$1}.json" \
			>"target/bench/$${name:-$$1}.txt"
	}
	measure documents $(if $(QUICK),$(QUICK_documents))
	measure start
	measure growth
	measure blk $(if $(QUICK),$(QUICK_blk),$(TURN))
	measure fs --keep-awake $(if $(QUICK),$(QUICK_fs),$(TURN) --targets tmpfs)
	$(if $(QUICK),,name=fs-disk measure fs --keep-awake $(TURN) --targets disk --caches auto)
	name=blk-scaling measure blk --scaling --targets tmpfs --modes eventfd $(if $(QUICK),$(QUICK_scaling),$(TURN))
	name=fs-scaling measure fs --keep-awake --scaling --targets tmpfs --caches auto $(if $(QUICK),,$(TURN))
	measure net --keep-awake $(if $(QUICK),$(QUICK_net),$(TURN))
	on='$(LAB)' measure boot $(if $(QUICK),$(QUICK_boot))
	on='$(LAB)' name=start-lab measure start $(if $(QUICK),$(QUICK_start_lab))
	target/release/ringside-perf report target/bench/{documents,start-lab,start,growth,blk,blk-scaling,fs,$(if $(QUICK),,fs-disk,)fs-scaling,net,boot}.json \
		--html target/bench/report.html --markdown target/bench/report.md --plots target/bench/plots
	cargo nextest run -p ringside-perf --run-ignored only -E 'test(chromium_renders_the_page)'
	echo "the page, $$(date +%T): $$PWD/target/bench/report.html"

walk: ## Walk 1,000,000 files through virtiofsd with few of them open; FILES, LIMIT change that
	cargo bench --quiet -p virtiofsd --bench walk

integrity: ## Work on files through virtiofsd at random, beside a model; OPERATIONS (100000) for each process, SEED
	export INTEGRITY_OPERATIONS=$(or $(OPERATIONS),100000) INTEGRITY_SEED=$(or $(SEED),$$(date +%s))
	echo "seed $$INTEGRITY_SEED"
	cargo test --quiet --release -p virtiofsd --test integrity -- --nocapture --test-threads 1

soak: ## Mixed load on the three daemons, which are killed at random, for SECONDS (3600); SEED repeats a run
	cargo build --quiet --release -p vhost-user-blk -p vhost-user-net -p virtiofsd
	export SOAK_SECONDS=$(or $(SECONDS),3600) SOAK_SEED=$(or $(SEED),$$(date +%s))
	cargo test --quiet --release -p lab --test soak -- --nocapture

soak-guest: ## A guest works while its disk, network and files are killed at random for SECONDS (3600), in the lab
	cargo build --quiet --release -p vhost-user-blk -p vhost-user-net -p virtiofsd
	export SOAK_SECONDS=$(or $(SECONDS),3600)
	cargo test --quiet --release -p vmm --test linux -- --ignored --exact --nocapture \
		killed::a_guest_sees_no_error_while_disk_network_and_files_are_killed_all_the_time

siege: ## Hostile guests and front ends against the four daemons for SECONDS (3600); SEED repeats a run's choices
	cargo build --quiet --release -p vhost-user-blk -p vhost-user-net -p vhost-user-vsock -p virtiofsd
	export SIEGE_SECONDS=$(or $(SECONDS),3600) SIEGE_SEED=$(or $(SEED),$$(date +%s))
	cargo test --quiet --release -p lab --test siege -- --nocapture

many: ## Boot GUESTS (64) User-Mode Linux guests at once, each with a disk, a share and a network: what their daemons hold
	cargo build --quiet --release -p vhost-user-blk -p vhost-user-net -p virtiofsd
	export MANY_GUESTS=$(or $(GUESTS),64)
	cargo test --quiet --release -p lab --test soak -- --ignored --exact many::many_uml_guests_at_once_have_their_disks_shares_and_each_other --nocapture

fuzz: ## Fuzz every parser for SECONDS (60) each: needs a nightly toolchain and cargo-fuzz (fuzz/README.md)
	@cargo +nightly fuzz --version >/dev/null 2>&1 || { echo "fuzzing needs 'rustup toolchain install nightly' and 'cargo install cargo-fuzz'" >&2; exit 1; }
	for target in $$(cargo +nightly fuzz list); do
		mkdir -p "fuzz/corpus/$$target"
		cargo +nightly fuzz run "$$target" "fuzz/corpus/$$target" "fuzz/seeds/$$target" -- -max_total_time=$(or $(SECONDS),60) -rss_limit_mb=2048
	done

corpus: ## Make what fuzzing found small: seeds keep what reaches code that no other seed does
	for target in $$(cargo +nightly fuzz list); do
		mkdir -p "fuzz/corpus/$$target"
		cargo +nightly fuzz run "$$target" "fuzz/seeds/$$target" "fuzz/corpus/$$target" -- -merge=1 -max_len=4096 -rss_limit_mb=2048
	done

loom: ## Try every order of loads and stores in models of who sleeps and who wakes
	cargo test --quiet --release --manifest-path models/Cargo.toml --target-dir target/models

audit: ## Look for known holes in dependencies (.cargo/audit.toml): fetches RustSec's database, or takes DATABASE
	cargo audit --version >/dev/null 2>&1 || cargo install cargo-audit --locked --debug
	cargo audit $(if $(DATABASE),--db "$(DATABASE)" --no-fetch) --file Cargo.lock
	cargo audit $(if $(DATABASE),--db "$(DATABASE)" --no-fetch) --file fuzz/Cargo.lock

# The clock of what is built: the last commit's.
EPOCH = $$(git log -1 --format=%ct)

sbom: ## List what each program is made of, target/sbom/*.cdx.json (CycloneDX 1.5), and check the lists
	cargo cyclonedx --version >/dev/null 2>&1 || cargo install cargo-cyclonedx --version 0.5.9 --locked --debug
	rm -rf target/sbom
	mkdir -p target/sbom
	SOURCE_DATE_EPOCH=$(EPOCH) cargo cyclonedx --format json --spec-version 1.5 --describe binaries --target $(AGENT_TARGET) -qq
	# They are written beside the manifests. Nobody needs to know where they were made.
	find . -name '*_bin.cdx.json' -not -path './target/*' | while read -r list; do
		name="$${list##*/}"
		sed 's#file://$(CURDIR)#file:///ringside#g' "$$list" > "target/sbom/$${name%_bin.cdx.json}.cdx.json"
		rm "$$list"
	done
	cargo nextest run -p ringside-deploy --run-ignored only -E 'test(every_program_is_listed_with_what_it_is_made_of)'

# Miri, and a standard library to build with a sanitizer in it, are parts of a nightly toolchain.
NIGHTLY_WITH = @rustup +nightly component list --installed | grep -c '^$(1)' >/dev/null || { echo "this needs 'rustup toolchain install nightly --component miri,rust-src'" >&2; exit 1; }

sanitize: miri loom asan tsan ## All of these: undefined behaviour, memory models, addresses, data races (nightly Rust)

# What Miri cannot do, by name: signals, mappings as the kernel has them, other processes, sockets. Rates are arithmetic
# over hours, which it takes minutes for.
MIRI_OUT := test(/^(sys::(guarded_memory|lost_memory|peer)|messages|patience|sandbox|session|rate)::/)

miri: ## Run the tests of rings and buffers in an interpreter that sees undefined behaviour and data races; CASES of each property (4)
	$(call NIGHTLY_WITH,miri)
	export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-permissive-provenance" PROPTEST_CASES=$(or $(CASES),4)
	cargo +nightly miri nextest run --no-fail-fast -p byte-size
	cargo +nightly miri nextest run --no-fail-fast -p vhost-daemon --lib --test queue --test buffers -E 'not ($(MIRI_OUT))'

# Programs with a sanitizer in them, in the place of those that the tests over sockets start. rustix calls the C library
# in them: of system calls of its own a sanitizer would not see what they synchronise and which memory they touch.
SANITIZED := vhost-user-blk vhost-user-net
# Left out by name: guests, sandboxes, other users, idle daemons' time, limits of memory and descriptors, what a daemon
# holds (a sanitizer holds more), memory that is taken away (it has SIGBUS for itself).
SANITIZED_OUT := binary(/^(guests|sandbox|ordinary_user|escape)$$/) or \
	test(/qemu|uml_|idle|sleeps|permission|to_have|after_a_kill|closed_in|memory_for|sixty_four|far_beyond|shrinks|cut_short|truncated/)

# Builds the programs with sanitizer $(2) in target/$(1), runs the tests on them, shows the reports. $(3) are its options.
define SANITIZE
	folder="$(CURDIR)/target/$(1)"
	RUSTFLAGS="-Zsanitizer=$(2) --cfg rustix_use_libc" CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=line-tables-only \
		cargo +nightly build --quiet -Zbuild-std=std --target-dir "$$folder" --target x86_64-unknown-linux-gnu \
		$(addprefix -p ,$(or $(CRATES),$(SANITIZED))) --bins
	rm -rf "$$folder/programs" "$$folder/reports"
	mkdir -p "$$folder/programs"
	install -d -m 777 "$$folder/reports"
	for program in $(or $(CRATES),$(SANITIZED)); do
		ln -s "$(CURDIR)/lab/sanitized" "$$folder/programs/$$program"
	done
	export SANITIZED="$$folder/x86_64-unknown-linux-gnu/debug" RINGSIDE_PROGRAMS="$$folder/programs" $(3)
	failed=0
	cargo nextest run --profile sanitized --no-fail-fast $(addprefix -p ,$(or $(CRATES),$(SANITIZED))) \
		-E 'kind(test) and not ($(SANITIZED_OUT))$(if $(TESTS), and ($(TESTS)))' || failed=1
	if compgen -G "$$folder/reports/*" >/dev/null; then
		grep -h '^SUMMARY' "$$folder"/reports/* | sort | uniq -c
		echo "the reports are in $$folder/reports" >&2
		failed=1
	fi
	exit $$failed
endef

asan: ## Run the socket tests on daemons with the address sanitizer; CRATES, TESTS (nextest's filter) say which
	$(call NIGHTLY_WITH,rust-src)
	$(call SANITIZE,asan,address,ASAN_OPTIONS="detect_leaks=0 log_path=$$folder/reports/report")

tsan: ## Run the socket tests on daemons with the thread sanitizer; CRATES, TESTS as above
	$(call NIGHTLY_WITH,rust-src)
	$(call SANITIZE,tsan,thread,TSAN_OPTIONS="suppressions=$(CURDIR)/.cargo/tsan.txt log_path=$$folder/reports/report")

# Crates of PROGRAMS.
PROGRAM_CRATES := ringside vmm ringside-shim virtiofsd vhost-user-blk vhost-user-net vhost-user-vsock

reproducible: ## Build the last commit twice, in two folders, and compare the programs; CRATES says of which ("vhost-user-blk")
	for place in one another/place; do
		folder="$(CURDIR)/target/reproducible/$$place"
		rm -rf "$$folder"
		mkdir -p "$$folder"
		git archive HEAD | tar -x -C "$$folder"
		(
			cd "$$folder"
			export SOURCE_DATE_EPOCH=$(EPOCH) CARGO_INCREMENTAL=0 CARGO_TARGET_DIR="$$folder/target"
			export RUSTFLAGS="--remap-path-prefix=$$folder=/ringside --remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}=/cargo"
			cargo build --quiet --release --locked $(addprefix -p ,$(or $(CRATES),$(PROGRAM_CRATES)))
			cd target/release
			find . -maxdepth 1 -type f -executable -printf '%P\n' | sort | xargs sha256sum > ../../SHA256SUMS
		)
	done
	cat target/reproducible/one/SHA256SUMS
	diff target/reproducible/{one,another/place}/SHA256SUMS
	echo "both builds are the same"

clean: ## Remove what was built
	cargo clean
