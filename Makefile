# SPDX-License-Identifier: GPL-2.0
# `make help` says what there is.
#
# Without KDIR everything is built in the provisioned build root, as root, against Debian's stock kernel. With KDIR the
# kernel tree given is used directly, by whoever runs make; its headers must carry the metadata of the kernel's Rust crates.

LANE ?= stock
export KERNEL
MAKEFLAGS += --no-print-directory

KFLAGS := $(foreach v,V W TESTS WERROR,$(if $($(v)),$(v)=$($(v))))

.PHONY: all module mkfs run test install clean clippy bench-read bench-btree help

all: module mkfs

ifdef KDIR
OUT ?= build/kdir
module:
	@mkdir -p $(OUT)
	$(MAKE) -C $(KDIR) M=$(CURDIR) MO=$(abspath $(OUT)) $(KFLAGS)
	@echo $(OUT)/bcachefs.ko

mkfs:
	@cd tools/mkfs && cargo build --release --quiet --target-dir $(CURDIR)/build/cargo
	@cp build/cargo/x86_64-unknown-linux-gnu/release/mkfs build/mkfs.bcachefs
	@echo build/mkfs.bcachefs

install: module
	$(MAKE) -C $(KDIR) M=$(CURDIR) MO=$(abspath $(OUT)) $(KFLAGS) INSTALL_MOD_DIR=updates modules_install
	depmod
else
module:
	@scripts/build $(LANE) $(KFLAGS)

mkfs:
	@scripts/build-mkfs

install:
	@scripts/install
endif

clippy:
	@scripts/build $(LANE) CLIPPY=1 WERROR=1 $(KFLAGS) >/dev/null

run:
	@scripts/run

test:
	@scripts/test

bench-read:
	@scripts/bench-read

bench-btree:
	@scripts/bench-btree

clean:
	rm -rf build

help:
	@echo 'make               build bcachefs.ko for the stock kernel (build/stock/bcachefs.ko), and mkfs.bcachefs'
	@echo 'make mkfs          build mkfs.bcachefs (build/mkfs.bcachefs)'
	@echo 'make run           build, boot the stock kernel in a VM, mount a filesystem and compare every file'
	@echo 'make test          all tests: host, KUnit, whole system; ends with a count'
	@echo 'make install       build for the running Debian kernel and install the module'
	@echo 'make clippy        the kernel'\''s lints, warnings are errors'
	@echo 'make bench-read    read benchmark against the C module'
	@echo 'make bench-btree   btree benchmark against the C module with its tests (builds that, and two kernels)'
	@echo 'make clean         remove what was built (the cache stays)'
	@echo
	@echo 'KDIR=DIR           build against this kernel tree, without the build root'
	@echo 'KERNEL=7.2          build for this stock kernel of Debian (a series or a release), not the newest'
	@echo 'LANE=LANE          stock (default), debug, uml, bench'
	@echo 'TESTS=1            with the tests that run inside a mounted filesystem (into build/LANE-tests)'
	@echo 'V=1                show commands'
