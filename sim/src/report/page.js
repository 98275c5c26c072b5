"use strict";
// Draws the timeline of a run (mod.rs embeds it as JSON). Everything is drawn on canvas, and only what is in view; texts go into
// the page as text, never as HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const element = (id) => document.getElementById(id);
const total = Math.max(data.end, 1);
const SPAN_MIN = 50; // microseconds in view at the closest zoom
const LINES_MAX = 2500; // more messages in view than this are drawn as a density
const GUTTER = 76, AXIS = 20, NETWORK = 22, CLIENT = 20;

// ---------------------------------------------------------------- the timeline, as objects

const GROUPS = {
  votes: { label: "votes", color: ["#8a3ffc", "#be95ff"], on: true },
  appends: { label: "appends", color: ["#0b62c4", "#6cb0ff"], on: true },
  heartbeats: { label: "heartbeats", color: ["#8a949f", "#78828d"], on: false },
  snapshots: { label: "snapshots", color: ["#007d79", "#3ddbd9"], on: true },
  reads: { label: "reads", color: ["#b5377a", "#ff7eb6"], on: true },
  forwards: { label: "forwards", color: ["#8a5a00", "#e0b050"], on: true },
  damaged: { label: "lost or damaged", color: ["#c9211e", "#ff6b66"], on: true },
  faults: { label: "faults", color: ["#c05a00", "#ffa657"], on: true },
  disk: { label: "disk", color: ["#5b6b2f", "#a9c26a"], on: true },
  notes: { label: "marks", color: ["#444c56", "#adb6c0"], on: true },
};
const ROLES = {
  follower: ["#b9cbe0", "#37506e"],
  "pre-candidate": ["#f5dd9a", "#7d6a1c"],
  candidate: ["#f2a65e", "#a85b12"],
  leader: ["#63b77a", "#2d8548"],
};
const FATES = ["arrived", "a second copy", "altered on the way", "lost, or held back to the end", "damaged beyond reading"];
const group = (kind) =>
  /Vote|TimeoutNow/.test(kind) ? "votes"
  : /Snapshot/.test(kind) ? "snapshots"
  : /Read|Round/.test(kind) ? "reads"
  : /Forward/.test(kind) ? "forwards" : "appends";

const messages = data.messages.map(([at, arrives, from, to, kind, heartbeat, fate, text]) => ({
  type: "message", at, arrives, from, to, kind: data.kinds[kind], fate, text,
  group: heartbeat ? "heartbeats" : group(data.kinds[kind]), damaged: fate >= 2,
})).sort((a, b) => a.at - b.at);
let flightMax = 0;
for (const message of messages) flightMax = Math.max(flightMax, (message.arrives ?? message.at) - message.at);
const faults = data.faults.map(([at, until, slot, kind, text]) => ({ type: "fault", at, until, slot, kind, text }));
const disk = data.disk.map(([at, until, slot, kind, text]) => ({ type: "disk", at, until, slot, kind, text }));
const notes = data.notes.map(([at, slot, kind, text]) => ({ type: "note", at, slot, kind, text }));
const operations = data.operations.map(([client, slot, key, text, call, end, state, answer, point, position, suspect]) => ({
  type: "operation", client, slot, key, text, at: call, end, state, answer, point, position, suspect,
}));
const byClient = Array.from({ length: data.clients }, () => []);
for (const operation of operations) byClient[operation.client].push(operation);
for (const list of byClient) {
  list.forEach((operation, i) => {
    const next = list[i + 1] ? list[i + 1].at : total;
    operation.until = operation.end ?? Math.min(next, total, operation.at + data.timeout * 1.25);
  });
}
// What each machine was, from when until when.
const statuses = Array.from({ length: data.slots }, () => []);
for (const [at, slot, status] of data.statuses) {
  const [role, term, commit, applied, last] = status ?? [];
  statuses[slot].push({ type: "status", at, slot, role, term, commit, applied, last });
}
// Neighbours of the same role and term are one bar.
const bars = statuses.map((list) => {
  const merged = [];
  for (const status of list) {
    const before = merged[merged.length - 1];
    if (before && before.role === status.role && before.term === status.term) continue;
    if (before) before.until = status.at;
    merged.push({ ...status, until: total });
  }
  return merged;
});
const suspects = operations.filter((operation) => operation.suspect);

// ---------------------------------------------------------------- state of the page

