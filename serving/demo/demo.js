// Sends requests to the server of this page, by the V2 routes of every client.

const SIDE = 28;
const PIXELS = SIDE * SIDE;
const OUTPUTS = ["predict", "predict_proba", "image"];
const SERVER = new URL("..", document.baseURI); // the page is at …/demo/
const LIKELIEST = 10; // classes shown, of at most 255
const UNAUTHORIZED = 401;
const STEP = 10; // of the drawing's 280 pixels a side: one pixel of the models

const at = (id) => document.getElementById(id);
let requests = 0; // so far: the response to an earlier one is not shown

// The token of a server that requires one, until this tab is closed.
const token = () => sessionStorage.getItem("token");
let tokenPrompt; // shared by the calls at the page's start, so that there is one prompt

function promptForToken() {
  tokenPrompt ??= new Promise((resolve) => setTimeout(() => {
    const entered = prompt("This server requires a token:")?.trim();
    if (entered) sessionStorage.setItem("token", entered);
    resolve(Boolean(entered));
  }));
  return tokenPrompt;
}

function send(path, body) {
  const headers = { ...(token() && { Authorization: `Bearer ${token()}` }) };
  const options = body
    ? { method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(body) }
    : { headers };
  return fetch(new URL(path, SERVER), options).catch(() => {
    throw new Error("no response from the server; is it still running?");
  });
}

// The JSON of a response, or an Error with the server's message.
async function call(path, body) {
  let response = await send(path, body);
  if (response.status === UNAUTHORIZED && await promptForToken()) response = await send(path, body);
  if (response.status === UNAUTHORIZED) {
    sessionStorage.removeItem("token");
    tokenPrompt = undefined;
  }
  const json = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(json.error ?? `the server returned status ${response.status}`);
  return json;
}

// The name of each model of images, and the names of its classes; a server may have other models.
async function findModels() {
  const index = await call("v2/repository/index", { ready: true });
  const names = [...new Set(index.map((model) => model.name))].sort();
  const all = await Promise.all(names.map((name) => call(`v2/models/${name}`)));
  const found = all.filter(({ inputs, parameters }) => inputs?.[0]?.shape[1] === PIXELS && parameters?.class_names);
  if (!found.length) throw new Error("no model of this server is ready; load this page again later");
  return found.map(({ name, parameters }) => ({ name, classes: JSON.parse(parameters.class_names) }));
}

// The tensor of one image: its pixels, or a picture file, which the server makes an image of.
const tensor = (datatype, shape, data, parameters) => ({ name: "predict", shape, datatype, data, parameters });
const tensorOfFile = (url, parameters) => tensor("BYTES", [1], [url.split(",")[1] ?? ""], parameters);

// What a model predicts, or the error.
async function infer(model, body) {
  const start = performance.now();
  try {
    const { outputs, model_version: version } = await call(`v2/models/${model.name}/infer`, body);
    const milliseconds = performance.now() - start;
    const data = Object.fromEntries(outputs.map((output) => [output.name, output.data]));
    return { model, version, data, milliseconds };
  } catch (error) {
    return { model, error };
  }
}

// Send a tensor to all models and show what they predict. options: truth, the number of its class, and
// file, the name of the picture's, where known.
async function predict(input, description, { truth, file } = {}) {
  const number = ++requests;
  const found = await models.catch(() => []); // the error is shown already
  if (!found.length) return;
  const body = { inputs: [input], outputs: OUTPUTS.map((name) => ({ name })) };
  at("predictions").setAttribute("aria-busy", "true");
  const results = await Promise.all(found.map((model) => infer(model, body)));
  if (number !== requests) return;
  at("predictions").setAttribute("aria-busy", "false");
  const good = results.filter((result) => result.data);
  show([...new Set(results.flatMap(({ error }) => error?.message ?? []))].join("\n"));
  at("models").replaceChildren(...good.map((result) => card(result, truth)));
  if (good.length) paint(at("image"), good[0].data.image);
  else at("image").getContext("2d").clearRect(0, 0, SIDE, SIDE);
  at("image").setAttribute("aria-label", good.length ? `The models' image: ${description}` : "No image");
  at("about").textContent = good.length ? description : "";
  at("curl").textContent = curl(new URL(`v2/models/${found[0].name}/infer`, SERVER), body, file);
  at("copy").disabled = false;
  const above = at("predictions").getBoundingClientRect().bottom < 0; // on a low screen
  if (above) at("predictions").scrollIntoView();
}

const show = (error) => {
  at("error").hidden = !error;
  at("error").textContent = error;
};

