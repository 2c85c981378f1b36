// The attempts of one job, each a button as high as it took long. It asks Python for a run. Data is only set as text.

export default function ({ data, parentElement, setTriggerValue }) {
  const list = parentElement.querySelector(".bars");
  const said = parentElement.querySelector(".said");
  const colour = getComputedStyle(parentElement.querySelector(".sheet")).backgroundColor.match(/[\d.]+/g) ?? [255, 255, 255];
  const is_dark = colour.slice(0, 3).reduce((sum, part) => sum + Number(part), 0) < 384;
  parentElement.querySelector(".sheet").classList.toggle("dark", is_dark);
  const focused = [...list.querySelectorAll("button")].indexOf(parentElement.activeElement);
  list.setAttribute("aria-label", data.label);
  list.replaceChildren(...data.attempts.map((attempt) => bar(attempt, said, () => setTriggerValue("run", attempt.run_id))));
  parentElement.querySelector(".axis").replaceChildren(...data.steps.map(step));
  list.scrollLeft = list.scrollWidth;
  const buttons = list.querySelectorAll("button");
  if (focused >= 0 && buttons.length) buttons[Math.min(focused, buttons.length - 1)].focus({ preventScroll: true });
}

function bar(attempt, said, ask) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.className = attempt.is_of_day ? `${attempt.colour} of-day` : attempt.colour;
  button.setAttribute("aria-label", attempt.text);
  const sign = document.createElement("span");
  sign.textContent = attempt.sign;
  const body = document.createElement("i");
  body.style.height = `${Math.max(attempt.height, 3)}%`;
  button.append(sign, body);
  button.addEventListener("click", ask);
  for (const name of ["pointerenter", "focus"]) button.addEventListener(name, () => (said.textContent = attempt.text));
  item.append(button);
  return item;
}

function step({ text, height }) {
  const found = document.createElement("span");
  found.textContent = text;
  found.style.bottom = `${height}%`;
  return found;
}
