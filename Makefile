# Wakegate's build.
#
#   make run [ARGS=...]     install what is missing, build, run the gateway here (`wakegate up`)
#   make test               everything: lint, unit, fuzz, e2e, fault; ends with "N passed, N failed"
#   make unit [T=core/base/str]               unit tests, all or those of one file or folder
#   make e2e  [T=test_session.py::test_name]  end-to-end tests against the real binary, all or some
#   make fault [T=...]      tests that break something on purpose, as e2e
#   make fuzz [T=http1] [SECONDS=10]          fuzz all of test/fuzz or one, for so long each; needs clang
#   make fuzz-replay [T=http1]                run their corpora alone
#   make lint               layout (clang-format), include directions, headers that compile alone
#   make format             lay out all C files in place
#   make bench              measure the release build (bench/run.py)
#   make bench ARGS="--quick tls proxy websocket slow fetch"   only these parts of it, in short
#   make conformance [ARGS="tls oauth browser"]      suites of others against the release build, all or some
#   make all                build/$(BUILD)/wakegate and compile_commands.json
#   make install-deps       Debian packages for building, running and testing
#   make clean | distclean  remove build/ but for build/deps | all of it
#
#   BUILD=debug|release|asan|tsan   default release; asan for test, unit, e2e and fault
#   V=1                             show the commands
#   LTO=                            release without link-time optimization
#   O=DIR                           build into DIR/$(BUILD) in place of build/$(BUILD)
#   SRC_DIRS="core/base proto"      build only these folders, for a unit test of one of them while others are broken

VERSION := 0.1.0
O := build
ARGS :=
T :=
V :=
LTO := 1
PYTHON := /usr/bin/python3
JOBS := $(shell nproc)

ifeq ($(origin BUILD),undefined)
BUILD := $(if $(filter test unit e2e fault,$(MAKECMDGOALS)),asan,release)
endif
ifeq ($(filter debug release asan tsan,$(BUILD)),)
$(error BUILD is debug, release, asan or tsan, not '$(BUILD)')
endif

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory $(if $(V),,--silent)
OUT := $(O)/$(BUILD)
DEPS := build/deps

# ---- what there is ----

SRC_DIRS := core proto handlers workers
find_c = $(sort $(shell find $(1) -name '*.c' 2>/dev/null))
SOURCES := $(filter-out core/main.c,$(call find_c,$(SRC_DIRS)))
LIB_OBJECTS := $(SOURCES:%.c=$(OUT)/obj/%.o) $(OUT)/obj/schema_embed.o
LIB := $(OUT)/libwakegate.a
MAIN_OBJECT := $(OUT)/obj/core/main.o
PROGRAM := $(OUT)/wakegate

UNIT_FILES := $(call find_c,test/unit)
UNIT_SOURCES := $(filter %_test.c,$(UNIT_FILES))
UNIT_PROGRAMS := $(UNIT_SOURCES:test/unit/%.c=$(OUT)/test/%)
# Files below test/unit that are not tests themselves are helpers, linked to every test that asks for them.
HELPER_OBJECTS := $(patsubst %.c,$(OUT)/obj/%.o,$(filter-out %_test.c,$(UNIT_FILES)))
HELPER_LIB := $(if $(HELPER_OBJECTS),$(OUT)/libtest.a)

