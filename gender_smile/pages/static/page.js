// The page: takes a photo, sends it, shows the answers. What it shows is in its memory only.

const NETS = JSON.parse(document.body.dataset.nets); // of recipe.py: {net, title, task, answer, view}
const byId = (id) => document.getElementById(id);
const limit = Number(document.body.dataset.uploadBytes);
let photo = null;      // what was sent last: a Blob
let request = null;    // the request under way: an AbortController
let stream = null;     // the camera's

// ---------------------------------------------------------------- sending
async function send(blob, explain) {
  request?.abort();
  const own = request = new AbortController();
  if (blob.size > limit) return complain(`This file is larger than ${limit / 2 ** 20} MB: send a smaller copy of the photo.`);
  photo = blob;
  say(explain ? "Asking the nets where they look …" : "Looking for faces …", true);
  try {
    const response = await fetch(explain ? "/predict?explain=1" : "/predict", {
      method: "POST", body: blob, headers: { "Content-Type": "application/octet-stream" }, signal: own.signal,
    });
    const answer = await response.json();
    if (own !== request) return;
    if (!response.ok) return complain(answer.error);
    show(answer);
  } catch (problem) {
    if (own === request) complain("The server does not answer. Is it still running?");
  }
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

// ---------------------------------------------------------------- showing
function show(answer) {
  const count = answer.answers.length;
  say(count === 1 ? "One face." : count ? `${count} faces.` : "");
  if (answer.error) {
    byId("error").textContent = answer.error === "no face found"
      ? "No face was found in this photo. A face has to look about toward the camera and be larger than 20 pixels."
      : `The face cannot be answered: ${answer.error}.`;
    byId("error").hidden = false;
  }
  byId("preview").src = answer.preview;
  byId("preview").width = answer.width;
  byId("preview").height = answer.height;
  byId("photo").style.maxWidth = `calc(82vh * ${answer.width / answer.height})`; // a tall photo fits the window
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
  document.body.classList.add("answered");
}

function box(one, index, answer, count) {
  const [x, y, width, height] = one.face.box;
  const made = document.createElement("button");
  made.className = y < 0.06 * answer.height ? "box low" : "box";
  made.type = "button";
  const words = [one.gender, one.smile].map((answer) => answer.label + (answer.uncertain ? " (uncertain)" : "")).join(", ");
  made.setAttribute("aria-label", `Face ${one.number}: ${words}`);
  const tag = document.createElement("span");
  tag.textContent = count === 1 ? words : one.number;
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
    const details = own.map((entry) => `${entry.title} ${percent(one.p_positive[entry.net])}`).join(", ");
    fill(made.querySelector("." + task), one[task], `${own[0].answer}: ${details}`);
  }
  for (const { net, title, task, view } of NETS) {
    const figure = document.createElement("figure"), image = new Image(), caption = document.createElement("figcaption");
    const heat = one.heat[net];
    const label = one[task].label;
    image.src = heat ?? one.crops[net];
    image.alt = heat ? `Where ${title} looks for “${label}”` : `What ${title} sees`;
    const name = document.createElement("b");
    name.textContent = title;
    caption.append(name, heat ? ` for “${label}”` : ` ${view}`);
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
function take(blob) {
  if (blob) send(blob, byId("explain").checked);
}

byId("file").addEventListener("change", (event) => {
  take(event.target.files[0]);
  event.target.value = ""; // the same file again is a change
});
addEventListener("paste", (event) => {
  const item = [...event.clipboardData.items].find((one) => one.kind === "file");
  if (item) take(item.getAsFile());
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
  take(event.dataTransfer.files[0]);
});
for (const button of document.querySelectorAll("[data-example]")) {
  button.addEventListener("click", async () => {
    say("Fetching the example …", true);
    try {
      take(await (await fetch(`/examples/${button.dataset.example}.jpg`)).blob());
    } catch (problem) {
      complain("The server does not answer. Is it still running?");
    }
  });
}
byId("explain").addEventListener("change", () => take(photo));

// ---------------------------------------------------------------- the camera
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
  canvas.toBlob(take, "image/jpeg", 0.95);
  byId("camera").close();
});
byId("close-camera").addEventListener("click", () => byId("camera").close());
byId("camera").addEventListener("close", () => stream?.getTracks().forEach((track) => track.stop()));