const view = { from: 0, to: total };
let now = data.violation ? total : 0;
let playing = false;
let keyShown = suspects.length > 0 ? suspects[0].key : "";
let picked = null;
let shapes = []; // what is drawn, for the pointer
let labels = []; // what is written beside it
let counts = {};
let times = null; // of events, for stepping

const shown = (message) => (message.damaged ? GROUPS.damaged.on : true) && GROUPS[message.group].on;
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const shade = (pair) => pair[dark.matches ? 1 : 0];
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const seconds = (micros, digits = 6) => (micros / 1e6).toFixed(digits);
const machine = (slot) => `machine ${slot}`;

/** The first index of `list` whose `at` is at least `time`. */
function firstFrom(list, time) {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle].at < time) low = middle + 1; else high = middle;
  }
  return low;
}

function statusAt(slot, time) {
  const index = firstFrom(statuses[slot], time + 1) - 1;
  return index < 0 ? null : statuses[slot][index];
}

const pausedAt = (slot, time) =>
  faults.some((fault) => fault.kind === "pause" && fault.slot === slot && fault.at <= time && time < fault.until);

// ---------------------------------------------------------------- drawing

const canvas = element("lanes"), overview = element("overview");
let pen = null, width = 0, height = 0, lane = 60, clientsTop = 0, colors = {};

const x = (time) => GUTTER + ((time - view.from) / (view.to - view.from)) * (width - GUTTER);
const timeAt = (px) => view.from + ((px - GUTTER) / (width - GUTTER)) * (view.to - view.from);
const laneTop = (slot) => AXIS + NETWORK + slot * lane;
const laneMiddle = (slot) => laneTop(slot) + lane * 0.55;
const inView = (from, until) => until >= view.from && from <= view.to;

function prepare(target, cssHeight) {
  const ratio = window.devicePixelRatio || 1;
  width = target.clientWidth;
  target.style.height = `${cssHeight}px`;
  target.width = Math.round(width * ratio);
  target.height = Math.round(cssHeight * ratio);
  pen = target.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.fillStyle = colors.paper;
  pen.fillRect(0, 0, width, cssHeight);
  pen.textBaseline = "middle";
}

function draw() {
  colors = { paper: css("--paper"), ink: css("--ink"), faint: css("--faint"), line: css("--line"), band: css("--band"), bad: css("--bad"), accent: css("--accent") };
  const room = element("stage").clientHeight - 54;
  lane = Math.max(46, Math.min(110, (room - AXIS - NETWORK - 8 - data.clients * CLIENT) / data.slots));
  clientsTop = AXIS + NETWORK + data.slots * lane + 6;
  height = clientsTop + data.clients * CLIENT + 4;
  drawOverview();
  prepare(canvas, height);
  shapes = [];
  labels = [];
  counts = { messages: 0, lines: 0, operations: 0, points: 0, faults: 0, disk: 0, notes: 0, lanes: data.slots };
  drawAxis();
  pen.save();
  pen.beginPath();
  pen.rect(GUTTER, 0, width - GUTTER, height);
  pen.clip();
  for (let slot = 0; slot < data.slots; slot++) drawMachine(slot);
  if (GROUPS.faults.on) faults.forEach(drawFault);
  if (GROUPS.disk.on) disk.forEach(drawDisk);
  drawMessages();
  for (let slot = 0; slot < data.slots; slot++) drawRoles(slot);
  if (GROUPS.notes.on) notes.forEach(drawNote);
  operations.forEach(drawOperation);
  drawNow();
  pen.restore();
  drawNames();
}

function drawAxis() {
  const span = view.to - view.from;
  const wanted = span / Math.max(2, (width - GUTTER) / 110);
  const power = 10 ** Math.floor(Math.log10(wanted));
  const step = [1, 2, 5, 10].map((by) => by * power).find((step) => step >= wanted) ?? power;
  const digits = Math.min(6, Math.max(0, 6 - Math.floor(Math.log10(Math.max(step, 1)))));
  pen.font = "11px system-ui, sans-serif";
  pen.textAlign = "left";
  for (let time = Math.ceil(view.from / step) * step; time <= view.to; time += step) {
    const px = Math.round(x(time)) + 0.5;
    pen.fillStyle = colors.line;
    pen.fillRect(px, 0, 1, height);
    const label = `${seconds(time, digits)} s`;
    if (px + 4 + pen.measureText(label).width > width) continue;
    pen.fillStyle = colors.faint;
    pen.fillText(label, px + 3, 9);
  }
}

