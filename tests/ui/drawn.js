// Notes each text that a canvas draws, where it is, and the part of the canvas that is drawn on at that moment.
(() => {
  const proto = CanvasRenderingContext2D.prototype;
  const paths = new WeakMap(), clips = new WeakMap(), kept = new WeakMap();
  window.drawn = [];
  const point = (context, x, y) => {
    const m = context.getTransform();
    return [m.a * x + m.c * y + m.e, m.b * x + m.d * y + m.f];
  };
  const before = (name, note) => {
    const original = proto[name];
    proto[name] = function (...args) {
      note(this, args);
      return original.apply(this, args);
    };
  };
  before("beginPath", (context) => paths.delete(context));
  before("rect", (context, [x, y, width, height]) =>
    paths.set(context, [...point(context, x, y), ...point(context, x + width, y + height)]));
  before("clip", (context) => {
    const path = paths.get(context), old = clips.get(context);
    if (!path) return;
    clips.set(context, old ? [Math.max(old[0], path[0]), 0, Math.min(old[2], path[2]), 0] : path);
  });
  before("save", (context) => kept.set(context, [...(kept.get(context) || []), clips.get(context)]));
  before("restore", (context) => {
    const stack = kept.get(context) || [];
    if (stack.length) clips.set(context, stack.pop());
  });
  before("fillText", (context, [text, x, y]) => {
    const width = context.measureText(text).width;
    const shift = { right: width, end: width, center: width / 2 }[context.textAlign] || 0;
    const left = point(context, x - shift, y)[0], right = point(context, x - shift + width, y)[0];
    const clip = clips.get(context);
    window.drawn.push({ text, isCut: Boolean(clip) && (left < clip[0] - 0.5 || right > clip[2] + 0.5) });
  });
})();
