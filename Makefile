# ringfs: GNU make, no configure. `make deps` installs what is needed.
# User's CFLAGS, CPPFLAGS, LDFLAGS are added to ours. SAN=address,undefined
# builds with sanitizers, into a folder of its own; O= names another.
prefix ?= /usr/local
bindir ?= $(prefix)/bin
sbindir ?= $(prefix)/sbin
mandir ?= $(prefix)/share/man
COMPLETION = $(prefix)/share/bash-completion/completions/ringfs
SAN    =
O      = build$(if $(SAN),/san)
VERSION = 0.1.0
PKGS   = fuse3 libuv libxxhash libsodium lmdb jansson
WARN   = -Wall -Wextra -Wpedantic -Wshadow -Wvla -Wstrict-prototypes \
	 -Wmissing-prototypes -Wwrite-strings -Werror
CFLAGS ?= -O2 -g
XCFLAGS = -std=c11 $(WARN) -I. -D_GNU_SOURCE -DFUSE_USE_VERSION=314 \
	  -DVERSION='"$(VERSION)"' -isystem /usr/include/uthash \
	  $(shell pkg-config --cflags $(PKGS) 2>/dev/null) \
	  $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer)
LINK   = $(CC) $(LDFLAGS) $(if $(SAN),-fsanitize=$(SAN))
LIBS   = $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lraft -linih -lpthread
SRC    = $(wildcard fs/*.c ring/*.c gossip/*.c)
OBJ    = $(SRC:%.c=$O/%.o)
LIB    = $O/ringfs.a
UNIT   = $(patsubst %.c,$O/%,$(wildcard tests/unit/*_test.c))
TOOL   = $(patsubst %.c,$O/%,$(wildcard tests/tools/*.c))
BENCH  = $(patsubst %.c,$O/%,$(wildcard tests/bench/*.c))
SIM    = $O/tests/sim/sim
SIMOBJ = $(patsubst %.c,$O/%.o,$(wildcard tests/sim/*.c))
# The whole node in the simulator has other files and settings below it.
SIMWRAP = openat open close pwrite fdatasync fsync renameat unlinkat mkdirat \
	  statvfs getrandom clock_gettime group_open group_close disk_create \
	  disk_post wal_open wal_room store_open store_write store_copy_open \
	  store_copy_seal store_swap store_remove keyset_create \
	  keyset_destroy keyset_apply lease_is_held
SHIM   = $(patsubst %.c,$O/%.so,$(wildcard tests/shim/*.c))
FUZZ   = $(patsubst %.c,$O/%,$(wildcard tests/fuzz/*_fuzz.c))
MAN    = $(wildcard man/*.[1-8])

all: $O/ringfs

deps:
	@.ci/deps

$O/ringfs: $O/fs/main.o $(LIB)
	$(LINK) -o $@ $^ $(LIBS)
$(LIB): $(filter-out $O/fs/main.o,$(OBJ))
	rm -f $@ && $(AR) rcs $@ $^
# Tools and benchmarks stand alone; unit tests and fuzz targets link the parts.
$(TOOL) $(BENCH): %: %.o
	$(LINK) -o $@ $^ $(LIBS)
$(SIM): $(SIMOBJ) $(LIB)
	$(LINK) $(SIMWRAP:%=-Wl,--wrap=%) -o $@ $^ $(LIBS)
# Loaded into a daemon by LD_PRELOAD; never with sanitizers of its own.
$(SHIM): $O/%.so: %.c Makefile
	@mkdir -p $(@D)
	$(CC) -std=c11 $(WARN) -D_GNU_SOURCE $(CFLAGS) -fPIC -shared -o $@ $<
$(UNIT): %: %.o $(LIB)
	$(LINK) -o $@ $^ $(LIBS)
$(FUZZ): %: %.o $(LIB)
	$(LINK) -fsanitize=fuzzer -o $@ $^ $(LIBS)
$O/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(XCFLAGS) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<
.PRECIOUS: $O/%.o
-include $(OBJ:.o=.d) $(SIMOBJ:.o=.d) $(UNIT:=.d) $(TOOL:=.d) $(BENCH:=.d) $(FUZZ:=.d)

unit: $(UNIT)
tools: $(TOOL) $(SHIM) $(SIM)
benches: $(BENCH)
fuzzers: $(FUZZ)

# The whole proof; ends with one line "N passed, N failed".
check:
	@.ci/deps test
	@tests/run.bash
lint:
	@tests/lint.bash
layers:
	@tests/layers.bash
# SECONDS of random input for each decoder.
fuzz:
	@tests/fuzz.bash $(or $(SECONDS),60)
# Crashes under load, ROUNDS of them; membership's figures; twenty clusters,
# from SEED on, that are broken for three minutes each; thousands of runs of
# whole nodes in virtual time; an hour of random input for each decoder.
soak: all tools
	@ROUNDS=$(or $(ROUNDS),1000) BATS_TEST_TIMEOUT=86400 bats tests/kill.bats
	@ROUNDS=10 tests/bench/swim.bash
	@for seed in $$(seq $(or $(SEED),1) $$(($(or $(SEED),1) + 19))); do \
		tests/chaos.bash $$seed 180 || exit; done
	@$(SIM) nodes 1-$(or $(SEEDS),5000)
	@tests/fuzz.bash 3600
bench: all benches tools
	@tests/bench/run.bash
	@tests/bench/swim.bash
	@tests/bench/net.bash 3 10
	@tests/bench/cluster.bash
demo:
	@.ci/deps
	@$(MAKE) -s all
	@tests/demo.sh

install: all
	install -D -m 755 $O/ringfs $(DESTDIR)$(bindir)/ringfs
	install -d $(DESTDIR)$(sbindir)
	ln -sf $(bindir)/ringfs $(DESTDIR)$(sbindir)/mount.ringfs
	for m in $(MAN); do install -D -m 644 $$m \
		$(DESTDIR)$(mandir)/man$${m##*.}/$${m##*/} || exit; done
	install -D -m 644 fs/ringfs.bash-completion $(DESTDIR)$(COMPLETION)
uninstall:
	rm -f $(DESTDIR)$(bindir)/ringfs $(DESTDIR)$(sbindir)/mount.ringfs \
		$(DESTDIR)$(COMPLETION)
	for m in $(MAN); do \
		rm -f $(DESTDIR)$(mandir)/man$${m##*.}/$${m##*/}; done
clean:
	rm -rf build
.PHONY: all deps unit tools benches fuzzers check lint layers fuzz soak bench \
	demo install uninstall clean
