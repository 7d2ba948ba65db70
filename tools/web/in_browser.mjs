// Performs a job in a browser: chromium.py serves the job, takes the results, and is told when all is done.
import * as ort from '/ort/ort.wasm.min.mjs';
import { perform } from '/runner.mjs';

ort.env.wasm.wasmPaths = '/ort/';

async function read(name) {
  const answer = await fetch(`/job/${name}`);
  if (!answer.ok) throw new Error(`${name} cannot be read`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function write(name, bytes) {
  const answer = await fetch(`/job/${name}`, { method: 'PUT', body: bytes });
  if (!answer.ok) throw new Error(`${name} cannot be written`);
}

let complaint = '';
try {
  await perform(ort, JSON.parse(new TextDecoder().decode(await read('job.json'))), read, write);
} catch (error) {
  complaint = String(error instanceof Error ? error.message : error);
}
await write('ended', new TextEncoder().encode(complaint));
