// The grid of the calendar: a role=grid with days across and jobs down. It asks Python for three things: a day, a range
// of days of one job, a job. All texts come from Python in the language of the session; data is only set as text.

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], PageUp: [-10, 0], PageDown: [10, 0] };
const MOST_BARS = 6; // more attempts of one day are one bar, in the shares of their colours
const EDGE = 40; // pixels from an edge within which drawing scrolls
const HOLD_MS = 450; // a finger that rests so long begins to draw; one that moves before scrolls
const STILL = 10; // pixels that a resting finger may move
const grids = new WeakMap();

export default function ({ data, parentElement, setTriggerValue }) {
  let grid = grids.get(parentElement);
  if (!grid) grids.set(parentElement, (grid = new Grid(parentElement)));
  grid.ask = (asked) => setTriggerValue("asked", asked);
  grid.draw(data);
}

function make(tag, className, text, attributes = {}) {
  const element = document.createElement(tag);
  element.className = className;
  if (text) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

class Grid {
  constructor(parent) {
    this.parent = parent;
    this.at = null; // [row, column]; column -1 is the name of the job
    this.mark = null; // {row, from, to}
    this.marked_row = undefined; // the row that is painted as chosen
    this.is_new = false; // a range that was marked here, and that Python does not know yet
    this.drag = null; // {row, from, x, start, by_touch}: while a range is drawn
    this.later = null; // what came from Python meanwhile
  }

  find(className) {
    return this.parent.querySelector(`.${className}`);
  }

  draw(data) {
    if (this.drag) {
      this.later = data; // the cell under a finger has to stay, or the browser ends the gesture
      return;
    }
    const frame = this.find("frame");
    const had_focus = frame.contains(this.parent.activeElement ?? document.activeElement);
    const scrolled = this.data ? [frame.scrollLeft, frame.scrollTop] : null;
    this.data = data;
    this.frame = frame;
    this.numbers = new Intl.NumberFormat(data.language, { useGrouping: "always" });
    if (!this.is_new) this.mark = this.chosen();
    this.marked_row = this.mark?.row; // its cells are painted when they are filled
    this.set_theme();
    this.fill_frame();
    this.listen();
    this.legend();
    if (scrolled) [frame.scrollLeft, frame.scrollTop] = scrolled;
    else this.show_start();
    this.at = this.place(this.at ?? this.start());
    this.make_reachable(had_focus);
  }

  chosen() {
    const { job, first, last } = this.data.chosen ?? {};
    const row = this.data.jobs.findIndex((one) => one.slug === job);
    const [from, to] = [first, last].map((day) => this.data.days.findIndex((one) => one.day === day));
    return row < 0 || from < 0 || to < 0 ? null : { row, from, to };
  }

  start() {
    return this.mark ? [this.mark.row, this.mark.to] : [0, this.data.days.length - 1];
  }

  place([row, column]) {
    const within = (value, low, high) => Math.min(Math.max(value, low), high);
    return [within(row, 0, this.data.jobs.length - 1), within(column, -1, this.data.days.length - 1)];
  }

  set_theme() {
    const colour = getComputedStyle(this.frame).backgroundColor.match(/[\d.]+/g) ?? [255, 255, 255];
    this.frame.classList.toggle("dark", colour.slice(0, 3).reduce((sum, part) => sum + Number(part), 0) < 384);
    this.find("legend").className = `legend${this.frame.classList.contains("dark") ? " dark" : ""}`;
  }

  fill_frame() {
    const { frame, data } = this;
    this.seen?.disconnect();
    this.seen = new IntersectionObserver(
      (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => this.fill(entry.target)),
      { root: frame, rootMargin: "400px" },
    );
    const attributes = {
      role: "grid", "aria-label": data.label, "aria-rowcount": data.jobs.length + 1,
      "aria-colcount": data.days.length + 1, "aria-multiselectable": "true",
    };
    for (const [name, value] of Object.entries(attributes)) frame.setAttribute(name, value);
    frame.style.setProperty("--days", data.days.length);
    this.rows = data.jobs.map((job, index) => this.row(job, index));
    frame.replaceChildren(this.head(), ...this.rows);
    this.rows.forEach((row) => this.seen.observe(row));
  }

  head() {
    const row = make("div", "row head", "", { role: "row", "aria-rowindex": 1 });
    row.append(make("div", "name", this.data.texts.job, { role: "columnheader", "aria-colindex": 1 }));
    this.data.days.forEach((day, index) => {
      const label = day.is_today ? `${day.text} (${this.data.texts.today})` : day.text;
      const found = make("div", `day${this.looks(day)}`, "", {
        role: "columnheader", "aria-colindex": index + 2, "aria-label": label, title: label,
      });
      if (day.month) found.append(make("span", "month", day.month, { "aria-hidden": "true" }));
      found.append(make("span", "date", day.date, { "aria-hidden": "true" }));
      row.append(found);
    });
    return row;
  }

  looks(day) {
    return `${day.is_weekend ? " weekend" : ""}${day.is_today ? " today" : ""}`;
  }

  row(job, index) {
    const row = make("div", "row body", "", { role: "row", "aria-rowindex": index + 2 });
    row.index = index;
    const name = make("div", "name", "", { role: "rowheader", "aria-colindex": 1, title: job.wrong ? `${job.name}: ${job.wrong}` : job.name });
    if (job.wrong) name.append(make("span", "wrong", "✘", { "aria-label": job.wrong, role: "img" }));
    name.append(make("a", "", job.name, { href: job.address, tabindex: "-1" }));
    row.append(name);
    return row;
  }

  // Rows are filled when they come near: hundreds of jobs are tens of thousands of cells.
  fill(row) {
    this.seen.unobserve(row);
    if (row.childElementCount > 1) return;
    const job = this.data.jobs[row.index];
    const longest = Math.max(...job.cells.flatMap((cell) => (cell ? cell[3].map((bar) => bar[1]) : [])), 0.001);
    row.append(...this.data.days.map((day, column) => this.cell(job, row.index, day, column, job.cells[column], longest)));
    this.paint(row.index);
  }

  cell(job, row, day, column, cell, longest) {
    const note = job.notes[day.day];
    const said = note ? ` · ${this.data.texts.note.replace("{text}", () => note)}` : "";
    const text = `${job.name} · ${day.text}: ${this.words(job, cell)}${said}`;
    const found = make("div", `cell${this.looks(day)}${note ? " noted" : ""}`, "", {
      role: "gridcell", tabindex: "-1", "aria-colindex": column + 2, "aria-label": text, "data-day": day.day,
    });
    found.place = [row, column];
    if (!cell) return found;
    const state = this.data.states[cell[0]];
    found.append(make("span", `sign ${state.colour}`, state.sign, { "aria-hidden": "true" }));
    found.append(this.bars(cell[3], longest, state));
    return found;
  }

  bars(attempts, longest, state) {
    if (!attempts.length) return make("span", `empty ${state.colour}`, "", { "aria-hidden": "true" });
    const many = attempts.length > MOST_BARS;
    const bars = make("span", many ? "bars stack" : "bars", "", { "aria-hidden": "true" });
    const parts = many ? shares(attempts) : attempts.map(([colour, seconds]) => [colour, (100 * seconds) / longest]);
    for (const [colour, height] of parts) {
      const bar = make("i", colour);
      bar.style.height = `${Math.max(height, many ? 4 : 12)}%`;
      bars.append(bar);
    }
    return bars;
  }

  words(job, cell) {
    const { states, texts } = this.data;
    if (!cell) return texts.nothing_due;
    const [state, done, rejected, attempts] = cell;
    const parts = [`${states[state].sign} ${states[state].word}`];
    if (attempts.length) parts.push((job.is_file ? texts.written : texts.acknowledged).replace("{count}", this.numbers.format(done)));
    if (rejected) parts.push(texts.rejected.replace("{count}", this.numbers.format(rejected)));
    const longest = duration(Math.max(0, ...attempts.map((one) => one[1])), this.numbers);
    if (attempts.length === 1) parts.push(longest);
    if (attempts.length > 1) parts.push(texts.attempts.replace("{count}", this.numbers.format(attempts.length)).replace("{time}", longest));
    return parts.join(" · ");
  }

  legend() {
    const used = new Set(this.data.jobs.flatMap((job) => job.cells.map((cell) => (cell ? cell[0] : -1))));
    const found = this.data.states.flatMap((state, index) => {
      if (!used.has(index)) return [];
      const one = make("span", "");
      one.append(make("b", state.colour, state.sign), state.word);
      return [one];
    });
    if (this.data.jobs.some((job) => Object.keys(job.notes).length)) {
      const noted = make("span", "");
      noted.append(make("i", "corner"), this.data.texts.noted);
      found.push(noted);
    }
    this.find("legend").replaceChildren(...found, make("span", "", this.data.texts.height));
  }

  show_start() {
    this.frame.scrollLeft = this.mark ? 0 : this.frame.scrollWidth;
    if (!this.mark) return;
    const row = this.rows[this.mark.row];
    this.fill(row);
    const cell = row.children[this.mark.to + 1];
    this.frame.scrollLeft = cell.offsetLeft - this.frame.clientWidth / 2;
    this.frame.scrollTop = Math.max(row.offsetTop - this.frame.clientHeight / 2, 0);
  }

  // ── what the user does ──

  listen() {
    const { frame } = this;
    if (frame.is_listening) return;
    frame.is_listening = true;
    const cell_of = (event) => event.target.closest?.(".cell");
    frame.addEventListener("click", (event) => this.clicked(event, cell_of(event)));
    frame.addEventListener("pointerdown", (event) => {
      const cell = cell_of(event);
      if (!cell || event.button !== 0 || event.shiftKey) return;
      if (event.pointerType === "mouse") this.begin(cell.place, event.clientX, false);
      else this.hold(cell.place, event);
    });
    frame.addEventListener("pointerover", (event) => this.say(cell_of(event)));
    // Without `passive: false` the browser would scroll while a finger draws.
    frame.addEventListener("touchmove", (event) => this.drag && event.preventDefault(), { passive: false });
    frame.addEventListener("contextmenu", (event) => this.drag?.by_touch && event.preventDefault());
    frame.addEventListener("focusin", (event) => this.say(cell_of(event)));
    frame.addEventListener("keydown", (event) => this.pressed(event));
    frame.addEventListener("keyup", (event) => {
      if (event.key === "Shift" && this.by_keys) this.send_range();
      if (event.key === "Shift") this.by_keys = false;
    });
  }

  // A finger scrolls, as everywhere; only after it has rested on a day it draws.
  hold(place, event) {
    const { clientX, clientY } = event;
    const ends = new AbortController();
    const stop = () => {
      clearTimeout(timer);
      ends.abort();
    };
    const timer = setTimeout(() => {
      stop();
      navigator.vibrate?.(20);
      this.begin(place, clientX, true);
      this.marked(place[0], place[1], place[1]);
    }, HOLD_MS);
    const given = { signal: ends.signal };
    window.addEventListener("pointermove", (moved) => Math.hypot(moved.clientX - clientX, moved.clientY - clientY) > STILL && stop(), given);
    window.addEventListener("pointerup", stop, given);
    window.addEventListener("pointercancel", stop, given);
  }

  begin([row, from], x, by_touch) {
    const ends = new AbortController();
    const given = { signal: ends.signal }; // on the window: also outside of the grid
    this.drag = { row, from, x, start: x, by_touch };
    const end = () => {
      ends.abort();
      this.dropped();
    };
    window.addEventListener("pointermove", (event) => this.drawn(event, end), given);
    window.addEventListener("pointerup", end, given);
    window.addEventListener("pointercancel", end, given);
    requestAnimationFrame(() => this.scroll_at_edge());
  }

  drawn(event, end) {
    if (!this.drag.by_touch && !(event.buttons & 1)) return end(); // the button was released outside of the window
    this.drag.x = event.clientX;
    this.extend();
  }

  extend() {
    const { row, from, x } = this.drag;
    const to = this.column_at(x);
    if (to !== from || this.is_new) this.marked(row, from, to);
  }

  // The column at a place of the screen, of those that can be seen.
  column_at(x) {
    const { left, right } = this.days_box();
    const first = this.rows[this.drag.row].children[1].getBoundingClientRect();
    const within = Math.min(Math.max(x, left + 1), right - 1);
    return Math.max(this.place([0, Math.floor((within - first.left) / first.width)])[1], 0);
  }

  days_box() {
    const { left, width } = this.rows[this.drag.row].firstChild.getBoundingClientRect();
    const frame = this.frame.getBoundingClientRect();
    return { left: left + width, right: frame.left + this.frame.clientWidth };
  }

  scroll_at_edge() {
    if (!this.drag) return;
    const { left, right } = this.days_box();
    const past = this.drag.x > right - EDGE ? this.drag.x - right + EDGE : Math.min(this.drag.x - left - EDGE, 0);
    const before = this.frame.scrollLeft;
    const is_moved = Math.abs(this.drag.x - this.drag.start) > STILL;
    if (this.is_new && is_moved && past) this.frame.scrollLeft += Math.sign(past) * Math.min(3 + Math.abs(past) / 4, 18);
    if (this.frame.scrollLeft !== before) this.extend();
    requestAnimationFrame(() => this.scroll_at_edge());
  }

  say(cell) {
    if (cell) this.find("said").textContent = cell.getAttribute("aria-label");
  }

  clicked(event, cell) {
    const name = event.target.closest?.("a");
    if (name && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      this.ask({ what: "job", job: this.data.jobs[name.closest(".row").index].slug });
    }
    if (!cell) return;
    if (event.shiftKey && this.at && this.at[1] >= 0) {
      this.marked(this.at[0], this.at[1], cell.place[1]);
      this.send_range();
      return;
    }
    this.go(cell.place);
    this.open();
  }

  dropped() {
    const { row, from, by_touch } = this.drag;
    this.drag = null;
    if (this.later) {
      this.draw(this.later);
      this.later = null;
    }
    if (!this.is_new) return;
    if (this.is_range()) {
      this.send_range();
      return;
    }
    this.is_new = false;
    this.mark = this.chosen();
    this.paint_all();
    if (!by_touch) return; // of a mouse a click follows
    this.go([row, from]);
    this.open();
  }

  pressed(event) {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      if (this.at[1] < 0) this.ask({ what: "job", job: this.data.jobs[this.at[0]].slug });
      else if (this.is_range() && this.is_new) this.send_range();
      else this.open();
    } else if (event.key === "Escape" && this.is_new) {
      this.is_new = false;
      this.mark = this.chosen();
      this.paint_all();
    } else this.moved(event);
  }

  moved(event) {
    const [row, column] = this.at;
    const last = this.data.days.length - 1;
    const ends = { Home: [0, -1 - column], End: [0, last - column] };
    const step = STEPS[event.key] ?? ends[event.key];
    if (!step) return;
    event.preventDefault();
    if (event.shiftKey) {
      if (step[0] || column < 0) return;
      const to = Math.max(this.place([row, column + step[1]])[1], 0);
      const from = this.by_keys && this.mark ? this.anchor : (this.anchor = column);
      this.by_keys = true;
      this.go([row, to], true);
      this.marked(row, from, to);
    } else this.go([row + step[0], column + step[1]]);
  }

  go(place) {
    this.at = this.place(place);
    this.make_reachable(true);
  }

  make_reachable(focus) {
    this.reachable?.setAttribute("tabindex", "-1");
    const row = this.rows[this.at[0]];
    if (!row) return;
    this.fill(row);
    const found = this.at[1] < 0 ? row.querySelector("a") : row.children[this.at[1] + 1];
    found.setAttribute("tabindex", "0");
    this.reachable = found;
    if (!focus) return;
    found.focus({ preventScroll: true });
    found.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  marked(row, from, to) {
    this.mark = { row, from: Math.min(from, to), to: Math.max(from, to) };
    this.is_new = true;
    this.paint_all();
    const { days, texts } = this.data;
    const count = this.mark.to - this.mark.from + 1;
    if (count === 1) return this.say(this.rows[row].children[from + 1]);
    const text = texts.marked.replace("{count}", this.numbers.format(count));
    this.find("said").textContent = `${this.data.jobs[row].name} · ${days[this.mark.from].text} – ${days[this.mark.to].text}: ${text}`;
  }

  is_range() {
    return this.mark !== null && this.mark.to > this.mark.from;
  }

  open() {
    const [row, column] = this.at;
    this.mark = { row, from: column, to: column };
    this.is_new = false;
    this.paint_all();
    this.ask({ what: "day", job: this.data.jobs[row].slug, first: this.data.days[column].day, last: this.data.days[column].day });
  }

  send_range() {
    if (!this.mark) return;
    this.is_new = false;
    this.find("live").textContent = this.find("said").textContent;
    const { row, from, to } = this.mark;
    this.ask({ what: "range", job: this.data.jobs[row].slug, first: this.data.days[from].day, last: this.data.days[to].day });
  }

  // Only one row has chosen days: that of the mark, and before it that of the mark before.
  paint_all() {
    for (const index of new Set([this.marked_row, this.mark?.row])) if (this.rows[index]) this.paint(index);
    this.marked_row = this.mark?.row;
  }

  paint(index) {
    [...this.rows[index].children].slice(1).forEach((cell, column) => {
      const is_in = this.mark !== null && this.mark.row === index && this.mark.from <= column && column <= this.mark.to;
      cell.classList.toggle("chosen", is_in);
      cell.setAttribute("aria-selected", String(is_in));
    });
  }
}

function shares(attempts) {
  const counts = new Map();
  for (const [colour] of attempts) counts.set(colour, (counts.get(colour) ?? 0) + 1);
  const order = ["green", "blue", "grey", "amber", "red"]; // the worst on top
  return order.filter((colour) => counts.has(colour)).map((colour) => [colour, (100 * counts.get(colour)) / attempts.length]);
}

function duration(seconds, numbers) {
  if (seconds < 60) return `${numbers.format(seconds < 10 ? Math.round(seconds * 10) / 10 : Math.round(seconds))} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
