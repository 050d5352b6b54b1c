// The page: takes a photo, sends it, shows the answers. What it shows is in its memory only.

const NETS = JSON.parse(document.body.dataset.nets); // of recipe.py: {net, title, task, answer, view}
const byId = (id) => document.getElementById(id);
const limit = Number(document.body.dataset.uploadBytes);
let photos = [];       // what was chosen last: {blob, name, plain, explained}, the latter two what load() gave
let current = null;    // the photo that is shown
let batch = null;      // an AbortController: of all requests for `photos`
let stream = null;     // the camera's

// ---------------------------------------------------------------- sending
async function take(files) {
  photos = [...files].filter(Boolean).map((blob) => ({ blob, name: blob.name ?? "", plain: null, explained: null }));
  batch?.abort();
  batch = new AbortController();
  current = photos[0];
  drawStrip();
  const own = batch;
  for (const photo of photos) { // one after the other: the server has a limit for each address
    await load(photo, byId("explain").checked, own.signal);
    if (own.signal.aborted) return;
  }
}

// Ask the server about one photo, once; what it says is shown if the photo still is.
async function load(photo, explain, signal) {
  const kind = explain ? "explained" : "plain";
  if (photo === current) say(explain ? "Asking the nets where they look …" : "Looking for faces …", true);
  const outcome = await (photo[kind] ??= ask(photo.blob, explain, signal));
  if (signal.aborted) return;
  if (outcome.again) photo[kind] = null;
  photo.outcome = outcome;
  drawStrip();
  if (photo === current && explain === byId("explain").checked) display(photo, outcome);
}

// {answer} or {error}; `again`: another try may succeed.
async function ask(blob, explain, signal) {
  if (blob.size > limit) return { error: `This file is larger than ${limit / 2 ** 20} MB: send a smaller copy of the photo.` };
  try {
    while (true) {
      const response = await fetch(explain ? "/predict?explain=1" : "/predict", {
        method: "POST", body: blob, headers: { "Content-Type": "application/octet-stream" }, signal,
      });
      const seconds = Number(response.headers.get("Retry-After"));
      if (!response.ok && seconds && photos.length > 1) { // of several photos, later ones wait for their turn
        await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
        continue;
      }
      const answer = await response.json();
      return response.ok ? { answer } : { error: answer.error, again: response.status >= 429 };
    }
  } catch (problem) {
    return { error: "The server does not answer. Is it still running?", again: true };
  }
}

function display(photo, outcome) {
  if (outcome.error) complain(outcome.error);
  else show(outcome.answer);
}

function say(text, busy = false) {
  byId("status").textContent = text;
  byId("error").hidden = true;
  document.body.classList.toggle("busy", busy);
}

function complain(text) {
  say("");
  byId("error").textContent = text;
  byId("error").hidden = false;
  byId("result").hidden = true;
  document.body.classList.remove("answered");
}

// ---------------------------------------------------------------- several photos
function drawStrip() {
  const strip = byId("strip"), focused = [...strip.children].indexOf(document.activeElement);
  strip.hidden = photos.length < 2;
  if (strip.hidden) return strip.replaceChildren();
  strip.replaceChildren(...photos.map((photo, index) => {
    const made = document.createElement("button"), answer = photo.outcome?.answer;
    made.type = "button";
    const found = answer ? counted(answer.answers.length) : photo.outcome ? "cannot be answered" : "waiting";
    made.setAttribute("aria-label", `Photo ${index + 1} of ${photos.length}, ${photo.name}: ${found}`);
    made.setAttribute("aria-current", String(photo === current));
    if (answer) {
      const image = new Image();
      image.src = answer.preview;
      image.alt = "";
      made.append(image);
    } else {
      made.textContent = photo.outcome ? "!" : index + 1;
    }
    made.addEventListener("click", () => choosePhoto(photo));
    return made;
  }));
  if (focused >= 0) strip.children[focused]?.focus();
}

function choosePhoto(photo) {
  current = photo;
  drawStrip();
  load(photo, byId("explain").checked, batch.signal);
}

const counted = (faces) => (faces === 1 ? "one face" : faces ? `${faces} faces` : "no face");

// ---------------------------------------------------------------- showing
function show(answer) {
  const count = answer.answers.length;
  say(count === 1 ? `One face: ${words(answer.answers[0])}.` : count ? `${count} faces.` : "");
  if (answer.error) {
    byId("error").textContent = answer.error === "no face found"
      ? "No face was found in this photo. A face has to look about toward the camera and be larger than 20 pixels."
      : `The face cannot be answered: ${answer.error}.`;
    byId("error").hidden = false;
  }
  byId("preview").src = answer.preview;
  byId("preview").width = answer.width;
  byId("preview").height = answer.height;
  byId("photo").style.setProperty("--ratio", answer.width / answer.height); // style.css fits a tall photo to the window
  byId("found").textContent = `${answer.width} × ${answer.height} pixels` +
    (answer.found > count ? `; the ${count} faces nearest the middle of ${answer.found}` : "");
  document.querySelectorAll(".box").forEach((box) => box.remove());
  const points = byId("points");
  points.setAttribute("viewBox", `0 0 ${answer.width} ${answer.height}`);
  points.replaceChildren();
  byId("faces").replaceChildren(...answer.answers.map((one, index) => card(one, index, count)));
  for (const [index, one] of answer.answers.entries()) {
    byId("photo").append(box(one, index, answer, count));
    for (const [x, y] of one.face.landmarks) points.append(point(x, y, Math.max(1, one.face.box[2] * 0.02)));
  }
  document.querySelector(".switch").hidden = count === 0;
  byId("result").hidden = false;
  byId("save").hidden = count === 0;
  document.body.classList.add("answered");
  document.body.classList.toggle("several", count > 1);
  watchCards(count);
}