function bar(from, until, top, tall, color, item) {
  const left = Math.max(x(from), GUTTER - 2), right = Math.min(Math.max(x(until), left + 1.5), width + 2);
  if (color) {
    pen.fillStyle = color;
    pen.fillRect(left, top, right - left, tall);
  }
  if (item) shapes.push({ left, top, right, bottom: top + tall, item });
  return { left, room: right - left };
}

/** Writes the first of these texts that there is room for. Returns where it ends; `undefined` if none fits. */
function label(texts, { left, room }, middle, color) {
  const start = Math.max(left, GUTTER) + 3, space = left + room - start - 2;
  if (space < 6) return;
  const text = texts.find((text) => pen.measureText(text).width <= space);
  if (text === undefined) return;
  pen.fillStyle = color;
  pen.fillText(text, start, middle);
  const right = start + pen.measureText(text).width;
  labels.push({ text, left: start, right, middle });
  return right;
}

function drawMachine(slot) {
  const top = laneTop(slot);
  if (slot % 2 === 0) {
    pen.fillStyle = colors.band;
    pen.fillRect(GUTTER, top, width - GUTTER, lane);
  }
  pen.fillStyle = colors.line;
  pen.fillRect(GUTTER, laneMiddle(slot), width - GUTTER, 1);
  for (const status of bars[slot]) {
    if (status.role !== undefined || !inView(status.at, status.until)) continue;
    pen.globalAlpha = 0.35;
    bar(status.at, status.until, top, lane - 2, colors.faint, null);
    pen.globalAlpha = 1;
  }
}

/** Role and term, above the messages that cross them. */
function drawRoles(slot) {
  const top = laneTop(slot);
  pen.font = "10px system-ui, sans-serif";
  for (const status of bars[slot]) {
    if (!inView(status.at, status.until)) continue;
    const on = status.role !== undefined;
    const place = bar(status.at, status.until, top + 1, 13, on ? shade(ROLES[status.role]) : null, status);
    label(on ? [`${status.role}, term ${status.term}`, `${status.role} ${status.term}`, `${status.term}`] : ["off"], place, top + 8, colors.ink);
    // A line where a bar begins: terms change often.
    pen.fillStyle = colors.paper;
    pen.fillRect(x(status.at) - 0.5, top + 1, 1, 13);
  }
}

let networkEnds = [], faultEnds = [];
function drawFault(fault, index) {
  if (index === 0) {
    networkEnds = [-1, -1];
    // Where the last label ends, in each row of each lane. Marks of notes stand between the first row and the second.
    const rows = Math.max(1, Math.floor((lane - 46) / 11));
    faultEnds = Array.from({ length: data.slots }, () => Array(rows).fill(-1));
  }
  if (!inView(fault.at, fault.until)) return;
  counts.faults++;
  const color = shade(GROUPS.faults.color);
  pen.font = "10px system-ui, sans-serif";
  if (fault.slot === null) {
    // Two rows: cuts overlap.
    const left = x(fault.at), row = networkEnds[0] <= left ? 0 : 1;
    const top = AXIS + row * 11;
    const free = networkEnds[row] <= left;
    networkEnds[row] = Math.max(networkEnds[row], x(fault.until));
    pen.globalAlpha = 0.35;
    const place = bar(fault.at, fault.until, top, 10, color, fault);
    pen.globalAlpha = 1;
    pen.fillStyle = color;
    pen.fillRect(left, top, 2, 10);
    if (free) label([`${fault.kind}: ${fault.text}`, fault.kind], place, top + 5, colors.ink);
    return;
  }
  const top = laneTop(fault.slot);
  pen.globalAlpha = 0.16;
  bar(fault.at, fault.until, top + 15, lane - 18, color, null);
  pen.globalAlpha = 1;
  const left = x(fault.at);
  pen.fillStyle = color;
  pen.fillRect(left - 1, top + 15, 2, lane - 18);
  pen.beginPath();
  pen.moveTo(left - 5, top + 15);
  pen.lineTo(left + 5, top + 15);
  pen.lineTo(left, top + 22);
  pen.fill();
  shapes.push({ left: left - 5, top: top + 15, right: left + 5, bottom: top + 24, item: fault });
  // Faults overlap, their labels do not: each takes the first row that is free, or none.
  const ends = faultEnds[fault.slot], row = ends.findIndex((end) => end <= Math.max(left, GUTTER));
  if (row < 0) return;
  const place = { left: left + 5, room: x(fault.until) - left - 5 };
  ends[row] = label([`${fault.kind} ${fault.text}`, fault.kind], place, top + (row === 0 ? 20 : 28 + row * 11), colors.ink) ?? ends[row];
}

