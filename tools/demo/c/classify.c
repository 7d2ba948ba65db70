/* Classify a picture with ONNX Runtime's C API: classify MODEL.onnx|MODEL.ort PICTURE.ppm [HEIGHT WIDTH]
 *
 * How the picture becomes the model's input is read from the model's metadata, entry bridgequant.preprocess, so that one program serves float
 * and int8 files of any network. The five highest scores go to stdout: index and score, one a line. HEIGHT and WIDTH are for models that leave
 * them open. Build it, for Android with the compiler of the NDK and the folders headers and jni/arm64-v8a of ONNX Runtime's package:
 *   cc -std=c11 -O2 -I HEADERS classify.c -o classify -L LIBRARY -lonnxruntime -lm
 */
#include <ctype.h>
#include <math.h>
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VERSION = 12, CHANNELS = 3, BEST = 5, RANK = 4, BITS = 22, LONGEST = 1 << 15 };
/* VERSION: of the interface; older libraries than the headers have it, too. BITS: of the fixed-point weights that resize. */

typedef enum { STRETCH, CROP, PAD } Resize;

typedef struct {
  float mean[CHANNELS], std[CHANNELS];
  Resize resize;
} Preprocess;

typedef struct {
  int height, width;
  unsigned char *codes; /* [height][width][CHANNELS] */
} Picture;

static const OrtApi *api;

static void fail(const char *what, const char *where) {
  fprintf(stderr, "error: %s: %s\n", where, what);
  exit(1);
}

static void check(OrtStatus *status) {
  if (status) fail(api->GetErrorMessage(status), "ONNX Runtime");
}

static void *memory(size_t bytes) {
  void *found = calloc(1, bytes ? bytes : 1);
  if (!found) fail("there is not enough", "memory");
  return found;
}

/* The preprocessing. */

static int numbers(const char *text, float *found) {
  char *end = (char *)text;
  int count = 0;
  do {
    if (count == CHANNELS) return 0;
    text = end + (count > 0);
    found[count++] = strtof(text, &end);
    if (end == text) return 0;
  } while (*end == ',');
  for (int i = count; count == 1 && i < CHANNELS; i++) found[i] = found[0]; /* one stands for all */
  return *end == 0 && (count == 1 || count == CHANNELS);
}

static int preset(const char *name, Preprocess *found) {
  static const struct {
    const char *name;
    Preprocess is;
  } known[] = {
      {"imagenet", {{0.485f, 0.456f, 0.406f}, {0.229f, 0.224f, 0.225f}, CROP}},
      {"unit", {{0, 0, 0}, {1, 1, 1}, STRETCH}},
      {"symmetric", {{0.5f, 0.5f, 0.5f}, {0.5f, 0.5f, 0.5f}, STRETCH}},
  };
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (!strcmp(name, known[i].name)) {
      *found = known[i].is;
      return 1;
    }
  return 0;
}

static int resize_of(const char *name, Resize *found) {
  static const char *const known[] = {"stretch", "crop", "pad"};
  for (int i = 0; i < 3; i++)
    if (!strcmp(name, known[i])) {
      *found = (Resize)i;
      return 1;
    }
  return 0;
}

/* Read a SPEC such as "imagenet", "unit;resize=crop" or "mean=0.5,0.4,0.3;std=0.2". */
static Preprocess parse(const char *spec) {
  Preprocess found;
  char text[256];
  size_t length = strlen(spec);
  preset("unit", &found);
  if (length >= sizeof text) fail("it is too long", "bridgequant.preprocess");
  for (size_t i = 0; i <= length; i++) text[i] = (char)tolower((unsigned char)spec[i]);
  for (size_t i = 0; i < length; i++) /* a comma in front of a name ends a term, as a semicolon does */
    if (text[i] == ',' && isalpha((unsigned char)text[i + 1])) text[i] = ';';
  for (char *term = strtok(text, "; \t"); term; term = strtok(NULL, "; \t")) {
    Resize resize = found.resize;
    int fits = !strncmp(term, "mean=", 5)     ? numbers(term + 5, found.mean)
               : !strncmp(term, "std=", 4)    ? numbers(term + 4, found.std)
               : !strncmp(term, "resize=", 7) ? resize_of(term + 7, &resize)
                                              : preset(term, &found);
    if (!fits) fail("it is not understood", spec);
    if (!strncmp(term, "resize=", 7)) found.resize = resize;
  }
  return found;
}

/* The picture. */