const words = (one) => [one.gender, one.smile].map((answer) => answer.label + (answer.uncertain ? " (uncertain)" : "")).join(", ");

// On a phone the photo stays above the cards: the face whose card is being read is marked in it.
let watcher = null;    // an IntersectionObserver
function watchCards(count) {
  watcher?.disconnect();
  if (count < 2 || !matchMedia("(max-width: 760px)").matches) return;
  const cards = [...byId("faces").children];
  watcher = new IntersectionObserver((entries) => {
    const seen = entries.find((entry) => entry.isIntersecting);
    if (seen) choose(cards.indexOf(seen.target));
  }, { rootMargin: "-55% 0px -40% 0px" });
  cards.forEach((card) => watcher.observe(card));
}

function box(one, index, answer, count) {
  const [x, y, width, height] = one.face.box;
  const made = document.createElement("button");
  made.className = y < 0.06 * answer.height ? "box low" : "box";
  made.type = "button";
  made.setAttribute("aria-label", `Face ${one.number}: ${words(one)}`);
  const tag = document.createElement("span");
  tag.textContent = count === 1 ? words(one) : one.number;
  made.append(tag);
  Object.assign(made.style, {
    left: `${(100 * x) / answer.width}%`, top: `${(100 * y) / answer.height}%`,
    width: `${(100 * width) / answer.width}%`, height: `${(100 * height) / answer.height}%`,
  });
  made.addEventListener("click", () => {
    choose(index);
    byId("faces").children[index].scrollIntoView({ behavior: "smooth", block: "nearest" });
  });
  return made;
}

function choose(chosen) {
  for (const all of [byId("faces").children, document.querySelectorAll(".box")]) {
    [...all].forEach((element, index) => element.classList.toggle("chosen", index === chosen));
  }
}

function point(x, y, radius) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  for (const [name, value] of Object.entries({ cx: x, cy: y, r: radius, "stroke-width": radius / 3 })) made.setAttribute(name, value);
  return made;
}

function card(one, index, count) {
  const made = byId("face").content.cloneNode(true).firstElementChild;
  made.querySelector("h2").textContent = `Face ${one.number}`;
  made.querySelector("h2").hidden = count === 1;
  for (const task of ["gender", "smile"]) {
    const own = NETS.filter((entry) => entry.task === task);
    const details = own.map((entry) => `${entry.title} ${percent(one.p_positive[entry.net])}`.replaceAll(" ", "\u00a0")).join(", ");
    fill(made.querySelector("." + task), one[task], `${own[0].answer}: ${details}`);
  }
  const doubts = made.querySelector(".doubts");
  doubts.textContent = `Less reliable: ${one.doubts.join(", ")}.`;
  doubts.hidden = one.doubts.length === 0;
  for (const { net, title, task, view } of NETS) {
    const figure = document.createElement("figure"), image = new Image(), caption = document.createElement("figcaption");
    const heat = one.heat[net];
    const label = one[task].label;
    image.src = heat ?? one.crops[net];
    image.alt = heat ? `Where ${title} looks for “${label}”` : `What ${title} sees`;
    const name = document.createElement("b"), rest = document.createElement("span");
    name.textContent = title;
    rest.textContent = heat ? ` for “${label}”` : ` ${view}`;
    rest.className = heat ? "" : "view";
    caption.append(name, rest);
    figure.append(image, caption);
    made.querySelector(".crops").append(figure);
  }
  if (count > 1) {
    made.addEventListener("mouseenter", () => choose(index));
  }
  return made;
}

function fill(element, answer, details) {
  element.querySelector("strong").textContent = answer.label + (answer.uncertain ? ", uncertain" : "");
  element.querySelector("output").textContent = percent(answer.probability);
  element.querySelector("meter").value = answer.probability;
  element.querySelector("small").textContent = details;
}

const percent = (probability) => `${Math.min(100 * probability, 99.9).toFixed(1)} %`; // never claims certainty

