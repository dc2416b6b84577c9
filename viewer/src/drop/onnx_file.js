// What an ONNX file says about itself: the metadata that Ultralytics writes. Nothing of it is evaluated.

/**
 * @typedef {{ task: string | null, names: Record<number, string> | null, imgsz: [number, number] | null, version:
 * string | null, end2end: boolean | null, nms: boolean | null }} Metadata
 */

const METADATA_FIELD = 14;

/** The metadata_props of a ModelProto. @param {Uint8Array} bytes @returns {Record<string, string>} */
export function metadataProps(bytes) {
  /** @type {Record<string, string>} */
  const found = Object.create(null);
  for (const { field, data } of fields(bytes)) {
    if (field !== METADATA_FIELD || !data) continue;
    let [key, value] = ["", ""];
    for (const inner of fields(data)) {
      if (!inner.data) continue;
      const text = new TextDecoder().decode(inner.data);
      if (inner.field === 1) key = text;
      if (inner.field === 2) value = text;
    }
    found[key] = value;
  }
  return found;
}

/**
 * The fields of a protobuf message, those of bytes with their bytes.
 * @param {Uint8Array} bytes
 * @returns {Generator<{ field: number, data: Uint8Array | null }>}
 */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let [value, scale] = [0, 1];
    for (;;) {
      if (at >= bytes.length) throw new Error("this is no ONNX file: it ends in the middle of a field");
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
      scale *= 128;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const [field, wire] = [Math.floor(tag / 8), tag % 8];
    if (wire === 2) {
      const length = varint();
      if (!field || at + length > bytes.length)
        throw new Error("this is no ONNX file: a field is longer than the file");
      yield { field, data: bytes.subarray(at, at + length) };
      at += length;
    } else if (wire === 0) {
      varint();
      yield { field, data: null };
    } else if (wire === 5 || wire === 1) {
      at += wire === 5 ? 4 : 8;
      yield { field, data: null };
    } else throw new Error("this is no ONNX file: it has a field of an unknown kind");
  }
}

/** What reading a model needs of it. @param {Record<string, string>} props @returns {Metadata} */
export function readMetadata(props) {
  const flag = (/** @type {string | undefined} */ text) =>
    text === undefined || text === "None" ? null : text.toLowerCase() === "true";
  const size = (props.imgsz ?? "").match(/\d+/g)?.map(Number);
  return {
    task: props.task ?? null,
    names: props.names === undefined ? null : namesOf(props.names),
    imgsz: size?.length ? [size[0], size[size.length - 1]] : null,
    version: props.version ?? null,
    end2end: flag(props.end2end),
    nms: flag(/['"]nms['"]\s*:\s*(True|False|None)/.exec(props.args ?? "")?.[1]),
  };
}

/**
 * A dictionary of numbers to strings as Python writes it: {0: 'person', 1: "it's"}.
 * @param {string} text
 * @returns {Record<number, string>}
 */
export function namesOf(text) {
  /** @type {Record<number, string>} */
  const names = {};
  const entry = /\s*(\d+)\s*:\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\s*(,|\})/gsy;
  const trimmed = text.trim();
  if (!trimmed.startsWith("{"))
    throw new Error("the class names in the metadata are no dictionary of numbers to strings");
  entry.lastIndex = 1;
  for (;;) {
    const found = entry.exec(trimmed);
    if (!found) {
      if (/^\{\s*\}$/.test(trimmed)) return names;
      throw new Error("the class names in the metadata are no dictionary of numbers to strings");
    }
    names[Number(found[1])] = found[2]
      .slice(1, -1)
      .replace(/\\x([0-9a-f]{2})|\\u([0-9a-f]{4})|\\(.)/gi, (_, x, u, one) =>
        x || u ? String.fromCharCode(parseInt(x ?? u, 16)) : one === "n" ? "\n" : one === "t" ? "\t" : one,
      );
    if (found[3] === "}") return names;
    if (/^\s*\}$/.test(trimmed.slice(entry.lastIndex))) return names;
  }
}
