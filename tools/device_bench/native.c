/* What runs on a device without Python: models in ONNX Runtime's own library, which is loaded by its path.
 *
 *   native LIBRARY                                              what is there
 *   native LIBRARY once SAMPLES OUTPUTS [MODEL [KEY=VALUE ...]] outputs of all samples, and the memory that it took
 *   native LIBRARY turns SAMPLES THREADS WARM SECONDS MODEL ... milliseconds of runs on the first sample, model after model
 *
 * SAMPLES and OUTPUTS are files of tensors: their number; for each the length of its name, the name, ONNX's number of its type, its rank, its
 * dimensions, the number of its bytes, and these. Numbers are int64, of the device's byte order; axis 0 counts samples. One line of JSON goes
 * to stdout; what fails is in it, and the exit code is 0.
 *
 * Build it with the headers of the package that has the library, for Android with the compiler of the NDK:
 *   aarch64-linux-android24-clang -std=c11 -O2 -I headers native.c -o native -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <inttypes.h>
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

enum { VERSION = 12, MOST = 32, RANK = 16, LEAST_TURNS = 5, MOST_TURNS = 2000 };
/* VERSION: of the interface, the oldest that has all that is called, so that older libraries do, too. */

typedef struct {
  char *name;
  int64_t type, rank, dims[RANK], bytes;
  char *data;
} Tensor;

typedef struct {
  int64_t count;
  Tensor each[MOST];
} Tensors;

typedef struct {
  OrtSession *session;
  size_t outputs;
  char *names[MOST];
} Model;

static const OrtApi *api;
static const char *library_version;

static void told(const char *rest) {
  struct utsname machine;
  uname(&machine);
  printf("{\"machine\": \"%s\", \"onnxruntime\": \"%s\", %s}\n", machine.machine, library_version ? library_version : "", rest);
  exit(0);
}

static void fail(const char *message) {
  static char text[1024];
  size_t used = (size_t)snprintf(text, sizeof text, "\"error\": \"");
  for (; *message && used < sizeof text - 4; message++)
    text[used++] = *message == '"' ? '\'' : *message == '\\' ? '/' : (unsigned char)*message < ' ' ? ' ' : *message;
  snprintf(text + used, sizeof text - used, "\"");
  told(text);
}

static void check(OrtStatus *status) {
  if (status) fail(api->GetErrorMessage(status));
}

static void *memory(size_t bytes) {
  void *found = calloc(1, bytes ? bytes : 1);
  if (!found) fail("there is not enough memory");
  return found;
}

static void transfer(int writing, void *content, int64_t bytes, FILE *file) {
  size_t done = writing ? fwrite(content, 1, (size_t)bytes, file) : fread(content, 1, (size_t)bytes, file);
  if (done != (size_t)bytes) fail(writing ? "the outputs cannot be written" : "the samples end early");
}

static int64_t number(FILE *file) {
  int64_t found;
  transfer(0, &found, sizeof found, file);
  if (found < 0) fail("the samples are damaged");
  return found;
}

static void read_tensors(const char *path, Tensors *tensors) {
  FILE *file = fopen(path, "rb");
  if (!file) fail("the samples cannot be read");
  tensors->count = number(file);
  if (tensors->count > MOST) fail("there are too many inputs");
  for (int64_t i = 0; i < tensors->count; i++) {
    Tensor *tensor = &tensors->each[i];
    int64_t length = number(file);
    tensor->name = memory((size_t)length + 1);
    transfer(0, tensor->name, length, file);
    tensor->type = number(file);
    tensor->rank = number(file);
    if (tensor->rank < 1 || tensor->rank > RANK) fail("an input has too many dimensions");
    for (int64_t axis = 0; axis < tensor->rank; axis++) tensor->dims[axis] = number(file);
    tensor->bytes = number(file);
    tensor->data = memory((size_t)tensor->bytes);
    transfer(0, tensor->data, tensor->bytes, file);
  }
  fclose(file);
}

