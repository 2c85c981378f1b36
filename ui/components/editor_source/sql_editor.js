// The SQL editor of the page: CodeMirror 6 with the parameters of an SQL file (`define NAME=…`, `&NAME`).
// Built into ../editor/sql_editor.js by build.sh.
import { autocompletion, closeBrackets, closeBracketsKeymap, completionKeymap, snippetCompletion } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { MSSQL, MySQL, PLSQL, PostgreSQL, SQLite, StandardSQL, sql } from "@codemirror/lang-sql";
import { HighlightStyle, bracketMatching, syntaxHighlighting } from "@codemirror/language";
import { lintGutter, lintKeymap, setDiagnostics } from "@codemirror/lint";
import { highlightSelectionMatches, search, searchKeymap } from "@codemirror/search";
import { Compartment, EditorState } from "@codemirror/state";
import {
  Decoration, EditorView, MatchDecorator, ViewPlugin, drawSelection, highlightActiveLine, highlightActiveLineGutter,
  highlightSpecialChars, keymap, lineNumbers,
} from "@codemirror/view";
import { tags } from "@lezer/highlight";

const DIALECTS = { oracle: PLSQL, sqlserver: MSSQL, postgresql: PostgreSQL, mysql: MySQL, sqlite: SQLite };
const SENT_AFTER_MS = 600; // of a pause in typing
const DEFINE = /^[ \t]*def(?:i(?:ne?)?)?\s+(\w+)\s*=[^\n]*?(?:--\s*(.*))?$/gim;

// Both palettes have a contrast of at least 4.5 on the background of the page.
const PALETTES = {
  light: { keyword: "#0b5394", string: "#7a3e00", number: "#7b1fa2", comment: "#5f6b76", name: "#1f2933", parameter: "#9c1c5b" },
  dark: { keyword: "#82b7f5", string: "#f0b37e", number: "#d3a6f2", comment: "#9aa7b2", name: "#e4e9ee", parameter: "#ff9ecb" },
};

function isDark(element) {
  const channels = getComputedStyle(element.closest(".stApp") ?? document.body).backgroundColor.match(/[\d.]+/g) ?? [];
  const [red = 255, green = 255, blue = 255] = channels.map(Number);
  return 0.299 * red + 0.587 * green + 0.114 * blue < 128;
}

function look(dark, height) {
  const palette = PALETTES[dark ? "dark" : "light"];
  const quiet = "color-mix(in srgb, currentColor 8%, transparent)";
  return [
    EditorView.theme({
      "&": {
        height: `min(${height}px, 70vh)`, resize: "vertical", overflow: "hidden", fontSize: "14px",
        color: palette.name, backgroundColor: "var(--st-background-color)",
        border: "1px solid color-mix(in srgb, currentColor 45%, transparent)", borderRadius: "var(--st-base-radius, 8px)",
      },
      "&.cm-focused": { outline: "2px solid var(--st-primary-color)", outlineOffset: "1px" },
      ".cm-scroller": { fontFamily: "var(--st-code-font, monospace)", lineHeight: "1.5" },
      ".cm-content": { caretColor: palette.name },
      ".cm-cursor": { borderLeftColor: palette.name },
      ".cm-gutters": { color: palette.comment, backgroundColor: "transparent", border: "none" },
      ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: quiet },
      ".cm-parameter, .cm-parameter *": { color: palette.parameter, fontWeight: "600" },
      ".cm-tooltip, .cm-panels": {
        color: palette.name, backgroundColor: "var(--st-secondary-background-color)",
        border: "1px solid color-mix(in srgb, currentColor 30%, transparent)",
      },
      ".cm-tooltip-autocomplete ul li[aria-selected]": { color: "#fff", backgroundColor: "#0b5394" },
      ".cm-panels input, .cm-panels button": { color: "inherit", background: "var(--st-background-color)" },
    }, { dark }),
    syntaxHighlighting(HighlightStyle.define([
      { tag: tags.keyword, color: palette.keyword, fontWeight: "600" },
      { tag: [tags.typeName, tags.standard(tags.name)], color: palette.keyword },
      { tag: [tags.string, tags.special(tags.string)], color: palette.string },
      { tag: [tags.number, tags.bool, tags.null], color: palette.number },
      { tag: tags.comment, color: palette.comment, fontStyle: "italic" },
    ])),
  ];
}

const parameters = (() => {
  const matcher = new MatchDecorator({ regexp: /&&?\w+\.?/g, decoration: Decoration.mark({ class: "cm-parameter" }) });
  return ViewPlugin.fromClass(class {
    constructor(view) { this.decorations = matcher.createDeco(view); }
    update(update) { this.decorations = matcher.updateDeco(update, this.decorations); }
  }, { decorations: (plugin) => plugin.decorations });
})();

