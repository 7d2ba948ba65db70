// Performs the tasks of a job with ONNX Runtime Web, in Node and in a browser alike. What a job is: jobs.py.

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, int8: Int8Array, uint8: Uint8Array, int32: Int32Array, int64: BigInt64Array, bool: Uint8Array,
};

const KINDS = { outputs, latencies, profiles };

// ort: the module. read(name): bytes of a file of the job. write(name, bytes): keeps a result beside it.
export async function perform(ort, job, read, write) {
  ort.env.wasm.numThreads = 1; // what a page gets that is not isolated from others
  ort.env.logLevel = 'error';
  const results = [];
  for (const task of job.tasks) results.push(await KINDS[task.kind](ort, task, read, write));
  await write('results.json', new TextEncoder().encode(JSON.stringify(results)));
}

async function open(ort, model, read, more = {}) {
  return ort.InferenceSession.create(await read(model), { executionProviders: ['wasm'], ...more });
}

async function tensors(ort, feed, read) {
  const found = {};
  for (const [name, { type, dims, file }] of Object.entries(feed)) {
    const bytes = new Uint8Array(await read(file)); // a copy that begins at 0, as arrays of larger numbers must
    found[name] = new ort.Tensor(type, new ARRAYS[type](bytes.buffer), dims);
  }
  return found;
}

async function outputs(ort, task, read, write) {
  const session = await open(ort, task.model, read);
  const found = [];
  for (const [place, feed] of task.feeds.entries()) {
    const described = {};
    for (const [name, tensor] of Object.entries(await session.run(await tensors(ort, feed, read)))) {
      const file = `${task.results}_${place}_${Object.keys(described).length}`;
      const { buffer, byteOffset, byteLength } = tensor.data;
      await write(file, new Uint8Array(buffer, byteOffset, byteLength));
      described[name] = { type: tensor.type, dims: [...tensor.dims], file };
    }
    found.push(described);
  }
  await session.release();
  return found;
}

async function latencies(ort, task, read) {
  const sessions = [];
  for (const model of task.models) sessions.push(await open(ort, model, read));
  const feed = await tensors(ort, task.feed, read);
  const times = sessions.map(() => []);
  for (let turn = -task.warm; turn < task.turns; turn++) {
    for (const [place, session] of sessions.entries()) {
      const start = performance.now();
      await session.run(feed);
      if (turn >= 0) times[place].push(performance.now() - start);
    }
  }
  for (const session of sessions) await session.release();
  return times;
}

// The runtime writes each profile to stdout when it ends.
async function profiles(ort, task, read) {
  const opened = [];
  for (const { model, feed } of task.models) {
    opened.push([await open(ort, model, read, { enableProfiling: true }), await tensors(ort, feed, read)]);
  }
  for (let run = 0; run < task.runs; run++) for (const [session, feed] of opened) await session.run(feed);
  for (const [session] of opened) {
    session.endProfiling();
    await session.release();
  }
  return opened.length;
}