static int header_number(FILE *file, const char *path) {
  int next = fgetc(file), found = 0, digits = 0;
  while (isspace(next) || next == '#') {
    if (next == '#')
      while (next != '\n' && next != EOF) next = fgetc(file);
    next = fgetc(file);
  }
  for (; isdigit(next) && digits < 6; digits++, next = fgetc(file)) found = found * 10 + next - '0';
  if (digits == 0 || !isspace(next)) fail("it is no PPM picture", path);
  return found;
}

static Picture read_ppm(const char *path) {
  FILE *file = fopen(path, "rb");
  Picture found;
  if (!file) fail("it cannot be read", path);
  if (fgetc(file) != 'P' || fgetc(file) != '6') fail("it is no binary PPM picture (P6)", path);
  found.width = header_number(file, path);
  found.height = header_number(file, path);
  if (header_number(file, path) != 255) fail("it has not 8 bits a channel", path);
  if (found.width < 1 || found.height < 1 || found.width > LONGEST || found.height > LONGEST) fail("its size makes no sense", path);
  size_t bytes = (size_t)found.width * (size_t)found.height * CHANNELS;
  found.codes = memory(bytes);
  if (fread(found.codes, 1, bytes, file) != bytes) fail("it ends early", path);
  fclose(file);
  return found;
}

/* Resize rows: each output is the mean of the inputs below a triangle, wider where the picture shrinks. What Pillow calls BILINEAR, rounded as
 * there: to codes after each direction. Twice, with the axes swapped, it resizes a picture.
 *
 * codes: [rows][columns][CHANNELS], of which the columns from begin to end become `wanted` ones. Returns [wanted][rows][CHANNELS]. */
static unsigned char *resized_rows(const unsigned char *codes, int rows, int columns, float begin, float end, int wanted) {
  unsigned char *found = memory((size_t)wanted * (size_t)rows * CHANNELS);
  double scale = (double)(end - begin) / wanted, support = scale < 1 ? 1 : scale;
  double *weights = memory(((size_t)(2 * support) + 3) * sizeof *weights);
  for (int at = 0; at < wanted; at++) {
    double centre = begin + (at + 0.5) * scale, sum = 0;
    int first = (int)(centre - support + 0.5), last = (int)(centre + support + 0.5);
    if (first < 0) first = 0;
    if (last > columns) last = columns;
    for (int x = first; x < last; x++) sum += weights[x - first] = fmax(0, 1 - fabs((x - centre + 0.5) / support));
    for (int row = 0; row < rows; row++)
      for (int channel = 0; channel < CHANNELS; channel++) {
        int total = 1 << (BITS - 1);
        for (int x = first; x < last; x++)
          total += codes[((size_t)row * (size_t)columns + (size_t)x) * CHANNELS + (size_t)channel] *
                   (int)(0.5 + weights[x - first] / sum * (1 << BITS));
        total >>= BITS;
        found[((size_t)at * (size_t)rows + (size_t)row) * CHANNELS + (size_t)channel] = (unsigned char)(total > 255 ? 255 : total);
      }
  }
  free(weights);
  return found;
}

static float *preprocessed(Picture picture, int height, int width, const Preprocess *how) {
  double across = (double)width / picture.width, down = (double)height / picture.height;
  double scale = how->resize == CROP ? fmax(across, down) : fmin(across, down);
  double kept_width = picture.width, kept_height = picture.height;
  int new_width = width, new_height = height;
  if (how->resize == CROP) { /* cut first, so that the rest has the wanted shape */
    kept_width = fmin(kept_width, width / scale);
    kept_height = fmin(kept_height, height / scale);
  } else if (how->resize == PAD) {
    new_width = (int)fmin(width, fmax(1, nearbyint(picture.width * scale)));
    new_height = (int)fmin(height, fmax(1, nearbyint(picture.height * scale)));
  }
  double left = (picture.width - kept_width) / 2, top = (picture.height - kept_height) / 2;
  unsigned char *columns =
      resized_rows(picture.codes, picture.height, picture.width, (float)left, (float)(left + kept_width), new_width);
  unsigned char *codes = resized_rows(columns, new_width, picture.height, (float)top, (float)(top + kept_height), new_height);
  float *found = memory((size_t)CHANNELS * (size_t)height * (size_t)width * sizeof *found); /* zeros where nothing is */
  for (int channel = 0; channel < CHANNELS; channel++)
    for (int y = 0; y < new_height; y++)
      for (int x = 0; x < new_width; x++) {
        float code = (float)codes[((size_t)y * (size_t)new_width + (size_t)x) * CHANNELS + (size_t)channel];
        size_t place = ((size_t)channel * (size_t)height + (size_t)y) * (size_t)width + (size_t)x;
        found[place] = (code / 255.0f - how->mean[channel]) / how->std[channel];
      }
  free(columns);
  free(codes);
  return found;
}

/* The model. */

