// node in_node.mjs PACKAGE_FOLDER JOB_FOLDER: performs a job in Node. Results go into the job's folder, profiles to stdout.
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { perform } from './runner.mjs';

const [home, folder] = process.argv.slice(2);
const ort = createRequire(path.join(home, 'node_modules', '/'))('onnxruntime-web/wasm');
const read = (name) => fs.readFileSync(path.join(folder, name));
const write = (name, bytes) => fs.writeFileSync(path.join(folder, name), bytes);
try {
  await perform(ort, JSON.parse(read('job.json')), read, write);
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
  process.exitCode = 1;
}
