// Bundles the pages' scripts and styles into the Python package; with --check only says whether the committed bundles
// are current.
import { build } from "esbuild";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { gunzipSync, gzipSync } from "node:zlib";

const target = new URL("../src/maskprism/viewer/static/", import.meta.url);
const check = process.argv.includes("--check");

/** @param {string} entry @param {string} name @param {import("esbuild").BuildOptions} [options] */
async function bundle(entry, name, options = {}) {
  const built = await build({
    entryPoints: [fileURLToPath(new URL(entry, import.meta.url))],
    bundle: true,
    minify: true,
    charset: "ascii",
    format: "esm",
    target: ["es2022", "chrome105", "firefox113", "safari16.4"],
    legalComments: "none",
    metafile: true,
    absWorkingDir: fileURLToPath(new URL(".", import.meta.url)),
    ...options,
    write: false,
  });
  const text = built.outputFiles[0].text + (await notices(Object.keys(built.metafile?.inputs ?? {})));
  return written(name, text);
}

/** @param {string} name @param {string | Buffer} content A name that ends in .gz is packed. */
async function written(name, content) {
  const packed = name.endsWith(".gz");
  const whole = Buffer.from(content);
  const there = await readFile(new URL(name, target)).catch(() => null);
  // packed files are compared by what is in them: each version of zlib packs in its own way
  if (there && whole.equals(packed ? gunzipSync(there) : there)) return undefined;
  if (!check) return writeFile(new URL(name, target), packed ? gzipSync(whole, { level: 9 }) : whole);
  console.error(`src/maskprism/viewer/static/${name} is stale; run: make viewer`);
  process.exitCode = 1;
  return undefined;
}

/**
 * The licences of the packages that files of a bundle belong to, as a comment.
 * @param {string[]} inputs
 * @returns {Promise<string>}
 */
async function notices(inputs) {
  const names = inputs
    .map((path) => /(?:^|\/)node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1])
    .filter((name) => name !== undefined);
  const found = await Promise.all(
    [...new Set(names)].sort().map(async (name) => {
      const folder = new URL(`node_modules/${name}/`, import.meta.url);
      const { version, license, author } = JSON.parse(await readFile(new URL("package.json", folder), "utf8"));
      const file = (await readdir(folder)).find((one) => /^licen[cs]e/i.test(one));
      const said = file
        ? (await readFile(new URL(file, folder), "utf8")).replaceAll("*/", "* /").trim()
        : `by ${author?.name ?? author}`;
      return `${name} ${version} (${license})\n\n${said}\n`;
    }),
  );
  return found.length
    ? `/*\nThis file holds parts of these packages.\n\n${found.join("\n")}*/\n`.replace(/\P{ASCII}/gu, "?")
    : "";
}

await bundle("src/index.js", "viewer.js");
await bundle("src/viewer.css", "viewer.css");
await bundle("src/gallery/main.js", "gallery.js");
await bundle("src/gallery/gallery.css", "gallery.css");
await bundle("src/atlas/main.js", "atlas.js");
await bundle("src/atlas/map.css", "atlas.css");
await bundle("src/labels/main.js", "labels.js");
await bundle("src/labels/labels.css", "labels.css");
await bundle("src/drop/main.js", "drop/drop.js");
await bundle("src/drop/worker.js", "drop/worker.js", { define: { SINGLE_FILE: "false" } });
const runtime = new URL("node_modules/onnxruntime-web/dist/", import.meta.url);
await bundle("src/drop/worker.js", "drop/worker-offline.js", {
  format: "iife", // browsers open no module worker for a page without a server
  target: ["es2022"],
  define: { SINGLE_FILE: "true", "import.meta.url": "self.location.href" },
  alias: { "onnxruntime-web/wasm": fileURLToPath(new URL("ort.wasm.bundle.min.mjs", runtime)) },
});
await written("drop/ort.wasm.min.mjs", await readFile(new URL("ort.wasm.min.mjs", runtime)));
await written("drop/ort-wasm-simd-threaded.mjs", await readFile(new URL("ort-wasm-simd-threaded.mjs", runtime)));
await written("drop/ort-wasm-simd-threaded.wasm.gz", await readFile(new URL("ort-wasm-simd-threaded.wasm", runtime)));
await bundle("src/drop/drop.css", "drop/drop.css");
await written("drop/index.html", await readFile(new URL("src/drop/index.html", import.meta.url), "utf8"));