static Preprocess stated(OrtSession *session, OrtAllocator *allocator) {
  OrtModelMetadata *metadata;
  char *spec = NULL;
  check(api->SessionGetModelMetadata(session, &metadata));
  check(api->ModelMetadataLookupCustomMetadataMap(metadata, allocator, "bridgequant.preprocess", &spec));
  Preprocess found = parse(spec ? spec : "unit"); /* what a conversion assumes of a model that says nothing */
  if (spec) check(api->AllocatorFree(allocator, spec));
  api->ReleaseModelMetadata(metadata);
  return found;
}

static void input_dims(OrtSession *session, int count, char **sizes, int64_t *dims) {
  OrtTypeInfo *type;
  const OrtTensorTypeAndShapeInfo *info;
  ONNXTensorElementDataType element;
  size_t rank;
  check(api->SessionGetInputTypeInfo(session, 0, &type));
  check(api->CastTypeInfoToTensorInfo(type, &info));
  check(api->GetTensorElementType(info, &element));
  check(api->GetDimensionsCount(info, &rank));
  if (rank != RANK || element != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) fail("it takes no float pictures [N, 3, H, W]", "the model");
  check(api->GetDimensions(info, dims, rank));
  api->ReleaseTypeInfo(type);
  if (dims[0] < 1) dims[0] = 1;
  for (int i = 0; i < 2 && count == 2; i++)
    if (dims[2 + i] < 1) dims[2 + i] = atoi(sizes[i]);
  if (dims[0] != 1 || dims[1] != CHANNELS) fail("it takes no single picture of 3 channels", "the model");
  if (dims[2] < 1 || dims[3] < 1 || dims[2] > LONGEST || dims[3] > LONGEST) fail("say which HEIGHT and WIDTH", "the model's open size");
}

static void print_best(const float *scores, size_t count) {
  char *told = memory(count);
  for (size_t place = 0; place < BEST && place < count; place++) {
    size_t best = count;
    for (size_t i = 0; i < count; i++)
      if (!told[i] && (best == count || scores[i] > scores[best])) best = i;
    told[best] = 1;
    printf("%zu %.9g\n", best, scores[best]);
  }
  free(told);
}

int main(int count, char **words) {
  if (count != 3 && count != 5) fail("MODEL PICTURE.ppm [HEIGHT WIDTH]", "usage");
  api = OrtGetApiBase()->GetApi(VERSION);
  if (!api) fail("the library is too old", "ONNX Runtime");
  OrtEnv *env;
  OrtSessionOptions *options;
  OrtSession *session;
  OrtAllocator *allocator;
  OrtMemoryInfo *where;
  OrtValue *input, *output = NULL;
  OrtTensorTypeAndShapeInfo *info;
  char *input_name, *output_name;
  ONNXTensorElementDataType element;
  int64_t dims[RANK];
  size_t elements;
  float *scores;
  check(api->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "classify", &env));
  check(api->CreateSessionOptions(&options));
  check(api->CreateSession(env, words[1], options, &session));
  check(api->GetAllocatorWithDefaultOptions(&allocator));
  check(api->SessionGetInputName(session, 0, allocator, &input_name));
  check(api->SessionGetOutputName(session, 0, allocator, &output_name));
  input_dims(session, count - 3, words + 3, dims);
  Preprocess how = stated(session, allocator);
  Picture picture = read_ppm(words[2]);
  float *pixels = preprocessed(picture, (int)dims[2], (int)dims[3], &how);
  size_t bytes = (size_t)(CHANNELS * dims[2] * dims[3]) * sizeof *pixels;
  check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &where));
  check(api->CreateTensorWithDataAsOrtValue(where, pixels, bytes, dims, RANK, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &input));
  const char *const inputs[] = {input_name}, *const outputs[] = {output_name};
  const OrtValue *const values[] = {input};
  check(api->Run(session, NULL, inputs, values, 1, outputs, 1, &output));
  check(api->GetTensorTypeAndShape(output, &info));
  check(api->GetTensorElementType(info, &element));
  if (element != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT) fail("its first output is no scores", "the model");
  check(api->GetTensorShapeElementCount(info, &elements));
  check(api->GetTensorMutableData(output, (void **)&scores));
  print_best(scores, elements);
  api->ReleaseTensorTypeAndShapeInfo(info);
  api->ReleaseValue(output);
  api->ReleaseValue(input);
  api->ReleaseMemoryInfo(where);
  check(api->AllocatorFree(allocator, input_name));
  check(api->AllocatorFree(allocator, output_name));
  api->ReleaseSession(session);
  api->ReleaseSessionOptions(options);
  api->ReleaseEnv(env);
  free(pixels);
  free(picture.codes);
  return 0;
}
