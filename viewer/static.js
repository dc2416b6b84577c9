// Writes the page that runs models in the browser into a folder: node static.js FOLDER. onnxruntime-web comes from
// node_modules.
import { build } from "esbuild";
import { copyFile, mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const [folder] = process.argv.slice(2);
if (!folder) throw new Error("name the folder to write into: node static.js FOLDER");
const here = dirname(fileURLToPath(import.meta.url));
const runtime = process.env.ONNXRUNTIME_WEB ?? join(here, "node_modules/onnxruntime-web");
await mkdir(folder, { recursive: true });
for (const [entry, name] of [
  ["src/drop/main.js", "drop.js"],
  ["src/drop/worker.js", "worker.js"],
  ["src/drop/drop.css", "drop.css"],
  ["src/viewer.css", "viewer.css"],
]) {
  const built = await build({
    entryPoints: [join(here, entry)],
    bundle: true,
    minify: true,
    charset: "ascii",
    format: "esm",
    target: ["es2022", "chrome105", "firefox113", "safari16.4"],
    legalComments: "none",
    write: false,
  });
  await writeFile(join(folder, name), built.outputFiles[0].text);
}
await copyFile(join(here, "src/drop/index.html"), join(folder, "index.html"));
await copyFile(join(here, "../src/maskprism/viewer/static/icon.svg"), join(folder, "icon.svg"));
for (const name of ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"])
  await copyFile(join(runtime, "dist", name), join(folder, name));
console.log(`wrote ${folder}/index.html; any web server shows it, such as: maskprism serve --static ${folder}`);