static void write_tensors(const char *path, Tensors *tensors) {
  FILE *file = fopen(path, "wb");
  if (!file) fail("the outputs cannot be written");
  transfer(1, &tensors->count, sizeof tensors->count, file);
  for (int64_t i = 0; i < tensors->count; i++) {
    Tensor *tensor = &tensors->each[i];
    int64_t length = (int64_t)strlen(tensor->name);
    transfer(1, &length, sizeof length, file);
    transfer(1, tensor->name, length, file);
    transfer(1, &tensor->type, sizeof tensor->type, file);
    transfer(1, &tensor->rank, sizeof tensor->rank, file);
    transfer(1, tensor->dims, tensor->rank * (int64_t)sizeof tensor->dims[0], file);
    transfer(1, &tensor->bytes, sizeof tensor->bytes, file);
    transfer(1, tensor->data, tensor->bytes, file);
  }
  if (fclose(file)) fail("the outputs cannot be written");
}

static OrtEnv *environment(void) {
  OrtEnv *env;
  check(api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "native", &env));
  return env;
}

static void open_model(OrtEnv *env, const char *path, int threads, int count, char **settings, Model *model) {
  OrtSessionOptions *options;
  OrtAllocator *allocator;
  check(api->CreateSessionOptions(&options));
  check(api->SetIntraOpNumThreads(options, threads));
  check(api->SetInterOpNumThreads(options, 1));
  for (int i = 0; i < count; i++) {
    char *value = strchr(settings[i], '=');
    if (!value) fail("a setting has no value");
    *value++ = 0;
    check(api->AddSessionConfigEntry(options, settings[i], value));
  }
  check(api->CreateSession(env, path, options, &model->session));
  check(api->GetAllocatorWithDefaultOptions(&allocator));
  check(api->SessionGetOutputCount(model->session, &model->outputs));
  if (model->outputs > MOST) fail("the model has too many outputs");
  for (size_t i = 0; i < model->outputs; i++) check(api->SessionGetOutputName(model->session, i, allocator, &model->names[i]));
}

/* Inputs of one sample, over the memory of all. */
static void view(const Tensors *samples, int64_t sample, const char **names, OrtValue **values) {
  OrtMemoryInfo *info;
  check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &info));
  for (int64_t i = 0; i < samples->count; i++) {
    const Tensor *tensor = &samples->each[i];
    int64_t bytes = tensor->dims[0] ? tensor->bytes / tensor->dims[0] : 0;
    names[i] = tensor->name;
    check(api->CreateTensorWithDataAsOrtValue(info, tensor->data + sample * bytes, (size_t)bytes, tensor->dims + 1, (size_t)tensor->rank - 1,
                                              (ONNXTensorElementDataType)tensor->type, &values[i]));
  }
  api->ReleaseMemoryInfo(info);
}

static void run(const Model *model, const Tensors *samples, const char *const *names, OrtValue *const *inputs, OrtValue **outputs) {
  memset(outputs, 0, model->outputs * sizeof *outputs);
  check(api->Run(model->session, NULL, names, (const OrtValue *const *)inputs, (size_t)samples->count, (const char *const *)model->names,
                 model->outputs, outputs));
}

static void release(OrtValue **values, size_t count) {
  for (size_t i = 0; i < count; i++) api->ReleaseValue(values[i]);
}

static int64_t width(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8: case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8: case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL: return 1;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16: case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16: return 2;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32: case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32: return 4;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE: case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64: case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64: return 8;
    default: fail("an output has a type that cannot be brought back"); return 0;
  }
}

/* Copy one sample's output behind those of the samples before. */
static void keep(OrtValue *value, char *name, int64_t sample, int64_t samples, Tensor *kept) {
  OrtTensorTypeAndShapeInfo *info;
  ONNXTensorElementDataType type;
  int64_t dims[RANK], bytes;
  size_t rank, elements;
  void *data;
  check(api->GetTensorTypeAndShape(value, &info));
  check(api->GetTensorElementType(info, &type));
  check(api->GetDimensionsCount(info, &rank));
  if (rank >= RANK) fail("an output has too many dimensions");
  check(api->GetDimensions(info, dims, rank));
  check(api->GetTensorShapeElementCount(info, &elements));
  api->ReleaseTensorTypeAndShapeInfo(info);
  bytes = (int64_t)elements * width(type);
  if (sample == 0) {
    kept->name = name;
    kept->type = type;
    kept->rank = (int64_t)rank + 1;
    kept->dims[0] = samples;
    memcpy(kept->dims + 1, dims, rank * sizeof dims[0]);
    kept->bytes = bytes * samples;
    kept->data = memory((size_t)kept->bytes);
  } else if (bytes * samples != kept->bytes) {
    fail("an output changes its size from sample to sample");
  }
  check(api->GetTensorMutableData(value, &data));
  memcpy(kept->data + sample * bytes, data, (size_t)bytes);
}