function drawDisk(span) {
  if (!inView(span.at, span.until)) return;
  counts.disk++;
  const snapshot = span.kind !== "write and fsync";
  const top = laneTop(span.slot) + lane - 9 - (snapshot ? 7 : 0);
  pen.font = "9px system-ui, sans-serif";
  bar(span.at, span.until, top, 6, shade(snapshot ? GROUPS.snapshots.color : GROUPS.disk.color), span);
}

function drawNote(note) {
  if (!inView(note.at, note.at)) return;
  counts.notes++;
  const middle = note.slot === null ? AXIS + 5 : laneTop(note.slot) + 29, px = x(note.at);
  const bad = /refuse|error|failed|rot|crash|bad|ended/.test(note.kind);
  pen.fillStyle = bad ? colors.bad : shade(GROUPS.notes.color);
  pen.beginPath();
  pen.moveTo(px, middle - 4);
  pen.lineTo(px + 4, middle);
  pen.lineTo(px, middle + 4);
  pen.lineTo(px - 4, middle);
  pen.fill();
  shapes.push({ left: px - 4, top: middle - 4, right: px + 4, bottom: middle + 4, item: note });
}

function drawMessages() {
  const visible = [];
  for (let i = firstFrom(messages, view.from - flightMax); i < messages.length && messages[i].at <= view.to; i++) {
    const message = messages[i];
    if (shown(message) && (message.arrives ?? message.at) >= view.from) visible.push(message);
  }
  counts.messages = visible.length;
  if (visible.length > LINES_MAX) drawDensity(visible);
  else visible.forEach((message) => drawMessage(message, visible.length));
  element("hint").textContent =
    [visible.length > LINES_MAX ? `${visible.length} messages in view: zoom in to see each` : null, data.leftOut]
      .filter(Boolean).join(" · ");
}

/** How many messages each machine sends, where they are too many to tell apart. */
function drawDensity(visible) {
  const columns = Math.ceil((width - GUTTER) / 3);
  const sent = Array.from({ length: data.slots }, () => new Map());
  let most = 1;
  for (const message of visible) {
    const column = Math.min(columns - 1, Math.max(0, Math.floor((x(message.at) - GUTTER) / 3)));
    const stacks = sent[message.from], stack = stacks.get(column) ?? { all: 0, bad: 0 };
    stack.all++;
    if (message.damaged) stack.bad++;
    stacks.set(column, stack);
    most = Math.max(most, stack.all);
  }
  const tall = lane - 34;
  sent.forEach((stacks, slot) => {
    const bottom = laneTop(slot) + lane - 17;
    for (const [column, stack] of stacks) {
      const rise = Math.max(1, Math.sqrt(stack.all / most) * tall), bad = (rise * stack.bad) / stack.all;
      pen.fillStyle = shade(GROUPS.appends.color);
      pen.globalAlpha = 0.6;
      pen.fillRect(GUTTER + column * 3, bottom - rise, 2, rise);
      pen.globalAlpha = 1;
      pen.fillStyle = shade(GROUPS.damaged.color);
      pen.fillRect(GUTTER + column * 3, bottom - bad, 2, bad);
    }
  });
}

