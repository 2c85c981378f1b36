// Asks before the tab is left with text that is not saved. The server knows what was sent; what is being typed in a field
// is sent when the field loses the focus, which happens here before the question.
const state = (window.psttLeaveWarning ??= { unsaved: false, typing: false });

if (!state.installed) {
  state.installed = true;
  document.addEventListener("input", (event) => {
    if (event.target.closest?.("textarea, input[type=text], [contenteditable]")) state.typing = true;
  });
  window.addEventListener("beforeunload", (event) => {
    if (!state.mounted) return;
    document.activeElement?.blur?.();
    if (state.unsaved || state.typing) event.preventDefault();
  });
}

export default function ({ data }) {
  state.mounted = true;
  state.unsaved = data.unsaved;
  state.typing = false;
  return () => {
    state.mounted = false;
  };
}