function defined(text) {
  return [...text.matchAll(DEFINE)].map(([, name, about]) => ({ name, about: (about ?? "").trim() }));
}

function completeParameters(words) {
  return (context) => {
    const before = context.matchBefore(/&&?\w*/);
    if (before) {
      const options = defined(context.state.doc.toString()).map(({ name, about }) => ({
        label: `&${name}`, type: "variable", detail: about || words["parameter of this file"], boost: 99,
      }));
      return { from: before.from, options, validFor: /^&&?\w*$/ };
    }
    const line = context.matchBefore(/^\s*de?f?i?n?e?/i);
    if (!line?.text.trim()) return null;
    const define = "define ${NAME}='${value}'  --Obbligatorio: ${text}";
    return { from: line.from, options: [snippetCompletion(define, { label: "define", detail: words["a new parameter"] })] };
  };
}

function diagnostics(state, marks) {
  return marks.map(({ line, column, text }) => {
    const row = state.doc.line(Math.min(Math.max(line, 1), state.doc.lines));
    const from = Math.min(row.from + Math.max(column - 1, 0), row.to);
    const word = /^[\w&]+/.exec(state.sliceDoc(from, row.to));
    const to = Math.min(from + (word ? word[0].length : 1), row.to);
    return { from: to > from ? from : row.from, to: to > from ? to : row.to, severity: "error", message: text };
  });
}

export function mount(component) {
  const { parentElement, setStateValue } = component;
  let data = component.data;
  let editor = parentElement.psttEditor;
  if (!editor) {
    editor = parentElement.psttEditor = create(parentElement, data);
  }
  editor.send = (text) => setStateValue("text", text);
  editor.update(data);
  return () => {
    // Streamlit calls this also before it mounts the element anew with other data: only one that has gone is destroyed.
    setTimeout(() => { if (!parentElement.isConnected) editor.destroy(); });
  };
}

function create(parent, data) {
  const looks = new Compartment(), access = new Compartment();
  const place = document.createElement("div");
  parent.append(place);
  const completion = [{ autocomplete: completeParameters(data.words) }]; // one function: CodeMirror compares it
  let timer, dark = isDark(parent);
  const editor = { sent: data.text };
  const flush = () => {
    clearTimeout(timer);
    const text = view.state.doc.toString();
    if (text !== editor.sent) {
      editor.sent = text;
      editor.send(text);
    }
  };
  const view = new EditorView({
    parent: place,
    state: EditorState.create({
      doc: data.text,
      extensions: [
        EditorState.phrases.of(data.words),
        lineNumbers(), highlightActiveLineGutter(), highlightSpecialChars(), history(), drawSelection(), bracketMatching(),
        closeBrackets(), highlightActiveLine(), highlightSelectionMatches(), search({ top: true }), lintGutter(), parameters,
        sql({ dialect: DIALECTS[data.dialect] ?? StandardSQL, upperCaseKeywords: true }),
        EditorState.languageData.of(() => completion),
        autocompletion({ icons: false }),
        // Tab is not bound: it leaves the editor, as everywhere on the page.
        keymap.of([...closeBracketsKeymap, ...defaultKeymap, ...searchKeymap, ...historyKeymap, ...completionKeymap, ...lintKeymap]),
        EditorView.contentAttributes.of({ "aria-label": data.label }),
        EditorView.lineWrapping,
        looks.of(look(dark, data.height)),
        access.of(EditorState.readOnly.of(data.disabled)),
        EditorView.updateListener.of((update) => {
          if (!update.docChanged) return;
          clearTimeout(timer);
          timer = setTimeout(flush, SENT_AFTER_MS);
        }),
        EditorView.domEventHandlers({ blur: flush }),
      ],
    }),
  });
  const themed = new MutationObserver(() => {
    if (isDark(parent) === dark) return;
    dark = !dark;
    view.dispatch({ effects: looks.reconfigure(look(dark, data.height)) });
  });
  themed.observe(document.documentElement, { attributes: true, subtree: true, attributeFilter: ["class", "style", "data-theme"] });
  editor.update = (now) => {
    view.dispatch({ effects: access.reconfigure(EditorState.readOnly.of(now.disabled)) });
    view.dispatch(setDiagnostics(view.state, diagnostics(view.state, now.marks)));
  };
  editor.destroy = () => {
    clearTimeout(timer);
    themed.disconnect();
    view.destroy();
  };
  return editor;
}