function drawMessage(message, among) {
  counts.lines++;
  let left = x(message.at), right, top = laneMiddle(message.from), bottom = laneMiddle(message.to);
  const vanishes = message.arrives === null;
  if (vanishes) {
    // It never gets there: as far as half the way.
    right = left + 14;
    bottom = top + (bottom - top) * 0.5;
  } else right = x(message.arrives);
  const chosen = picked === message;
  pen.globalAlpha = chosen ? 1 : among > 800 ? 0.35 : among > 250 ? 0.6 : 0.9;
  pen.strokeStyle = pen.fillStyle = shade(message.damaged ? GROUPS.damaged.color : GROUPS[message.group].color);
  pen.lineWidth = chosen ? 3 : 1.2;
  pen.setLineDash(message.fate === 1 ? [2, 3] : vanishes ? [5, 3] : []);
  pen.beginPath();
  pen.moveTo(left, top);
  pen.lineTo(right, bottom);
  pen.stroke();
  pen.setLineDash([]);
  if (vanishes) {
    pen.beginPath();
    pen.moveTo(right - 3, bottom - 3); pen.lineTo(right + 3, bottom + 3);
    pen.moveTo(right - 3, bottom + 3); pen.lineTo(right + 3, bottom - 3);
    pen.stroke();
  } else if (among < 800) {
    const angle = Math.atan2(bottom - top, right - left);
    pen.beginPath();
    pen.moveTo(right, bottom);
    pen.lineTo(right - 7 * Math.cos(angle - 0.4), bottom - 7 * Math.sin(angle - 0.4));
    pen.lineTo(right - 7 * Math.cos(angle + 0.4), bottom - 7 * Math.sin(angle + 0.4));
    pen.fill();
  }
  pen.globalAlpha = 1;
  pen.lineWidth = 1;
  shapes.push({ line: [left, top, right, bottom], item: message });
}

function drawOperation(operation) {
  if (!inView(operation.at, operation.until)) return;
  counts.operations++;
  const top = clientsTop + operation.client * CLIENT + 2, tall = CLIENT - 5;
  const read = operation.text.startsWith("get");
  const color = shade(read ? ROLES.leader : operation.text.startsWith("delete") ? ROLES.candidate : ROLES.follower);
  const other = keyShown !== "" && operation.key !== keyShown;
  pen.globalAlpha = other ? 0.2 : operation.state === "ok" ? 1 : 0.45;
  pen.font = "10px system-ui, sans-serif";
  const place = bar(operation.at, operation.until, top, tall, operation.state === "failed" ? null : color, operation);
  if (operation.state !== "ok") {
    pen.setLineDash([3, 2]);
    pen.strokeStyle = colors.faint;
    pen.strokeRect(place.left + 0.5, top + 0.5, Math.max(1, place.room - 1), tall - 1);
    pen.setLineDash([]);
  }
  label([`${operation.text} → ${operation.answer || "?"}`, operation.text, operation.text.split(" = ")[0]], place, top + tall / 2, colors.ink);
  pen.globalAlpha = other ? 0.2 : 1;
  if (operation.suspect || picked === operation) {
    pen.strokeStyle = operation.suspect ? colors.bad : colors.accent;
    pen.lineWidth = 2;
    pen.strokeRect(place.left, top, Math.max(2, place.room), tall);
    pen.lineWidth = 1;
  }
  if (operation.point !== null) {
    counts.points++;
    const px = x(operation.point);
    pen.fillStyle = colors.ink;
    if (place.room > 6) pen.fillRect(px - 0.75, top - 1, 1.5, tall + 2);
    pen.beginPath();
    pen.arc(px, top - 1, 2, 0, 7);
    pen.fill();
  }
  pen.globalAlpha = 1;
}

function drawNow() {
  if (data.violation) {
    pen.fillStyle = colors.bad;
    pen.fillRect(x(total) - 2, 0, 2, height);
  }
  pen.fillStyle = colors.accent;
  pen.fillRect(x(now) - 0.75, 0, 1.5, height);
}

function drawNames() {
  pen.fillStyle = colors.paper;
  pen.fillRect(0, 0, GUTTER, height);
  pen.font = "12px system-ui, sans-serif";
  pen.textAlign = "left";
  const name = (text, middle, color) => {
    pen.fillStyle = color;
    pen.fillText(text, 6, middle);
  };
  name("network", AXIS + 11, colors.faint);
  for (let slot = 0; slot < data.slots; slot++) {
    name(machine(slot), laneTop(slot) + lane / 2 - (slot < data.voters ? 0 : 7), colors.ink);
    if (slot >= data.voters) name("(spare)", laneTop(slot) + lane / 2 + 8, colors.faint);
  }
  for (let client = 0; client < data.clients; client++) {
    name(`client ${client}`, clientsTop + client * CLIENT + CLIENT / 2, colors.ink);
  }
}

