// Asks the models of the server that serves this page, by the V2 routes that everyone uses.

const SIDE = 28;
const PIXELS = SIDE * SIDE;
const OUTPUTS = ["predict", "predict_proba", "image"];
const SERVER = new URL("..", document.baseURI); // the page is at …/demo/
const LIKELIEST = 10; // classes shown, of at most 255
const STEP = 10; // of the drawing's 280 pixels a side, one of the models' own

const at = (id) => document.getElementById(id);
let asked = 0; // questions so far: answers to an earlier one are not shown

// A JSON answer of the server, or an Error in its own words.
async function call(path, body) {
  const options = body && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(new URL(path, SERVER), options);
  } catch {
    throw new Error("the server does not answer; is it still running?");
  }
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.error ?? `the server answers ${answer.status}`);
  return said;
}

// Each model's name, and the names of its classes.
async function findModels() {
  const index = await call("v2/repository/index", { ready: true });
  const names = [...new Set(index.map((model) => model.name))].sort();
  if (!names.length) throw new Error("no model of this server is ready; load this page again later");
  return Promise.all(names.map(async (name) => {
    const { parameters } = await call(`v2/models/${name}`);
    return { name, classes: JSON.parse(parameters.class_names) };
  }));
}

// The tensor of pixels that are there.
const ofPixels = (pixels) => ({
  name: "predict", shape: [1, PIXELS], datatype: "UINT8", data: Array.from(pixels),
});

// The tensor of a picture file, which the server makes an image of.
const ofFile = (base64, invert) => ({
  name: "predict", shape: [1], datatype: "BYTES", data: [base64],
  ...(invert && { parameters: { invert } }),
});

// Ask all models about a tensor. told: what is known of it; curl: how to ask so elsewhere; truth: the
// number of its class, where known.
async function ask(tensor, told, curl, truth) {
  const mine = ++asked;
  const asking = await models.catch(() => []); // it has been told why there is none
  if (!asking.length) return;
  const body = { inputs: [tensor], outputs: OUTPUTS.map((name) => ({ name })) };
  at("answer").setAttribute("aria-busy", "true");
  const answers = await Promise.all(asking.map(async (model) => {
    const start = performance.now();
    try {
      const said = await call(`v2/models/${model.name}/infer`, body);
      const milliseconds = performance.now() - start;
      const data = Object.fromEntries(said.outputs.map((output) => [output.name, output.data]));
      return { model, version: said.model_version, data, milliseconds };
    } catch (error) {
      return { model, error };
    }
  }));
  if (mine !== asked) return;
  at("answer").setAttribute("aria-busy", "false");
  const good = answers.filter((answer) => answer.data);
  const wrong = [...new Set(answers.filter((a) => a.error).map((a) => a.error.message))];
  show(wrong.join("\n"));
  at("models").replaceChildren(...good.map((answer) => card(answer, truth)));
  if (good.length) paint(at("image"), good[0].data.image);
  else clear(at("image"));
  at("image").setAttribute("aria-label", good.length ? `The image asked about: ${told}` : "No image");
  at("about").textContent = good.length ? told : "";
  at("curl").textContent = curl(body, new URL(`v2/models/${answers[0].model.name}/infer`, SERVER));
  at("copy").disabled = false;
  const below = at("answer").getBoundingClientRect().top > innerHeight - 100; // as on a phone
  if (below) at("answer").scrollIntoView();
}

const show = (error) => {
  at("error").hidden = !error;
  at("error").textContent = error;
};

// A model's answer: its label, and a bar for each of the likeliest classes, the likeliest first.
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
  const says = element("p", { className: "says" }, model.classes[data.predict[0]]);
  if (truth !== undefined) {
    const verdict = data.predict[0] === truth ? "right" : "wrong";
    says.append(" ", element("small", { className: verdict, textContent: verdict }));
  }
  return element("article", { className: "model" }, head, says, element("ol", {}, ...bars));
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

const clear = (canvas) => canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);

// The command that asks as the page did, for a shell.
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const KIND = "-H 'Content-Type: application/json'";
const curlOfBody = (body, url) => `curl -s ${url} ${KIND} -d ${quoted(JSON.stringify(body))}`;

// Of a file: its base64, which may be megabytes, is made where the command runs.
function curlOfFile(name) {
  return (body, url) => {
    const [before, after] = JSON.stringify({ ...body, inputs: [{ ...body.inputs[0], data: ["\0"] }] })
      .split("\\u0000");
    const parts = `{ printf %s ${quoted(before)}; base64 -w0 ${quoted(name)}; printf %s ${quoted(after)}; }`;
    return `${parts} | curl -s ${url} ${KIND} -d @-`;
  };
}

// The grid of test images.
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
      ask(ofPixels(grey), `Image ${place}, in truth: ${names[label]}`, curlOfBody, label);
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
}

function choose(chosen) {
  for (const button of at("grid").children) button.setAttribute("aria-pressed", button === chosen);
}

// A file that was chosen, dropped or pasted.
async function askFile(file) {
  choose(null);
  const bytes = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) {
    text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  }
  await ask(ofFile(btoa(text), at("invert").checked), file.name, curlOfFile(file.name));
}

function takeFiles() {
  const drop = at("drop");
  let last;
  const take = (files) => {
    last = files[0];
    if (last) askFile(last);
  };
  at("file").addEventListener("change", () => take(at("file").files));
  at("invert").addEventListener("change", () => last && askFile(last));
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
  at("ask").addEventListener("click", () => {
    choose(null);
    const [, base64] = canvas.toDataURL("image/png").split(",");
    ask(ofFile(base64, false), "Your drawing", curlOfBody);
  });
}

// Without HTTPS, browsers lend the clipboard to pages of this machine alone: then the text is marked.
async function copy() {
  const said = at("copy").textContent;
  if (navigator.clipboard) await navigator.clipboard.writeText(at("curl").textContent);
  else getSelection().selectAllChildren(at("curl"));
  at("copy").textContent = navigator.clipboard ? "Copied" : "Marked, to be copied";
  setTimeout(() => { at("copy").textContent = said; }, 1500);
}

at("copy").addEventListener("click", copy);

const models = findModels();
models.catch((error) => show(error.message));
takeFiles();
takeDrawing();
fillGrid().catch((error) => show(error.message));
