// One picture through a float and an int8 model: the answers of both, then their times in turns.
import * as ort from '/ort/ort.wasm.min.mjs';
import { preprocessed } from '/preprocess.mjs';

const BEST = 5;
const WARM = { seconds: 1, least: 3, most: 200 }; // browsers compile the kernels better when they have run for a while
const MEASURED = { seconds: 2, least: 5, most: 100 };
const SIDES = ['float', 'int8'];

const at = (selector) => document.querySelector(selector);
const sessions = {};
let about;
let running = Promise.resolve();

ort.env.wasm.wasmPaths = '/ort/';
ort.env.wasm.numThreads = 1; // what a page gets that is not isolated from others
ort.env.logLevel = 'error';

function warn(text) {
  at('#warning').textContent = text;
  at('#warning').hidden = !text;
}

function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

// Class scores as shares: as they are if they add up to one already.
function shares(scores) {
  const sum = scores.reduce((a, b) => a + b, 0);
  if (Math.abs(sum - 1) < 1e-3 && scores.every((score) => score >= 0)) return scores;
  const highest = Math.max(...scores);
  const powers = scores.map((score) => Math.exp(score - highest));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / total);
}

// Numbers of the picture, on white, as [height][width][3].
async function codesOf(file) {
  const bitmap = await createImageBitmap(file);
  const canvas = at('#picture');
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.fillStyle = 'white';
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  const four = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
  const codes = new Uint8Array((four.length / 4) * 3);
  for (let i = 0, j = 0; i < four.length; i += 4, j += 3) codes.set(four.subarray(i, i + 3), j);
  canvas.hidden = false;
  return [codes, bitmap.height, bitmap.width];
}

function showAnswers(side, scores) {
  const all = shares(scores);
  const best = all.map((_, index) => index).sort((a, b) => all[b] - all[a]).slice(0, BEST);
  at(`#${side} .answers`).replaceChildren(...best.map((index) => {
    const [line, bar, name, share] = ['li', 'i', 'span', 'span'].map((tag) => document.createElement(tag));
    bar.style.width = `${100 * all[index]}%`;
    name.textContent = name.title = about.classes[index] ?? `class ${index}`;
    share.textContent = `${(100 * all[index]).toFixed(1)} %`;
    line.dataset.score = scores[index];
    line.append(bar, name, share);
    return line;
  }));
  return best[0];
}

async function answers(feeds) {
  const best = [];
  for (const side of SIDES) {
    const result = (await sessions[side].run(feeds))[sessions[side].outputNames[0]];
    const classes = result.dims.at(-1);
    best.push(showAnswers(side, Array.from(result.data.subarray(0, classes), Number)));
  }
  return best[0] === best[1];
}

// Milliseconds of both models, run in turns.
async function times(feeds, { seconds, least, most }) {
  const found = SIDES.map(() => []);
  const end = performance.now() + 1000 * seconds;
  for (let turn = 0; turn < least || (turn < most && performance.now() < end); turn++) {
    for (const [place, side] of SIDES.entries()) {
      const start = performance.now();
      await sessions[side].run(feeds);
      found[place].push(performance.now() - start);
    }
    await new Promise((done) => setTimeout(done)); // the page stays alive
  }
  return found;
}

async function show(file) {
  warn('');
  at('#verdict').textContent = 'running …';
  at('#ask').textContent = file.name;
  for (const side of SIDES) at(`#${side} .time b`).textContent = '–';
  const pixels = preprocessed(...(await codesOf(file)), about);
  const feeds = { [about.input]: new ort.Tensor('float32', pixels, [1, 3, about.height, about.width]) };
  const same = await answers(feeds);
  at('#verdict').textContent = 'measuring …';
  await times(feeds, WARM);
  const runs = await times(feeds, MEASURED);
  const found = runs.map(median);
  SIDES.forEach((side, place) => { at(`#${side} .time b`).textContent = found[place].toFixed(1); });
  const ratio = found[0] / found[1];
  const speed = ratio >= 1 ? `${ratio.toFixed(2)} times as fast as float` : `slower than float, at ${ratio.toFixed(2)} times its speed`;
  at('#verdict').textContent = `int8 ${same ? 'gives the same answer' : 'gives another answer'} and is ${speed} here `
    + `(median of ${runs[0].length} runs in turns, one thread).`;
}

function take(file) {
  if (!file) return;
  running = running.then(() => show(file)).catch((error) => {
    at('#verdict').textContent = '';
    warn(error instanceof DOMException ? 'This file is no picture that the browser can read.' : String(error.message ?? error));
  });
}

function listen() {
  const drop = at('#drop');
  at('#file').addEventListener('change', (event) => take(event.target.files[0]));
  drop.addEventListener('keydown', (event) => { if (event.key === 'Enter' || event.key === ' ') at('#file').click(); });
  for (const kind of ['dragover', 'dragenter']) drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add('over'); });
  for (const kind of ['dragleave', 'drop']) drop.addEventListener(kind, () => drop.classList.remove('over'));
  window.addEventListener('dragover', (event) => event.preventDefault());
  window.addEventListener('drop', (event) => { event.preventDefault(); take(event.dataTransfer.files[0]); });
}

async function open() {
  about = await (await fetch('/about.json')).json();
  for (const side of SIDES) {
    const bytes = new Uint8Array(await (await fetch(`/model/${side}`)).arrayBuffer());
    sessions[side] = await ort.InferenceSession.create(bytes, { executionProviders: ['wasm'] });
    at(`#${side} .file`).textContent = `${about.files[side].name}, ${(about.files[side].bytes / 1e6).toFixed(2)} MB`;
  }
  at('#about').textContent = `ONNX Runtime Web ${about.runtime}, WebAssembly. Pictures become ${about.height} × ${about.width} pixels: ${about.spec}.`;
  warn(about.warning);
  listen();
  document.body.dataset.ready = 'yes';
  if (about.picture) take(new File([await (await fetch('/picture')).blob()], about.picture));
}

open().catch((error) => warn(String(error.message ?? error)));