/** The whole run in a strip: who led, which faults, what is in view. */
function drawOverview() {
  prepare(overview, 30);
  const at = (time) => GUTTER + (time / total) * (width - GUTTER);
  bars.forEach((list) => list.forEach((status) => {
    if (status.role !== "leader") return;
    pen.fillStyle = shade(ROLES.leader);
    pen.fillRect(at(status.at), 4, Math.max(1, at(status.until) - at(status.at)), 10);
    pen.fillStyle = colors.paper;
    pen.fillRect(at(status.at), 4, 1, 10);
  }));
  pen.fillStyle = shade(GROUPS.faults.color);
  for (const fault of faults) pen.fillRect(at(fault.at), 16, Math.max(1.5, at(fault.until) - at(fault.at)), fault.slot === null ? 5 : 3);
  pen.fillStyle = colors.bad;
  if (data.violation) pen.fillRect(at(total) - 3, 0, 3, 30);
  pen.fillStyle = colors.faint;
  pen.font = "11px system-ui, sans-serif";
  pen.fillText("whole run", 6, 14);
  const left = at(view.from), right = Math.max(left + 3, at(view.to));
  pen.globalAlpha = 0.15;
  pen.fillStyle = colors.accent;
  pen.fillRect(left, 0, right - left, 30);
  pen.globalAlpha = 1;
  pen.strokeStyle = colors.accent;
  pen.strokeRect(left + 0.5, 0.5, right - left - 1, 28);
  pen.fillRect(at(now) - 0.5, 0, 1.5, 30);
}

let asked = false;
function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    draw();
  });
}

// ---------------------------------------------------------------- time, zoom

function setView(from, to) {
  const span = Math.min(total, Math.max(SPAN_MIN, to - from));
  view.from = Math.min(Math.max(0, from), total - span);
  view.to = view.from + span;
  redraw();
}

function zoom(by, around = now) {
  const center = Math.min(Math.max(around, view.from), view.to);
  setView(center - (center - view.from) * by, center + (view.to - center) * by);
}

function setNow(time) {
  now = Math.round(Math.min(total, Math.max(0, time)));
  element("scrubber").value = now;
  element("scrubber").setAttribute("aria-valuetext", `${seconds(now, 3)} seconds`);
  element("clock").textContent = `${seconds(now)} s`;
  const span = view.to - view.from;
  if (now < view.from || now > view.to) setView(now - span / 2, now + span / 2);
  showStates();
  redraw();
}

function showStates() {
  const rows = [];
  for (let slot = 0; slot < data.slots; slot++) {
    const status = statusAt(slot, now), row = document.createElement("tr");
    const cell = (text) => {
      const td = document.createElement("td");
      td.textContent = text;
      row.append(td);
      return td;
    };
    cell(`m${slot}`);
    if (!status || status.role === undefined) cell("off").colSpan = 5;
    else {
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = shade(ROLES[status.role]);
      cell(status.role + (pausedAt(slot, now) ? " (paused)" : "")).prepend(swatch);
      [status.term, status.commit, status.applied, status.last].forEach(cell);
    }
    rows.push(row);
  }
  element("states").tBodies[0].replaceChildren(...rows);
}

/** The time of the next event (or the one before) that is shown. */
function step(direction, list = eventTimes()) {
  let low = 0, high = list.length;
  const after = direction > 0 ? now + 1 : now;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] < after) low = middle + 1; else high = middle;
  }
  const time = list[direction > 0 ? low : low - 1];
  if (time !== undefined) setNow(time);
}

function eventTimes() {
  if (times) return times;
  const all = [];
  for (const list of bars) for (const status of list) all.push(status.at);
  for (const message of messages) {
    if (!shown(message)) continue;
    all.push(message.at);
    if (message.arrives !== null && message.arrives <= total) all.push(message.arrives);
  }
  for (const fault of faults) all.push(fault.at);
  for (const note of notes) all.push(note.at);
  for (const operation of operations) all.push(operation.at, operation.end ?? operation.at);
  times = Float64Array.from(new Set(all)).sort();
  return times;
}

function jump() {
  if (suspects.length > 0) {
    const from = Math.min(...suspects.map((it) => it.at)), to = Math.max(...suspects.map((it) => it.until));
    const margin = Math.max(1000, (to - from) * 0.1);
    setView(from - margin, to + margin);
    setNow(suspects[suspects.length - 1].at);
    pick(suspects[suspects.length - 1]);
  } else {
    setView(total - 500e3, total);
    setNow(total);
  }
}

