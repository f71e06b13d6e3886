#!/bin/sh
# Writes C that holds the given files (*.sql, *.lua, and what schema/openapi.py makes) as core/store/embed.h declares them,
# each table sorted by file name.
# Bytes and not string literals: ISO C promises no literal longer than 4095 characters. Each text ends with a NUL that
# its size does not count.
set -eu
export LC_ALL=C

sorted() {
    for file in "$@"; do
        for suffix in $suffixes; do
            case $file in *"$suffix") echo "${file##*/} $file" ;; esac
        done
    done | sort
}

number=0
table() {
    variable=$1
    count=$2
    suffixes=$3
    shift 3
    rows=
    total=0
    while read -r name file; do
        [ -n "$file" ] || continue
        echo "static const unsigned char text_$number[] = {"
        od -An -v -tx1 "$file" | sed 's/ \(..\)/0x\1,/g'
        echo '0x00};'
        rows="$rows    {\"$name\", (const char *)text_$number, sizeof(text_$number) - 1},
"
        number=$((number + 1))
        total=$((total + 1))
    done <<LIST
$(sorted "$@")
LIST
    # ISO C has no empty arrays: one row more than counted
    printf 'const struct embedded_file %s[] = {\n%s    {0, 0, 0},\n};\n' "$variable" "$rows"
    printf 'const size_t %s = %s;\n\n' "$count" "$total"
}

echo '#include "core/store/embed.h"'
echo
table embedded_migrations embedded_migration_count .sql "$@"
table embedded_scripts embedded_script_count .lua "$@"
table embedded_documents embedded_document_count '.csp .html .json' "$@"