static long peak_kilobytes(void) {
  char line[256];
  long found = 0;
  FILE *file = fopen("/proc/self/status", "r");
  while (file && fgets(line, sizeof line, file))
    if (sscanf(line, "VmHWM: %ld", &found) == 1) break;
  if (file) fclose(file);
  return found;
}

static void once(int count, char **words) {
  static Tensors samples, outputs;
  static char text[64];
  if (count > 2) {
    const char *names[MOST];
    OrtValue *inputs[MOST], *values[MOST];
    Model model;
    read_tensors(words[0], &samples);
    open_model(environment(), words[2], 1, count - 3, words + 3, &model);
    outputs.count = (int64_t)model.outputs;
    for (int64_t sample = 0; sample < samples.each[0].dims[0]; sample++) {
      view(&samples, sample, names, inputs);
      run(&model, &samples, names, inputs, values);
      for (size_t i = 0; i < model.outputs; i++) keep(values[i], model.names[i], sample, samples.each[0].dims[0], &outputs.each[i]);
      release(inputs, (size_t)samples.count);
      release(values, model.outputs);
    }
    write_tensors(words[1], &outputs);
  } else {
    environment();
  }
  snprintf(text, sizeof text, "\"error\": null, \"peak\": %ld", peak_kilobytes() * 1024);
  told(text);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static void turns(int count, char **words) {
  static Tensors samples;
  static Model models[MOST];
  static double times[MOST][MOST_TURNS];
  const char *names[MOST];
  OrtValue *inputs[MOST], *values[MOST];
  int threads = atoi(words[1]), warm = atoi(words[2]), done = 0, all = count - 4;
  OrtEnv *env = environment();
  if (all > MOST) fail("there are too many models");
  read_tensors(words[0], &samples);
  view(&samples, 0, names, inputs);
  for (int i = 0; i < all; i++) open_model(env, words[4 + i], threads, 0, NULL, &models[i]);
  double end = 0;
  for (int turn = -warm; done < LEAST_TURNS || (now() < end && done < MOST_TURNS); turn++) {
    if (turn == 0) end = now() + atof(words[3]) * 1e3;
    for (int i = 0; i < all; i++) {
      double start = now();
      run(&models[i], &samples, names, inputs, values);
      if (turn >= 0) times[i][done] = now() - start;
      release(values, models[i].outputs);
    }
    done += turn >= 0;
  }
  char *text = memory((size_t)all * (size_t)done * 24 + 64), *at = text + sprintf(text, "\"error\": null, \"times\": [");
  for (int i = 0; i < all; i++)
    for (int turn = 0; turn < done; turn++)
      at += sprintf(at, "%s%.6f%s", turn ? ", " : i ? ", [" : "[", times[i][turn], turn == done - 1 ? "]" : "");
  sprintf(at, "]");
  told(text);
}

int main(int count, char **words) {
  if (count < 2) return 2;
  void *library = dlopen(words[1], RTLD_NOW);
  if (!library) fail(dlerror());
  const OrtApiBase *(*base)(void) = (const OrtApiBase *(*)(void))dlsym(library, "OrtGetApiBase");
  if (!base) fail("the library is not ONNX Runtime");
  library_version = base()->GetVersionString();
  api = base()->GetApi(VERSION);
  if (!api) fail("the library is too old");
  if (count >= 5 && !strcmp(words[2], "once")) once(count - 3, words + 3);
  if (count >= 8 && !strcmp(words[2], "turns")) turns(count - 3, words + 3);
  if (count == 2) told("\"error\": null");
  return 2;
}