function play(on) {
  playing = on;
  element("play").textContent = on ? "Pause" : "Play";
  if (!on) return;
  if (now >= total) setNow(view.from < total ? view.from : 0);
  let before = performance.now();
  const frame = (at) => {
    if (!playing) return;
    // What is in view takes ten seconds.
    setNow(now + ((view.to - view.from) * (at - before)) / 10e3);
    before = at;
    if (now >= total) play(false);
    else requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}

// ---------------------------------------------------------------- pointing at things

function described(item) {
  const at = `${seconds(item.at)} s`;
  switch (item.type) {
    case "message": {
      const arrives = item.arrives === null ? "" : `, ${seconds(item.arrives)} s (after ${((item.arrives - item.at) / 1e3).toFixed(3)} ms)`;
      const off = item.arrives !== null && statusAt(item.to, item.arrives)?.role === undefined ? "; nobody is there to take it" : "";
      return `${item.kind}, ${machine(item.from)} → ${machine(item.to)}\nsent ${at}; ${FATES[item.fate]}${arrives}${off}\n${item.text}`;
    }
    case "operation": {
      const end = item.end === null ? "no answer" : `${seconds(item.end)} s: ${item.answer}`;
      const point = item.point === null ? "" : `\ntakes effect at ${seconds(item.point)} s, as number ${item.position + 1} on ${item.key}`;
      return `client ${item.client} asks ${machine(item.slot)}: ${item.text}\ncalled ${at}; ${end}${point}${item.suspect ? "\none of those that no order explains" : ""}`;
    }
    case "status":
      return item.role === undefined ? `${machine(item.slot)} is off\n${at} to ${seconds(item.until)} s`
        : `${machine(item.slot)} is ${item.role} in term ${item.term}\n${at} to ${seconds(item.until)} s\ncommit ${item.commit}, applied ${item.applied}, log to ${item.last} at the start`;
    case "note":
      return `${item.slot === null ? "" : `${machine(item.slot)}: `}${item.kind}\n${at}\n${item.text}`;
    default:
      return `${item.slot === null ? "" : `${machine(item.slot)}: `}${item.kind}\n${at}${item.until > item.at ? ` to ${seconds(item.until)} s` : ""}\n${item.text}`;
  }
}

function under(px, py) {
  let best = null, nearest = 6;
  for (const { line, left, top, right, bottom, item } of shapes) {
    let distance;
    if (line) {
      const [x1, y1, x2, y2] = line, length = (x2 - x1) ** 2 + (y2 - y1) ** 2 || 1;
      const along = Math.min(1, Math.max(0, ((px - x1) * (x2 - x1) + (py - y1) * (y2 - y1)) / length));
      // Whatever else is there is smaller, and goes first.
      distance = 1 + Math.hypot(px - x1 - along * (x2 - x1), py - y1 - along * (y2 - y1));
    } else {
      distance = Math.hypot(Math.max(left - px, 0, px - right), Math.max(top - py, 0, py - bottom));
    }
    if (distance < nearest || (distance === nearest && !line)) [best, nearest] = [item, distance];
  }
  return best;
}

function pick(item) {
  picked = item;
  element("details").textContent = described(item);
  redraw();
}

const local = (event) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};