// ---------------------------------------------------------------- where photos come from
for (const id of ["file", "capture"]) {
  byId(id).addEventListener("change", (event) => {
    const files = [...event.target.files];
    event.target.value = ""; // the same file again is a change
    if (files.length) take(files);
  });
}
addEventListener("paste", (event) => {
  const items = [...event.clipboardData.items].filter((one) => one.kind === "file");
  if (items.length) take(items.map((one) => one.getAsFile()));
  else complain("There is no photo to paste.");
});
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  if (event.dataTransfer.files.length) take(event.dataTransfer.files);
});
for (const button of document.querySelectorAll("[data-example]")) {
  button.addEventListener("click", async () => {
    say("Fetching the example …", true);
    try {
      take([await (await fetch(`/examples/${button.dataset.example}.jpg`)).blob()]);
    } catch (problem) {
      complain("The server does not answer. Is it still running?");
    }
  });
}
byId("explain").addEventListener("change", () => { if (current) load(current, byId("explain").checked, batch.signal); });

// ---------------------------------------------------------------- the camera
// Browsers let a page use the camera over HTTPS and on the same computer only; elsewhere a phone's own camera app takes
// the photo.
const camera = Boolean(navigator.mediaDevices?.getUserMedia);
byId("open-camera").hidden = !camera;
byId("take").hidden = byId("capture").hidden = camera || !matchMedia("(any-pointer: coarse)").matches;
let asking = false;    // for the camera: one question at a time
byId("open-camera").addEventListener("click", async () => {
  if (asking) return;
  asking = true;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, facingMode: "user" } });
  } catch (problem) {
    return complain(problem.name === "NotAllowedError" ? "The browser was not allowed to use the camera." : "There is no camera to be used here.");
  } finally {
    asking = false;
  }
  byId("shutter").disabled = true;
  byId("video").srcObject = stream;
  byId("camera").showModal();
});
byId("video").addEventListener("loadeddata", () => { byId("shutter").disabled = false; }); // there is a picture to take
byId("shutter").addEventListener("click", () => {
  const video = byId("video"), canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => take([blob]), "image/jpeg", 0.95);
  byId("camera").close();
});
byId("close-camera").addEventListener("click", () => byId("camera").close());
byId("camera").addEventListener("close", () => stream?.getTracks().forEach((track) => track.stop()));

// ---------------------------------------------------------------- saving
byId("save").addEventListener("click", () => {
  drawPicture(current.outcome.answer).toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${current.name.replace(/\.[^.]*$/, "") || "photo"}-faces.jpg`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }, "image/jpeg", 0.92);
});

// A canvas: the photo with its boxes, and below it the answers and which nets gave them.
function drawPicture(answer) {
  const image = byId("preview"), canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
  const width = Math.max(image.naturalWidth, 640), height = Math.round((width * answer.height) / answer.width);
  const font = Math.round((15 * width) / 720), line = Math.round(1.45 * font), margin = font, scale = width / answer.width;
  const face = `${font}px system-ui, sans-serif`, strong = `700 ${face}`;
  const count = answer.answers.length;
  pen.font = face;
  const lines = answer.answers.map((one) => (count > 1 ? `${one.number}  ` : "") +
    [one.gender, one.smile].map((task) => `${task.label} ${percent(task.probability)}${task.uncertain ? " (uncertain)" : ""}`).join(", "));
  const longest = Math.max(...lines.map((text) => pen.measureText(text).width)) + 2 * margin;
  const columns = Math.max(1, Math.min(Math.floor(width / longest), count));
  const notes = wrapped(pen, `Perceived gender and smile, as annotators would have said, by ${byId("model").textContent.replace(/^Nets: /, "nets: ")}`, width - 2 * margin);
  const rows = Math.ceil(lines.length / columns);
  canvas.width = width;
  canvas.height = height + (rows + notes.length + 0.3) * line + 2 * margin;
  pen.fillStyle = "#ffffff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(image, 0, 0, width, height);
  for (const one of answer.answers) {
    const [x, y, w, h] = one.face.box.map((value) => value * scale);
    for (const [color, thickness] of [["#000000", font / 2.5], ["#ffd34d", font / 4]]) {
      pen.strokeStyle = color;
      pen.lineWidth = thickness;
      pen.strokeRect(x, y, w, h);
    }
    if (count === 1) continue;
    pen.font = strong;
    const tag = pen.measureText(one.number).width + font, top = Math.max(0, y - line);
    pen.fillStyle = "#ffd34d";
    pen.fillRect(x, top, tag, line);
    pen.fillStyle = "#15181d";
    pen.fillText(one.number, x + font / 2, top + font * 1.1);
  }
  pen.font = face;
  pen.fillStyle = "#15181d";
  lines.forEach((text, index) => pen.fillText(text, margin + Math.floor(index / rows) * (width / columns), height + margin + font + (index % rows) * line));
  pen.fillStyle = "#4a525e";
  notes.forEach((text, index) => pen.fillText(text, margin, height + margin + font + (rows + index + 0.3) * line));
  return canvas;
}

function wrapped(pen, text, width) {
  const lines = [""];
  for (const word of text.split(/\s+/)) {
    const longer = `${lines.at(-1)} ${word}`.trim();
    if (pen.measureText(longer).width <= width || !lines.at(-1)) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}
