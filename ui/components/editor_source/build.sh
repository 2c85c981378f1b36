#!/bin/sh
# Builds ../editor/sql_editor.js; needs Node 20. The result is kept in git, so that an installation needs no Node.
set -eu
cd "$(dirname "$0")"
npm ci --ignore-scripts --no-audit --no-fund
npx esbuild sql_editor.js --bundle --format=esm --minify --target=es2022 --charset=utf8 --legal-comments=none \
  --banner:js="/* PSTT Kafka's SQL editor: CodeMirror 6, MIT licence, see LICENSE beside this file. Built by editor_source/build.sh. */" \
  --outfile=../editor/sql_editor.js