let drag = null;
canvas.addEventListener("pointerdown", (event) => {
  const [px, py] = local(event);
  drag = { px, py, from: view.from, to: view.to, brush: event.shiftKey, moved: false };
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  const [px, py] = local(event), tip = element("tip");
  if (drag) {
    if (Math.abs(px - drag.px) > 3) drag.moved = true;
    if (drag.moved && !drag.brush) {
      const by = ((px - drag.px) / (width - GUTTER)) * (drag.to - drag.from);
      setView(drag.from - by, drag.to - by);
    }
    tip.hidden = true;
    return;
  }
  const item = px >= GUTTER ? under(px, py) : null;
  tip.hidden = !item;
  if (!item) return;
  tip.textContent = described(item);
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 6))}px`;
  const below = event.clientY + 16;
  tip.style.top = `${below + tip.offsetHeight < innerHeight ? below : Math.max(4, event.clientY - tip.offsetHeight - 10)}px`;
});
canvas.addEventListener("pointerup", (event) => {
  const [px, py] = local(event);
  if (drag && drag.brush && drag.moved) {
    const ends = [timeAt(drag.px), timeAt(px)].sort((a, b) => a - b);
    setView(ends[0], ends[1]);
  } else if (drag && !drag.moved && px >= GUTTER) {
    const item = under(px, py);
    if (item) pick(item);
    setNow(timeAt(px));
  }
  drag = null;
});
canvas.addEventListener("pointerleave", () => { element("tip").hidden = true; });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
    const by = (event.deltaX / (width - GUTTER)) * (view.to - view.from);
    setView(view.from + by, view.to + by);
  } else zoom(Math.exp(event.deltaY * 0.0015), timeAt(local(event)[0]));
}, { passive: false });

const overviewTime = (event) => {
  const box = overview.getBoundingClientRect();
  return ((event.clientX - box.left - GUTTER) / (box.width - GUTTER)) * total;
};
let brush = null;
overview.addEventListener("pointerdown", (event) => {
  brush = overviewTime(event);
  overview.setPointerCapture(event.pointerId);
});
overview.addEventListener("pointerup", (event) => {
  if (brush === null) return;
  const ends = [brush, overviewTime(event)].sort((a, b) => a - b), span = view.to - view.from;
  if (ends[1] - ends[0] > total / 200) setView(ends[0], ends[1]);
  else setView(ends[0] - span / 2, ends[0] + span / 2);
  brush = null;
});

// ---------------------------------------------------------------- keys and buttons

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const tag = event.target.tagName;
  if (tag === "SELECT" || (tag === "BUTTON" && event.key === " ") || (tag === "INPUT" && event.key === " ") || tag === "SUMMARY") return;
  const faultTimes = () => faults.map((fault) => fault.at);
  const keys = {
    ArrowLeft: () => step(-1, event.shiftKey ? faultTimes() : undefined),
    ArrowRight: () => step(1, event.shiftKey ? faultTimes() : undefined),
    "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), "0": () => setView(0, total),
    " ": () => play(!playing), Home: () => setNow(0), End: () => setNow(total),
    v: () => data.violation && jump(), V: () => data.violation && jump(),
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});
element("play").onclick = () => play(!playing);
element("back").onclick = () => step(-1);
element("forth").onclick = () => step(1);
element("in").onclick = () => zoom(0.5);
element("out").onclick = () => zoom(2);
element("fit").onclick = () => setView(0, total);
element("jump").onclick = jump;
element("scrubber").oninput = (event) => setNow(Number(event.target.value));

function filters() {
  for (const [name, entry] of Object.entries(GROUPS)) {
    const text = document.createElement("label"), box = document.createElement("input");
    box.type = "checkbox";
    box.name = name;
    box.checked = entry.on;
    box.onchange = () => {
      entry.on = box.checked;
      times = null;
      redraw();
    };
    const mark = document.createElement("span");
    mark.textContent = "■ ";
    mark.style.color = shade(entry.color);
    mark.setAttribute("aria-hidden", "true");
    text.append(box, mark, entry.label);
    element("filters").append(text);
  }
  const select = document.createElement("select");
  select.name = "key";
  select.setAttribute("aria-label", "Operations on which key");
  const names = [...new Set(operations.map((operation) => operation.key))].sort();
  for (const name of ["", ...names]) select.add(new Option(name === "" ? "all keys" : name, name, false, name === keyShown));
  select.onchange = () => {
    keyShown = select.value;
    redraw();
  };
  element("filters").append(select);
}

function begin() {
  element("title").textContent = `${/^\d+$/.test(data.name) ? "Seed " : ""}${data.name}, ${data.engine} engine`;
  element("summary").textContent =
    `${seconds(total, 3)} simulated s · ${data.slots} machines · ${operations.length} operations · ${messages.length} messages · trace ${data.trace}`;
  if (data.violation) {
    element("violation").hidden = false;
    element("check").textContent = `Violated: ${data.violation.check}`;
    element("when").textContent = `at ${seconds(total)} s`;
    element("what").textContent = data.violation.what;
  } else element("summary").textContent += " · nothing was violated";
  for (const command of data.violation ? data.commands : data.commands.slice(0, 1)) {
    const code = document.createElement("code");
    code.textContent = command;
    element("commands").append(code);
  }
  for (const [name, value] of Object.entries(data.settings)) {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    element("settings").append(dt, dd);
  }
  filters();
  element("scrubber").max = total;
  setNow(now);
  new ResizeObserver(redraw).observe(element("stage"));
  dark.addEventListener("change", () => { showStates(); redraw(); });
  draw();
  if (data.violation) jump();
}
begin();
