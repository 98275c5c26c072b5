"use strict";
// Appended to a report by the test: uses the page as a reader would, and writes what it saw where `--dump-dom` finds it.
(() => {
  const frame = () => draw();
  const text = (id) => document.getElementById(id).textContent;
  const rows = () => [...document.querySelectorAll("#states tbody tr")].map((row) => row.textContent);
  const key = (name) => document.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true }));
  const box = (name) => document.querySelector(`#filters input[name=${name}]`);
  const seen = { violation: !document.getElementById("violation").hidden, check: text("check"), what: text("what") };
  seen.afterStart = { now, view: { ...view } };

  document.getElementById("fit").click();
  frame();
  seen.lanes = counts.lanes;
  seen.rows = rows().length;
  seen.operations = counts.operations;
  seen.points = counts.points;
  seen.messages = counts.messages;
  seen.faults = counts.faults;
  seen.disk = counts.disk;
  const covers = (one, other) => one.left < other.right && other.left < one.right && Math.abs(one.middle - other.middle) < 9;
  seen.covered = [];
  const lookAtLabels = () => {
    labels.forEach((one, at) => labels.slice(at + 1).filter((other) => covers(one, other)).forEach((other) => seen.covered.push(`${one.text} / ${other.text}`)));
  };
  seen.labels = labels.length;
  lookAtLabels();
  box("heartbeats").click();
  frame();
  seen.withHeartbeats = counts.messages;
  box("appends").click();
  frame();
  seen.withoutAppends = counts.messages;
  box("appends").click();
  box("heartbeats").click();
  frame();
  seen.again = counts.messages;
  box("faults").click();
  frame();
  seen.withoutFaults = counts.faults;
  box("faults").click();

  // The scrubber moves, and the states follow.
  const scrubber = document.getElementById("scrubber");
  const states = [];
  for (let part = 0; part <= 10; part++) {
    scrubber.value = (Number(scrubber.max) * part) / 10;
    scrubber.dispatchEvent(new Event("input", { bubbles: true }));
    states.push(rows().join("|"));
  }
  seen.states = states;
  seen.clock = text("clock");

  // Keys step and zoom.
  key("Home");
  const home = now;
  key("ArrowRight");
  seen.stepped = now > home;
  key("+");
  key("+");
  frame();
  lookAtLabels();
  seen.zoomed = (view.to - view.from) / total;
  key("0");
  frame();

  // Whatever can be hovered over can be described, and what is clicked on stays.
  seen.described = shapes.every((shape) => described(shape.item).length > 0);
  const first = shapes.find((shape) => shape.item.type === "operation");
  if (first) {
    const bounds = canvas.getBoundingClientRect();
    const at = { clientX: bounds.left + first.left + 1, clientY: bounds.top + first.top + 4, pointerId: 1, bubbles: true };
    canvas.setPointerCapture = () => {};
    canvas.dispatchEvent(new PointerEvent("pointerdown", at));
    canvas.dispatchEvent(new PointerEvent("pointerup", at));
  }
  seen.details = text("details");
  seen.commands = text("commands");
  // Nothing that the run said became part of the page.
  seen.planted = document.querySelectorAll("[data-planted]").length;
  seen.overflow = document.documentElement.scrollWidth > window.innerWidth;
  seen.errors = window.probeErrors;
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = "PROBE" + encodeURIComponent(JSON.stringify(seen)) + "END";
  document.body.append(out);
})();