MIGRATIONS := $(sort $(wildcard schema/*.sql))
SCRIPTS := $(sort $(wildcard schema/*.lua))
DOCUMENTS := $(addprefix $(OUT)/gen/,docs.csp docs.html openapi.json)

ALL_OBJECTS := $(LIB_OBJECTS) $(MAIN_OBJECT) $(HELPER_OBJECTS) $(UNIT_SOURCES:%.c=$(OUT)/obj/%.o) $(OUT)/obj/bench/fetches.o
FORMATTED = $(shell find core proto handlers workers test bench -name '*.[ch]' 2>/dev/null | sort)

# ---- flags ----

CC := gcc
AR := gcc-ar
MULTIARCH := $(shell $(CC) -print-multiarch 2>/dev/null)
PACKAGES := libuv hiredis libpq libsodium libcurl zlib
# Third-party headers are not ours to warn about.
package_cflags := $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
package_libs := $(shell pkg-config --libs $(PACKAGES) 2>/dev/null)

# On Debian 12 some libraries are unpacked here by deploy/install-packages; elsewhere they are the system's.
ifneq ($(wildcard $(DEPS)/.stamp),)
deps_lib := $(DEPS)/usr/lib/$(MULTIARCH)
deps_cflags := -isystem $(DEPS)/usr/include
deps_ldflags := -L$(deps_lib)
endif
yyjson_libs := -lyyjson
ifneq ($(wildcard $(deps_lib)/libyyjson.so),)
ifneq ($(wildcard $(deps_lib)/libyyjson.a),)
yyjson_libs := -l:libyyjson.a
else
yyjson_libs := -lyyjson -Wl,-rpath,$(abspath $(deps_lib))
endif
endif

WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wwrite-strings -Wcast-qual -Wvla -Wundef -Wformat=2 -Werror

# Stack clash protection touches every page of a large frame in turn, so a fiber that overruns its small stack meets
# the guard page and cannot step over it.
CFLAGS_all := -g -fstack-clash-protection
CFLAGS_release := -O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE -fno-plt $(if $(LTO),-flto=auto)
LDFLAGS_release := -pie -Wl,-z,relro,-z,now
CFLAGS_debug := -Og -fno-omit-frame-pointer -DWAKEGATE_TEST_BUILD=1
CFLAGS_asan := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer \
	-DWAKEGATE_TEST_BUILD=1
LDFLAGS_asan := -fsanitize=address,undefined
# As shared libraries the two do not agree on log_path, which test/run_tests.py collects the program's reports with.
LDFLAGS_program_asan := -static-libasan -static-libubsan
CFLAGS_tsan := -O1 -fsanitize=thread -fno-omit-frame-pointer -DWAKEGATE_TEST_BUILD=1
LDFLAGS_tsan := -fsanitize=thread

CPPFLAGS := -std=c11 -D_GNU_SOURCE -DWAKEGATE_VERSION='"$(VERSION)"' -I. -I $(OUT)/gen $(deps_cflags) \
	$(patsubst -I%,-isystem %,$(package_cflags))
CFLAGS := $(CFLAGS_all) $(CFLAGS_$(BUILD)) $(WARNINGS)
LDFLAGS := $(LDFLAGS_$(BUILD)) $(deps_ldflags) -Wl,--as-needed
LDLIBS := -l:libllhttp.a -l:libmbedtls.a -l:libmbedx509.a -l:libmbedcrypto.a $(yyjson_libs) $(package_libs) -lwslay -l:libboost_context.a -lpthread -lm
TEST_LIBS = $(shell pkg-config --libs cmocka)

COMPILE = $(CC) $(CPPFLAGS) $(CFLAGS)

# ---- build ----

# Passes -j on to a make of our own, unless the caller has chosen how many jobs to run.
parallel = $(if $(filter -j% --jobserver%,$(MAKEFLAGS)),,-j$(JOBS))

.PHONY: all
all: need-packages
	@$(MAKE) $(parallel) BUILD=$(BUILD) program

# Does nothing more, so that a make with nothing to do says nothing.
.PHONY: program
program: $(PROGRAM) compile_commands.json
	@:

.PHONY: need-packages
need-packages:
	@command -v $(CC) >/dev/null && pkg-config --exists $(PACKAGES) 2>/dev/null && \
		[ -n '$(wildcard $(DEPS)/.stamp /usr/include/llhttp.h)' ] || \
		{ echo 'Packages are missing: make install-deps'; exit 1; }

$(PROGRAM): $(MAIN_OBJECT) $(LIB) $(OUT)/link.flags
	@echo '  LINK  $@'
	$(CC) $(CFLAGS) $(LDFLAGS) $(LDFLAGS_program_$(BUILD)) -o $@ $(MAIN_OBJECT) $(LIB) $(LDLIBS)

# Made anew, so that the object of a deleted source does not live on in it.
$(LIB): $(LIB_OBJECTS) $(OUT)/lib.list
	@echo '  AR    $@'
	rm -f $@ && $(AR) rcs $@ $(LIB_OBJECTS)

$(OUT)/libtest.a: $(HELPER_OBJECTS)
	rm -f $@ && $(AR) rcs $@ $(HELPER_OBJECTS)

quoted = '$(subst ','\'',$(1))'
escaped = $(subst ",\",$(subst \,\\,$(1)))
define compile
@echo '  CC    $<'
@mkdir -p $(@D)
$(COMPILE) -MMD -MP -c -o $@ $<
@printf '%s\n' $(call quoted,{"directory": "$(CURDIR)"$(comma) "file": "$<"$(comma) "output": "$@"$(comma) \
	"command": "$(call escaped,$(COMPILE)) -c -o $@ $<"}) >$(@:.o=.json)
endef
comma := ,

$(OUT)/obj/%.o: %.c $(OUT)/compile.flags
	$(compile)

$(OUT)/obj/schema_embed.o: $(OUT)/gen/schema_embed.c $(OUT)/compile.flags
	$(compile)

# Migrations, Redis scripts and the API's description are compiled into the binary: core/store/embed.h declares them.
$(OUT)/gen/schema_embed.c: schema/embed.sh $(MIGRATIONS) $(SCRIPTS) $(DOCUMENTS) $(OUT)/schema.list
	@echo '  EMBED $@'
	@mkdir -p $(@D)
	sh schema/embed.sh $(MIGRATIONS) $(SCRIPTS) $(DOCUMENTS) >$@

$(DOCUMENTS) &: schema/openapi.py schema/openapi.yaml
	@echo '  DOCS  $(@D)/openapi.json'
	@mkdir -p $(@D)
	$(PYTHON) -B schema/openapi.py schema/openapi.yaml $(@D)

# Files whose text is what the build depends on beside files: they change only when that text does.
define remember
@mkdir -p $(@D)
@printf '%s\n' $(call quoted,$(1)) | cmp -s - $@ || printf '%s\n' $(call quoted,$(1)) >$@
endef
$(OUT)/compile.flags: FORCE
	$(call remember,$(COMPILE))
$(OUT)/link.flags: FORCE
	$(call remember,$(LDFLAGS) $(LDFLAGS_program_$(BUILD)) $(LDLIBS))
$(OUT)/lib.list: FORCE
	$(call remember,$(LIB_OBJECTS))
$(OUT)/schema.list: FORCE
	$(call remember,$(MIGRATIONS) $(SCRIPTS))
.PHONY: FORCE
FORCE:

# One fragment per object, written beside it, joined here.
compile_commands.json: $(LIB_OBJECTS) $(MAIN_OBJECT)
	@{ echo '['; cat $(wildcard $(ALL_OBJECTS:.o=.json)) | sed '$$!s/$$/,/'; echo ']'; } >$@.$$$$ && mv $@.$$$$ $@

$(OUT)/test/%: $(OUT)/obj/test/unit/%.o $(LIB) $(HELPER_LIB) $(OUT)/link.flags
	@echo '  LINK  $@'
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(HELPER_LIB) $(LIB) $(TEST_LIBS) $(LDLIBS)

# Measures what no other program can be asked to measure.
$(OUT)/bench/%: $(OUT)/obj/bench/%.o $(LIB) $(OUT)/link.flags
	@echo '  LINK  $@'
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< $(LIB) $(LDLIBS)

.PHONY: unit-programs
unit-programs: $(UNIT_PROGRAMS)
	@:

# ---- fuzz targets ----

# By clang, for its libFuzzer, from the rooms that hold parsers; warnings are gcc's business. clang does not say in
# gcc's way that it sanitizes.
SECONDS := 10
FUZZ := $(O)/fuzz
FUZZ_CC := clang
FUZZ_PROGRAMS := $(patsubst test/fuzz/%.c,$(FUZZ)/bin/%,$(filter-out %/support.c,$(call find_c,test/fuzz)))
FUZZ_LIB_OBJECTS := $(patsubst %.c,$(FUZZ)/obj/%.o,$(call find_c,core/base proto) test/fuzz/support.c)
FUZZ_COMPILE = $(FUZZ_CC) $(subst -I $(OUT)/gen,,$(CPPFLAGS)) -g -O1 -fno-omit-frame-pointer -w \
	-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all \
	-D__SANITIZE_ADDRESS__=1 -DWAKEGATE_TEST_BUILD=1

$(FUZZ)/compile.flags: FORCE
	echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' | \
		$(FUZZ_CC) -fsanitize=fuzzer,address,undefined -x c -o /dev/null - 2>/dev/null || \
		{ echo 'clang with libFuzzer is missing: apt-get install clang libclang-rt-dev'; exit 1; }
	$(call remember,$(FUZZ_COMPILE))

$(FUZZ)/obj/%.o: %.c $(FUZZ)/compile.flags
	@echo '  FUZZ  $<'
	@mkdir -p $(@D)
	$(FUZZ_COMPILE) -MMD -MP -c -o $@ $<

$(FUZZ)/lib.a: $(FUZZ_LIB_OBJECTS)
	rm -f $@ && $(AR) rcs $@ $(FUZZ_LIB_OBJECTS)

$(FUZZ_PROGRAMS): $(FUZZ)/bin/%: $(FUZZ)/obj/test/fuzz/%.o $(FUZZ)/lib.a
	@echo '  LINK  $@'
	@mkdir -p $(@D)
	$(FUZZ_CC) -fsanitize=fuzzer,address,undefined $(deps_ldflags) -Wl,--as-needed -o $@ $^ $(LDLIBS)

.PHONY: fuzz-programs
fuzz-programs: $(FUZZ_PROGRAMS)
	@:

.SECONDARY: $(FUZZ_LIB_OBJECTS) $(FUZZ_PROGRAMS:$(FUZZ)/bin/%=$(FUZZ)/obj/test/fuzz/%.o)
-include $(patsubst %.o,%.d,$(wildcard $(FUZZ_LIB_OBJECTS) $(FUZZ)/obj/test/fuzz/*.o))

.SECONDARY: $(ALL_OBJECTS)
-include $(wildcard $(ALL_OBJECTS:.o=.d))

# ---- run, test, measure ----

.PHONY: run
run:
	@sh deploy/install-packages run
	@$(MAKE) $(parallel) BUILD=$(BUILD) program
	@exec $(PROGRAM) up $(ARGS)

RUN_TESTS = $(PYTHON) -B test/run_tests.py --make '$(MAKE) $(parallel) BUILD=$(BUILD)' --out $(OUT)

.PHONY: test unit e2e fault
test:
	@sh deploy/install-packages test
	+@$(RUN_TESTS) lint unit fuzz e2e fault

unit e2e fault:
	@sh deploy/install-packages test
	+@$(RUN_TESTS) --only '$(T)' $@

.PHONY: fuzz fuzz-replay
fuzz:
	@sh deploy/install-packages test
	+@$(RUN_TESTS) --only '$(T)' --seconds '$(SECONDS)' fuzz

fuzz-replay:
	@sh deploy/install-packages test
	+@$(RUN_TESTS) --only '$(T)' --seconds 0 fuzz

.PHONY: lint
lint:
	@sh deploy/install-packages test
	@$(MAKE) -k BUILD=$(BUILD) check-format check-includes

.PHONY: check-format check-includes
check-format:
	$(if $(FORMATTED),clang-format --dry-run -Werror $(FORMATTED))

check-includes:
	$(PYTHON) -B test/lint/check_includes.py $(CC) $(CPPFLAGS) $(WARNINGS)

.PHONY: format
format:
	$(if $(FORMATTED),clang-format -i $(FORMATTED))

.PHONY: bench
bench:
	@sh deploy/install-packages bench
	@$(MAKE) $(parallel) BUILD=release $(O)/release/wakegate $(O)/release/bench/fetches
	@WAKEGATE_BIN=$(abspath $(O)/release/wakegate) $(PYTHON) -B bench/run.py $(ARGS)

# A suite whose packages can't be had is skipped, and says so.
.PHONY: conformance
conformance:
	@sh deploy/install-packages conformance || echo 'going on with what is installed'
	@$(MAKE) $(parallel) BUILD=release $(O)/release/wakegate
	@WAKEGATE_BIN=$(abspath $(O)/release/wakegate) WAKEGATE_CONFORMANCE_DIR=$(abspath $(O)/conformance) \
		$(PYTHON) -B test/conformance/run.py $(ARGS)

.PHONY: install-deps
install-deps:
	@sh deploy/install-packages test

.PHONY: clean distclean
clean:
	[ ! -d $(O) ] || find $(O) -mindepth 1 -maxdepth 1 ! -name deps -exec rm -rf {} +
	rm -f compile_commands.json

distclean:
	rm -rf $(O) compile_commands.json

.PHONY: help
help:
	@sed -n '1,/^[^#]/{/^#/s/^# \{0,1\}//p;}' Makefile