// What a model predicts: its label, and a bar for each of the likeliest classes, the likeliest first.
function card({ model, version, data, milliseconds }, truth) {
  const shares = data.predict_proba.map((share, label) => ({ share, label }));
  shares.sort((one, other) => other.share - one.share);
  const bars = shares.slice(0, LIKELIEST).map(({ share, label }) => {
    const bar = element("span", { className: "bar" });
    bar.style.width = `${100 * share}%`;
    return element("li", { className: label === data.predict[0] ? "first" : "" },
      element("span", { textContent: model.classes[label] }),
      element("span", { className: "track" }, bar),
      element("span", { className: "share", textContent: `${(100 * share).toFixed(1)} %` }));
  });
  const head = element("header", {},
    element("h3", { textContent: model.name }),
    element("span", { className: "took", textContent: `${version}, ${milliseconds.toFixed(0)} ms` }));
  const label = element("p", { className: "label" }, model.classes[data.predict[0]]);
  if (truth !== undefined) {
    const verdict = data.predict[0] === truth ? "right" : "wrong";
    label.append(" ", element("small", { className: verdict, textContent: verdict }));
  }
  return element("article", { className: "model" }, head, label, element("ol", {}, ...bars));
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function paint(canvas, pixels) {
  const picture = new ImageData(SIDE, SIDE);
  pixels.forEach((grey, place) => picture.data.set([grey, grey, grey, 255], 4 * place));
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

// The shell command that sends the page's request. The base64 of a file, which may be megabytes, is made
// where the command runs.
function curl(url, body, file) {
  const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const authorization = token() ? ' -H "Authorization: Bearer $TOKEN"' : "";
  const command = `curl -s ${url} -H 'Content-Type: application/json'${authorization} -d`;
  const json = JSON.stringify(body);
  if (!file) return `${command} ${quoted(json)}`;
  const data = JSON.stringify(body.inputs[0].data);
  const [before, after] = json.split(data).map(quoted);
  return `{ printf %s ${before}'["'; base64 -w0 ${quoted(file)}; printf %s '"]'${after}; } | ${command} @-`;
}

// The grid of images that evaluate the models, the first of them chosen.
async function fillGrid() {
  const { class_names: names, images } = await call("demo/samples.json");
  const buttons = images.map(({ label, pixels }, place) => {
    const grey = Uint8Array.from(atob(pixels), (char) => char.charCodeAt(0));
    const canvas = element("canvas", { width: SIDE, height: SIDE });
    paint(canvas, grey);
    const button = element("button", { type: "button", tabIndex: place ? -1 : 0 }, canvas);
    button.setAttribute("aria-label", `Image ${place}, ${names[label]}`);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      choose(button);
      const input = tensor("UINT8", [1, PIXELS], Array.from(grey));
      predict(input, `Image ${place}, true class: ${names[label]}`, { truth: label });
    });
    return button;
  });
  at("grid").replaceChildren(...buttons);
  at("grid").addEventListener("keydown", (event) => {
    const columns = getComputedStyle(at("grid")).gridTemplateColumns.split(" ").length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
    const next = buttons[buttons.indexOf(document.activeElement) + steps[event.key]];
    if (!(event.key in steps)) return;
    event.preventDefault();
    if (!next) return;
    buttons.forEach((button) => { button.tabIndex = button === next ? 0 : -1; });
    next.focus();
  });
  if (!requests) buttons[0]?.click();
}

function choose(chosen) {
  for (const button of at("grid").children) button.setAttribute("aria-pressed", button === chosen);
}

// A file that was chosen, dropped or pasted.
function predictFile(file) {
  const reader = new FileReader();
  reader.addEventListener("load", () => {
    const parameters = at("invert").checked ? { invert: true } : undefined;
    choose(null);
    predict(tensorOfFile(reader.result, parameters), file.name, { file: file.name });
  });
  reader.readAsDataURL(file);
}

function takeFiles() {
  const drop = at("drop");
  let last;
  const take = (files) => {
    last = files[0];
    if (last) predictFile(last);
  };
  at("file").addEventListener("change", () => take(at("file").files));
  at("invert").addEventListener("change", () => last && predictFile(last));
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files);
  });
}

// The place to draw on: white on black, as the images are. The brush is moved by a pointer or by keys.
function takeDrawing() {
  const canvas = at("canvas");
  const pen = canvas.getContext("2d");
  const steps = { ArrowRight: [STEP, 0], ArrowLeft: [-STEP, 0], ArrowDown: [0, STEP], ArrowUp: [0, -STEP] };
  let here = [canvas.width / 2, canvas.height / 2];
  let down = false; // of the brush that keys move
  const blank = () => {
    pen.fillStyle = "#000";
    pen.fillRect(0, 0, canvas.width, canvas.height);
  };
  const draw = (from, to) => {
    Object.assign(pen, { strokeStyle: "#fff", lineWidth: at("width").value, lineCap: "round" });
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(...to);
    pen.stroke();
    here = to;
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const scale = canvas.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  };
  const showBrush = () => {
    const brush = at("brush");
    brush.hidden = document.activeElement !== canvas || !canvas.matches(":focus-visible");
    brush.classList.toggle("down", down);
    brush.style.left = `${100 * here[0] / canvas.width}%`;
    brush.style.top = `${100 * here[1] / canvas.height}%`;
    brush.style.width = `${100 * at("width").value / canvas.width}%`;
  };

  blank();
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    draw(place(event), place(event));
  });
  canvas.addEventListener("pointermove", (event) => event.buttons && draw(here, place(event)));
  canvas.addEventListener("keydown", (event) => {
    if (event.key === " ") {
      down = !down;
      if (down) draw(here, here);
    } else if (event.key in steps) {
      const to = here.map((value, axis) => Math.min(Math.max(value + steps[event.key][axis], 0), canvas.width));
      if (down) draw(here, to);
      here = to;
    } else {
      return;
    }
    event.preventDefault();
    showBrush();
  });
  canvas.addEventListener("focus", showBrush);
  canvas.addEventListener("blur", () => { down = false; showBrush(); });
  at("clear").addEventListener("click", blank);
  at("predict").addEventListener("click", () => {
    choose(null);
    predict(tensorOfFile(canvas.toDataURL("image/png")), "Your drawing");
  });
}

// Without HTTPS, browsers lend the clipboard to pages of this machine alone: then the text is marked.
async function copy() {
  const text = at("copy").textContent;
  if (navigator.clipboard) await navigator.clipboard.writeText(at("curl").textContent);
  else getSelection().selectAllChildren(at("curl"));
  at("copy").textContent = navigator.clipboard ? "Copied" : "Marked, to be copied";
  setTimeout(() => { at("copy").textContent = text; }, 1500);
}

at("copy").addEventListener("click", copy);

const models = findModels();
models.catch((error) => show(error.message));
takeFiles();
takeDrawing();
fillGrid().catch((error) => show(error.message));
