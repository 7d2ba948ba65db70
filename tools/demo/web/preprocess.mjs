// Pictures to network inputs, to the bit as a conversion does it with Pillow: resize with a triangle filter, normalise, channel after channel.

const BITS = 22; // of the fixed-point weights
const CHANNELS = 3;

// The weights of one output pixel: those inputs below a triangle around it, which is wider where the picture shrinks.
function triangle(centre, support, columns) {
  const first = Math.max(0, Math.trunc(centre - support + 0.5));
  const last = Math.min(columns, Math.trunc(centre + support + 0.5));
  const weights = [];
  for (let x = first; x < last; x++) weights.push(Math.max(0, 1 - Math.abs((x - centre + 0.5) / support)));
  const sum = weights.reduce((a, b) => a + b, 0);
  return [first, weights.map((weight) => Math.trunc(0.5 + (weight / sum) * 2 ** BITS))];
}

// codes: [rows][columns][CHANNELS], of which the columns from begin to end become `wanted` ones. Returns [wanted][rows][CHANNELS], so that a
// second call resizes the other axis.
function resizedRows(codes, rows, columns, begin, end, wanted) {
  const found = new Uint8Array(wanted * rows * CHANNELS);
  const scale = (end - begin) / wanted;
  for (let at = 0; at < wanted; at++) {
    const [first, weights] = triangle(begin + (at + 0.5) * scale, Math.max(1, scale), columns);
    for (let row = 0; row < rows; row++) {
      for (let channel = 0; channel < CHANNELS; channel++) {
        let total = 2 ** (BITS - 1);
        for (let k = 0; k < weights.length; k++) total += codes[(row * columns + first + k) * CHANNELS + channel] * weights[k];
        found[(at * rows + row) * CHANNELS + channel] = Math.min(255, total >> BITS);
      }
    }
  }
  return found;
}

// Half to even, as Python rounds.
function rounded(number) {
  const below = Math.floor(number);
  return number - below === 0.5 ? below + (below % 2) : Math.round(number);
}

// codes: [height][width][CHANNELS] of the picture; how: { height, width, mean, std, resize }. Returns Float32Array [CHANNELS][height][width].
export function preprocessed(codes, height, width, how) {
  const across = how.width / width;
  const down = how.height / height;
  let [keptWidth, keptHeight, newWidth, newHeight] = [width, height, how.width, how.height];
  if (how.resize === 'crop') { // cut first, so that the rest has the wanted shape
    const scale = Math.max(across, down);
    keptWidth = Math.min(width, how.width / scale);
    keptHeight = Math.min(height, how.height / scale);
  } else if (how.resize === 'pad') {
    const scale = Math.min(across, down);
    newWidth = Math.min(how.width, Math.max(1, rounded(width * scale)));
    newHeight = Math.min(how.height, Math.max(1, rounded(height * scale)));
  }
  const [left, top] = [(width - keptWidth) / 2, (height - keptHeight) / 2];
  const columns = resizedRows(codes, height, width, Math.fround(left), Math.fround(left + keptWidth), newWidth);
  const small = resizedRows(columns, newWidth, height, Math.fround(top), Math.fround(top + keptHeight), newHeight);
  const found = new Float32Array(CHANNELS * how.height * how.width); // zeros where nothing is
  for (let channel = 0; channel < CHANNELS; channel++) {
    const [mean, std] = [Math.fround(how.mean[channel]), Math.fround(how.std[channel])];
    for (let y = 0; y < newHeight; y++) {
      for (let x = 0; x < newWidth; x++) {
        const unit = Math.fround(small[(y * newWidth + x) * CHANNELS + channel] / 255);
        found[(channel * how.height + y) * how.width + x] = Math.fround(unit - mean) / std;
      }
    }
  }
  return found;
}
